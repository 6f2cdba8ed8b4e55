"""Databases that are not there, not open, too old, too new, or without pgvector: what commands and workers say."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.conftest import Connection
from tests.faults.books import assert_settled
from tests.faults.conftest import Started, Tell
from tests.faults.servers import OwnServer
from tests.faults.workers import command
from tests.ports import free_port
from tests.sql.support import activate, insert_many, value

COMMANDS = [("worker", "run", "--until-idle"), ("queue", "status"), ("validators", "list"), ("db", "upgrade")]
Ends = tuple[int, str]


def said(*arguments: str) -> Ends:
    """Return the exit code and the whole of stderr; nothing may stand on stdout, and no traceback anywhere."""
    done = command(*arguments)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_server_that_is_not_there(arguments: tuple[str, ...], tell: Tell) -> None:
    code, error = said(*arguments, "--dsn", f"postgresql://me@127.0.0.1:{free_port()}/app")
    assert code == 3
    assert error.startswith("error: no connection to the database")
    assert "hint: " in error
    tell(f"wrong DSN: {' '.join(arguments)}: exit code 3, {error.splitlines()[0]}")


def test_a_database_that_is_not_there(server_dsn: str, tell: Tell) -> None:
    code, error = said("worker", "run", "--dsn", make_conninfo(server_dsn, dbname="nowhere"))
    assert code == 3
    assert 'database "nowhere" does not exist' in error
    tell(f"wrong database: exit code 3, {error.splitlines()[0]}")


@pytest.fixture
def password_dsn(own_server: OwnServer) -> Iterator[str]:
    """DSN of a database whose user must give a password, without it."""
    user = f"user_{uuid4().hex[:8]}"
    with own_server.database() as dsn, psycopg.connect(own_server.dsn, autocommit=True) as session:
        statement = sql.SQL("create role {} superuser login password 'right'")
        session.execute(statement.format(sql.Identifier(user)))
        hba = own_server.data / "pg_hba.conf"
        before = hba.read_text()
        hba.write_text(f"local all {user} scram-sha-256\n{before}")
        session.execute("select pg_reload_conf()")
        yield make_conninfo(dsn, user=user)
        hba.write_text(before)
        session.execute("select pg_reload_conf()")
        session.execute(sql.SQL("drop role {}").format(sql.Identifier(user)))


def test_a_wrong_password(password_dsn: str, tell: Tell) -> None:
    wrong = make_conninfo(password_dsn, password="wrong")
    for arguments in COMMANDS:
        code, error = said(*arguments, "--dsn", wrong)
        assert code == 3, arguments
        assert "password authentication failed" in error
        assert "wrong\n" not in error
    done = command("worker", "run", "--until-idle", "--dsn", make_conninfo(password_dsn, password="right"))
    assert done.returncode == 0, done.stderr
    tell(f"wrong password: exit code 3, {error.splitlines()[0]}; the right one works")


def test_a_server_without_vector(server_dsn: str, empty_dsn: str, tell: Tell) -> None:
    role = f"nobody_{uuid4().hex[:8]}"
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    try:
        endings = [said("db", "upgrade", "--dsn", make_conninfo(empty_dsn, user=role))]
        if _hides_extensions(empty_dsn):
            hidden = make_conninfo(empty_dsn, options="-c extension_control_path=/nowhere")
            endings.append(said("db", "upgrade", "--dsn", hidden))
    finally:
        with psycopg.connect(server_dsn, autocommit=True) as session:
            session.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))
    for code, error in endings:
        assert code == 4
        assert 'the extension "vector" cannot be created' in error
        assert "hint: " in error
    with psycopg.connect(empty_dsn) as session:
        assert session.execute("select to_regnamespace('flywheel')").fetchone() == (None,)
    tell(f"no vector: exit code 4, {endings[-1][1].splitlines()[0]}")


def _hides_extensions(dsn: str) -> bool:
    """Tell whether the server (18) lets a session look for extensions elsewhere."""
    with psycopg.connect(dsn) as session:
        return session.info.server_version >= 180000


OLD_BINARIES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def old_dsn(run_dir: Path) -> Iterator[str]:
    """DSN of a Postgres 15, which is too old."""
    if not OLD_BINARIES.is_dir():
        pytest.skip("no Postgres 15 here (Debian: apt install postgresql-15)")
    folder = run_dir / f"old-{uuid4().hex[:6]}"
    folder.mkdir()
    as_user = _as_postgres(folder)
    program = str(OLD_BINARIES / "initdb")
    subprocess.run(
        [*as_user, program, "-A", "trust", "-U", "postgres", "-D", str(folder)], check=True, capture_output=True
    )
    control = [*as_user, str(OLD_BINARIES / "pg_ctl"), "-w", "-D", str(folder), "-l", str(folder / "log")]
    subprocess.run([*control, "-o", f"-h '' -k {folder}", "start"], check=True, stdout=subprocess.DEVNULL)
    yield make_conninfo(host=str(folder), user="postgres", dbname="postgres")
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)


def _as_postgres(folder: Path) -> list[str]:
    """Return what runs a command as the user Debian made, for root cannot run a server."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "postgres", "postgres")
    return ["runuser", "-u", "postgres", "--"]


def test_a_server_that_is_too_old(old_dsn: str, tell: Tell) -> None:
    code, error = said("db", "upgrade", "--dsn", old_dsn)
    assert code == 4
    assert error.startswith("error: Postgres 15")
    assert "16" in error
    assert "hint: " in error
    tell(f"Postgres 15: exit code 4, {error.splitlines()[0]}")


def test_a_schema_that_is_not_installed(empty_dsn: str, tell: Tell) -> None:
    for arguments in COMMANDS[:3]:
        code, error = said(*arguments, "--dsn", empty_dsn)
        assert code == 4, arguments
        assert 'schema "flywheel" is not installed' in error
        assert "pgflywheel db upgrade" in error
    tell(f"no schema: exit code 4, {error.splitlines()[0]}")


INSTALLED_BY = """
    update flywheel.settings
       set value = to_jsonb(case name when 'installed_by' then '{}' else 'other' end)
     where name in ('installed_by', 'sql_hash')
"""
OLDER, NEWER = INSTALLED_BY.format("0.0.1"), INSTALLED_BY.format("99.0.0")
UNKNOWN = "update flywheel.alembic_version set version_num = '9999'"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (OLDER, "is older than this package"),
        (NEWER, "is newer than this package"),
        (UNKNOWN, "is newer than this package"),
    ],
    ids=["older", "newer", "newer revision"],
)
def test_a_schema_of_another_version_stops_a_worker_and_loses_nothing(
    change: str, message: str, dsn: str, connection: Connection, start_worker: Started, tell: Tell
) -> None:
    activate(connection, "short")
    insert_many(connection, 100)
    revision = value(connection, "select version_num from flywheel.alembic_version")
    connection.execute(change.encode())
    for arguments in COMMANDS[:3]:
        code, error = said(*arguments, "--dsn", dsn)
        assert code == 4, arguments
        assert message in error
        assert "hint: " in error
    assert value(connection, "select count(*) from flywheel.scores") == 0
    connection.execute("update flywheel.alembic_version set version_num = %s", [revision])
    connection.execute("delete from flywheel.settings where name in ('installed_by', 'sql_hash')")
    assert command("db", "upgrade", "--dsn", dsn).returncode == 0
    start_worker("--until-idle").finish()
    books = assert_settled(connection, [])
    tell(
        f"schema {message.removesuffix(' than this package')}: exit code 4; mended: {books.scored} of 100 spans scored"
    )
