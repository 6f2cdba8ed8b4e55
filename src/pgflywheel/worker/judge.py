"""The judge lane: one span at a time, many at once, by the kind of its version.

claimed ──read──> waiting ──a hand is free──> asked ──answer──> buffered ──some ms──> written, ended
                                                └─ Later, a lost connection, a time limit ──> put off
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from pgflywheel.db import queue
from pgflywheel.db.queue import Version
from pgflywheel.errors import FlywheelError
from pgflywheel.records import Claimed
from pgflywheel.worker.asks import Ask, Kind
from pgflywheel.worker.batch import Batch, Runner, alike
from pgflywheel.worker.buffer import AnswerBuffer, Buffer, Done
from pgflywheel.worker.faults import fault_of, hopeless
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
MOST_BUFFERED = 1000


class Judge:
    """Serve the judge lane."""

    longest_pace_seconds = 0.005  # a call waits for nothing

    def __init__(
        self,
        site: Site,
        wake: Callable[[], None],
        kinds: Mapping[str, Kind],
        ended: AnswerBuffer,
        buffers: Sequence[Buffer[Any]],
    ) -> None:
        self.site = site
        self.wake = wake
        self.kinds = kinds
        self.ended = ended
        self.buffers = buffers
        self.runner = Runner(site)
        self.waiting: deque[Ask] = deque()
        self.waiting_calls = 0
        self.reading = 0
        self.calling = 0

    @property
    def hands(self) -> int:
        return self.site.options.concurrency

    def room(self) -> int:
        """Return how many calls to claim: the free hands, and half as many to have at hand when one comes free."""
        ahead = max(1, self.hands // 2)
        free = self.hands + ahead - self.calling - self.waiting_calls - self.reading
        return free if free > ahead // 2 and sum(map(len, self.buffers)) < MOST_BUFFERED else 0

    async def claim(self, priority: int, worker_id: UUID, max_jobs: int, after: UUID | None) -> list[Claimed]:
        """Claim spans one by one."""
        return await queue.claim_calls(self.site.database, priority, worker_id, max_jobs, after)

    def start(self, worker_id: UUID, jobs: list[Claimed], group: asyncio.TaskGroup) -> None:
        """Read the spans of claimed calls, then make the calls."""
        self.reading += len(jobs)
        group.create_task(self._take(worker_id, jobs, group))

    async def _take(self, worker_id: UUID, jobs: list[Claimed], group: asyncio.TaskGroup) -> None:
        for alikes in alike(jobs):
            try:
                await self._read(Batch(worker_id, alikes))
            except FlywheelError as error:
                self._drop(alikes, error)
            except Exception:
                log.exception("reading spans failed in the worker itself")
                self._drop(alikes, None)
            finally:
                self.reading -= len(alikes)
                self._fill(group)
                self.wake()

    async def _read(self, batch: Batch) -> None:
        if await self._held(batch):
            return
        (version,) = await self.site.versions.of(batch.version_ids)
        try:
            asks = await self.kinds[version.kind].read(batch, version)
        except FlywheelError as error:
            await self._isolate(batch, version, error)
            return
        self.waiting.extend(asks)
        self.waiting_calls += sum(ask.calls for ask in asks)
        asked = {ask.job.fence for ask in asks}
        for job in batch.jobs:
            if (
                job.fence not in asked and job.fence in self.site.in_hand
            ):  # no longer meant, judged meanwhile, or purged
                self.ended.add(Done(batch.worker_id, job.fence))

    async def _held(self, batch: Batch) -> bool:
        """Hold claims of a version that is paused or gone, and tell whether they were."""
        versions = await self.site.versions.of(batch.version_ids)
        if versions and versions[0].status != "paused":
            return False
        await queue.hold(self.site.database, batch.worker_id, batch.fences)
        self.site.put_down(batch.fences)
        return True

    async def _isolate(self, batch: Batch, version: Version, error: FlywheelError) -> None:
        """Read one by one what could not be read together: a ``where`` raises on one of them."""
        fault = fault_of(error)
        if fault is None:
            raise error
        if len(batch.jobs) > 1:
            for job in batch.jobs:
                await self._read(batch.only([job]))
            return
        await self.runner.mark(batch, version, fault)
        self.site.put_down(batch.fences)

    def _fill(self, group: asyncio.TaskGroup) -> None:
        """Give waiting spans to free hands."""
        while self.waiting and self._free(self.waiting[0]) and not self.site.stopping.is_set():
            ask = self.waiting.popleft()
            self.waiting_calls -= ask.calls
            self.calling += ask.calls
            group.create_task(self._answer(ask, group))

    def _free(self, ask: Ask) -> bool:
        return self.calling < self.hands + self.kinds[ask.version.kind].ahead

    async def _answer(self, ask: Ask, group: asyncio.TaskGroup) -> None:
        try:
            if not await self._held(Batch(ask.worker_id, [ask.job])):  # paused while it waited
                await self._ask(ask)
        except FlywheelError as error:
            self._drop([ask.job], error)
        except Exception:
            log.exception("a call failed in the worker itself")
            self._drop([ask.job], None)
        finally:
            self.calling -= ask.calls
            self._fill(group)
            self.wake()

    async def _ask(self, ask: Ask) -> None:
        """Judge a span; what the database refuses of it is why it has no score."""
        try:
            await self.kinds[ask.version.kind].answer(ask)
        except FlywheelError as error:
            fault = fault_of(error)
            if fault is None or hopeless(error):
                raise
            await self.runner.mark(Batch(ask.worker_id, [ask.job]), ask.version, fault)
            self.site.put_down([ask.job.fence])

    def _drop(self, jobs: list[Claimed], error: FlywheelError | None) -> None:
        """Leave jobs to be claimed again."""
        self.site.doubt("call", error)
        buffered = set[UUID]().union(*(buffer.fences for buffer in self.buffers))
        self.site.put_down([job.fence for job in jobs if job.fence not in buffered])
