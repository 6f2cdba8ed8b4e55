"""Postgres killed while applications write and a worker works."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.books import assert_settled, wait_until, wait_until_empty
from tests.faults.conftest import Tell
from tests.faults.load import activate_all_kinds
from tests.faults.scale import scaled
from tests.faults.servers import OwnServer
from tests.faults.workers import WorkerProcess
from tests.faults.writers import Writers
from tests.sql.support import value


@pytest.fixture
def own_dsn(own_server: OwnServer) -> Iterator[str]:
    """DSN of a migrated database on the server that may be killed."""
    with own_server.database() as made:
        yield made


def test_a_killed_server_loses_nothing_it_acknowledged(
    own_server: OwnServer, own_dsn: str, tmp_path: Path, tell: Tell
) -> None:
    rounds, chance = scaled(2, 20), random.Random(2)
    with psycopg.connect(own_dsn, autocommit=True) as connection:
        activate_all_kinds(connection)
    worker = WorkerProcess.start(own_dsn, tmp_path / "worker.log")
    try:
        with Writers(own_dsn, threads=2, pause_seconds=0.05) as writers:
            for number in range(rounds):
                _wait_for_progress(own_dsn)
                time.sleep(chance.uniform(0.2, 2))
                if number % 4 == 3:
                    own_server.kill_a_backend(chance)
                else:
                    own_server.kill()
                    own_server.start()
            _wait_for_progress(own_dsn)
        with psycopg.connect(own_dsn, autocommit=True) as connection:
            wait_until_empty(connection)
            books = assert_settled(connection, writers.acknowledged)
        assert worker.alive, worker.log[-4000:]
        assert worker.end() == 0
    finally:
        worker.kill()
    assert not writers.errors
    assert len(writers.broken) >= rounds
    tell(
        f"Postgres killed {rounds} times: 0 of {len(writers.acknowledged)} acknowledged spans lost, "
        f"0 of {books.eligible} scores twice or missing, accounts balanced, the same worker throughout"
    )


def _wait_for_progress(dsn: str) -> None:
    """Wait until the worker has written scores since now."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = value(connection, "select count(*) from flywheel.run_log where outcome = 'completed'")
        query = "select count(*) from flywheel.run_log where outcome = 'completed'"
        wait_until("the worker works again", lambda: value(connection, query) > before)
