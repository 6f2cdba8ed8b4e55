"""An application's load: threads that insert and update spans in every way, and remember what was acknowledged."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from uuid import UUID, uuid4

import psycopg

from tests.sql.support import Connection

COLUMNS = "(span_id, trace_id, input, output)"
Row = tuple[UUID, UUID, str, str]


def some_rows(chance: random.Random, count: int) -> list[Row]:
    """Make spans of different lengths."""
    return [(uuid4(), uuid4(), "a question", "an answer " * chance.randrange(1, 20)) for _ in range(count)]


def insert_one(connection: Connection, chance: random.Random) -> list[UUID]:
    """A single row, as most applications write."""
    made = some_rows(chance, 1)
    connection.execute(f"insert into flywheel.spans {COLUMNS} values (%s, %s, %s, %s)".encode(), made[0])
    return [row[0] for row in made]


def insert_several(connection: Connection, chance: random.Random) -> list[UUID]:
    """Several statements in one transaction."""
    made = some_rows(chance, chance.randrange(2, 10))
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(f"insert into flywheel.spans {COLUMNS} values (%s, %s, %s, %s)".encode(), made)
    return [row[0] for row in made]


def copy(connection: Connection, chance: random.Random) -> list[UUID]:
    """A COPY of some hundred rows."""
    return copy_rows(connection, some_rows(chance, chance.randrange(50, 200)))


def copy_rows(connection: Connection, made: list[Row]) -> list[UUID]:
    """COPY these rows."""
    with connection.cursor() as cursor, cursor.copy(f"copy flywheel.spans {COLUMNS} from stdin".encode()) as into:
        for row in made:
            into.write_row(row)
    return [row[0] for row in made]


Act = Callable[[Connection, random.Random], list[UUID]]
ACTS: list[Act] = [insert_one, insert_one, insert_one, insert_several, copy]


@dataclass
class Writers:
    """Write from several threads until left; connect again when the server went away."""

    dsn: str
    threads: int = 1
    pause_seconds: float = 0.1
    acts: list[Act] = field(default_factory=lambda: ACTS)
    acknowledged: list[UUID] = field(default_factory=list)
    errors: list[psycopg.Error] = field(default_factory=list)
    broken: list[psycopg.Error] = field(default_factory=list)
    revised: int = 0
    _running: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Writers:
        self._running = [threading.Thread(target=self._write, args=(seed,)) for seed in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()

    def _write(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.is_set():
            try:
                with psycopg.connect(self.dsn, autocommit=True, connect_timeout=5) as connection:
                    self._write_through(connection, chance)
            except psycopg.OperationalError as error:
                (self.errors if isinstance(error, psycopg.errors.DeadlockDetected) else self.broken).append(error)
                time.sleep(0.1)
            except psycopg.Error as error:
                self.errors.append(error)

    def _write_through(self, connection: Connection, chance: random.Random) -> None:
        while not self._stop.is_set():
            made = chance.choice(self.acts)(connection, chance)
            self.acknowledged += made
            if chance.random() < 0.2:
                self._revise(connection, made)
            time.sleep(chance.uniform(0, 2 * self.pause_seconds))

    def _revise(self, connection: Connection, made: list[UUID]) -> None:
        connection.execute("update flywheel.spans set output = output || '!' where span_id = any (%s)", [made])
        self.revised += 1
