"""The lease: while it lasts, the jobs this worker claimed are its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from uuid import UUID, uuid4

from pgflywheel.db import queue
from pgflywheel.db.connect import Database
from pgflywheel.errors import FlywheelError

log = logging.getLogger(__name__)


@dataclass
class Lease:
    """The worker's row in the database, renewed by its heartbeat.

    A lease that ran out, because the process was stopped or the database away, is never renewed: the
    worker takes a new id, and whatever it still writes under the old one is void by its fences.
    """

    database: Database
    name: str
    lanes: Sequence[str]
    seconds: float
    worker_id: UUID = field(default_factory=uuid4)
    listening: bool = False
    entered: bool = False
    ends: float = 0.0
    lost: int = 0
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def over(self) -> bool:
        """Tell whether the lease ran out by this process' clock, which started it before the database did."""
        return self.entered and monotonic() >= self.ends

    async def held(self) -> UUID:
        """Return the id to claim under, entering the worker when it is new or its lease ran out."""
        while self.over or not self.entered:
            await self.renew(0)
        return self.worker_id

    async def renew(self, in_hand: int) -> None:
        """Enter the worker, or renew its lease."""
        async with self.one_at_a_time:
            if self.over:
                self._begin_anew()
            begun = monotonic()
            until = await self._beat(in_hand)
            if until is None:
                self._begin_anew()
            else:
                self.entered, self.ends = True, begun + self.seconds

    async def _beat(self, in_hand: int) -> datetime | None:
        try:
            return await queue.heartbeat(
                self.database,
                self.worker_id,
                self.name,
                self.lanes,
                self.seconds,
                listening=self.listening,
                in_hand=in_hand,
                first=not self.entered,
            )
        except FlywheelError:
            if not self.entered:  # or it is, and nobody heard of it: it cannot be entered twice
                self.worker_id = uuid4()
            raise

    async def leave(self) -> None:
        """End the worker; jobs it still has become ready again."""
        if self.entered:
            given = await queue.leave(self.database, self.worker_id)
            self.entered = False
            log.info("left", extra={"jobs": given})

    def _begin_anew(self) -> None:
        self.worker_id, self.entered = uuid4(), False
        self.lost += 1
        log.warning("the lease ran out; going on under a new id", extra={"worker": str(self.worker_id)})
