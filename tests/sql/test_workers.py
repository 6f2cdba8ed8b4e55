"""Heartbeats, leases and what becomes of the jobs of a worker that is gone."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from tests.sql.support import (
    Connection,
    accounts,
    activate,
    claim,
    complete,
    insert,
    insert_many,
    rows,
    value,
    work_off,
    worker,
)


def beat(connection: Connection, worker_id: uuid.UUID, lease_seconds: float = 60, in_hand: int = 0) -> datetime | None:
    call = "select flywheel._heartbeat(%s, 'tester', '{bulk}', %s, true, %s, '0', false)"
    until: datetime | None = connection.execute(call.encode(), [worker_id, lease_seconds, in_hand]).fetchone()[0]  # type: ignore[index]
    return until


def test_a_heartbeat_renews_the_lease(connection: Connection) -> None:
    worker_id = worker(connection, lease_seconds=5)
    first = value(connection, "select leased_until from flywheel.worker_status")
    renewed = beat(connection, worker_id, in_hand=3)
    assert renewed is not None
    assert renewed - first > timedelta(seconds=50)
    query = "select name, in_hand, listening, alive, leased_until from flywheel.worker_status"
    assert rows(connection, query) == [("tester", 3, True, True, renewed)]


def test_a_heartbeat_after_the_lease_ran_out_is_null(connection: Connection) -> None:
    worker_id = worker(connection, lease_seconds=0.001)
    connection.execute("select pg_sleep(0.01)")
    assert beat(connection, worker_id) is None
    assert rows(connection, "select alive from flywheel.worker_status") == [(False,)]


def test_a_heartbeat_of_a_worker_that_never_was_is_null(connection: Connection) -> None:
    query = "select flywheel._heartbeat(gen_random_uuid(), 'x', '{bulk}', 60, true, 0, '0', false)"
    assert connection.execute(query).fetchone() in (None, (None,))
    assert value(connection, "select count(*) from flywheel._workers") == 0


def test_only_jobs_of_expired_workers_are_reaped(connection: Connection) -> None:
    activate(connection, "short")
    alive, late = worker(connection), worker(connection, lease_seconds=0.05)
    for _ in range(4):
        insert(connection)
    mine = claim(connection, alive, 2)
    assert len(claim(connection, late, 2)) == 2
    connection.execute("select pg_sleep(0.06)")
    assert value(connection, "select flywheel._reap()") == 2
    assert value(connection, "select flywheel._reap()") == 0
    assert rows(connection, "select worker_id from flywheel._workers") == [(alive,)]
    assert complete(connection, alive, mine) == (2, 2)
    assert work_off(connection, alive) == 2
    assert rows(connection, "select outcome, jobs from flywheel.run_log where worker_id is null") == [("reaped", 2)]


def test_a_worker_that_leaves_gives_its_jobs_back(connection: Connection) -> None:
    activate(connection, "short")
    insert(connection)
    worker_id = worker(connection)
    claim(connection, worker_id)
    assert value(connection, "select flywheel._leave(%s)", [worker_id]) == 1
    assert rows(connection, "select * from flywheel.worker_status") == []
    assert accounts(connection, "short") == {"eligible": 1, "queued": 1}


def test_a_job_that_kills_its_workers_is_cut_by_version_and_dead_at_last(connection: Connection) -> None:
    activate(connection, "good")
    activate(connection, "deadly")
    insert_many(connection, 2)
    for _ in range(2):
        worker_id = worker(connection)
        assert len(claim(connection, worker_id)) == 1
        connection.execute("select flywheel._leave(%s)", [worker_id])
    assert rows(connection, "select cardinality(version_ids), attempt from flywheel._ready") == [(1, 2), (1, 2)]
    good = value(connection, "select version_id from flywheel.validator_status where validator = 'good'")
    for _ in range(3):
        worker_id = worker(connection)
        claimed = claim(connection, worker_id)
        complete(connection, worker_id, [job for job in claimed if job[2] == [good]])
        connection.execute("select flywheel._leave(%s)", [worker_id])
    assert accounts(connection, "good") == {"eligible": 2, "scored": 2}
    assert accounts(connection, "deadly") == {"eligible": 2, "dead": 2}
    assert rows(connection, "select validators, reason, attempts from flywheel.dead_jobs") == [("deadly", "crashed", 5)]


def test_reaping_waits_for_no_transaction_of_a_stopped_worker(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    activate(connection, "short")
    for _ in range(2):
        insert(connection)
    late = worker(connection, lease_seconds=0.001)
    claimed = claim(connection, late)
    stopped = connect()
    with stopped.transaction():
        stopped.execute("select flywheel._lock_fences(%s, %s)", [late, [claimed[0][0]]])
        connection.execute("set lock_timeout = '1 s'")
        assert value(connection, "select flywheel._reap()") == 1
    assert complete(connection, worker(connection), claim(connection, late)) == (0, 0)


def test_the_log_keeps_the_head_of_a_long_error(connection: Connection) -> None:
    call = "select flywheel._log_run(gen_random_uuid(), 'bulk', 1, 1, 0, now(), 'buried', repeat('x', 100000))"
    connection.execute(call)
    assert value(connection, "select length(detail) from flywheel.run_log") == 2000
