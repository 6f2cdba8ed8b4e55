"""Coroutine checks of the judge lane: an operator's own function calls whatever it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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
from pgflywheel.worker.verdicts import Answer, failed, judged, unscored


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
        try:
            async with asyncio.timeout(check.time_limit_ms / 1000) as limit:
                return judged(await self._callable(ask.version, check)(_argument(check, ask.subject)))
        except Later as later:
            await put_off(self.site, ask, later.delay_seconds, Fault("later", later.reason), costs=False)
        except OSError as error:  # TimeoutError and ConnectionError are
            fault = _fault(too_long(check) if limit.expired() else failed(error))
            await put_off(self.site, ask, delay_seconds(ask.job.attempt), fault)
        except MissingCallable as error:
            return unscored("missing_callable", str(error))
        except (Exception, SystemExit) as error:  # whatever a check raises is its answer
            return failed(error)
        return None

    def _callable(self, version: Version, check: Check) -> Callable[[Any], Awaitable[Any]]:
        """Return the version's coroutine function with its parameters."""
        if version.version_id not in self.callables:
            self.callables[version.version_id] = load_coroutine(check)
        return self.callables[version.version_id]


def too_long(check: Check) -> Answer:
    """Return what is known of a span whose call was cut off."""
    return unscored("timed_out", f"the call took longer than {check.time_limit_ms:g} ms")


def _argument(check: Check, call: Call) -> Any:
    return call.texts[0] if check.takes_text else span(wire.first_span_id(call.key), check.columns, call.texts)


def _fault(answer: Answer) -> Fault:
    return Fault(answer.reason or "raised", answer.detail or "")
