"""The judge lane: coroutine checks, one call a span, many calls at once.

claimed ──read──> waiting ──a hand is free──> called ──answer──> buffered ──some ms──> written, ended
                                                 ├─ Later, a lost connection, a time limit ──> put off
                                                 └─ any other error ──> buffered as unscored
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from pgflywheel.db import queue, wire
from pgflywheel.db.queue import Call, Version
from pgflywheel.errors import FlywheelError, Later
from pgflywheel.records import Claimed
from pgflywheel.worker.batch import Batch, Runner, alike
from pgflywheel.worker.buffer import Buffer, Done
from pgflywheel.worker.callables import Check, MissingCallable, load, span
from pgflywheel.worker.faults import Fault, blame, fault_of
from pgflywheel.worker.site import Site
from pgflywheel.worker.verdicts import Answer, failed, judged, unscored

log = logging.getLogger(__name__)
FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 1.0, 300.0
MOST_BUFFERED = 1000


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that waits for a free hand."""

    worker_id: UUID
    job: Claimed
    version: Version
    call: Call


class Judge:
    """Make calls."""

    longest_pace_seconds = 0.005  # a call waits for nothing

    def __init__(self, site: Site, wake: Callable[[], None], buffer: Buffer) -> None:
        self.site = site
        self.wake = wake
        self.buffer = buffer
        self.runner = Runner(site)
        self.waiting: deque[Ask] = deque()
        self.reading = 0
        self.calling = 0
        self.callables: dict[UUID, Callable[..., Awaitable[Any]]] = {}

    @property
    def hands(self) -> int:
        return self.site.options.concurrency

    def room(self) -> int:
        """Return how many calls to claim: the free hands, and half as many to have at hand when one comes free."""
        ahead = max(1, self.hands // 2)
        free = self.hands + ahead - self.calling - len(self.waiting) - self.reading
        return free if free > ahead // 2 and len(self.buffer) < MOST_BUFFERED else 0

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
        versions = await self.site.versions.of(batch.version_ids)
        version = versions[0] if versions else None
        if version is None or version.status == "paused":
            await queue.hold(self.site.database, batch.worker_id, batch.fences)
            self.site.put_down(batch.fences)
            return
        columns = self.site.versions.check(version).columns
        try:
            calls = await queue.read_calls(self.site.database, batch.fences, version.version_id, columns)
        except FlywheelError as error:
            await self._isolate(batch, version, error)
            return
        by_fence = {call.fence: call for call in calls}
        for job in batch.jobs:
            if call := by_fence.get(job.fence):
                self.waiting.append(Ask(batch.worker_id, job, version, call))
            else:  # the version no longer means this span, or it was purged
                self.buffer.add(Done(batch.worker_id, job.fence))

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
        """Give waiting calls to free hands."""
        while self.waiting and self.calling < self.hands and not self.site.stopping.is_set():
            self.calling += 1
            group.create_task(self._call(self.waiting.popleft(), group))

    async def _call(self, ask: Ask, group: asyncio.TaskGroup) -> None:
        try:
            await self._answer(ask)
        except FlywheelError as error:
            self._drop([ask.job], error)
        except Exception:
            log.exception("a call failed in the worker itself")
            self._drop([ask.job], None)
        finally:
            self.calling -= 1
            self._fill(group)
            self.wake()

    async def _answer(self, ask: Ask) -> None:
        """Make the call; buffer its answer or put it off."""
        check = self.site.versions.check(ask.version)
        try:
            async with asyncio.timeout(check.time_limit_ms / 1000) as limit:
                said = await self._callable(ask.version, check)(_argument(check, ask.call))
            answer = judged(said)
        except Later as later:
            await self._put_off(ask, later.delay_seconds, Fault("later", later.reason), costs=False)
            return
        except OSError as error:  # TimeoutError and ConnectionError are
            over = unscored("timed_out", f"the call took longer than {check.time_limit_ms:g} ms")
            fault = _fault(over if limit.expired() else failed(error))
            await self._put_off(ask, delay_seconds(ask.job.attempt), fault)
            return
        except MissingCallable as error:
            answer = unscored("missing_callable", str(error))
        except Exception as error:  # whatever a check raises is its answer
            answer = failed(error)
        if answer.reason not in (None, "no_verdict"):
            await self._blame(ask, _fault(answer))
        self.buffer.add(Done(ask.worker_id, ask.job.fence, ask.version.version_id, ask.call.key, answer))

    async def _put_off(self, ask: Ask, seconds: float, fault: Fault, *, costs: bool = True) -> None:
        await queue.retry(
            self.site.database, ask.worker_id, [ask.job.fence], seconds, fault.reason, fault.detail, costs=costs
        )
        self.site.metrics.jobs.labels("judge", "retried").inc()
        log.info(
            "a call is put off",
            extra={
                "validator": ask.version.validator,
                "span": str(wire.first_span_id(ask.call.key)),
                "job": str(ask.job.job_id),
                "seconds": round(seconds, 3),
                "reason": fault.reason,
                "detail": fault.detail,
            },
        )
        self.site.put_down([ask.job.fence])

    async def _blame(self, ask: Ask, fault: Fault) -> None:
        span_id = wire.first_span_id(ask.call.key)
        await blame(self.site, ask.version, fault, spans=1, span=span_id, job=ask.job.job_id)

    def _callable(self, version: Version, check: Check) -> Callable[[Any], Awaitable[Any]]:
        """Return the version's coroutine function with its parameters."""
        if version.version_id not in self.callables:
            found = load(check.path)
            if not inspect.iscoroutinefunction(found) and not inspect.iscoroutinefunction(type(found).__call__):
                raise MissingCallable(f"{check.path} is not a coroutine function, as the judge lane needs")
            self.callables[version.version_id] = partial(found, **check.parameters)
        return self.callables[version.version_id]

    def _drop(self, jobs: list[Claimed], error: FlywheelError | None) -> None:
        """Leave jobs to be claimed again."""
        self.site.doubt("call", error)
        self.site.put_down([job.fence for job in jobs if job.fence not in self.buffer.fences])


def delay_seconds(attempt: int) -> float:
    """Return the wait before the next attempt: doubling, with jitter so that calls do not come back together."""
    return min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


def _argument(check: Check, call: Call) -> Any:
    return call.texts[0] if check.takes_text else span(wire.first_span_id(call.key), check.columns, call.texts)


def _fault(answer: Answer) -> Fault:
    return Fault(answer.reason or "raised", answer.detail or "")
