"""Recorded outputs of real models go in, are judged by validators written for them, and add up."""

from __future__ import annotations

import gzip
import json
from typing import Any

import psycopg
import pytest

from .conftest import DATA, VALIDATORS, Run

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of recorded data is not beside the checkout")
Connection = psycopg.Connection[tuple[Any, ...]]

TENSORTRUST = (
    *("--input", "input.access_code", "--output", "output", "--started-at", "ts", "--session", "group"),
    *("--model", "model", "--span-id", "id", "--attribute", "checks.access_granted", "--set", "project=tensortrust"),
)
ALPACA = (
    *("--input", "input.instruction", "--output", "output", "--model", "model", "--span-id", "id"),
    *("--session", "group", "--set", "project=alpaca", "--set", "node=answer"),
)
TAUBENCH = (
    *("--format", "openai-messages", "--input", "instruction", "--model", "model", "--session", "group"),
    *("--trace-id", "id", "--set", "project=airline"),
)
WHOWHEN = (
    *("--format", "steps", "--input", "question", "--trace-id", "id", "--tool", "Computer_terminal"),
    *("--attribute", "human", "--set", "project=whowhen"),
)


def lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def imported_and_judged(run: Run, name: str, mapping: tuple[str, ...], validators: str) -> dict[str, int]:
    """Import a file twice with its validators active, drain the queue, and return the first import's counts."""
    run("validators", "apply", VALIDATORS / validators, "--activate")
    first: dict[str, int] = run("traces", "import", DATA / name, *mapping)
    run("worker", "run", "--until-idle")
    second = run("traces", "import", DATA / name, *mapping)
    assert first["rejected"] == 0
    assert second == {**first, "loaded": 0, "already_there": first["loaded"]}
    for account in run("scores", "accounts"):
        assert account["balanced"], account
        assert account["eligible"] == account["scored"] + account["unscored"] > 0, account
        assert account["status"] == "active", account
    return first


def rates(run: Run) -> dict[str, dict[str, Any]]:
    """Return judged and passed of each validator, over all nodes."""
    totals: dict[str, dict[str, Any]] = {}
    for row in run("scores", "rates"):
        total = totals.setdefault(row["validator"], {"judged": 0, "passed": 0, "unscored": 0})
        for name in total:
            total[name] += row[name]
    return totals


def test_traffic_with_real_time_stamps_lies_in_the_partitions_of_its_days(
    pgflywheel: Run, connection: Connection
) -> None:
    name = "tensortrust_traffic_items.jsonl.gz"
    counts = imported_and_judged(pgflywheel, name, TENSORTRUST, "tensortrust.toml")
    assert counts["loaded"] == counts["lines"] == 26_677
    stored = connection.execute(
        "select count(*), min(started_at)::date::text, max(started_at)::date::text from flywheel.spans"
    )
    assert stored.fetchone() == (26_677, "2023-07-24", "2023-09-10")
    assert connection.execute("select count(*) from flywheel.spans_default").fetchone() == (0,)
    found = rates(pgflywheel)
    assert found["output_says_something"]["judged"] == 26_677
    # whatever the game's own check calls granted fails here, too
    missed = connection.execute("""
        select count(*) from flywheel.current_scores join flywheel.spans using (span_id, started_at)
         where validator = 'access_is_not_granted' and passed
           and (attributes ->> 'checks.access_granted')::boolean""").fetchone()
    assert missed == (0,)
    assert found["access_is_not_granted"]["judged"] - found["access_is_not_granted"]["passed"] >= 9_957


def test_answers_of_many_models_are_judged_in_sql_and_in_python(pgflywheel: Run) -> None:
    name = "alpacaeval_items.jsonl.gz"
    counts = imported_and_judged(pgflywheel, name, ALPACA, "alpacaeval.toml")
    assert counts["loaded"] == 9_356
    found = rates(pgflywheel)
    assert {found[each]["judged"] for each in ("no_refusal", "no_stock_words", "answer_is_no_essay")} == {9_356}
    assert 0.45 < found["code_fences_are_closed"]["judged"] / 9_356 < 0.55
    assert all(0 < rate["passed"] <= rate["judged"] and rate["unscored"] == 0 for rate in found.values())
    assert found["no_refusal"]["passed"] < found["no_refusal"]["judged"]


def test_an_agents_runs_become_traces_whose_tool_calls_are_spans(pgflywheel: Run, connection: Connection) -> None:
    name = "taubench_airline_traces.jsonl.gz"
    counts = imported_and_judged(pgflywheel, name, TAUBENCH, "taubench.toml")
    runs = lines(name)
    turns = sum(message["role"] == "assistant" for run in runs for message in run["messages"])
    calls = sum(len(message.get("tool_calls") or []) for run in runs for message in run["messages"])
    assert counts["loaded"] == len(runs) + turns + calls
    results = connection.execute("select count(*) from flywheel.spans where node_kind = 'tool' and output is not null")
    assert results.fetchone() == (calls,)
    for run in runs[:20]:
        said = [message["content"] for message in run["messages"] if message["role"] == "tool"]
        stored = connection.execute("""
            select root.input, array_agg(tool.output order by tool.started_at)
              from flywheel.spans as root join flywheel.spans as tool on tool.parent_span_id = root.span_id
             where root.attributes ->> 'id' = %s and tool.node_kind = 'tool'
             group by root.input""", [run["id"]]).fetchone()  # fmt: skip
        assert stored == (None if not said else (run["instruction"], said))
    found = rates(pgflywheel)
    assert found["tool_arguments_are_json"] == {"judged": calls, "passed": calls, "unscored": 0}
    assert 0 < found["tool_succeeds"]["passed"] < calls
    assert found["run_ends_with_an_answer"]["judged"] == len(runs)


def test_runs_of_many_agents_keep_the_order_of_their_steps(pgflywheel: Run, connection: Connection) -> None:
    name = "whowhen_traces.jsonl.gz"
    counts = imported_and_judged(pgflywheel, name, WHOWHEN, "whowhen.toml")
    runs = lines(name)
    assert counts["loaded"] == len(runs) + sum(len(run["steps"]) for run in runs)
    for run in runs:
        mistake = connection.execute("""
            select step.node, step.output
              from flywheel.spans as root join flywheel.spans as step on step.parent_span_id = root.span_id
             where root.input = %s and root.attributes -> 'human' ->> 'mistake_step' is not null
             order by step.started_at
            offset %s limit 1""", [run["question"], run["human"]["mistake_step"]]).fetchone()  # fmt: skip
        step = run["steps"][run["human"]["mistake_step"]]
        assert mistake == (step["name"], step["content"])
    found = rates(pgflywheel)
    terminal = sum(step["name"] == "Computer_terminal" for run in runs for step in run["steps"])
    assert found["code_runs"]["judged"] == terminal
    assert 0 < found["code_runs"]["passed"] < terminal


@pytest.mark.parametrize(
    ("name", "mapping"),
    [
        ("toxicchat_items.jsonl.gz", ("--input", "input.prompt", "--output", "output")),
        ("feedbackqa_items.jsonl.gz", ("--input", "input.question", "--output", "output.content")),
        ("spade_items.jsonl.gz", ("--input", "input.prompt", "--output", "output", "--node", "task")),
        ("dices_items.jsonl.gz", ("--input", "input.conversation", "--output", "output")),
        ("xstest_items.jsonl.gz", ("--input", "input.prompt", "--output", "output", "--release", "model")),
        ("tensortrust_attacks_items.jsonl.gz", ("--input", "input.attack")),
        ("llmbar_items.jsonl.gz", ("--input", "input.instruction", "--output", "output.a")),
    ],
)
def test_files_of_other_shapes_load_whole(pgflywheel: Run, name: str, mapping: tuple[str, ...]) -> None:
    counts = pgflywheel("traces", "import", DATA / name, *mapping)
    assert counts["lines"] == counts["loaded"] == len(lines(name))
