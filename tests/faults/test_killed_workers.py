"""Workers killed or stopped while they hold jobs."""

from __future__ import annotations

import random
import time

import psycopg

from tests.conftest import Connection
from tests.faults.books import assert_settled, wait_until, wait_until_empty
from tests.faults.conftest import Started, Tell
from tests.faults.load import activate_all_kinds
from tests.faults.scale import scaled
from tests.faults.workers import LEASE_SECONDS, metric, runs, stop_past_the_lease
from tests.faults.writers import Writers
from tests.ports import free_port
from tests.sql.support import activate, insert_many, rows, value

LEASE = ("--lease-seconds", str(LEASE_SECONDS))
HELD = """
    select count(*) from flywheel._running join flywheel._workers using (worker_id) where name = %s
"""


def test_a_killed_worker_loses_nothing_and_writes_nothing_twice(
    dsn: str, connection: Connection, start_worker: Started, tell: Tell
) -> None:
    rounds, chance, at_work = scaled(12, 200), random.Random(1), 0
    activate_all_kinds(connection)
    workers = [start_worker(*LEASE) for _ in range(3)]
    with Writers(dsn, threads=2) as writers:
        wait_until("a worker works", lambda: value(connection, "select count(*) from flywheel.run_log"))
        for _ in range(rounds):
            time.sleep(chance.uniform(0.1, 1.2))
            victim = workers.pop(0)
            at_work += value(connection, HELD, [victim.name]) > 0
            children = victim.kill()
            workers.append(start_worker(*LEASE))
            wait_until("its own processes end with it", lambda: not any(map(runs, children)))  # noqa: B023, waits here
    for worker in workers:
        assert worker.alive, worker.log[-4000:]
    connection.execute("select flywheel.replay_dead()")  # what was killed five times over
    wait_until_empty(connection)
    books = assert_settled(connection, writers.acknowledged)
    assert not writers.errors
    assert at_work > 0
    tell(
        f"worker killed {rounds} times, {at_work} with jobs in hand: 0 of {len(writers.acknowledged)} spans lost, "
        f"0 of {books.eligible} scores twice or missing, accounts balanced"
    )


def test_a_worker_stopped_past_its_lease_writes_nothing_twice(
    dsn: str, connection: Connection, start_worker: Started, tell: Tell
) -> None:
    rounds = scaled(3, 20)
    activate_all_kinds(connection)
    port = free_port()
    sleeper = start_worker(*LEASE, "--metrics-port", str(port))
    start_worker(*LEASE)
    with Writers(dsn, threads=2, pause_seconds=0.02) as writers:
        for _ in range(rounds):
            wait_until("the worker holds jobs", lambda: value(connection, HELD, [sleeper.name]))
            stop_past_the_lease(connection, sleeper)
    wait_until_empty(connection)
    books = assert_settled(connection, writers.acknowledged)
    assert sleeper.alive, sleeper.log[-4000:]
    void = metric(port, "pgflywheel_void_total")
    assert void > 0
    tell(
        f"worker stopped past its lease {rounds} times: {void:g} late jobs void, "
        f"0 of {len(writers.acknowledged)} spans lost, 0 of {books.eligible} scores twice or missing, accounts balanced"
    )


def test_a_worker_frozen_inside_its_transaction_does_not_keep_others_from_working(
    dsn: str, connection: Connection, start_worker: Started, tell: Tell
) -> None:
    activate(connection, "bulk_length", expression="length(span.output) < 150")
    insert_many(connection, 10)
    dead = value(connection, "select gen_random_uuid()")
    fences = rows(connection, "select fence from flywheel._claim('bulk', 1::smallint, %s, 10)", [dead])
    connection.execute("update flywheel._running set claimed_at = claimed_at - interval '1 hour'")
    with psycopg.connect(dsn) as frozen:
        frozen.execute("select flywheel._lock_fences(%s, %s)", [dead, [fence for (fence,) in fences]])
        insert_many(connection, 10)
        gone = value(connection, "select gen_random_uuid()")
        connection.execute("select flywheel._claim('bulk', 1::smallint, %s, 10)", [gone])
        connection.execute(
            "update flywheel._running set claimed_at = claimed_at - interval '1 hour' where worker_id = %s", [gone]
        )
        start_worker(*LEASE)
        wait_until("the other jobs are judged", lambda: value(connection, "select count(*) from flywheel.scores") == 10)
    wait_until_empty(connection)
    books = assert_settled(connection, [])
    tell(f"worker frozen inside its transaction: the other jobs were done, then its own, {books.scored} scores")
