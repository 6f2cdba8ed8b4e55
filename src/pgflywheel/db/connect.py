"""One database, one install: connections, rows as records, errors as ours, the schema's name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, adapters
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format
from psycopg.rows import class_row, dict_row, scalar_row, tuple_row
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from pgflywheel import assets, errors
from pgflywheel.db import wire

Row = TypeVar("Row")
Params = Sequence[Any] | Mapping[str, Any] | None
Connection = AsyncConnection[Any]
Session = psycopg.Connection[tuple[Any, ...]]

_READ_ONLY = "25006"
_DENIED = "42501"
_MISSING_OBJECT = ("3F000", "42P01", "42883")
CONNECT_SECONDS = 10
# A server whose host vanished is noticed within a minute or so, not after the two hours most systems wait.
_LIFE_SIGNS = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}


class _ArrayDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: wire.Array) -> Buffer:
        return obj


def _json(text: str | bytes) -> Any:
    """Return a JSON value; one nested too deeply for Python stays the text it is: a strange span hides no others."""
    try:
        return json.loads(text)
    except RecursionError:
        return text if isinstance(text, str) else text.decode()


adapters.register_dumper(wire.Array, _ArrayDumper)
set_json_loads(_json)


@dataclass(frozen=True)
class Database:
    """Send SQL written for the schema ``flywheel`` to one install, and raise our errors.

    Each method borrows a connection for one statement, which commits at once; inside
    ``transaction()`` the Database it yields keeps one connection until the block ends.
    """

    schema: str
    borrow: Callable[[], AbstractAsyncContextManager[Connection]]

    async def rows(self, model: type[Row], sql: str, params: Params = None) -> list[Row]:
        """Return every row as ``model``: a dataclass by column names, dict, tuple, or a single column's type."""
        async with self._sent(model, sql, params) as cursor:
            return await cursor.fetchall()

    async def row(self, model: type[Row], sql: str, params: Params = None) -> Row | None:
        """Return the first row, or None when there is none."""
        async with self._sent(model, sql, params) as cursor:
            return await cursor.fetchone()

    async def value(self, sql: str, params: Params = None) -> Any:
        """Return the first column of the first row, or None when there is none."""
        async with self._sent(object, sql, params) as cursor:
            return await cursor.fetchone()

    async def execute(self, sql: str, params: Params = None) -> int:
        """Run a statement and return how many rows it touched."""
        async with self._sent(tuple, sql, params) as cursor:
            return cursor.rowcount

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Database]:
        """Hold one connection and one transaction (a savepoint when already inside one)."""
        with mapped_errors(self.schema):
            async with self.borrow() as connection, connection.transaction():
                yield over_connection(connection, self.schema)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Hold the bare connection, for COPY and LISTEN; render() the SQL yourself."""
        with mapped_errors(self.schema):
            async with self.borrow() as connection:
                yield connection

    def render(self, sql: str) -> str:
        """Return SQL with this install's schema name in it."""
        return _rendered(sql, self.schema)

    @asynccontextmanager
    async def _sent(self, model: type[Row], sql: str, params: Params) -> AsyncIterator[AsyncCursor[Row]]:
        with mapped_errors(self.schema):
            async with self.borrow() as connection, connection.cursor(row_factory=_factory(model)) as cursor:
                await cursor.execute(_rendered(sql, self.schema).encode(), params)
                yield cursor


@asynccontextmanager
async def open_database(
    dsn: str,
    schema: str = assets.DEFAULT_SCHEMA,
    *,
    max_connections: int = 1,
    application_name: str = "pgflywheel",
) -> AsyncIterator[Database]:
    """Open one connection, or a pool when ``max_connections`` is above one, and close it at the end."""
    conninfo = connection_string(dsn, application_name)
    with mapped_errors(schema):
        first = await AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
    async with first:
        if max_connections == 1:
            await _configured(first)
            yield over_connection(first, schema)
            return
    async with open_pool(dsn, schema, max_connections, application_name) as database:
        yield database


@asynccontextmanager
async def open_pool(dsn: str, schema: str, size: int, application_name: str) -> AsyncIterator[Database]:
    """Open so many connections at most, as they are needed, and another for one that breaks; close them at the end."""
    async with _pool(connection_string(dsn, application_name), size) as pool:
        yield Database(schema, pool.connection)


def over_connection(connection: Connection, schema: str = assets.DEFAULT_SCHEMA) -> Database:
    """Return a Database that sends everything over one open connection of the caller's."""

    @asynccontextmanager
    async def borrow() -> AsyncIterator[Connection]:
        yield connection

    return Database(schema, borrow)


def connection_string(dsn: str, application_name: str = "pgflywheel") -> str:
    """Return the DSN with UTF-8, and a name and limits on connecting and on silence where it says nothing of them."""
    try:
        given: dict[str, Any] = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise errors.UsageError(
            "the DSN cannot be read", str(error).strip(), "Write postgresql://user@host/database or host=… dbname=…."
        ) from error
    defaults: dict[str, Any] = {"application_name": application_name, "connect_timeout": CONNECT_SECONDS, **_LIFE_SIGNS}
    return make_conninfo(**{**defaults, **given, "client_encoding": "UTF8"})


def described(dsn: str) -> str:
    """Return where a DSN leads, without its password."""
    given: dict[str, Any] = conninfo_to_dict(dsn)
    given.pop("password", None)
    return make_conninfo(**given) or "the PG* environment variables"


@contextmanager
def mapped_errors(schema: str = assets.DEFAULT_SCHEMA) -> Iterator[None]:
    """Turn what psycopg raises into this package's errors, keeping the cause."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error, schema) from error
    except UnicodeEncodeError as error:
        raise errors.InvalidArgument(
            "text cannot be stored", f"{error.reason} at character {error.start}.", "Replace lone surrogates first."
        ) from error


def translated(error: psycopg.Error, schema: str) -> errors.FlywheelError:
    """Return this package's error for one of psycopg's."""
    text = (error.diag.message_primary or str(error)).strip()
    if error.sqlstate is None:
        return _without_sqlstate(error, text)
    if error.sqlstate in _MISSING_OBJECT and _names(text, schema):
        return errors.SchemaMissing(
            f'schema "{schema}" is not installed here, or older than this package',
            text,
            f"Run `pgflywheel db upgrade --schema {schema}`.",
        )
    if error.sqlstate == _READ_ONLY:
        return errors.DatabaseError(
            "the database is read-only", text, "Connect to the primary server; see default_transaction_read_only."
        )
    kind = errors.kind_of(error.sqlstate)
    hint = error.diag.message_hint or (_REACH_HINT if kind is errors.Unreachable else None)
    if hint is None and error.sqlstate == _DENIED and not text.startswith("permission denied for database"):
        hint = f"Log in as a member of {schema}_admin, of {schema}_analyst to read numbers, or as the install's owner."
    return kind(text, error.diag.message_detail, hint)


def _without_sqlstate(error: psycopg.Error, text: str) -> errors.FlywheelError:
    if isinstance(error, psycopg.DataError):
        return errors.InvalidArgument(text)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        first, _, rest = text.partition("\n")
        return errors.Unreachable(f"no connection to the database: {first}", rest or None, _REACH_HINT)
    return errors.DatabaseError(text)


_REACH_HINT = "See that the server runs, and that host, port, user, password and database are right."


def _names(text: str, schema: str) -> bool:
    return any(mark in text for mark in (f"{schema}.", f'"{schema}"', f'"{schema}_bi"', f"{schema}_bi."))


class _AnyTime(TimestamptzLoader):
    """Read a time outside of Python's years as one at their end: a strange span must not hide the others."""

    def load(self, data: Buffer) -> datetime:
        try:
            return super().load(data)
        except psycopg.DataError:
            text = bytes(data)
            return datetime(1, 1, 2, tzinfo=UTC) if text[:1] == b"-" or text[-2:] == b"BC" else _LAST_DAY


_LAST_DAY = datetime(9999, 12, 30, tzinfo=UTC)  # with a day to spare for any time zone


async def _configured(connection: Connection) -> None:
    connection.adapters.register_loader("timestamptz", _AnyTime)


@asynccontextmanager
async def _pool(conninfo: str, size: int) -> AsyncIterator[AsyncConnectionPool[Connection]]:
    pool = AsyncConnectionPool(
        conninfo,
        min_size=1,
        max_size=size,
        open=False,
        configure=_configured,
        kwargs={"autocommit": True, "prepare_threshold": None},
    )
    async with pool:
        yield pool


_rendered = lru_cache(maxsize=512)(assets.render)


def _factory(model: type[Any]) -> Any:
    if is_dataclass(model):
        return class_row(model)
    if issubclass(model, dict):
        return dict_row
    return tuple_row if issubclass(model, tuple) else scalar_row


def columns_of(model: type[Any]) -> str:
    """Return the columns a dataclass is read from, for a select list."""
    return ", ".join(f'"{name}"' for name in model.__dataclass_fields__)
