"""Every SQLSTATE of the database becomes one class, with its detail, its hint and its exit code."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from pgflywheel import errors
from pgflywheel.db.connect import mapped_errors, open_database

CODES = [f"WF{number:03}" for number in range(1, 15)]


def test_every_code_has_a_class_of_its_own() -> None:
    assert sorted(errors.BY_SQLSTATE) == CODES
    assert len(set(errors.BY_SQLSTATE.values())) == len(CODES)


@pytest.mark.parametrize("code", CODES)
def test_an_error_of_the_database_keeps_message_detail_hint_and_cause(
    code: str, connection: psycopg.Connection
) -> None:
    statement = f"do $$ begin raise exception using errcode = '{code}', message = 'm', detail = 'd', hint = 'h'; end $$"
    with pytest.raises(errors.BY_SQLSTATE[code]) as raised, mapped_errors():
        connection.execute(statement.encode())
    error = raised.value
    assert (error.message, error.detail, error.hint) == ("m", "d", "h")
    assert isinstance(error.__cause__, psycopg.Error)


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.Blocked, 1),
        (errors.CheckFailed, 1),
        (errors.UsageError, 2),
        (errors.Unreachable, 3),
        (errors.SchemaMissing, 4),
        (errors.SchemaBehind, 4),
        (errors.SchemaNewer, 4),
        (errors.ExtensionMissing, 4),
    ],
)
def test_exit_codes_follow_the_kind_of_error(kind: type[errors.FlywheelError], exit_code: int) -> None:
    assert kind.exit_code == exit_code


def test_any_other_error_of_the_database_is_a_database_error(dsn: str) -> None:
    async def divide() -> None:
        async with open_database(dsn) as database:
            await database.value("select 1 / 0")

    with pytest.raises(errors.DatabaseError, match="division by zero"):
        asyncio.run(divide())
