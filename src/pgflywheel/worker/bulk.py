"""The bulk lane: batches of whole jobs, two at a time, so that one is judged while the other is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from pgflywheel.db import queue
from pgflywheel.records import Claimed
from pgflywheel.worker.batch import Batch, Runner, alike
from pgflywheel.worker.site import Site

BATCHES = 2
FIRST_JOBS, MOST_JOBS = 16, 1000
TARGET_SPANS, FEWEST_SPANS = 5_000, 100
SLOW_SECONDS, QUICK_SECONDS = 3.0, 1.0


@dataclass
class Size:
    """How many jobs to claim: as many as hold target_spans, fewer when a batch takes long."""

    spans_per_job: float = TARGET_SPANS / FIRST_JOBS
    target_spans: float = TARGET_SPANS

    @property
    def jobs(self) -> int:
        """Return how many jobs to claim."""
        return max(1, min(MOST_JOBS, round(self.target_spans / self.spans_per_job)))

    def saw(self, jobs: int, spans: int) -> None:
        """Learn from a claim how many spans a job has."""
        self.spans_per_job = max(1.0, 0.5 * self.spans_per_job + 0.5 * spans / jobs)

    def took(self, seconds: float) -> None:
        """Learn from a batch how long it takes."""
        if seconds > SLOW_SECONDS:
            self.target_spans = max(FEWEST_SPANS, self.target_spans / 2)
        elif seconds < QUICK_SECONDS:
            self.target_spans = min(TARGET_SPANS, self.target_spans * 2)


class Bulk:
    """Judge batches."""

    longest_pace_seconds = 0.1

    def __init__(self, site: Site, wake: Callable[[], None]) -> None:
        self.site = site
        self.wake = wake
        self.size = Size()
        self.runner = Runner(site)
        self.batches = 0

    def room(self) -> int:
        """Return how many jobs the next batch may have; 0 while two are running."""
        return self.size.jobs if self.batches < BATCHES else 0

    async def claim(self, priority: int, worker_id: UUID, max_jobs: int, after: UUID | None) -> list[Claimed]:
        """Claim whole jobs."""
        return await queue.claim_together(self.site.database, priority, worker_id, max_jobs, after)

    def start(self, worker_id: UUID, jobs: list[Claimed], group: asyncio.TaskGroup) -> None:
        """Judge claimed jobs beside the other batch."""
        self.size.saw(sum(job.jobs for job in jobs), sum(job.span_count for job in jobs))
        self.batches += 1
        group.create_task(self._run(worker_id, jobs))

    async def _run(self, worker_id: UUID, jobs: list[Claimed]) -> None:
        begun = monotonic()
        try:
            for group in alike(jobs):
                await self._run_group(Batch(worker_id, group))
        finally:
            seconds = monotonic() - begun
            self.size.took(seconds)
            self.site.metrics.batch_seconds.labels("bulk").observe(seconds)
            self.batches -= 1
            self.wake()

    async def _run_group(self, batch: Batch) -> None:
        """Run a batch; an error the world around caused leaves its jobs to be claimed again."""
        try:
            with self.site.going_on("batch"):
                await self.runner.run(batch)
        finally:
            self.site.put_down(batch.fences)
