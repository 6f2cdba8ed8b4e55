"""The embed lane: texts of examples and of sampled spans get their vectors, many texts at a time.

claimed ──read──> texts ──embedder──> vectors ──one transaction──> written, ended
                             ├─ a limit, a lost connection, a missing package ──> put off
                             └─ a text is refused ──> halves, down to the text's own job, which is dead in the end
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from pgflywheel.db import embedders, queue
from pgflywheel.db.embedders import EmbedderRow, Text
from pgflywheel.errors import FlywheelError, UsageError
from pgflywheel.judge.failures import CallFailed
from pgflywheel.records import Claimed
from pgflywheel.worker.batch import Batch, alike, sliced
from pgflywheel.worker.refusals import PutOff, delay_seconds, later_of
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
CLAIMS, MOST_JOBS, MOST_SUBJECTS = 4, 20, 400
PATIENCE_SECONDS = 10.0
_REFUSED = ("dead", "too_long", "content_filter", "step_down")


class Embed:
    """Embed what is queued."""

    longest_pace_seconds = 0.05

    def __init__(self, site: Site, wake: Callable[[], None]) -> None:
        self.site = site
        self.wake = wake
        self.claims = 0

    def room(self) -> int:
        """Return how many jobs to claim."""
        return MOST_JOBS if self.claims < CLAIMS else 0

    async def claim(self, priority: int, worker_id: UUID, max_jobs: int, after: UUID | None) -> list[Claimed]:
        """Claim whole jobs."""
        return await queue.claim(self.site.database, priority, worker_id, max_jobs, after, lane="embed")

    def start(self, worker_id: UUID, jobs: list[Claimed], group: asyncio.TaskGroup) -> None:
        """Embed the texts of claimed jobs."""
        self.claims += 1
        group.create_task(self._run(worker_id, jobs))

    async def _run(self, worker_id: UUID, jobs: list[Claimed]) -> None:
        try:
            for alikes in alike(jobs):
                for some in sliced(alikes, MOST_SUBJECTS):
                    await self._safely(Batch(worker_id, some))
        finally:
            self.site.put_down(job.fence for job in jobs)
            self.claims -= 1
            self.wake()

    async def _safely(self, batch: Batch) -> None:
        """Embed a batch; an error the world around caused leaves its jobs to be claimed again."""
        try:
            with self.site.going_on("embed"):
                await self._embed_or_put_off(batch)
        finally:
            self.site.put_down(batch.fences)

    async def _embed_or_put_off(self, batch: Batch) -> None:
        try:
            try:
                await self._embed(batch)
            except CallFailed as failure:
                await self._failed(batch, failure)
        except (PutOff, UsageError) as error:
            later = later_of(error, batch.jobs[0].attempt)
            await self._put_off(batch, later.seconds, later.fault.reason, later.fault.detail, costs=later.costs)

    async def _embed(self, batch: Batch) -> None:
        database, begun = self.site.database, datetime.now(UTC)
        row = await embedders.by_id(database, batch.version_ids[0])
        texts = await embedders.read(database, batch.fences) if row and row.status != "retired" else []
        if row is None or not texts:
            await queue.finish(database, batch.worker_id, batch.fences)
            return
        vectors = await self._vectors(batch.worker_id, row, texts)
        ended = await embedders.write(database, batch.worker_id, batch.fences, row.embedder_id, texts, vectors)
        self.site.metrics.jobs.labels("embed", "completed").inc(ended)
        self.site.metrics.spans.labels("embed").inc(batch.spans)
        log.debug(
            "embedded",
            extra={"embedder": row.name, "jobs": ended, "texts": len(texts), "since": begun.isoformat()},
        )

    async def _vectors(self, worker_id: UUID, row: EmbedderRow, texts: list[Text]) -> list[array[float]]:
        """Return a vector for each text; equal texts are embedded once."""
        embedder = await self.site.embedders.of(row, worker_id, patience_seconds=PATIENCE_SECONDS)
        bodies = list(dict.fromkeys(text.body for text in texts))
        found = dict(zip(bodies, await embedder.embed(bodies), strict=True))
        return [found[text.body] for text in texts]

    async def _failed(self, batch: Batch, failure: CallFailed) -> None:
        """Put a batch off; one with a text that is refused is cut, so that the others are not put off with it."""
        if failure.treatment in _REFUSED and len(batch.jobs) > 1:
            for job in batch.jobs:
                await self._safely(batch.only([job]))
        elif failure.treatment in _REFUSED and batch.spans > 1:
            halves = await queue.split(self.site.database, batch.worker_id, batch.jobs[0])
            self.site.in_hand.update(half.fence for half in halves)
            for half in halves:
                await self._safely(batch.only([half]))
        else:
            await self._put_off(batch, delay_seconds(batch.jobs[0].attempt), failure.outcome, failure.detail)

    async def _put_off(self, batch: Batch, seconds: float, reason: str, detail: str, *, costs: bool = True) -> None:
        try:
            await queue.retry(self.site.database, batch.worker_id, batch.fences, seconds, reason, detail, costs=costs)
        except FlywheelError as error:
            self.site.doubt("embed", error)
            return
        self.site.metrics.jobs.labels("embed", "retried").inc(len(batch.jobs))
        log.warning(
            "embedding is put off",
            extra={"jobs": len(batch.jobs), "seconds": round(seconds, 3), "reason": reason, "detail": detail},
        )
