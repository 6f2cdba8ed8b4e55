"""How much the server reads where it must stay cheap: counted by the server itself, in all statements of a call."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from tests.sql.support import Connection, activate, claim, complete, inline, insert, insert_many, rows, value, worker

COUNTS = """
select relname, seq_tup_read + coalesce(idx_tup_fetch, 0), seq_tup_read, seq_scan from pg_stat_xact_user_tables
 where schemaname = 'flywheel'"""


@dataclass(frozen=True)
class Reads:
    """Rows of a table read in one call; whole = read from end to end, and not through an index."""

    rows: int
    whole: bool


def reads(connection: Connection, query: str, parameters: Any = None) -> dict[str, Reads]:
    """Run a statement and return what was read of each table, also inside the functions it calls."""
    with connection.transaction():
        before = {name: counts for name, *counts in rows(connection, COUNTS)}
        connection.execute(query.encode(), parameters)
        after = {name: counts for name, *counts in rows(connection, COUNTS)}
    counted = {
        name: [new - old for new, old in zip(after[name], before.get(name, [0, 0, 0]), strict=True)] for name in after
    }
    return {name: Reads(read, whole > 0) for name, (read, _, whole) in counted.items() if read or whole}


def days(found: dict[str, Reads], table: str) -> set[str]:
    """Return the daily partitions of a table that were read."""
    return {name for name in found if name.startswith(f"{table}_2")}


def whole(found: dict[str, Reads]) -> set[str]:
    return {name for name, read in found.items() if read.whole}


@pytest.fixture
def crowded(connection: Connection) -> Connection:
    """A queue of 200,000 ready jobs over both priorities."""
    activate(connection, "short")
    connection.execute(
        """insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until)
           select 'bulk', 1 + n % 2, flywheel.new_id(), array[gen_random_uuid()], array[gen_random_uuid()], now(), now()
             from generate_series(1, 200000) as n"""
    )
    connection.execute("analyze flywheel._ready")
    return connection


CLAIM = "select * from flywheel._claim('bulk', %s::smallint, %s, 10, %s)"


def test_a_claim_reads_only_what_it_takes(crowded: Connection) -> None:
    worker_id = worker(crowded)
    for round_ in range(8):  # past the five custom plans of a cached statement
        found = reads(crowded, CLAIM, [1 + round_ % 2, worker_id, None])
        assert found["_ready"].rows <= 40  # found by the select, again by the delete
        assert not found["_ready"].whole


def test_a_claim_with_a_floor_begins_at_the_floor(crowded: Connection) -> None:
    query = "select job_id from flywheel._ready where lane = 'bulk' and priority = 1 order by 1 offset 50000 limit 1"
    floor = value(crowded, query)
    found = reads(crowded, CLAIM, [1, worker(crowded), floor])
    assert found["_ready"].rows <= 40
    assert not found["_ready"].whole


def test_claiming_calls_reads_only_their_jobs(crowded: Connection) -> None:
    crowded.execute("update flywheel._ready set lane = 'judge'")
    crowded.execute("vacuum analyze flywheel._ready")
    found = reads(crowded, "select * from flywheel._claim_calls(1::smallint, %s, 10, null)", [worker(crowded)])
    assert found["_ready"].rows <= 40
    assert not found["_ready"].whole


def test_finishing_jobs_finds_them_by_their_fence(connection: Connection) -> None:
    activate(connection, "short")
    insert_many(connection, 1)
    worker_id = worker(connection)
    (job,) = claim(connection, worker_id)
    connection.execute(
        """insert into flywheel._running
                  (lane, priority, job_id, version_ids, span_ids, started_from, started_until, fence, worker_id)
           select 'bulk', 1, flywheel.new_id(), '{}', '{}', now(), now(), gen_random_uuid(), %s
             from generate_series(1, 20000)""",
        [uuid.uuid4()],
    )
    connection.execute("analyze flywheel._running")
    found = reads(connection, "select flywheel._complete(%s, %s, %s, now())", [worker_id, [job[0]], job[2]])
    assert found["_running"].rows <= 10
    assert not found["_running"].whole
    assert complete(connection, worker_id, [job]) == (0, 0)


@pytest.fixture
def ten_days(connection: Connection) -> Connection:
    """Twenty thousand spans over ten days, each day in its partition, scored by one validator."""
    connection.execute("select flywheel.ensure_partitions('2024-05-01', '2024-05-10')")
    inline(connection, "at_once")
    connection.execute(
        """insert into flywheel.spans (output, started_at)
           select 'answer', '2024-05-01 00:00+00'::timestamptz + n * interval '43.2 s' from generate_series(0,
               19999) as n"""
    )
    for day in range(1, 11):
        connection.execute(f"analyze flywheel.spans_202405{day:02}, flywheel.scores_202405{day:02}".encode())
    return connection


def queue_some(connection: Connection, name: str, count: int = 20) -> tuple[Any, ...]:
    """Queue spans of one day for a version, claim them, and return the claim."""
    version = activate(connection, name)
    connection.execute(
        """select flywheel._enqueue('bulk', 1::smallint, %s, array_agg(span_id), min(started_at),
                max(started_at), 'replay')
             from (select span_id, started_at from flywheel.spans
                    where started_at >= '2024-05-03 06:00+00' order by started_at limit %s) as few""",
        [[version], count],
    )
    (job,) = claim(connection, worker(connection))
    return job


def test_a_bulk_check_reads_only_the_day_and_the_spans_of_its_job(ten_days: Connection) -> None:
    job = queue_some(ten_days, "short")
    found = reads(ten_days, "select flywheel._run_sql_checks(%s, %s)", [[job[0]], job[2]])
    assert days(found, "spans") == {"spans_20240503"}
    assert found["spans_20240503"] == Reads(20, whole=False)


def test_reading_for_a_python_check_does_the_same(ten_days: Connection) -> None:
    job = queue_some(ten_days, "short")
    found = reads(ten_days, "select * from flywheel._read_spans(%s, %s, '{output}')", [[job[0]], job[2][0]])
    assert days(found, "spans") == {"spans_20240503"}
    assert found["spans_20240503"].rows <= 40  # their sizes, then their texts
    assert not found["spans_20240503"].whole


def test_why_looks_everything_up(ten_days: Connection) -> None:
    activate(ten_days, "short")
    span_id = insert(ten_days, started_at="2024-05-05 01:02:03+00")
    found = reads(ten_days, "select * from flywheel.why(%s)", [span_id])
    assert days(found, "spans") == {"spans_20240505"}
    assert days(found, "scores") == {"scores_20240505"}
    assert not whole(found) & (days(found, "spans") | days(found, "scores"))


def test_current_scores_of_one_span_are_looked_up(ten_days: Connection) -> None:
    span_id = insert(ten_days, started_at="2024-05-05 01:02:03+00")
    query = "select * from flywheel.current_scores where span_id = %s and started_at = '2024-05-05 01:02:03+00'"
    found = reads(ten_days, query, [span_id])
    assert (days(found, "spans"), days(found, "scores")) == ({"spans_20240505"}, {"scores_20240505"})
    assert not whole(found) & (days(found, "spans") | days(found, "scores"))


def test_a_day_of_current_scores_reads_the_scores_of_that_day(ten_days: Connection) -> None:
    query = """select validator, count(*), avg(passed::integer) from flywheel.current_scores
                where started_at >= '2024-05-04 00:00+00' and started_at < '2024-05-05 00:00+00' group by 1"""
    assert days(reads(ten_days, query), "scores") == {"scores_20240504"}
    ten_days.execute("set enable_partitionwise_join = on")
    assert days(reads(ten_days, query), "spans") == {"spans_20240504"}


def test_a_page_of_a_backfill_reads_its_day(ten_days: Connection) -> None:
    activate(ten_days, "short")
    call = "select flywheel.start_backfill('short', '2024-05-06 00:00+00', '2024-05-09 00:00+00')"
    backfill = value(ten_days, call)
    for _ in range(2):
        found = reads(ten_days, "select * from flywheel.advance_backfill(%s, 500)", [backfill])
        assert days(found, "spans") == {"spans_20240506"}
        assert found["spans_20240506"].rows <= 510
        assert not found["spans_20240506"].whole


def test_the_reconciler_reads_recent_arrivals_by_their_index(connection: Connection) -> None:
    activate(connection, "short")
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        connection.execute(
            """insert into flywheel.spans (output, ingested_at, started_at)
               select repeat('x', 200), now() - n * interval '1 s', now() from generate_series(60000, 3600, -1) as n"""
        )
    insert_many(connection, 100)
    connection.execute("vacuum analyze flywheel.spans")
    found = reads(connection, "select flywheel.reconcile(now() - interval '15 minutes', clock_timestamp())")
    (read,) = (found[day] for day in days(found, "spans") if found[day].rows)
    assert not read.whole
    assert read.rows <= 5_000
