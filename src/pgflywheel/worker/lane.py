"""A lane's loop: claim, start, rest.

busy ──nothing found──> linger (a few short polls) ──still nothing──> idle (rings or polls) ──found──> busy
  └──no room──> full (rings or polls) ──room──> busy
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol
from uuid import UUID

from pgflywheel.errors import FlywheelError
from pgflywheel.records import BACKFILL, LIVE, Claimed
from pgflywheel.worker.faults import hopeless
from pgflywheel.worker.floors import Floor
from pgflywheel.worker.listen import BUSY, FULL, IDLE, Doorbell
from pgflywheel.worker.refusals import backoff_seconds
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
LINGER_SECONDS = 0.005
# A writer that looked for idle workers just before there was one commits some milliseconds later, and rings for nobody.
POLL_SECONDS = (0.003, 0.003, 0.006, 0.012, 0.025, 0.05, 0.1)  # then Options.poll_seconds
PACE_SECONDS = 0.005  # between claims of a queue that is nearly empty: single rows come in groups
Claim = Callable[[int, UUID, int, UUID | None], Awaitable[list[Claimed]]]


class Work(Protocol):
    """What a lane does with claimed jobs."""

    longest_pace_seconds: float
    """How far claims may move apart while rows trickle in; never less than PACE_SECONDS."""

    def room(self) -> int:
        """Return how many jobs to claim now; 0 is none."""

    async def claim(self, priority: int, worker_id: UUID, max_jobs: int, after: UUID | None) -> list[Claimed]:
        """Claim jobs."""

    def start(self, worker_id: UUID, jobs: list[Claimed], group: asyncio.TaskGroup) -> None:
        """Take claimed jobs in hand; every task belongs to the group."""


@dataclass
class Lane:
    """Claim for one lane until told to stop; ends when what it started has ended."""

    name: str
    site: Site
    bell: Doorbell
    wake: asyncio.Event
    work: Work
    floors: dict[int, Floor] = field(default_factory=lambda: {LIVE: Floor(), BACKFILL: Floor()})
    empty_claims: int = 0
    pace_seconds: float = PACE_SECONDS
    failures: int = 0

    async def run(self) -> None:
        """Run the lane."""
        async with asyncio.TaskGroup() as group:
            while not self.site.stopping.is_set():
                self.wake.clear()
                room = self.work.room()
                if room > 0:
                    await self._turn(room, group)
                else:
                    self.bell.report(self.name, FULL)
                    await self._sleep(self.site.options.poll_seconds)  # not all that makes room rings

    async def _turn(self, room: int, group: asyncio.TaskGroup) -> None:
        begun = monotonic()
        try:
            worker_id = await self.site.lease.held()
            jobs = await self._claim(worker_id, room)
        except FlywheelError as error:
            if hopeless(error):
                raise
            await self._back_off(error)
            return
        self.failures = 0
        if not jobs:
            await self._rest()
            return
        self.empty_claims = 0
        self.bell.report(self.name, BUSY)
        self.bell.nudge(self.name)
        self.site.in_hand.update(job.fence for job in jobs)
        self.work.start(worker_id, jobs, group)
        if sum(job.jobs for job in jobs) < room:
            await self._pace(begun)

    async def _pace(self, begun: float) -> None:
        """Let rows gather: a steady trickle is judged in ever larger groups, which costs the writers' server less."""
        await asyncio.sleep(max(0.0, begun + self.pace_seconds - monotonic()))
        self.pace_seconds = min(2 * self.pace_seconds, self.work.longest_pace_seconds)

    async def _claim(self, worker_id: UUID, room: int) -> list[Claimed]:
        """Claim live jobs; jobs of a backfill only when there are none."""
        for priority, floor in self.floors.items():
            after, begun = floor.after(), monotonic()
            jobs = await self.work.claim(priority, worker_id, room, after)
            floor.saw(jobs, after, monotonic() - begun)
            if jobs:
                return jobs
        return []

    async def _rest(self) -> None:
        """Wait for the bell or the next poll."""
        self.empty_claims += 1
        self.pace_seconds = PACE_SECONDS
        if self.empty_claims == 1:
            await asyncio.sleep(LINGER_SECONDS)
            return
        self.bell.report(self.name, IDLE)
        polls = (*POLL_SECONDS, self.site.options.poll_seconds)
        await self._sleep(polls[min(self.empty_claims - 2, len(polls) - 1)])

    async def _back_off(self, error: FlywheelError) -> None:
        self.failures += 1
        self.site.doubt("claim", error)
        await self._sleep(backoff_seconds(self.failures))

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wake.wait()
