"""Workers and servers that end or stop while calls are on their way."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.conftest import Connection
from tests.fakes.openai import serving
from tests.faults.books import wait_until, wait_until_empty
from tests.faults.conftest import Started, Tell
from tests.faults.judging import (
    LANES,
    LEASE,
    Named,
    asked_again,
    assert_all_scored,
    assert_paid,
    judge,
    outcomes,
    provide,
    recorded,
    seen,
    wait_until_settled,
    watch_money,
)
from tests.faults.scale import scaled
from tests.faults.servers import OwnServer
from tests.faults.workers import WorkerProcess, stop_past_the_lease
from tests.sql.support import insert_many, value

SEEDED = {"seed": True}  # so that the votes of a span are different requests
ATTEMPTS = "update flywheel.settings set value = '100' where name = 'max_attempts'"


def test_calls_of_killed_workers_are_paid_twice_only_where_they_were_on_their_way(
    dsn: str, connection: Connection, start_worker: Started, tell: Tell
) -> None:
    rounds, chance, on_their_way = scaled(3, 50), random.Random(6), 0
    watch_money(connection)
    connection.execute(ATTEMPTS)
    with serving(delay=0.2) as fake:
        provide(connection, fake, time_limit_ms=2000, abilities=SEEDED)
        judge(connection, votes=3)
        workers = Named(connection, dsn, start_worker, "--concurrency", "16")
        at_work = [workers.start() for _ in range(3)]
        for number in range(rounds):
            victim = at_work.pop(0)
            wait_until("it has made calls", lambda: _has_judged(connection, victim))  # noqa: B023, waits here
            insert_new(connection, 60, number)
            wait_until("it makes calls", lambda: workers.on_their_way(victim) > 4)  # noqa: B023
            time.sleep(chance.uniform(0, 0.4))
            on_their_way += workers.kill(victim)
            at_work.append(workers.start())
        wait_until_empty(connection)
        wait_until_settled(connection)
        again, asked, calls = asked_again(seen(fake).values()), seen(fake).total(), recorded(connection)
        assert seen(fake) <= calls
    books = assert_all_scored(connection)
    spent, lost = assert_paid(connection), outcomes(connection)["lost"]
    assert on_their_way > 0
    assert lost == on_their_way
    assert again <= on_their_way
    assert calls.total() - asked <= on_their_way
    tell(
        f"worker killed {rounds} times amid calls, {on_their_way} calls on their way: 0 of {books.eligible} spans "
        f"lost, 0 scores twice; {asked} calls, {again} of them paid twice, {lost} settled as lost; "
        f"{spent:.4f} USD = what is recorded"
    )


def test_a_worker_stopped_past_its_lease_amid_calls_writes_and_pays_nothing_twice(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    rounds, stopped = scaled(2, 12), 0
    watch_money(connection)
    connection.execute(ATTEMPTS)
    with serving(delay=0.5) as fake:
        provide(connection, fake, time_limit_ms=5000)
        judge(connection)
        sleeper = start_worker(*LANES, *LEASE, "--concurrency", "8")
        start_worker(*LANES, *LEASE, "--concurrency", "8")
        amid = """select count(*) from flywheel._reservations join flywheel._workers using (worker_id)
                   where name = %s and reserved_at > now() - interval '0.3 seconds'"""
        for number in range(rounds):
            insert_new(connection, 60, number)
            wait_until("it makes calls", lambda: value(connection, amid, [sleeper.name]))
            stopped += stop_past_the_lease(connection, sleeper)
        wait_until_empty(connection)
        wait_until_settled(connection)
        again, asked, calls = asked_again(seen(fake).values()), seen(fake).total(), recorded(connection)
        assert seen(fake) <= calls
    books = assert_all_scored(connection)
    assert_paid(connection)
    assert calls.total() - asked <= outcomes(connection)["timed_out"] + outcomes(connection)["lost"]
    assert sleeper.alive, sleeper.log[-4000:]
    assert stopped > 0
    assert again <= outcomes(connection)["timed_out"] + outcomes(connection)["lost"]
    tell(
        f"worker stopped past its lease {rounds} times with {stopped} jobs in hand: 0 of {books.eligible} spans lost, "
        f"0 scores twice; {asked} calls recorded, {again} of them paid twice"
    )


@pytest.fixture
def own_dsn(own_server: OwnServer) -> Iterator[str]:
    """DSN of a migrated database on the server that may be killed."""
    with own_server.database() as made:
        yield made


def test_a_server_killed_amid_calls_forgets_nothing_that_was_paid(
    own_server: OwnServer, own_dsn: str, start_worker: Started, tell: Tell
) -> None:
    rounds, chance = scaled(1, 12), random.Random(7)
    with serving(delay=0.3) as fake:
        with psycopg.connect(own_dsn, autocommit=True) as connection:
            watch_money(connection)
            connection.execute(ATTEMPTS)
            provide(connection, fake, time_limit_ms=2000)
            judge(connection)
        worker = start_worker(*LANES, *LEASE, "--concurrency", "16", dsn=own_dsn)
        for number in range(rounds):
            _make_calls(own_dsn, number)
            time.sleep(chance.uniform(0, 0.5))
            own_server.kill()
            time.sleep(chance.uniform(0, 0.5))
            own_server.start()
        with psycopg.connect(own_dsn, autocommit=True) as connection:
            wait_until_empty(connection)
            wait_until_settled(connection)
            again, asked = asked_again(seen(fake).values()), seen(fake).total()
            assert seen(fake) <= recorded(connection)
            books = assert_all_scored(connection)
            assert_paid(connection)
            lost = outcomes(connection)["lost"]
    assert worker.alive, worker.log[-4000:]
    assert again <= lost
    tell(
        f"Postgres killed {rounds} times amid calls: 0 of {books.eligible} spans lost, 0 scores twice; "
        f"{asked} calls all recorded, {again} of them paid twice, {lost} settled as lost; budgets paid what is recorded"
    )


def _has_judged(connection: Connection, worker: WorkerProcess) -> bool:
    """Tell whether a worker's first calls are over, which wait for its imports; give it something to do until then."""
    insert_new(connection, 1, time.monotonic_ns())
    query = "select exists (select from flywheel.run_log join flywheel._workers using (worker_id) where name = %s)"
    return bool(value(connection, query, [worker.name]))


def insert_new(connection: Connection, count: int, number: int) -> None:
    """Insert spans whose texts no round before had: the same requests would be answered from the calls."""
    insert_many(connection, count, f"'answer {number}.' || n")


def _make_calls(dsn: str, number: int) -> None:
    """Give the worker something to do, and wait until it has calls on their way."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        insert_new(connection, 80, number)
        fresh = "select count(*) from flywheel._reservations where reserved_at > now() - interval '0.2 seconds'"
        wait_until("it makes calls", lambda: value(connection, fresh) > 4)
