"""Slow inline checks: refused when a trial finds them, paused when production does."""

from __future__ import annotations

import pytest

from tests.sql.support import Connection, define, inline, insert, insert_many, refused, rows, scores, status_of, value

SLEEPS_FOR = "case when span.output = '{}' then pg_sleep({}) is not null else true end"


@pytest.fixture(autouse=True)
def impatient(connection: Connection) -> None:
    limit(connection, 50)


def limit(connection: Connection, milliseconds: int) -> None:
    """Say which check is slow."""
    connection.execute(
        "update flywheel.settings set value = to_jsonb(%s) where name = 'inline_limit_ms'", [milliseconds]
    )


def slow_for(text: str, seconds: float) -> str:
    return SLEEPS_FOR.format(text, seconds)


@pytest.mark.parametrize(
    "expression",
    [
        "pg_sleep(0.06) is not null",
        "case when length(span.output) > 50000 then pg_sleep(0.6) is not null else true end",
        "(select count(*) from generate_series(1, 3000000)) > 0",
    ],
)
def test_activation_refuses_a_check_that_is_slow_on_some_text(connection: Connection, expression: str) -> None:
    define(connection, "slow", lane="inline", expression=expression)
    said = refused(connection, "select flywheel.activate_validator('slow')")
    assert said.sqlstate == "WF005"
    assert (said.message_primary or "").startswith("validator slow is too slow for lane inline: it took ")
    assert "inline_limit_ms" in (said.message_detail or "")
    assert status_of(connection, "slow") == "draft"
    assert refused(connection, "select flywheel.shadow_validator('slow')").sqlstate == "WF005"


def test_activation_refuses_a_check_that_is_slow_on_a_recent_span(connection: Connection) -> None:
    insert(connection, "slow one")
    define(connection, "slow", lane="inline", expression=slow_for("slow one", 0.06))
    said = refused(connection, "select flywheel.activate_validator('slow')")
    assert said.sqlstate == "WF005"
    assert "ms for span" in (said.message_primary or "")


def test_a_slow_where_is_refused_too(connection: Connection) -> None:
    define(connection, "slow", lane="inline", expression="true", where="pg_sleep(0.06) is not null")
    assert refused(connection, "select flywheel.activate_validator('slow')").sqlstate == "WF005"


def test_the_trial_of_a_check_that_raises_on_everything_ends(connection: Connection) -> None:
    inline(connection, "raising", expression="1 / (length(span.output) - length(span.output)) > 0")
    insert(connection)
    assert scores(connection) == [("raising", None, "raised")]


def test_a_bulk_check_may_be_slow(connection: Connection) -> None:
    define(connection, "slow", expression="pg_sleep(0.06) is not null")
    connection.execute("select flywheel.activate_validator('slow')")
    assert status_of(connection, "slow") == "active"


def test_a_check_that_is_slow_in_production_is_paused_and_its_verdicts_stand(connection: Connection) -> None:
    inline(connection, "good", expression="true")
    inline(connection, "slow", expression=slow_for("slow one", 0.2))
    insert(connection, "slow one")
    query = "select status, paused_reason, paused_detail from flywheel.validator_status where validator = 'slow'"
    status, reason, detail = rows(connection, query)[0]
    assert (status, reason) == ("paused", "slow")
    assert "ms in a statement of 1 spans" in detail
    assert scores(connection) == [("good", True, None), ("slow", True, None)]
    assert status_of(connection, "good") == "active"
    insert(connection, "slow one")
    assert len(scores(connection)) == 3


def test_only_the_slow_one_of_many_is_paused(connection: Connection) -> None:
    limit(connection, 1000)  # half of it, for 200 spans: more than the good ones take on any machine
    for place in range(4):
        inline(connection, f"good_{place}", expression="length(span.output) > 1")
    inline(connection, "slow", expression=slow_for("slow one", 1.2))
    insert_many(connection, 200, "case n when 7 then 'slow one' else 'fine' end")
    query = "select validator from flywheel.validator_status where status = 'paused'"
    assert rows(connection, query) == [("slow",)]


def test_a_check_that_raises_while_it_is_timed_fails_nothing(connection: Connection) -> None:
    """The second asking is only for the clock; what it says, or that it raises, does not count."""
    connection.execute("create sequence public.asked")
    inline(connection, "moody", expression="true")
    expression = """case when span.output <> 'slow one' then true
                         when nextval('public.asked') = 1 then pg_sleep(0.2) is not null
                         else 1 / (length(span.output) - 8) > 0 end"""
    inline(connection, "moodier", expression=expression)
    insert(connection, "slow one")
    assert scores(connection) == [("moodier", True, None), ("moody", True, None)]
    assert value(connection, "select last_value from public.asked") == 2
