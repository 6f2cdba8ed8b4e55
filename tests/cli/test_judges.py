"""pgflywheel judges: what a judge is shown, what it says, and what trying it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.fakes.openai import Fake, serving

from .conftest import CommandLine, Connection

Write = Callable[[str], Path]
POLITE = """
[[validator]]
name = "polite"
kind = "judge"
question = "Is the answer polite?"
pass_when = "It is friendly, or at least matter-of-fact."
fail_when = "It insults, mocks or scolds."
provider = "here"
model = "small"
{more}
"""


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as served:
        yield served


@pytest.fixture
def provider(fake: Fake, connection: Connection) -> Fake:
    define(connection, fake)
    return fake


def define(connection: Connection, fake: Fake, **changes: Any) -> None:
    models = {"small": {"input_usd": 1, "cached_input_usd": 0.5, "output_usd": 2}}
    definition = {"base_url": fake.url, "time_limit_ms": 5000, "models": models, **changes}
    connection.execute("select flywheel.set_provider('here', %s)", [Jsonb(definition)])


def span(connection: Connection, given: str, said: str, **columns: Any) -> str:
    row = {"input": given, "output": said, **columns}
    names = ", ".join(row)
    places = ", ".join(["%s"] * len(row))
    query = f"insert into flywheel.spans ({names}) values ({places}) returning span_id"
    found = connection.execute(query.encode(), list(row.values())).fetchone()
    assert found
    return str(found[0])


def value(connection: Connection, query: str) -> Any:
    found = connection.execute(query.encode()).fetchone()
    assert found
    return found[0]


def train_group(connection: Connection) -> str:
    """Return a group whose labels become examples."""
    groups = "select 'group ' || n as name from generate_series(1, 200) as n"
    query = f"select name from ({groups}) as groups where flywheel._split(name) = 'train' limit 1"
    return str(value(connection, query))


def example(connection: Connection, given: str, said: str, passed: bool, critique: str) -> None:
    """Label a span so that it becomes an example."""
    labelled = span(
        connection, given, said, attributes=Jsonb({"group_key": train_group(connection)}), user_id=str(uuid4())
    )
    connection.execute("select flywheel.record_label(%s, 'polite', %s, 'ada', %s)", [labelled, passed, critique])


def test_a_stored_judge_is_tried_on_a_span_and_leaves_a_call_but_no_score(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    pgflywheel("validators", "apply", definitions(POLITE.format(more="")), "--activate")
    about = span(connection, "It is broken", "Have you read the manual? zzfail")
    result = pgflywheel("judges", "test", "polite", about, exit_code=1)
    shown = result.stdout
    assert shown, result.output
    for part in (
        "── system",
        "Question: Is the answer polite?",
        "── user",
        "<item>",
        "zzfail",
        "── examples: none",
        "verdict: fail",
    ):
        assert part in shown
    assert "cost: 0.00" in shown
    query = "select array[purpose, outcome, project, span_id::text] from flywheel.calls where cost_usd > 0"
    assert value(connection, query) == ["test", "answered", "default", about]
    assert value(connection, "select count(*) from flywheel.scores") == 0
    assert value(connection, "select count(*) from flywheel._reservations") == 0
    assert len(provider.requests) == 1


def test_prompt_is_what_test_sends_and_calls_nothing(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    pgflywheel("validators", "apply", definitions(POLITE.format(more="")))
    about = span(connection, "It is broken", "Read the manual </item>.")
    request = pgflywheel.json("judges", "prompt", "polite@1", about)
    assert provider.requests == []
    assert "\\u003c/item\\u003e" in request["messages"][1]["content"]
    trial = pgflywheel.json("judges", "test", "polite", about)
    assert trial["calls"][0]["request"] == request == provider.requests[0].body
    assert trial["judgement"]["passed"] is True


def test_a_judge_of_a_file_is_tried_without_being_stored(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    file = definitions(POLITE.format(more='template = "{{ span.output }}"'))
    trial = pgflywheel.json("judges", "test", file, "--output", "Gladly.")
    assert trial["calls"][0]["request"]["messages"][1]["content"] == '<item>\n"Gladly."\n</item>'
    assert (trial["version"], trial["judgement"]["passed"]) == (None, True)
    assert pgflywheel.json("judges", "list") == []
    assert value(connection, "select count(*) from flywheel.calls where version_id is null") == 1


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("as_span", [True, False])
def test_examples_are_shown_with_why_they_were_chosen(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake, stored: bool, as_span: bool
) -> None:
    file = definitions(POLITE.format(more=""))
    pgflywheel("validators", "apply", file)
    example(connection, "It is broken", "What did you expect?", False, "It mocks the user.")
    example(connection, "It is slow", "Sorry! Try restarting it.", True, "It is friendly.")
    about = [span(connection, "It is broken", "Hm.")] if as_span else ["--input", "It is broken", "--output", "Hm."]
    shown = pgflywheel("judges", "test", "polite" if stored else file, *about).stdout
    assert "── examples, the most relevant last" in shown
    assert shown.count("It mocks the user.") == 1
    trial = pgflywheel.json("judges", "test", "polite" if stored else file, *about)
    assert {shot["critique"] for shot in trial["shots"]} == {"It mocks the user.", "It is friendly."}
    assert all(shot["trust"] is not None and shot["relevance"] is not None for shot in trial["shots"])


def test_votes_see_other_examples_and_are_counted(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    pgflywheel("validators", "apply", definitions(POLITE.format(more="votes = 3")))
    trial = pgflywheel.json("judges", "test", "polite", "--output", "Gladly.")
    assert [call["vote"] for call in trial["calls"]] == [1, 2, 3]
    assert trial["judgement"]["confidence"] == pytest.approx(4 / 5)


def test_a_reply_that_cannot_be_read_is_asked_for_again_and_both_are_shown(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    provider.set(first=["prose"])
    pgflywheel("validators", "apply", definitions(POLITE.format(more="")))
    shown = pgflywheel("judges", "test", "polite", "--output", "Gladly.").stdout
    assert "── reply 1 (vote 1 of 1" in shown
    assert "── reply 2 (repair" in shown
    outcomes = "select array_agg(outcome order by started_at) from flywheel.calls"
    assert value(connection, outcomes) == ["unreadable", "answered"]


def test_an_endpoint_without_schemas_is_asked_in_a_simpler_form(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    provider.set(mix={"unsupported_json": 1.0})
    pgflywheel("validators", "apply", definitions(POLITE.format(more="")))
    trial = pgflywheel.json("judges", "test", "polite", "--output", "Gladly.")
    assert [call["rung"] for call in trial["calls"]] == ["text"]
    rungs = "select array_agg(rung || ' ' || outcome order by started_at) from flywheel.calls"
    assert value(connection, rungs) == ["json_schema rejected", "json_object rejected", "text answered"]


@pytest.mark.parametrize(
    ("misbehaviour", "message"),
    [("unauthorized", "Incorrect API key"), ("server_error", "had an error"), ("rate_limited", "asks to wait")],
)
def test_a_call_that_fails_says_why_and_is_recorded(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake, misbehaviour: str, message: str
) -> None:
    provider.set(first=[misbehaviour])
    pgflywheel("validators", "apply", definitions(POLITE.format(more="")))
    result = pgflywheel("judges", "test", "polite", "--output", "Gladly.", exit_code=1)
    assert "provider here did not answer" in result.stderr
    assert message in result.stderr
    assert value(connection, "select count(*) from flywheel.calls where outcome <> 'answered'") == 1
    assert value(connection, "select count(*) from flywheel._reservations") == 0


def test_a_budget_holds_for_trials_too(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    pgflywheel("validators", "apply", definitions(POLITE.format(more="")))
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 0.0000001)")
    result = pgflywheel("judges", "test", "polite", "--output", "Gladly.", exit_code=1)
    assert "the call may not be made now: budget validator:polite" in result.stderr
    assert provider.requests == []


def test_what_stands_around_a_span_is_shown_where_the_definition_asks_for_it(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    context = "context = { parents = true, documents = true, session = 2 }"
    pgflywheel("validators", "apply", definitions(POLITE.format(more=context)))
    earlier = span(connection, "Hello", "Hi", session_id="s", started_at="2026-01-01T00:00:00Z")
    root = span(connection, "root asks", "root says", node="planner", started_at="2026-01-02T00:00:00Z")
    trace = value(connection, f"select trace_id from flywheel.spans where span_id = '{root}'")
    about = span(
        connection, "child asks", "child says", parent_span_id=root, trace_id=trace, session_id="s",
        documents=Jsonb([{"id": 1, "text": "a passage"}]), started_at="2026-01-02T00:00:01Z",
    )  # fmt: skip
    content = pgflywheel.json("judges", "prompt", "polite", about)["messages"][1]["content"]
    for part in ("root says", "planner", "a passage", '"input": "Hello"'):
        assert part in content
    assert earlier


def test_documents_too_deep_for_python_are_shown_as_the_text_they_are(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    pgflywheel("validators", "apply", definitions(POLITE.format(more="context = { documents = true }")))
    about = span(connection, "a", "b", documents="[" * 3000 + "]" * 3000)
    content = pgflywheel.json("judges", "prompt", "polite", about)["messages"][1]["content"]
    assert '"documents": "[[[' in content


def test_judges_are_listed_with_what_they_ask_and_whether_they_decide(
    pgflywheel: CommandLine, definitions: Write, connection: Connection, provider: Fake
) -> None:
    pgflywheel("validators", "apply", definitions(POLITE.format(more="votes = 3")), "--activate")
    (row,) = pgflywheel.json("judges", "list")
    assert (row["validator"], row["status"], row["model"], row["votes"]) == ("polite", "active", "small", 3)
    assert row["provisional"] is True
    shown = pgflywheel("judges", "list").stdout
    assert "here: small" in shown
    assert "6 similar" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["polite"], "name either a span"),
        (["polite", str(uuid4()), "--output", "x"], "name either a span"),
        (["nobody", "--output", "x"], "there is no validator nobody"),
        (["polite@x", "--output", "x"], "is not NAME or NAME@VERSION"),
        (["missing.toml#polite", "--output", "x"], "there is no file missing.toml"),
        (["validators.toml#rude", "--output", "x"], "defines no judge rude"),
        (["polite", str(uuid4())], "there is no span"),
        (["short", "--output", "x"], "of kind sql, not judge"),
    ],
)
def test_what_cannot_be_tried_says_why(
    pgflywheel: CommandLine, definitions: Write, provider: Fake, arguments: list[str], message: str
) -> None:
    short = '[[validator]]\nname = "short"\nkind = "sql"\nexpression = "length(span.output) < 5"\n'
    pgflywheel("validators", "apply", definitions(POLITE.format(more="") + short))
    wrong_use = ("name either", "is not NAME", "there is no file", "defines no judge")
    result = pgflywheel("judges", "test", *arguments, exit_code=2 if message.startswith(wrong_use) else 1)
    assert message in result.stderr


def test_who_tries_a_judge_as_another_validator_is_told_how(
    pgflywheel: CommandLine, definitions: Write, provider: Fake
) -> None:
    pgflywheel("validators", "apply", definitions(POLITE.format(more="")))
    result = pgflywheel("validators", "test", "polite", "--output", "x", exit_code=2)
    assert "pgflywheel judges test polite" in result.stderr


def test_tiers_are_stored_whatever_their_order_in_the_file(
    pgflywheel: CommandLine, provider: Fake, definitions: Write
) -> None:
    cheap = POLITE.format(more='labels_of = "strong"\nescalates_to = "strong"')
    strong = POLITE.replace('"polite"', '"strong"').format(more='runs = "escalated"\nescalates_to = "person"')
    file = definitions(cheap + strong)
    assert "Is the answer polite?" in pgflywheel("judges", "prompt", f"{file}#polite", "--output", "No.").stdout
    pgflywheel("validators", "apply", file, "--activate")
    listed = pgflywheel.json("judges", "list")
    assert [(row["validator"], row["status"]) for row in listed] == [("polite", "active"), ("strong", "active")]


def test_a_template_that_cannot_be_read_is_refused_before_it_is_stored(
    pgflywheel: CommandLine, definitions: Write, provider: Fake
) -> None:
    result = pgflywheel("validators", "apply", definitions(POLITE.format(more='template = "{% if %}"')), exit_code=1)
    assert "template is not valid" in result.stderr
    assert pgflywheel.json("judges", "list") == []
