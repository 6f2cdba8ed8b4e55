"""The doorbell: a connection that hears NOTIFY, and tells writers whether anybody is idle.

An idle worker holds advisory lock 1 on this connection; writers send a notification only while somebody holds
it. A notification is a hint and the poll is the truth: a lost hint costs at most one poll.

         idle and listening               a lane found work
    free ------------------> registered ---------------------> free
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection, Notify

from pgflywheel.db import queue
from pgflywheel.db.connect import Connection, Database, connection_string
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.refusals import backoff_seconds

log = logging.getLogger(__name__)
PROBE_SECONDS = 1.0
PROBE_AGAIN_SECONDS = 300.0
RETRY_SECONDS, FIRST_RETRY_SECONDS = 1.0, 0.005
NUDGE_SECONDS = 0.05
_LOCK = "(select 'flywheel'::regnamespace::oid::integer), 1"
BUSY, IDLE, FULL = "busy", "idle", "full"


@dataclass
class Doorbell:
    """Wake the lanes when work arrives, as long as LISTEN works; without it they poll."""

    dsn: str
    database: Database
    lanes: Mapping[str, asyncio.Event]
    states: dict[str, str] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    listening: bool = False
    pooled: bool = False
    registered: bool = False
    refusals: int = 0
    nudged_at: float = 0.0

    def report(self, lane: str, state: str) -> None:
        """Note that a lane is busy, idle (it found nothing) or full (it wants nothing)."""
        if self.states.get(lane) != state:
            self.states[lane] = state
            self.changed.set()

    def nudge(self, lane: str) -> None:
        """Let idle lanes look as well, now and then, while a busy one keeps writers from ringing."""
        if monotonic() - self.nudged_at > NUDGE_SECONDS:
            self.nudged_at = monotonic()
            for name, event in self.lanes.items():
                if name != lane and self.states.get(name) == IDLE:
                    event.set()

    def ring(self) -> None:
        """Wake every lane."""
        for event in self.lanes.values():
            event.set()

    async def run(self) -> None:
        """Listen until cancelled; connect again when the connection breaks, and later when LISTEN does not work."""
        failures = 0
        while True:
            try:
                async with self._connected() as connection:
                    failures = 0
                    await self._attend(connection)
                await asyncio.sleep(PROBE_AGAIN_SECONDS)
            except (psycopg.Error, FlywheelError, OSError) as error:
                failures += 1
                log.warning("the listening connection broke; polling meanwhile", extra={"error": str(error).strip()})
                await asyncio.sleep(backoff_seconds(failures))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        connection = await AsyncConnection.connect(
            connection_string(self.dsn, "pgflywheel listen"), autocommit=True, prepare_threshold=None
        )
        async with connection:
            heard = asyncio.Event()
            token = uuid4().hex
            connection.add_notify_handler(lambda notice: self._hear(notice, token, heard))
            await connection.execute(self.database.render("listen flywheel_wake").encode())
            with _watching(connection, self.changed):
                await self._probe(token, heard)
            try:
                if connection.closed:
                    raise psycopg.OperationalError("the connection closed while it was tried")
                if self.listening:
                    yield connection
                else:
                    yield await self._give_up(connection)
            finally:
                self.listening = self.registered = False

    def _hear(self, notice: Notify, token: str, heard: asyncio.Event) -> None:
        if notice.payload == token:
            heard.set()
        elif not notice.payload:
            self.ring()

    async def _probe(self, token: str, heard: asyncio.Event) -> None:
        """Notify ourselves over another connection: a transaction pooler swallows it without a word."""
        await queue.notify(self.database, token)
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_SECONDS):
                await heard.wait()
        self.listening, self.pooled = heard.is_set(), not heard.is_set()

    async def _give_up(self, connection: Connection) -> Connection:
        log.warning("LISTEN does not reach this worker, as behind a transaction pooler: it polls")
        with suppress(psycopg.Error):
            await connection.execute("unlisten *")
        return connection

    async def _attend(self, connection: Connection) -> None:
        """Keep the lock as the lanes' states want it, and hear notifications in between."""
        while not self.pooled:
            self.changed.clear()
            if self.wanted != self.registered:
                await self._register(connection, self.wanted)
            if connection.closed:
                raise psycopg.OperationalError("the connection is closed")
            with _watching(connection, self.changed), suppress(TimeoutError):
                retry = self._retry_seconds if self.wanted != self.registered else None
                async with asyncio.timeout(retry):
                    await self.changed.wait()

    @property
    def wanted(self) -> bool:
        """Tell whether writers should ring: somebody is idle, and nobody busy who will look anyway."""
        states = self.states.values()
        return IDLE in states and BUSY not in states

    @property
    def _retry_seconds(self) -> float:
        """Return when to ask for the lock again: at once if a writer just looked, later if another worker has it."""
        return min(RETRY_SECONDS, FIRST_RETRY_SECONDS * 4.0 ** min(self.refusals, 9))

    async def _register(self, connection: Connection, wanted: bool) -> None:
        function = "pg_try_advisory_lock" if wanted else "pg_advisory_unlock"
        cursor = await connection.execute(self.database.render(f"select {function}({_LOCK})").encode())
        row = await cursor.fetchone()
        self.refusals += 1
        if not wanted:
            self.registered, self.refusals = False, 0
        elif row and row[0]:
            self.registered, self.refusals = True, 0
            self.ring()  # look once more: a writer may have committed before the lock was there


class _watching:
    """Read notifications as they arrive, while no statement runs on the connection."""

    def __init__(self, connection: Connection, changed: asyncio.Event) -> None:
        self.connection = connection
        self.changed = changed
        self.loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        self.file: int | None = self.connection.pgconn.socket
        self.loop.add_reader(self.file, self._read)
        self._read()  # what a statement left in the buffer

    def __exit__(self, *_: object) -> None:
        self._look_away()

    def _look_away(self) -> None:
        """Stop reading, once: after that the number may be that of another connection's socket."""
        if self.file is not None:
            self.loop.remove_reader(self.file)
            self.file = None

    def _read(self) -> None:
        pgconn = self.connection.pgconn
        try:
            pgconn.consume_input()
            while notice := pgconn.notifies():
                if pgconn.notify_handler:
                    pgconn.notify_handler(notice)
        except psycopg.Error:
            self._look_away()
            self.connection.pgconn.finish()
            self.changed.set()
