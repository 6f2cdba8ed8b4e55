"""Behind pgbouncer in transaction mode."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from tests.conftest import Connection
from tests.faults.books import assert_settled, wait_until, wait_until_empty
from tests.faults.conftest import Started, Tell
from tests.faults.load import activate_all_kinds
from tests.faults.servers import PGBOUNCER, bouncer, knows_prepared_statements
from tests.faults.workers import command
from tests.faults.writers import ACTS
from tests.sql.support import value

# Before 1.21 no application can use prepared statements through it, ours or any.
THRESHOLDS = [None, 5] if PGBOUNCER and knows_prepared_statements() else [None]


@pytest.fixture
def pooled_dsn(dsn: str, run_dir: Path) -> Iterator[str]:
    """The test's database through pgbouncer; its folder is short, as names of sockets must be."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed (Debian: apt install pgbouncer)")
    folder = run_dir / f"b{random.randrange(16**6):06x}"
    folder.mkdir()
    with bouncer(dsn, folder) as through:
        yield through


def test_application_worker_and_commands_work_through_a_transaction_pooler(
    pooled_dsn: str, connection: Connection, start_worker: Started, tell: Tell
) -> None:
    activate_all_kinds(connection)
    worker = start_worker(dsn=pooled_dsn)
    polls = "select listening from flywheel.worker_status"
    wait_until("the worker says that it polls", lambda: "it polls" in worker.log, 30)
    wait_until("its row says so", lambda: value(connection, polls) is False, 30)
    acknowledged = [made for threshold in THRESHOLDS for made in _write(pooled_dsn, threshold)]
    wait_until_empty(connection)
    books = assert_settled(connection, acknowledged)
    status = command("worker", "status", "--dsn", pooled_dsn)
    assert (status.returncode, "poll" in status.stdout) == (0, True), status.stderr
    assert worker.end() == 0
    assert value(connection, "select count(*) from flywheel.worker_status") == 0
    tell(
        f"pgbouncer, transaction mode: {len(acknowledged)} spans written and judged through it, 0 lost, "
        f"0 of {books.eligible} scores twice or missing; the worker says that it polls"
    )


def _write(dsn: str, prepare_threshold: int | None) -> list[UUID]:
    """Write as an application does, over connections that take turns on the server's."""
    chance = random.Random(5)
    made = []
    with (
        psycopg.connect(dsn, autocommit=True, prepare_threshold=prepare_threshold) as one,
        psycopg.connect(dsn, autocommit=True, prepare_threshold=prepare_threshold) as other,
    ):
        for _ in range(40):
            made += chance.choice(ACTS)(chance.choice([one, other]), chance)
    return made
