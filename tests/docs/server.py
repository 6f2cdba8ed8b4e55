"""A database to write the docs from, when no test provides one."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from pgflywheel.db import embedded, schema


@contextmanager
def server() -> Iterator[str]:
    """Start a Postgres 18 of its own and return a superuser's DSN; nothing of it is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="pgflywheel-docs-"))
    folder.chmod(0o755)  # the server of root runs as another user
    try:
        yield embedded.start(folder / "data", 18, {"fsync": "off", "timezone": "UTC"})
    finally:
        embedded.stop(folder / "data", 18)
        shutil.rmtree(folder)


@contextmanager
def database(server_dsn: str) -> Iterator[str]:
    """Make a migrated database on the server and drop it at the end."""
    name = f"docs_{uuid.uuid4().hex[:12]}"
    _run(server_dsn, f"create database {name}")
    dsn = make_conninfo(server_dsn, dbname=name)
    schema.upgrade(dsn)
    yield dsn
    _run(server_dsn, f"drop database {name} with (force)")


@contextmanager
def quickstart(folder: Path) -> Iterator[str]:
    """Return the DSN of the server that `pgflywheel quickstart` will start in a folder, and stop it at the end."""
    yield f"postgresql://postgres:@/postgres?host={folder}"
    embedded.stop(folder, 18)
    shutil.rmtree(folder, ignore_errors=True)


def _run(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())
