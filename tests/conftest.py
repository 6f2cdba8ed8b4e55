"""One server per run, one migrated template, a database of its own for every test.

PGFLYWHEEL_TEST_POSTGRES (16 or 18) chooses the embedded server; PGFLYWHEEL_TEST_DSN names a server that runs already.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflywheel import settings
from pgflywheel.db import embedded, schema

POSTGRES_VERSION = int(os.environ.get("PGFLYWHEEL_TEST_POSTGRES", "18"))
RUN_ID = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)[:12]
TEMPLATE = f"flywheel_template_{RUN_ID}"
SERVER_SETTINGS = {
    "fsync": "off",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "full_page_writes": "off",
    "max_wal_size": "1GB",
    "timezone": "UTC",
}
MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 8 * 2**30
# No check of a test is slow because the machine is; tests of slow checks say what is slow.
PATIENCE = "update flywheel.settings set value = '60000' where name = 'inline_limit_ms'"
WAITING = {"faults", "containers", "docs"}
DAY_SECONDS, EVENING_SECONDS = 86_400, 20
Connection = psycopg.Connection[tuple[Any, ...]]

# How long an example takes says how busy the machine is; the one that fails can be repeated from what is printed.
hypothesis.settings.register_profile(
    "flywheel",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("flywheel")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that mostly wait for processes among those that compute: two at once keep two cores busy."""
    files = dict.fromkeys(item.path for item in items)
    waiting = [path for path in files if path.parent.name in WAITING]
    computing = [path for path in files if path.parent.name not in WAITING]
    place = {path: number / len(group) for group in (waiting, computing) for number, path in enumerate(group)}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(autouse=True)
def one_day() -> None:
    """Begin no test in the last seconds of a UTC day: what it writes and what it asks for are of one."""
    left = DAY_SECONDS - time.time() % DAY_SECONDS
    if left < EVENING_SECONDS:
        time.sleep(left)


def memory_has_room() -> bool:
    """Return whether servers can keep their data in memory, where making a database costs a fifth."""
    return os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH_BYTES


@pytest.fixture(scope="session")
def run_dir() -> Iterator[Path]:
    """A folder all processes of this run share; pytest's own is closed to the server's system user."""
    name = f"pgflywheel-test-{RUN_ID}"
    in_memory = (MEMORY / name).exists() or memory_has_room()  # once begun there, it stays there
    folder = (MEMORY if in_memory else Path(tempfile.gettempdir())) / name
    with _only_one(folder):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        (folder / f"user-{os.getpid()}").touch()
    yield folder
    with _only_one(folder):
        (folder / f"user-{os.getpid()}").unlink()
        if not any(folder.glob("user-*")):
            _clean_up(folder)
    if "PYTEST_XDIST_WORKER" not in os.environ:  # others may still wait for it
        folder.with_suffix(".lock").unlink()


@pytest.fixture(scope="session")
def server_dsn(run_dir: Path) -> str:
    """A superuser's DSN of the run's server."""
    given = os.environ.get("PGFLYWHEEL_TEST_DSN")
    if given:
        return settings.normalised_dsn(given)
    with _only_one(run_dir):
        return embedded.start(run_dir / "data", POSTGRES_VERSION, SERVER_SETTINGS)


@pytest.fixture(scope="session")
def template(server_dsn: str, run_dir: Path) -> str:
    """Name of the database every test's own is copied from: migrated, nobody connected."""
    with _only_one(run_dir):
        if not (run_dir / "template").exists():
            _run(server_dsn, "drop database if exists {}", TEMPLATE)
            _run(server_dsn, "create database {}", TEMPLATE)
            schema.upgrade(make_conninfo(server_dsn, dbname=TEMPLATE))
            _run(make_conninfo(server_dsn, dbname=TEMPLATE), PATIENCE)
            (run_dir / "template").touch()
    return TEMPLATE


def _clean_up(folder: Path) -> None:
    """Leave nothing behind: the last process of the run stops its server, or drops the template of a given one."""
    given = os.environ.get("PGFLYWHEEL_TEST_DSN")
    if given:
        _run(settings.normalised_dsn(given), "drop database if exists {} with (force)", TEMPLATE)
    embedded.stop(folder / "data", POSTGRES_VERSION)
    shutil.rmtree(folder)


@pytest.fixture
def dsn(server_dsn: str, template: str) -> Iterator[str]:
    """DSN of this test's own migrated database."""
    with _database(server_dsn, template) as made:
        yield made


@pytest.fixture
def empty_dsn(server_dsn: str) -> Iterator[str]:
    """DSN of this test's own database with nothing in it."""
    with _database(server_dsn, "template1") as made:
        yield made


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    """An open connection to the test's database; every statement commits at once."""
    with psycopg.connect(dsn, autocommit=True) as opened:
        yield opened


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[[], Connection]]:
    """Open as many further connections as a test needs; all are closed after it."""
    opened: list[Connection] = []

    def open_one(**options: Any) -> Connection:
        opened.append(psycopg.connect(dsn, autocommit=True, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@contextmanager
def _database(server_dsn: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    _run(server_dsn, "create database {} template {}", name, template)
    yield make_conninfo(server_dsn, dbname=name)
    _run(server_dsn, "drop database if exists {} with (force)", name)


def _run(server_dsn: str, statement: str, *names: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with folder.with_suffix(".lock").open("w") as lock:  # beside it: the folder is removed under the lock
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
