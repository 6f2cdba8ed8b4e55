"""Coroutine checks of the judge lane: an operator's own function calls whatever it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import isfinite
from typing import Any
from uuid import UUID

from pgflywheel.db import queue, wire
from pgflywheel.db.queue import Call, Version
from pgflywheel.errors import Later
from pgflywheel.worker.asks import Ask, put_off
from pgflywheel.worker.batch import Batch
from pgflywheel.worker.buffer import AnswerBuffer, Done
from pgflywheel.worker.callables import Check, MissingCallable, load_coroutine, span
from pgflywheel.worker.faults import blame
from pgflywheel.worker.refusals import Fault, delay_seconds
from pgflywheel.worker.site import Site
from pgflywheel.worker.verdicts import Answer, TimedOut, failed, judged, unscored

STOP_SECONDS = 1.0  # for a call that is to end
MOST_LATER_SECONDS = 86_400.0


class CallableCalls:
    """Call coroutine functions."""

    ahead = 0  # a call needs its hand at once

    def __init__(self, site: Site, hands: asyncio.Semaphore, buffer: AnswerBuffer) -> None:
        self.site = site
        self.hands = hands
        self.buffer = buffer
        self.callables: dict[UUID, Callable[..., Awaitable[Any]]] = {}

    async def read(self, batch: Batch, version: Version) -> list[Ask]:
        """Read the declared columns of claimed spans."""
        check = self.site.versions.check(version)
        calls = await queue.read_calls(self.site.database, batch.fences, version.version_id, check.columns)
        jobs = {job.fence: job for job in batch.jobs}
        return [
            Ask(batch.worker_id, jobs[call.fence], version, wire.first_span_id(call.key), subject=call)
            for call in calls
        ]

    async def answer(self, ask: Ask) -> None:
        """Make the call; buffer its answer or put it off."""
        async with self.hands:
            answer = await self._ask(ask)
        if answer is None:
            return
        if answer.reason not in (None, "no_verdict"):
            await blame(self.site, ask.version, _fault(answer), spans=1, span=ask.span_id, job=ask.job.job_id)
        self.buffer.add(Done(ask.worker_id, ask.job.fence, ask.version.version_id, ask.subject.key, answer))

    async def _ask(self, ask: Ask) -> Answer | None:
        """Return what the function says; None when the span was put off."""
        check = self.site.versions.check(ask.version)

        async def call() -> Any:
            return await self._callable(ask.version, check)(_argument(check, ask.subject))

        said = await asked(check, call)
        if isinstance(said, Later) and (seconds := _seconds(said)) is not None:
            reason = unscored("later", f"{said.reason}").detail or ""
            await put_off(self.site, ask, seconds, Fault("later", reason), costs=False)
        elif isinstance(said, OSError | TimedOut):  # TimeoutError and ConnectionError are OSErrors
            await put_off(self.site, ask, delay_seconds(ask.job.attempt), _fault(failed(said)))
        else:
            return answer_of(said)
        return None

    def _callable(self, version: Version, check: Check) -> Callable[[Any], Awaitable[Any]]:
        """Return the version's coroutine function with its parameters."""
        if version.version_id not in self.callables:
            self.callables[version.version_id] = load_coroutine(check)
        return self.callables[version.version_id]


async def asked(check: Check, call: Callable[[], Awaitable[Any]]) -> Answer | BaseException:
    """Return the answer of a call, or what it raised; TimedOut when its time is over.

    The call has a task of its own: what it raises may be made to end the task it is raised in, or the event loop.
    One that does not let itself be cancelled is left alone.
    """
    task = asyncio.create_task(_caught(call))
    try:
        await asyncio.wait([task], timeout=check.time_limit_ms / 1000)
        if not task.done():
            return TimedOut(f"the call took longer than {check.time_limit_ms:g} ms")
        return asyncio.CancelledError() if task.cancelled() else task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=STOP_SECONDS)


async def _caught(call: Callable[[], Awaitable[Any]]) -> Answer | BaseException:
    try:
        return judged(await call())
    except BaseException as error:
        return error


def answer_of(said: Answer | BaseException) -> Answer:
    """Return the answer that ends a span; whatever a check raises is its answer."""
    if not isinstance(said, BaseException):
        return said
    return unscored("missing_callable", str(said)) if isinstance(said, MissingCallable) else failed(said)


def _seconds(later: Later) -> float | None:
    """Return how long a check asks to wait, a day at most; None when that is no number."""
    try:
        seconds = float(later.delay_seconds)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MOST_LATER_SECONDS) if isfinite(seconds) else None


def _argument(check: Check, call: Call) -> Any:
    return call.texts[0] if check.takes_text else span(wire.first_span_id(call.key), check.columns, call.texts)


def _fault(answer: Answer) -> Fault:
    return Fault(answer.reason or "raised", answer.detail or "")
