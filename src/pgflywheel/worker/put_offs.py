"""Claims that are put off one by one, written many at a time: a provider that is busy puts off all that ask it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from pgflywheel.db import queue
from pgflywheel.db.connect import Database
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.refusals import Fault

GATHER_SECONDS = 0.003
MOST_TOGETHER = 500


@dataclass(frozen=True, slots=True)
class PutOff:
    """One claim, for how long and why it waits, and whether that costs an attempt."""

    worker_id: UUID
    fence: UUID
    seconds: float
    fault: Fault
    costs: bool
    written: asyncio.Future[None]


@dataclass
class PutOffs:
    """Put claims off; what is asked for within some milliseconds is one statement."""

    database: Database
    waiting: list[PutOff] = field(default_factory=list)
    writing: asyncio.Task[None] | None = None

    async def add(self, worker_id: UUID, fence: UUID, seconds: float, fault: Fault, *, costs: bool) -> None:
        """Return once a claim is put off; raises what its statement raised."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(PutOff(worker_id, fence, seconds, fault, costs, written))
        if self.writing is None:
            self.writing = asyncio.create_task(self._write_all())
        await written

    async def _write_all(self) -> None:
        try:
            await asyncio.sleep(GATHER_SECONDS)
            while self.waiting:
                worker_id = self.waiting[0].worker_id
                ours = [each for each in self.waiting if each.worker_id == worker_id][:MOST_TOGETHER]
                self.waiting = [each for each in self.waiting if each not in ours]
                await self._write(worker_id, ours)
        finally:
            self.writing = None

    async def _write(self, worker_id: UUID, ours: list[PutOff]) -> None:
        try:
            await queue.retry_each(
                self.database,
                worker_id,
                [each.fence for each in ours],
                [each.seconds for each in ours],
                [each.fault.reason for each in ours],
                [each.fault.detail for each in ours],
                [each.costs for each in ours],
            )
        except FlywheelError as error:
            if len(ours) == 1:
                _tell(ours, error)
                return
            for each in ours:  # one that cannot be written keeps none of the others
                await self._write(worker_id, [each])
        except BaseException as error:
            _tell(ours, error)
            if not isinstance(error, Exception):
                raise
        else:
            _tell(ours, None)


def _tell(ours: list[PutOff], error: BaseException | None) -> None:
    for each in ours:
        if not each.written.done():
            if error:
                each.written.set_exception(error)
            else:
                each.written.set_result(None)
