"""What the judge lane has to write, gathered for some milliseconds and written many at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from pgflywheel.db import queue, wire
from pgflywheel.db.connect import Database
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.faults import fault_of
from pgflywheel.worker.site import Site
from pgflywheel.worker.verdicts import Answer, Answers, columns, unscored

log = logging.getLogger(__name__)
GATHER_SECONDS = 0.005
MOST_TOGETHER = 500
AGAIN_SECONDS = 2.0
UNWRITABLE = "its answer cannot be stored: "


class Entry(Protocol):
    """What can be buffered: the claim it ends, if any, and whose that is."""

    @property
    def worker_id(self) -> UUID: ...

    @property
    def fence(self) -> UUID | None: ...


Item = TypeVar("Item", bound=Entry)


@dataclass
class Buffer(ABC, Generic[Item]):
    """Write what is added, until closed and empty."""

    site: Site
    items: list[Item] = field(default_factory=list)
    writing: list[Item] = field(default_factory=list)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    def __len__(self) -> int:
        return len(self.items) + len(self.writing)

    @property
    def fences(self) -> set[UUID]:
        """Return the claims that what is here ends."""
        return {item.fence for item in (*self.items, *self.writing) if item.fence}

    def add(self, item: Item) -> None:
        """Take something to write."""
        self.items.append(item)
        self.filled.set()

    def close(self) -> None:
        """Let run() end once everything is written."""
        self.closed = True
        self.filled.set()

    async def run(self) -> None:
        """Write until closed."""
        while self.items or not self.closed:
            await self.filled.wait()
            if not self.closed:
                await asyncio.sleep(GATHER_SECONDS)
            self.filled.clear()
            while self.items:
                self.writing, self.items = self.items[:MOST_TOGETHER], self.items[MOST_TOGETHER:]
                await self._write_surely(self.writing)
                self.writing = []

    async def _write_surely(self, items: list[Item]) -> None:
        """Write what was paid for, of each worker by itself: what was written is not written again."""
        for worker_id in {item.worker_id for item in items}:
            await self._write_of(worker_id, [item for item in items if item.worker_id == worker_id])

    async def _write_of(self, worker_id: UUID, items: list[Item]) -> None:
        """Wait for a database that is away; the fences say if it was too long."""
        while True:
            try:
                await self.write(worker_id, items)
                break
            except FlywheelError as error:
                if fault_of(error) is None:
                    log.warning("answers cannot be written yet", extra={"answers": len(items), "error": error.message})
                    await asyncio.sleep(AGAIN_SECONDS * random.uniform(0.5, 1))
                elif len(items) > 1:
                    for item in items:
                        await self._write_of(worker_id, [item])
                    break
                else:
                    await self._write_without(items[0], error)
                    break
        self.site.put_down([item.fence for item in items if item.fence])

    async def _write_without(self, item: Item, error: FlywheelError) -> None:
        """Write why an answer cannot be stored; put its claim off when not even that can be."""
        if instead := self.instead(item, f"{UNWRITABLE}{error.message}"):
            await self._write_surely([instead])
        elif item.fence:
            await self._put_off(item.worker_id, item.fence, error)

    async def _put_off(self, worker_id: UUID, fence: UUID, why: FlywheelError) -> None:
        """Let a claim end later; one that cannot even be put off comes back as a stray."""
        try:
            await queue.retry(self.site.database, worker_id, [fence], AGAIN_SECONDS, "raised", why.message)
        except FlywheelError as error:
            self.site.doubt("answers", error)

    @abstractmethod
    async def write(self, worker_id: UUID, items: list[Item]) -> None:
        """Write everything that a worker claimed, or nothing of it."""

    @abstractmethod
    def instead(self, item: Item, why: str) -> Item | None:
        """Return what is written for an answer that cannot be; None when it was that already."""

    def count(self, written: int, void: int, scores: int) -> None:
        """Count what was written."""
        metrics = self.site.metrics
        metrics.jobs.labels("judge", "completed").inc(written)
        metrics.spans.labels("judge").inc(written)
        metrics.scores.labels("judge").inc(scores)
        if void:
            metrics.void.labels("judge").inc(void)
            log.warning("the lease was lost; answers were not written", extra={"answers": void})


@dataclass(frozen=True, slots=True)
class Done:
    """The end of one call; without a version its span has no score to get."""

    worker_id: UUID
    fence: UUID
    version_id: UUID | None = None
    key: wire.Array | None = None
    answer: Answer | None = None


class AnswerBuffer(Buffer[Done]):
    """Answers of checks, and the ends of claims that get none."""

    async def write(self, worker_id: UUID, items: list[Done]) -> None:
        """Write answers and end their claims, in one transaction."""
        began = datetime.now(UTC)
        async with self.site.database.transaction() as db:
            await queue.limit_transaction(db, self.site.options.batch_seconds)
            held = set(await queue.lock_fences(db, worker_id, [done.fence for done in items]))
            ours = [done for done in items if done.fence in held]
            scores = 0
            for version_id in {done.version_id for done in ours if done.version_id}:
                scores += await write_answers(db, version_id, [done for done in ours if done.version_id == version_id])
            if ours:
                await queue.finish(db, worker_id, list(held))
                await queue.log_run(
                    db,
                    worker_id,
                    "judge",
                    jobs=len(ours),
                    spans=len(ours),
                    scores=scores,
                    started_at=began,
                    outcome="completed",
                )
        self.count(len(ours), len(items) - len(ours), scores)

    def instead(self, item: Done, why: str) -> Done | None:
        """Return the reason in place of an answer."""
        if item.answer and item.answer.detail and item.answer.detail.startswith(UNWRITABLE):
            return None
        return replace(item, answer=unscored("raised", why))


async def write_answers(db: Database, version_id: UUID, items: Iterable[Done]) -> int:
    """Write the answers of one version; return how many scores were new."""
    given = [(done.key, done.answer) for done in items if done.key and done.answer]
    keys = wire.merged([key for key, _ in given])
    return await queue.write_scores(db, version_id, keys, columns([Answers.of([answer for _, answer in given])]))
