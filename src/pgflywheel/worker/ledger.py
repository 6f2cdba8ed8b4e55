"""Calls to models and the judgements made of them: begun and written many at a time.

begin ──some ms──> _begin_calls ──> go, cached, wait, over_budget or void, for each call
Ending ──some ms──> _end_judgements: score, end of the job and money in one act
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pgflywheel.db import calls, judgements
from pgflywheel.db.calls import Begun
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.buffer import Buffer
from pgflywheel.worker.faults import fault_of
from pgflywheel.worker.site import Site

BEGIN_SECONDS = 0.003
MOST_BEGUN = 200


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a call, or of a claim with the score it gets; ``settled`` is called once it is written."""

    worker_id: UUID
    call: Mapping[str, Any] | None = None
    fence: UUID | None = None
    score: Mapping[str, Any] | None = None
    settled: Callable[[], None] | None = None
    unwritable: bool = False


class Ledger(Buffer[Ending]):
    """What judges leave."""

    async def write(self, worker_id: UUID, items: list[Ending]) -> None:
        """Write scores of claims that still hold, end these and settle calls, all or nothing."""
        fences = [item.fence for item in items if item.fence]
        scores = [{**item.score, "fence": item.fence} for item in items if item.fence and item.score]
        ended = [item.call for item in items if item.call]
        jobs, written = await judgements.end_judgements(
            self.site.database, worker_id, fences, scores, ended, datetime.now(UTC)
        )
        self.count(jobs, len(fences) - jobs, written)
        for item in items:
            if item.settled:
                item.settled()

    def instead(self, item: Ending, why: str) -> Ending | None:
        """Return a call without its reply, or the reason in place of a verdict."""
        if item.unwritable:
            if item.settled:
                item.settled()
            return None
        call = item.call and {**item.call, "reply": None, "detail": why[:500]}
        keys = ("span_id", "revision", "started_at", "trace_id", "project", "version_id")
        score = item.score and {**{key: item.score[key] for key in keys}, "reason": "raised", "detail": why[:500]}
        return replace(item, call=call, score=score, unwritable=True)


@dataclass
class Beginner:
    """Ask for many calls at once whether they may be made."""

    site: Site
    waiting: list[tuple[UUID, Mapping[str, Any], asyncio.Future[Begun]]] = field(default_factory=list)
    asking: asyncio.Task[None] | None = None

    async def begin(self, worker_id: UUID, call: Mapping[str, Any]) -> Begun:
        """Return what is to be done with a call; go has reserved what it needs."""
        answer: asyncio.Future[Begun] = asyncio.get_running_loop().create_future()
        self.waiting.append((worker_id, call, answer))
        if self.asking is None:
            self.asking = asyncio.create_task(self._ask())
        return await answer

    async def _ask(self) -> None:
        try:
            await asyncio.sleep(BEGIN_SECONDS)
            while self.waiting:
                worker_id = self.waiting[0][0]
                ours = [each for each in self.waiting if each[0] == worker_id][:MOST_BEGUN]
                self.waiting = [each for each in self.waiting if each not in ours]
                await self._begin(worker_id, ours)
        finally:
            self.asking = None

    async def _begin(self, worker_id: UUID, asked: list[tuple[UUID, Mapping[str, Any], asyncio.Future[Begun]]]) -> None:
        try:
            begun = await calls.begin_calls(self.site.database, worker_id, [call for _, call, _ in asked])
            by_id = {each.call_id: each for each in begun}
            told = [by_id[call["call_id"]] for _, call, _ in asked]
        except BaseException as error:
            if len(asked) > 1 and isinstance(error, FlywheelError) and fault_of(error):
                for one in asked:  # one that cannot be entered keeps none of the others
                    await self._begin(worker_id, [one])
                return
            for _, _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, _, answer), each in zip(asked, told, strict=True):
            if not answer.done():
                answer.set_result(each)
