"""Validators nobody should write: each ends in a reason or a pause, and the others never notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import Connection
from tests.faults.books import IN_QUEUE, WRITTEN_TWICE
from tests.faults.conftest import Started, Tell
from tests.faults.load import PATIENT_MS, python
from tests.sql.support import accounts, activate, insert_many, rows, status_of, value

SPANS = 12


@dataclass(frozen=True)
class Hostile:
    """A definition, the reason its spans are unscored with, and whether its faults may pause it."""

    definition: dict[str, Any]
    reason: str
    pauses: bool = True


SQL = {
    "raises": Hostile({"expression": "(span.output || 'x')::integer > 0"}, "raised"),
    "divides": Hostile({"expression": "1 / (length(span.output) - length(span.output)) > 0"}, "raised"),
    "raises_in_where": Hostile({"expression": "true", "where": "(span.output || 'x')::integer > 0"}, "raised"),
    "eats_memory": Hostile({"expression": "length(repeat(span.output, 1000000000)) > 0"}, "out_of_memory"),
    "says_nothing": Hostile({"expression": "nullif(span.output is not null, true)"}, "no_verdict", pauses=False),
    "wrong_value": Hostile({"expression": "row(true, 7, null)::flywheel.verdict"}, "wrong_type", pauses=False),
}
SLOW_SQL = {
    "sleeps": Hostile({"expression": "pg_sleep(600 * (length(span.output) > 3)::integer) is not null"}, "timed_out"),
    "catastrophic": Hostile(
        {"expression": r"repeat('a', 601 * (length(span.output) > 3)::integer) ~ '^(a+)(a+)(a+)(a+)\1\2\3\4$'"},
        "timed_out",
    ),
}
PYTHON = {
    "raises": Hostile(python("raises"), "raised"),
    "divides": Hostile(python("divides"), "raised"),
    "sleeps": Hostile(python("sleeps", time_limit_ms=100), "timed_out"),
    "spins": Hostile(python("spins", time_limit_ms=100), "timed_out"),
    "wrong_type": Hostile(python("returns_text"), "wrong_type"),
    "wrong_value": Hostile(python("returns_a_wrong_value"), "wrong_type"),
    "eats_memory": Hostile(python("eats_memory", memory_limit_mb=64, time_limit_ms=10_000), "out_of_memory"),
    "exits": Hostile(python("exits"), "raised"),
    "kills_itself": Hostile(python("kills_itself"), "crashed"),
    "crashes": Hostile(python("crashes"), "crashed"),
    "is_not_there": Hostile(python("is_not_there"), "missing_callable"),
    "is_of_python_itself": Hostile(python("x", callable="os:system"), "missing_callable"),
    "says_nothing": Hostile(python("says_nothing"), "no_verdict", pauses=False),
}
JUDGES = {
    "raises": Hostile(python("call_raises", lane="judge"), "raised"),
    "wrong_type": Hostile(python("call_returns_text", lane="judge"), "wrong_type"),
    "is_no_coroutine": Hostile(python("fine", lane="judge"), "missing_callable"),
}


@pytest.mark.parametrize(
    "hostile", [SQL, PYTHON, JUDGES, SLOW_SQL], ids=["sql", "python", "judges", "sql that takes for ever"]
)
def test_a_hostile_validator_harms_only_itself(
    hostile: dict[str, Hostile], connection: Connection, start_worker: Started, tell: Tell
) -> None:
    _activate_good_ones(connection)
    for name, each in hostile.items():
        activate(connection, f"bad_{name}", **each.definition)
    insert_many(connection, SPANS)
    insert_many(connection, SPANS)
    worker = start_worker("--until-idle")
    worker.finish(250)
    _assert_good_ones_scored_all(connection)
    ends = [_assert_ended(connection, f"bad_{name}", each) for name, each in hostile.items()]
    assert value(connection, IN_QUEUE) == 0
    assert value(connection, WRITTEN_TWICE) == 0
    assert value(connection, "select count(*) from flywheel.accounts where not balanced") == 0
    tell(
        f"{len(hostile)} hostile validators ({', '.join(hostile)}): {sum(ends)} paused, the others untouched, 0 missing"
    )


def _activate_good_ones(connection: Connection) -> None:
    activate(connection, "good_sql", expression="length(span.output) > 3")
    activate(connection, "good_python", **python("fine", time_limit_ms=PATIENT_MS))
    activate(connection, "good_judge", **python("call", lane="judge"))


def _assert_good_ones_scored_all(connection: Connection) -> None:
    for name in ("good_sql", "good_python", "good_judge"):
        assert accounts(connection, name) == {"eligible": 2 * SPANS, "scored": 2 * SPANS}, name
        assert status_of(connection, name) == "active", name


def _assert_ended(connection: Connection, name: str, hostile: Hostile) -> bool:
    """Check that a validator's spans are unscored for the reason, or wait because it is paused."""
    books = accounts(connection, name)
    assert books.get("later", 0) + books.get("unscored", 0) == books["eligible"] == 2 * SPANS, (name, books)
    paused = status_of(connection, name) == "paused"
    assert paused or books.get("unscored") == 2 * SPANS, (name, books)
    assert hostile.pauses or not paused, (name, books)
    query = """select distinct unscored_reason from flywheel.score_history where validator = %s"""
    reasons = {reason for (reason,) in rows(connection, query, [name])}
    faults = """select distinct reason from flywheel._faults join flywheel.validator_status using (version_id)
                 where validator = %s"""
    told = reasons | {reason for (reason,) in rows(connection, faults, [name])}
    assert told == {hostile.reason}, (name, told)
    if paused:
        query = "select paused_reason, paused_detail from flywheel.validator_status where validator = %s"
        reason, detail = rows(connection, query, [name])[0]
        assert reason in ("errors", "slow"), (name, reason)
        assert detail, name
    return paused


def test_a_paused_validator_mended_by_a_new_version_loses_no_span(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    activate(connection, "mended", expression="(span.output || 'x')::integer > 0")
    insert_many(connection, SPANS)
    start_worker("--until-idle").finish()
    assert status_of(connection, "mended") == "paused"
    connection.execute("update flywheel.settings set value = '1000' where name = 'faults_before_pause'")
    connection.execute("select flywheel.activate_validator('mended')")
    start_worker("--until-idle").finish()
    assert accounts(connection, "mended") == {"eligible": SPANS, "unscored": SPANS}
    tell(f"a validator that raises on every row, resumed: {SPANS} of {SPANS} spans unscored with the reason, 0 lost")


def test_an_answer_postgres_cannot_store_is_stored_without_what_it_cannot(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    activate(connection, "speaks", **python("speaks_of_everything"))
    insert_many(connection, SPANS)
    start_worker("--until-idle").finish()
    assert accounts(connection, "speaks") == {"eligible": SPANS, "scored": SPANS}
    critiques = {critique for (critique,) in rows(connection, "select left(critique, 3) from flywheel.scores")}
    assert critiques == {"\ufffd\ufffd\ufffd"}
    tell("NUL and lone surrogates in a critique: stored as U+FFFD")


def test_a_judge_that_never_answers_is_put_off_and_not_lost(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    connection.execute("update flywheel.settings set value = '2' where name = 'max_attempts'")
    activate(connection, "sleeps", **python("call_sleeps", lane="judge", time_limit_ms=100))
    activate(connection, "good_judge", **python("call", lane="judge"))
    insert_many(connection, SPANS)
    start_worker("--until-idle", "--concurrency", "100").finish()
    assert accounts(connection, "good_judge") == {"eligible": SPANS, "scored": SPANS}
    assert accounts(connection, "sleeps") == {"eligible": SPANS, "dead": SPANS}
    assert rows(connection, "select distinct reason, attempts from flywheel.dead_jobs") == [("timed_out", 2)]
    tell(f"a judge that never answers: {SPANS} calls dead after two attempts each, replayable, the others untouched")


def test_a_check_that_becomes_another_type_is_named(connection: Connection, start_worker: Started, tell: Tell) -> None:
    create = "create function public.changing(text) returns {} language sql return {}"
    connection.execute(create.format("boolean", "length($1) > 3").encode())
    activate(connection, "changing", function="public.changing", target="output")
    activate(connection, "vanishing", function="public.changing", target="output", severity="low")
    insert_many(connection, SPANS)
    connection.execute("drop function public.changing(text)")
    connection.execute(create.format("text", "'yes'::text").encode())
    start_worker("--until-idle").finish()
    for name in ("changing", "vanishing"):
        assert status_of(connection, name) == "paused"
        assert set(accounts(connection, name)) <= {"eligible", "unscored", "later"}
    reasons = rows(connection, "select distinct unscored_reason from flywheel.scores")
    assert reasons == [("wrong_type",)]
    tell("a check's function that becomes another type: unscored as wrong_type and paused, 0 missing")
