"""Rows as records, errors as ours, one connection or a pool, the install's schema in every statement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgflywheel.db import schema
from pgflywheel.db.connect import Database, connection_string, described, open_database
from pgflywheel.db.version import require_current
from pgflywheel.errors import DatabaseError, InvalidArgument, SchemaBehind, SchemaMissing, SchemaNewer, Unreachable

Result = TypeVar("Result")


@dataclass(frozen=True)
class Pair:
    left: int
    right: str


def within(
    dsn: str, work: Callable[[Database], Awaitable[Result]], schema_name: str = "flywheel", connections: int = 1
) -> Result:
    async def call() -> Result:
        async with open_database(dsn, schema_name, max_connections=connections) as database:
            return await work(database)

    return asyncio.run(call())


@pytest.mark.parametrize("connections", [1, 3])
def test_rows_become_what_is_asked_for(dsn: str, connections: int) -> None:
    async def work(database: Database) -> None:
        sql = "select n as left, 'r' || n as right from generate_series(1, %s) as n"
        assert await database.rows(Pair, sql, [2]) == [Pair(1, "r1"), Pair(2, "r2")]
        assert await database.rows(dict, sql, [1]) == [{"left": 1, "right": "r1"}]
        assert await database.rows(tuple, sql, [1]) == [(1, "r1")]
        assert await database.rows(int, sql, [2]) == [1, 2]
        assert await database.row(Pair, sql, [0]) is None
        assert await database.value("select %(x)s::integer + 1", {"x": 1}) == 2

    within(dsn, work, connections=connections)


def test_a_statement_commits_and_a_failed_transaction_does_not(dsn: str) -> None:
    async def work(database: Database) -> int:
        assert await database.execute("insert into flywheel.spans (input) values ('a'), ('b')") == 2
        with pytest.raises(DatabaseError):
            await failing(database)
        async with database.transaction() as inner:
            await inner.execute("insert into flywheel.spans (input) values ('d')")
        return int(await database.value("select count(*) from flywheel.spans"))

    async def failing(database: Database) -> None:
        async with database.transaction() as inner:
            await inner.execute("insert into flywheel.spans (input) values ('c')")
            await inner.execute("select 1 / 0")

    assert within(dsn, work, connections=2) == 3


def test_the_schemas_name_is_in_every_statement(dsn: str) -> None:
    schema.upgrade(dsn, "acme")

    async def work(database: Database) -> str:
        await database.execute("insert into flywheel.spans (input) values ('a')")
        return str(await database.value("select tableoid::regclass::text from flywheel.spans"))

    assert within(dsn, work, "acme").startswith("acme.")


def test_a_missing_install_is_told_apart_from_other_errors(empty_dsn: str) -> None:
    async def read(database: Database) -> None:
        await database.value("select count(*) from flywheel.spans")

    with pytest.raises(SchemaMissing) as raised:
        within(empty_dsn, read)
    assert "db upgrade" in str(raised.value.hint)


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_text_postgres_cannot_store_is_an_invalid_argument(dsn: str, text: str) -> None:
    async def write(database: Database) -> None:
        await database.execute("insert into flywheel.spans (input) values (%s)", [text])

    with pytest.raises(InvalidArgument):
        within(dsn, write)


def test_a_server_that_is_not_there_is_unreachable(dsn: str) -> None:
    async def nothing(database: Database) -> None:
        raise AssertionError("connected")

    for wrong in (make_conninfo(dsn, host="127.0.0.1", port=1), make_conninfo(dsn, dbname="no_such_database")):
        with pytest.raises(Unreachable, match="no connection to the database"):
            within(wrong, nothing)


def test_a_connection_that_is_ended_is_unreachable_with_what_to_do(dsn: str) -> None:
    async def ended() -> None:
        async with open_database(dsn) as database:
            await database.execute("select pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Unreachable) as lost:
        asyncio.run(ended())
    assert "See that the server runs" in str(lost.value.hint)


def test_a_dsn_is_shown_without_its_password() -> None:
    shown = described("postgresql://ann:secret@host/app")
    assert "secret" not in shown
    assert "ann" in shown


def test_this_packages_install_is_current_and_others_are_not(dsn: str) -> None:
    within(dsn, require_current)
    for statement, kind in (
        ("update flywheel.alembic_version set version_num = '9999'", SchemaNewer),
        ("delete from flywheel.alembic_version", SchemaMissing),
    ):
        within(dsn, lambda database, statement=statement: database.execute(statement))  # type: ignore[misc]
        with pytest.raises(kind):
            within(dsn, require_current)


@pytest.mark.parametrize(("by", "kind"), [("0.0.1", SchemaBehind), ("99.0", SchemaNewer)])
def test_functions_of_another_release_are_told_by_its_version(dsn: str, by: str, kind: type[Exception]) -> None:
    async def install(database: Database) -> None:
        await database.execute(
            "update flywheel.settings set value = to_jsonb(case name when 'sql_hash' then 'other' else %s end) "
            "where name in ('sql_hash', 'installed_by')",
            [by],
        )

    within(dsn, install)
    with pytest.raises(kind):
        within(dsn, require_current)


@pytest.mark.parametrize("connections", [1, 3])
def test_a_time_python_cannot_hold_is_read_as_one_at_the_end_of_its_years(dsn: str, connections: int) -> None:
    async def work(database: Database) -> list[int]:
        times = "array['infinity', '12026-01-01', '-infinity', '0044-03-15 BC', '2026-01-01']::timestamptz[]"
        return [moment.astimezone().year for moment in await database.rows(datetime, f"select unnest({times})")]

    assert within(dsn, work, connections=connections) == [9999, 9999, 1, 1, 2026]


def test_a_read_only_database_is_named_as_one(dsn: str) -> None:
    async def work(database: Database) -> None:
        with pytest.raises(DatabaseError, match="the database is read-only") as caught:
            await database.execute("insert into flywheel.spans (input) values ('a')")
        assert "primary" in str(caught.value.hint)

    within(make_conninfo(dsn, options="-c default_transaction_read_only=on"), work)


def test_a_login_that_may_not_is_told_which_roles_may(dsn: str) -> None:
    async def work(database: Database) -> None:
        with pytest.raises(DatabaseError, match="permission denied for") as caught:
            await database.value("select count(*) from flywheel.validator_status")
        assert "flywheel_admin, of flywheel_analyst to read numbers" in str(caught.value.hint)

    within(make_conninfo(dsn, options="-c role=flywheel_writer"), work)


def test_a_host_that_vanished_is_noticed_unless_the_dsn_says_otherwise() -> None:
    limits = conninfo_to_dict(connection_string("host=db keepalives_idle=5"))
    assert (limits["keepalives_idle"], limits["keepalives_count"], limits["tcp_user_timeout"]) == ("5", "3", "60000")
