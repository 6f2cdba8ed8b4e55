"""judges align, compare, calibrate and tune, with a model that is a fake and with no model at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.cli.conftest import CommandLine
from tests.fakes.openai import Fake, serving

Connection = psycopg.Connection[tuple[Any, ...]]
POLITE = {"question": "Is the answer polite?", "pass_when": "it is polite", "fail_when": "it is rude"}
JUDGE = {
    **POLITE,
    "kind": "judge",
    "lane": "judge",
    "provider": "fake",
    "model": "small",
    "shots": {"strategy": "none"},
}
NEIGHBOURS = {**POLITE, "kind": "neighbours", "lane": "bulk", "shots": {"strategy": "recent", "count": 2}}


@pytest.fixture
def fake(connection: Connection) -> Iterator[Fake]:
    """A model that fails what holds the word zzfail."""
    with serving() as served:
        models = {"small": {"input_usd": 1, "output_usd": 2}}
        connection.execute(
            "select flywheel.set_provider('fake', %s)",
            [Jsonb({"base_url": served.url, "max_in_flight": 16, "models": models})],
        )
        yield served


def define(connection: Connection, definition: dict[str, Any]) -> None:
    connection.execute("select flywheel.define_validator('polite', %s)", [Jsonb(definition)])


def label(connection: Connection, split: str, texts: list[tuple[str, bool]]) -> None:
    """Insert a span in a group of its own for each text, so that it falls into the split, and label it."""
    groups = connection.execute(
        """select 'group ' || n from generate_series(1, 1000) as n
            where flywheel._split('group ' || n) = %s
              and not exists (select from flywheel.labels where group_key = 'group ' || n) order by n limit %s""",
        [split, len(texts)],
    ).fetchall()
    assert len(groups) == len(texts)
    for (group,), (text, passed) in zip(groups, texts, strict=True):
        connection.execute(
            """with made as (insert into flywheel.spans (input, output, attributes) values ('How are you?', %s, %s)
                             returning span_id)
               select flywheel.record_label(span_id, 'polite', %s, 'ann', %s) from made""",
            [text, Jsonb({"group_key": group}), passed, "it is rude" if not passed else None],
        )


def prompts(fake: Fake) -> list[str]:
    return [str(request.body["messages"]) for request in fake.requests]


def test_align_judges_what_people_labelled_and_shows_how_far_they_agree(
    pgflywheel: CommandLine, connection: Connection, fake: Fake
) -> None:
    define(connection, JUDGE)
    label(connection, "dev", [("fine", True)] * 3 + [("zzfail", False), ("zzfail", True)])
    label(connection, "train", [("fine", False)])
    found = pgflywheel.json("judges", "align", "polite")
    assert (found["queued"], found["stuck"]) == (6, 0)
    assert len(fake.requests) == 2  # the same question is paid once
    rows = {row["split"]: [row[cell] for cell in ("tp", "fp", "fn", "tn")] for row in found["alignment"]}
    assert rows == {"dev": [3, 0, 1, 1], "train": [0, 1, 0, 0], "all": [3, 1, 1, 1]}
    assert found["standing"]["provisional"] is True
    shown = pgflywheel("judges", "align", "polite@1", "--split", "dev").stdout
    assert len(fake.requests) == 2  # nothing is judged twice
    assert "0.750" in shown
    assert "polite v1: provisional: TPR 0.75 and TNR 0.50: both must be above 0.80" in shown


def test_align_reads_the_test_split_once(pgflywheel: CommandLine, connection: Connection, fake: Fake) -> None:
    define(connection, JUDGE)
    label(connection, "test", [("fine", True), ("zzfail", False)])
    align = ("judges", "align", "polite", "--split", "test")
    assert [row["split"] for row in pgflywheel.json(*align)["alignment"]] == ["test"]
    refused = pgflywheel(*align, exit_code=1)
    assert "the test split was read by version 1 of polite" in refused.stderr
    assert pgflywheel.json(*align, "--again")["alignment"][0]["labels"] == 2
    assert len(fake.requests) == 2


def test_align_judges_every_labelled_span_of_a_judge_that_samples(
    pgflywheel: CommandLine, connection: Connection, fake: Fake
) -> None:
    define(connection, {**JUDGE, "sample": 0.001})
    label(connection, "dev", [(f"fine {n}", True) for n in range(10)])
    assert pgflywheel.json("judges", "align", "polite", "--split", "dev")["alignment"][0]["labels"] == 10


def test_align_shows_a_judge_examples_of_train_and_nothing_else_that_is_labelled(
    pgflywheel: CommandLine, connection: Connection, fake: Fake
) -> None:
    define(connection, {**JUDGE, "shots": {"strategy": "similar"}})
    for split in ("train", "dev", "test"):
        label(connection, split, [(f"kind of {split} {n}", n % 2 == 0) for n in range(25)])
    pgflywheel("worker", "run", "--until-idle")  # the examples get their vectors
    assert pgflywheel.json("judges", "align", "polite")["queued"] == 75  # few: test is looked at with the rest
    label(connection, "dev", [(f"kind of dev {n}", True) for n in range(25, 36)])
    assert pgflywheel.json("judges", "align", "polite")["queued"] == 11
    held_out = [text for text in prompts(fake) if re.search("kind of (dev|test)", text)]
    assert len(held_out) == 25 + 25 + 11
    assert all(len(re.findall("kind of (?:dev|test)", text)) == 1 for text in held_out)  # the item itself
    assert all("kind of train" in text for text in held_out)


def test_align_may_leave_the_work_to_workers(pgflywheel: CommandLine, connection: Connection, fake: Fake) -> None:
    define(connection, JUDGE)
    label(connection, "dev", [("fine", True)])
    found = pgflywheel("judges", "align", "polite", "--queued-only")
    assert "no labelled span was judged" in found.stdout
    assert fake.requests == []
    waiting = connection.execute("select sum(cardinality(span_ids)) from flywheel._ready where lane = 'judge'")
    assert waiting.fetchone() == (1,)


@pytest.mark.parametrize(("name", "words"), [("nobody", "there is no judge nobody"), ("polite@x", "as in polite@2")])
def test_align_of_what_is_no_judge_says_so(pgflywheel: CommandLine, name: str, words: str) -> None:
    refused = pgflywheel("judges", "align", name, exit_code=2 if "@" in name else 1)
    assert words in refused.stderr


def test_compare_pairs_two_versions_on_the_same_rows(
    pgflywheel: CommandLine, connection: Connection, fake: Fake
) -> None:
    define(connection, JUDGE)
    label(connection, "dev", [("fine", True)] * 2 + [("zzfail", True)] * 6)
    pgflywheel("judges", "align", "polite")
    fake.set(marker="no such word")
    define(connection, {**JUDGE, "pass_when": "it is polite or curt"})
    pgflywheel("judges", "align", "polite")
    found = pgflywheel.json("judges", "compare", "polite@1", "polite@2")
    assert [found[name] for name in ("labels", "both_right", "only_a_right", "only_b_right")] == [8, 2, 0, 6]
    assert found["mcnemar_p"] == pytest.approx(0.03125)
    assert found["cost_usd_a"] > 0
    shown = pgflywheel("judges", "compare", "polite@1", "polite@2").stdout
    assert "only the first had 0 right, only the second 6: no evidence for either" in shown


def test_calibrate_says_what_a_verdict_is_worth_and_whether_it_is_trusted(
    pgflywheel: CommandLine, connection: Connection, fake: Fake
) -> None:
    define(connection, JUDGE)
    nothing = pgflywheel("judges", "calibrate", "polite", exit_code=1)
    assert "has judged no labelled span" in nothing.stderr
    label(connection, "dev", [("fine", True), ("zzfail", False)])
    pgflywheel("judges", "align", "polite")
    shown = pgflywheel("judges", "calibrate", "polite", "--alpha", "0.2").stdout
    assert "polite v1: beta fit on 2 labels; on those same labels, and so at its best: Brier score 0.111" in shown
    assert "No verdict is trusted: 0 drawn labels with a confidence; 30 are needed." in shown
    assert pgflywheel.json("judges", "calibrate", "polite", "--alpha", "0.2")["alpha"] == 0.2


def test_tune_finds_a_policy_that_sees_what_is_alike_and_changes_nothing(
    pgflywheel: CommandLine, connection: Connection
) -> None:
    define(connection, NEIGHBOURS)
    rude = ["go away you fool", "what a stupid question", "shut up and go away", "stupid fool that you are"]
    kind = ["thank you kindly", "you are most welcome", "thank you for asking", "very welcome and kindly meant"]
    texts = [(text, text in kind) for text in rude + kind]
    label(connection, "train", [(f"{text} {n}", passed) for n in range(3) for text, passed in texts])
    label(connection, "dev", [(f"{text} indeed {n}", passed) for n in range(3) for text, passed in texts])
    assert "hashing: 0 of 24 examples have a vector" in pgflywheel("judges", "tune", "polite").stderr
    pgflywheel("worker", "run", "--until-idle")  # the examples get their vectors
    assert "have a vector" not in pgflywheel("judges", "tune", "polite").stderr
    before = connection.execute("select count(*) from flywheel.validator_versions").fetchone()
    found = pgflywheel.json("judges", "tune", "polite")
    assert found["labels"] == 24
    assert found["best_balanced_accuracy"] == 1
    assert found["best"]["strategy"] == "similar"
    assert found["best_balanced_accuracy"] > found["present_balanced_accuracy"]
    assert connection.execute("select count(*) from flywheel.validator_versions").fetchone() == before
    assert "shots = { " in pgflywheel("judges", "tune", "polite").stdout


def test_tune_without_labels_of_both_verdicts_says_what_is_missing(
    pgflywheel: CommandLine, connection: Connection
) -> None:
    define(connection, NEIGHBOURS)
    refused = pgflywheel("judges", "tune", "polite", exit_code=1)
    assert "polite has 0 labels of dev" in refused.stderr
