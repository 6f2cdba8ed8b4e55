"""Spans that came past the triggers, spans of the past, and books that balance before and after."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.sql.support import (
    Connection,
    accounts,
    activate,
    claim,
    define,
    inline,
    insert,
    insert_many,
    insert_past_triggers,
    refused,
    rows,
    scores,
    value,
    work_off,
    worker,
)

RAISING = "1 / (length(span.output) - 3) > -9"


def reconcile(connection: Connection) -> int:
    query = "select flywheel.reconcile(now() - interval '1 day', clock_timestamp() + interval '1 s')"
    return int(value(connection, query))


def advance(connection: Connection, backfill: uuid.UUID, max_spans: int = 10_000) -> tuple[Any, ...]:
    query = "select done, queued, skipped from flywheel.advance_backfill(%s, %s)"
    return rows(connection, query, [backfill, max_spans])[0]


def start(connection: Connection, name: str = "short") -> uuid.UUID:
    query = "select flywheel.start_backfill(%s, now() - interval '1 day', clock_timestamp())"
    found: uuid.UUID = value(connection, query, [name])
    return found


def test_spans_inserted_with_triggers_disabled_are_found(connection: Connection) -> None:
    activate(connection, "short")
    inline(connection, "at_once")
    insert_many(connection, 3)
    insert_past_triggers(connection, 4)
    work_off(connection)
    assert accounts(connection, "short") == {"eligible": 7, "scored": 3, "missing": 4}
    assert accounts(connection, "at_once") == {"eligible": 7, "scored": 3, "missing": 4}
    assert reconcile(connection) == 8
    assert accounts(connection, "short") == {"eligible": 7, "scored": 3, "queued": 4}
    assert reconcile(connection) == 0
    assert work_off(connection) == 8
    assert accounts(connection, "short") == accounts(connection, "at_once") == {"eligible": 7, "scored": 7}
    query = "select lane, jobs, spans from flywheel.run_log where outcome = 'reconciled'"
    assert rows(connection, query) == [("bulk", 0, 8)]


def test_spans_inserted_straight_into_a_partition_are_found(connection: Connection) -> None:
    activate(connection, "short")
    partition = value(connection, "select flywheel._partition_name('spans', (now() at time zone 'UTC')::date)")
    connection.execute("select flywheel._maintain_partitions()")
    connection.execute(f"insert into flywheel.{partition} (output) values ('answer')")
    assert accounts(connection, "short") == {"eligible": 1, "missing": 1}
    assert reconcile(connection) == 1
    work_off(connection)
    assert scores(connection) == [("short", True, None)]


def test_an_update_past_the_triggers_is_found(connection: Connection) -> None:
    activate(connection, "short")
    insert(connection, "a much longer answer")
    work_off(connection)
    connection.execute("alter table flywheel.spans disable trigger dispatch_update")
    connection.execute("update flywheel.spans set output = 'short'")
    connection.execute("alter table flywheel.spans enable trigger dispatch_update")
    assert accounts(connection, "short") == {"eligible": 1, "missing": 1}
    assert reconcile(connection) == 1
    work_off(connection)
    assert scores(connection) == [("short", True, None)]


def test_a_judges_missed_spans_go_to_its_lane(connection: Connection) -> None:
    activate(connection, "polite", kind="python", callable="shop.checks:polite", lane="judge", sample=0.5)
    insert_past_triggers(connection, 200)
    queued = reconcile(connection)
    assert 50 < queued < 150
    query = "select lane, origin, sum(cardinality(span_ids))::integer from flywheel._ready group by 1, 2"
    assert rows(connection, query) == [("judge", "reconcile", queued)]


def test_only_spans_of_the_time_given_and_no_more_than_asked_for_are_queued(connection: Connection) -> None:
    activate(connection, "short")
    insert_past_triggers(connection, 10)
    assert (
        value(connection, "select flywheel.reconcile(now() + interval '1 minute', now() + interval '2 minutes')") == 0
    )
    assert value(connection, "select flywheel.reconcile(now() - interval '1 day', now() + interval '1 s', 4)") == 4
    assert reconcile(connection) == 6


def test_spans_just_inserted_are_left_alone_by_default(connection: Connection) -> None:
    """Their transaction may still be at work."""
    activate(connection, "short")
    insert_past_triggers(connection)
    assert value(connection, "select flywheel._reconcile_recent()") == 0


@pytest.mark.parametrize("then", ["pause_validator('short', 'x')", "retire_validator('short')"])
def test_what_a_version_missed_is_found_though_it_stopped_since(connection: Connection, then: str) -> None:
    activate(connection, "short")
    insert_past_triggers(connection, 2)
    connection.execute(f"select flywheel.{then}".encode())
    insert_many(connection, 1)
    assert accounts(connection, "short") == {"eligible": 2, "missing": 2}
    assert reconcile(connection) == 2
    assert work_off(connection) == 2
    assert accounts(connection, "short") == {"eligible": 2, "scored": 2}


def test_what_came_before_or_between_activations_is_nobodys(connection: Connection) -> None:
    insert_past_triggers(connection)
    activate(connection, "short")
    connection.execute("select flywheel.pause_validator('short', 'x')")
    insert_past_triggers(connection)
    connection.execute("select flywheel.activate_validator('short')")
    assert accounts(connection, "short") == {}
    assert reconcile(connection) == 0


def test_a_new_revision_belongs_to_the_version_active_when_it_came(connection: Connection) -> None:
    inline(connection, "short", expression="true")
    insert(connection)
    inline(connection, "short", expression="false")
    connection.execute("update flywheel.spans set output = 'new'")
    assert accounts(connection, "short", 1) == {}
    assert accounts(connection, "short", 2) == {"eligible": 1, "scored": 1}


def test_a_where_that_raises_stops_neither_the_books_nor_the_repair(connection: Connection) -> None:
    activate(connection, "raising", where=RAISING)
    activate(connection, "good")
    insert_past_triggers(connection, 2, "'abc'")
    insert_past_triggers(connection, 2, "'fine'")
    insert_past_triggers(connection, 2, "null")
    assert accounts(connection, "raising") == {"eligible": 4, "missing": 4}
    assert accounts(connection, "good") == {"eligible": 4, "missing": 4}
    assert reconcile(connection) == 8
    assert reconcile(connection) == 0
    assert accounts(connection, "raising") == {"eligible": 4, "queued": 4}
    assert value(connection, "select count(*) from flywheel._faults") == 0


def test_a_backfill_may_have_a_where_that_raises(connection: Connection) -> None:
    insert(connection, "abc")
    insert(connection, "fine")
    activate(connection, "short", where=RAISING)
    query = "select * from flywheel.plan_backfill('short', now() - interval '1 day', clock_timestamp())"
    assert rows(connection, query) == [(2, 0, 2)]
    assert advance(connection, start(connection)) == (True, 2, 0)


def test_a_backfill_queues_the_past_and_skips_what_is_scored(connection: Connection) -> None:
    insert_many(connection, 5)
    activate(connection, "short", filter={"node": "app"})
    insert_many(connection, 3)
    insert(connection, node="other")
    work_off(connection)
    query = "select * from flywheel.plan_backfill('short', now() - interval '1 day', clock_timestamp())"
    assert rows(connection, query) == [(8, 3, 5)]
    assert advance(connection, start(connection)) == (True, 5, 3)
    assert rows(connection, "select priority, origin, cardinality(span_ids) from flywheel._ready") == [
        (2, "backfill", 5)
    ]
    assert work_off(connection) == 5
    assert rows(connection, query) == [(8, 8, 0)]
    assert accounts(connection, "short") == {"eligible": 8, "scored": 8}


def test_a_backfill_goes_on_where_it_was_interrupted(connection: Connection, connect: Callable[[], Connection]) -> None:
    insert_many(connection, 25)
    activate(connection, "short")
    backfill = start(connection)
    assert advance(connection, backfill, 10) == (False, 10, 0)
    with connection.transaction(force_rollback=True):
        assert advance(connection, backfill, 10) == (False, 20, 0)
    other = connect()
    since = value(connection, "select since from flywheel._backfills")
    assert value(other, "select flywheel.start_backfill('short', %s, clock_timestamp())", [since]) == backfill
    assert advance(other, backfill, 10) == (False, 20, 0)
    assert advance(other, backfill, 10) == (True, 25, 0)
    assert work_off(connection) == 25
    assert value(connection, "select flywheel.start_backfill('short', %s)", [since]) != backfill


def test_spans_of_one_instant_are_all_backfilled(connection: Connection) -> None:
    connection.execute("insert into flywheel.spans (output, started_at) select 'a', now() from generate_series(1, 50)")
    activate(connection, "short")
    backfill = start(connection)
    while not advance(connection, backfill, 7)[0]:
        pass
    assert work_off(connection) == 50


def test_a_backfill_over_days_reads_each_span_once(connection: Connection) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-01', '2024-05-04')")
    connection.execute(
        """insert into flywheel.spans (output, started_at)
           select 'a', '2024-05-01 00:00+00'::timestamptz + n * interval '1 hour' from generate_series(0, 99) as n"""
    )
    activate(connection, "short")
    call = "select flywheel.start_backfill('short', '2024-05-01 12:00+00', '2024-05-03 12:00+00')"
    backfill = value(connection, call)
    while not advance(connection, backfill, 11)[0]:
        pass
    assert work_off(connection) == 48
    query = "select min(started_at), max(started_at) from flywheel.scores"
    assert [str(moment) for moment in rows(connection, query)[0]] == [
        "2024-05-01 12:00:00+00:00",
        "2024-05-03 11:00:00+00:00",
    ]


def test_days_in_and_out_of_partitions_are_all_backfilled(connection: Connection) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-02', '2024-05-02')")
    for moment in ("1999-01-01 23:59:59+00", "2024-05-01 12:00+00", "2024-05-02 12:00+00", "2024-05-03 00:00+00"):
        connection.execute(
            "insert into flywheel.spans (output, started_at) values ('a', %s), ('b', %s)", [moment, moment]
        )
    activate(connection, "short")
    backfill = value(connection, "select flywheel.start_backfill('short', '-infinity', 'infinity')")
    while not advance(connection, backfill, 1)[0]:
        pass
    assert advance(connection, backfill)[:2] == (True, 8)
    assert work_off(connection) == 8


@pytest.mark.parametrize("status", ["draft", "approved", "retired"])
def test_only_a_version_that_runs_can_be_backfilled(connection: Connection, status: str) -> None:
    define(connection, "short")
    if status != "draft":
        connection.execute("update flywheel.validator_versions set status = %s", [status])
    said = refused(connection, "select flywheel.start_backfill('short', now() - interval '1 day')")
    assert said.sqlstate == "WF004"
    assert said.message_primary == f"validator short is {status} and cannot be backfilled"


def test_a_backfill_of_nothing_says_what_is_wrong(connection: Connection) -> None:
    assert refused(connection, "select flywheel.start_backfill('no_such', now())").sqlstate == "WF002"
    assert refused(connection, "select flywheel.advance_backfill(gen_random_uuid())").sqlstate == "WF009"
    activate(connection, "short")
    said = refused(connection, "select flywheel.start_backfill('short', now(), now() - interval '1 day')")
    assert said.sqlstate == "WF009"


def test_an_empty_time_is_done_at_once(connection: Connection) -> None:
    activate(connection, "short")
    backfill = value(connection, "select flywheel.start_backfill('short', '2020-01-01', '2020-01-02')")
    assert advance(connection, backfill) == (True, 0, 0)


def test_the_books_balance_wherever_a_job_is(connection: Connection) -> None:
    activate(connection, "short")
    for _ in range(5):
        insert(connection)
    worker_id = worker(connection)
    claimed = claim(connection, worker_id, 4)
    connection.execute("select flywheel._bury(%s, %s, 'x', 'x')", [worker_id, [claimed[0][0]]])
    connection.execute("select flywheel._retry(%s, %s, 60, 'x', 'x')", [worker_id, [claimed[1][0]]])
    query = "select flywheel._complete(%s, %s, %s, now())"
    connection.execute(query, [worker_id, [claimed[2][0]], claimed[2][2]])
    insert_past_triggers(connection)
    assert accounts(connection, "short") == {
        "eligible": 6,
        "scored": 1,
        "queued": 1,
        "running": 1,
        "later": 1,
        "dead": 1,
        "missing": 1,
    }


def test_what_got_no_verdict_is_judged_again_once_the_fault_is_mended(connection: Connection) -> None:
    checked = "create or replace function public.checked(answer text) returns boolean language sql immutable return "
    connection.execute(f"{checked} 1 / (length(answer) - 4) > -9".encode())
    inline(connection, "checked", expression="public.checked(span.output)")
    insert(connection, "fine")
    insert(connection, "not fine")
    assert accounts(connection, "checked") == {"eligible": 2, "scored": 1, "unscored": 1}
    connection.execute(f"{checked} length(answer) > 3".encode())
    again = "select flywheel.judge_unscored('checked', now() - interval '1 day', clock_timestamp())"
    assert value(connection, again) == 1
    assert value(connection, again) == 0
    assert accounts(connection, "checked") == {"eligible": 2, "scored": 1, "queued": 1}
    work_off(connection)
    assert accounts(connection, "checked") == {"eligible": 2, "scored": 2}
    counted = "select n, judged, passed, unscored from flywheel.quality_by_validator where validator = 'checked'"
    assert rows(connection, counted) == [(2, 2, 2, 0)]


def test_an_answer_that_changed_is_not_judged_again_for_what_it_was(connection: Connection) -> None:
    inline(connection, "silent", expression="case when span.output <> 'old' then true end")
    span_id = insert(connection, "old")
    connection.execute("update flywheel.spans set output = 'new' where span_id = %s", [span_id])
    again = "select flywheel.judge_unscored('silent', now() - interval '1 day', clock_timestamp())"
    assert value(connection, again) == 0
    assert value(connection, "select count(*) from flywheel.scores") == 2


def test_a_retired_validator_is_not_asked_again(connection: Connection) -> None:
    activate(connection, "short")
    connection.execute("select flywheel.retire_validator('short')")
    said = refused(connection, "select flywheel.judge_unscored('short', now() - interval '1 day')")
    assert said.message_primary == "version 1 of validator short is retired and cannot be asked again"
