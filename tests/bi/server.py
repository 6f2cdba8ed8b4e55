"""A server of one's own with a filled install and an analyst's login, for tools that are tried by hand."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from pgflywheel.db import embedded, schema
from tests.bi import shop

LOGIN, PASSWORD = "bi_analyst", "a word that is shown to nobody"
POSTGRES_VERSION = int(os.environ.get("PGFLYWHEEL_TEST_POSTGRES", "18"))


@dataclass(frozen=True, slots=True)
class FilledServer:
    """Where it is, and who may read it."""

    dsn: str
    port: int

    def variables(self) -> dict[str, str]:
        """Return the environment that docker/superset and docker/grafana read."""
        given = {"address": f"127.0.0.1:{self.port}", "database": "shop", "user": LOGIN, "password": PASSWORD}
        return {f"PGFLYWHEEL_BI_{name.upper()}": value for name, value in given.items()} | {
            "PGFLYWHEEL_BI_SSLMODE": "disable"
        }


@contextmanager
def filled_server() -> Iterator[FilledServer]:
    """Start it in a folder of its own; stop it and leave nothing."""
    folder = Path(tempfile.mkdtemp(prefix="pgflywheel-bi-"))
    folder.chmod(0o755)
    try:
        dsn = embedded.start(folder / "data", POSTGRES_VERSION, {"fsync": "off", "timezone": "UTC"})
        with _port_of(next((folder / "data").glob(".s.PGSQL.*[0-9]"))) as port:
            yield FilledServer(_fill(dsn), port)
    finally:
        embedded.stop(folder / "data", POSTGRES_VERSION)
        shutil.rmtree(folder)


@contextmanager
def _port_of(socket_file: Path) -> Iterator[int]:
    """Serve a local port whose bytes go to the server's socket: the embedded one listens on nothing else."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(partial(_carry, socket_file), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


async def _carry(socket_file: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from_server, to_server = await asyncio.open_unix_connection(socket_file)
    await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()


def _fill(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("create database shop")
    inside = make_conninfo(dsn, dbname="shop")
    schema.upgrade(inside)
    with psycopg.connect(inside, autocommit=True) as session:
        shop.fill(session)
        session.execute(f"create role {LOGIN} login password '{PASSWORD}'".encode())
        session.execute("select flywheel.make_analyst(%s)", [LOGIN])
    return inside
