"""Bursts, many writers, many workers, and a transaction that never ends."""

from __future__ import annotations

import random
import time

import psycopg

from tests.conftest import Connection
from tests.faults.books import Books, assert_settled, wait_until, wait_until_empty
from tests.faults.conftest import Started, Tell
from tests.faults.load import PATIENT_MS, activate_all_kinds, python
from tests.faults.scale import scaled
from tests.faults.writers import Writers, copy_rows, some_rows
from tests.sql.support import activate, rows, value

BURST = 100_000
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


def test_a_burst_of_100000_rows_is_judged_whole(connection: Connection, start_worker: Started, tell: Tell) -> None:
    activate(connection, "inline_length", lane="inline", expression="length(span.output) < 100")
    activate(connection, "bulk_length", expression="length(span.output) < 150")
    activate(connection, "python_fine", **python("fine", time_limit_ms=PATIENT_MS, sample=0.3))
    start_worker()
    wait_until("a worker is there", lambda: value(connection, "select count(*) from flywheel.worker_status"))
    made = copy_rows(connection, some_rows(random.Random(3), BURST))
    wait_until_empty(connection)
    books = assert_settled(connection, made)
    tell(f"COPY of {BURST} rows while a worker runs: 0 spans lost, 0 of {books.eligible} scores twice or missing")


def test_eight_workers_share_the_work(dsn: str, connection: Connection, start_worker: Started, tell: Tell) -> None:
    activate_all_kinds(connection)
    workers = [start_worker() for _ in range(8)]
    wait_until("all are there", lambda: value(connection, "select count(*) from flywheel.worker_status") == 8)
    with Writers(dsn, threads=4, pause_seconds=0.02) as writers:
        time.sleep(scaled(8, 60))
    wait_until_empty(connection)
    books = assert_settled(connection, writers.acknowledged)
    assert [worker.end() for worker in workers] == [0] * 8
    assert value(connection, "select count(*) from flywheel.worker_status") == 0
    took_part = value(connection, "select count(distinct worker_id) from flywheel.run_log where jobs > 0")
    deadlocks = value(connection, DEADLOCKS)
    assert took_part > 1
    assert (deadlocks, writers.errors) == (0, [])
    tell(
        f"eight workers, {took_part} of them took part: 0 of {len(writers.acknowledged)} spans lost, "
        f"0 of {books.eligible} scores twice or missing, 0 deadlocks"
    )


def test_sixteen_writers_and_changing_validators_never_deadlock(
    dsn: str, connection: Connection, start_worker: Started, tell: Tell
) -> None:
    seconds, changes = scaled(10, 120), 0
    activate_all_kinds(connection)
    start_worker()
    start_worker()
    ends = time.monotonic() + seconds
    chance = random.Random(4)
    names = [name for (name,) in rows(connection, "select validator from flywheel.validator_status")]
    with Writers(dsn, threads=16, pause_seconds=0.05) as writers:
        while time.monotonic() < ends:
            name = chance.choice(names)
            connection.execute("select flywheel.pause_validator(%s, 'a test')", [name])
            time.sleep(chance.uniform(0, 0.1))
            connection.execute("select flywheel.activate_validator(%s)", [name])
            changes += 2
            time.sleep(chance.uniform(0, 0.1))
    deadlocks = value(connection, DEADLOCKS)
    assert (deadlocks, writers.errors, writers.broken) == (0, [], [])
    connection.execute("select flywheel.reconcile(now() - interval '1 hour', now())")
    wait_until_empty(connection)
    books = assert_settled(connection, writers.acknowledged)
    tell(
        f"16 writers for {seconds} s, {changes} changes of validators: 0 deadlocks, 0 errors, "
        f"0 of {len(writers.acknowledged)} spans lost, 0 of {books.eligible} scores twice or missing"
    )


def test_an_open_transaction_does_not_stop_the_work(
    dsn: str, connection: Connection, start_worker: Started, tell: Tell
) -> None:
    seconds = scaled(10, 120)
    activate_all_kinds(connection)
    start_worker()
    with psycopg.connect(dsn) as held, Writers(dsn, threads=2, pause_seconds=0.05) as writers:
        held.execute("set transaction isolation level repeatable read")
        seen = held.execute("select count(*), pg_current_xact_id() from flywheel.spans").fetchone()
        written = []
        for _ in range(5):
            before = _completed(connection)
            time.sleep(seconds / 5)
            wait_until("more is written", lambda: _completed(connection) > before)  # noqa: B023, waits here
            written.append(_completed(connection) - before)
        assert seen is not None
        assert held.execute("select count(*) from flywheel.spans").fetchone() == seen[:1]
        wait_until_empty_of_old(connection)
    wait_until_empty(connection)
    books = assert_settled(connection, writers.acknowledged)
    tell(
        f"a transaction held open for {seconds} s: scores by fifths of it {written}, "
        f"0 of {books.eligible} scores twice or missing"
    )


def _completed(connection: Connection) -> int:
    return int(value(connection, "select coalesce(sum(scores), 0) from flywheel.run_log where outcome = 'completed'"))


def wait_until_empty_of_old(connection: Connection) -> None:
    """Wait until every job queued before now is done, while new ones come."""
    (last,) = rows(connection, "select flywheel.new_id()")[0]
    query = "select count(*) from flywheel._ready where job_id < %s"
    wait_until("jobs of before are done", lambda: value(connection, query, [last]) == 0)


def test_making_days_never_fails_an_insert(dsn: str, connection: Connection, tell: Tell) -> None:
    rounds = scaled(5, 50)
    activate(connection, "inline_length", lane="inline", expression="length(span.output) < 100")
    with Writers(dsn, threads=4, pause_seconds=0.002) as writers:
        for _ in range(rounds):
            _without_todays_partitions(connection)
            time.sleep(0.2)
            _until_made(connection)
    assert (writers.errors, writers.broken) == ([], [])
    assert value(connection, "select count(*) from flywheel.spans_default") == 0
    books = Books.of(connection)
    assert value(connection, "select count(*) from flywheel.spans") == len(writers.acknowledged)
    assert books.eligible == books.scored > 0
    tell(
        f"today's partitions made {rounds} times under 4 writers: 0 errors, 0 of {len(writers.acknowledged)} spans lost"
    )


def _without_todays_partitions(connection: Connection) -> None:
    """Put today's rows where they lie when no worker has run for a week: in the default partition."""
    day = value(connection, "select to_char(now() at time zone 'UTC', 'YYYYMMDD')")
    columns = """select string_agg(quote_ident(attname), ', ') from pg_attribute
                  where attrelid = %s::regclass and attnum > 0 and attgenerated = ''"""
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        connection.execute("lock table flywheel.spans in share row exclusive mode")
        for table in ("spans", "scores"):
            names = value(connection, columns, [f"flywheel.{table}"])
            connection.execute(f"alter table flywheel.{table} detach partition flywheel.{table}_{day}".encode())
            connection.execute(
                f"insert into flywheel.{table}_default ({names}) select {names} from flywheel.{table}_{day}".encode()
            )
            connection.execute(f"drop table flywheel.{table}_{day}".encode())


def _until_made(connection: Connection) -> None:
    """Do as a worker does: give up waiting soon, and try again."""
    connection.execute("set lock_timeout = '500ms'")
    wait_until("the day is made", lambda: _made(connection), 60)
    connection.execute("reset lock_timeout")


def _made(connection: Connection) -> bool:
    try:
        connection.execute("select flywheel._maintain_partitions()")
    except psycopg.errors.LockNotAvailable:
        return False
    return True
