"""A batch: claimed jobs of the same validator versions, judged and completed in one transaction.

complete ──ok──> done            a version is paused ──> hold those jobs
    │ lease lost ──> void        the database is away ──> leave them; they come back as strays
    └ a check failed ──> parts: by version, by job, by halves; the last span is unscored
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from pgflywheel.db import queue, wire
from pgflywheel.db.connect import Database
from pgflywheel.db.queue import Version
from pgflywheel.errors import FlywheelError, UsageError
from pgflywheel.judge.failures import CallFailed
from pgflywheel.records import Claimed
from pgflywheel.worker.child import Request
from pgflywheel.worker.faults import blame, fault_of
from pgflywheel.worker.neighbours import VOTING_SPANS, Neighbours, Voters
from pgflywheel.worker.refusals import Fault, PutOff, later_of
from pgflywheel.worker.site import Site
from pgflywheel.worker.tasks import together
from pgflywheel.worker.verdicts import Answers, columns

log = logging.getLogger(__name__)
SLICE_SPANS = 2000  # read and asked together
FULL_SPANS = 10_000  # from here on, a batch has all of batch_seconds
TRIES = 3


class LeaseLost(Exception):
    """Only ``held`` of a batch's claims are still the worker's."""

    def __init__(self, held: set[UUID]) -> None:
        super().__init__("the lease was lost")
        self.held = held


class Paused(Exception):
    """A version was paused while the batch ran."""


@dataclass(frozen=True)
class Batch:
    """Jobs one worker holds, all of the same versions."""

    worker_id: UUID
    jobs: list[Claimed]
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def fences(self) -> list[UUID]:
        return [job.fence for job in self.jobs]

    @property
    def version_ids(self) -> list[UUID]:
        return self.jobs[0].version_ids

    @property
    def spans(self) -> int:
        return sum(job.span_count for job in self.jobs)

    def only(self, jobs: list[Claimed]) -> Batch:
        """Return a batch of other jobs of the same worker."""
        return Batch(self.worker_id, jobs)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a Python version said of some spans."""

    version_id: UUID
    keys: wire.Array
    answers: Sequence[Answers]

    def __bool__(self) -> bool:
        return bool(self.answers)

    async def write(self, db: Database) -> int:
        """Write the scores and return how many were new."""
        return await queue.write_scores(db, self.version_id, self.keys, columns(self.answers))


def alike(jobs: Iterable[Claimed]) -> list[list[Claimed]]:
    """Group jobs by their versions."""
    groups: dict[tuple[UUID, ...], list[Claimed]] = {}
    for job in jobs:
        groups.setdefault(tuple(job.version_ids), []).append(job)
    return list(groups.values())


@dataclass
class Runner:
    """Run batches to their end, whatever their checks do."""

    site: Site
    neighbours: Neighbours = field(init=False)

    def __post_init__(self) -> None:
        self.neighbours = Neighbours(self.site.database, self.site.embedders)

    async def run(self, batch: Batch) -> None:
        """Complete a batch, or what of it can be completed."""
        versions = await self.site.versions.of(batch.version_ids)
        if any(version.status == "paused" for version in versions):
            await self._hold(batch)
            return
        try:
            await self._try(batch, versions)
        except Paused:
            await self.run(batch)
        except (CallFailed, PutOff, UsageError) as failure:
            await self._put_off(batch, failure)
        except LeaseLost as lost:
            self._void(len(batch.jobs) - len(lost.held))
            if lost.held:
                await self.run(batch.only([job for job in batch.jobs if job.fence in lost.held]))
        except FlywheelError as error:
            fault = fault_of(error)
            if fault is None:
                raise
            await self._isolate(batch, versions, fault)

    async def _try(self, batch: Batch, versions: Sequence[Version]) -> None:
        """Complete a batch; what passes by itself, a deadlock or a full disk, is tried again."""
        for attempt in range(1, TRIES + 1):
            try:
                asked: list[Asked | Voters] = [
                    each for version in versions if version.kind == "python" for each in await self._ask(batch, version)
                ]
                asked += [each for version in versions for each in await self._embed(batch, version)]
                await self._complete(batch, versions, asked)
                return
            except FlywheelError as error:
                if attempt == TRIES or fault_of(error) or error.exit_code != 1:
                    raise
                await asyncio.sleep(0.2 * attempt)

    async def _complete(self, batch: Batch, versions: Sequence[Version], asked: Sequence[Asked | Voters]) -> None:
        """Write all scores, end the jobs and log the run, or none of it."""
        sql_ids = [version.version_id for version in versions if version.kind == "sql"]
        said = [each for each in asked if each]  # a version may mean none of the spans
        async with self.site.database.transaction() as db:
            await queue.limit_transaction(db, self._seconds(batch.spans))
            if said:
                await self._require_held(db, batch)
            written = sum([await each.write(db) for each in said])
            jobs, scores = await queue.complete(db, batch.worker_id, batch.fences, sql_ids, batch.began, written)
            if jobs < len(batch.jobs):
                await self._require_held(db, batch)
        self._count(batch, scores)

    async def _require_held(self, db: Database, batch: Batch) -> None:
        held = set(await queue.lock_fences(db, batch.worker_id, batch.fences))
        if len(held) < len(batch.jobs):
            raise LeaseLost(held)

    async def _ask(self, batch: Batch, version: Version) -> list[Asked]:
        """Ask a Python version about all spans of a batch."""
        stretches = sliced(batch.jobs, SLICE_SPANS)
        room = asyncio.Semaphore(self.site.pool.size + 1)  # one is read while the others are asked

        async def one(jobs: list[Claimed]) -> Asked:
            async with room:
                return await self._ask_slice(jobs, version)

        return await together(one(jobs) for jobs in stretches)

    async def _embed(self, batch: Batch, version: Version) -> list[Voters]:
        """Embed the spans of a batch whose neighbours vote."""
        if version.kind != "neighbours":
            return []
        return [await self.neighbours.ask(batch.worker_id, jobs, version) for jobs in sliced(batch.jobs, VOTING_SPANS)]

    async def _ask_slice(self, jobs: list[Claimed], version: Version) -> Asked:
        check = self.site.versions.check(version)
        fences = [job.fence for job in jobs]
        keys, texts = await queue.read_spans(self.site.database, fences, version.version_id, check.columns)
        spans, start = wire.count(keys), 0
        answers: list[Answers] = []
        while start < spans:
            part = await self.site.pool.ask(Request(check, keys, texts, start, spans))
            if part.faults:
                await self._blame_part(part, keys, start, version, jobs[0])
            answers.append(part)
            start += part.count
        return Asked(version.version_id, wire.Array(keys), answers)

    async def _blame_part(self, part: Answers, keys: bytes, start: int, version: Version, job: Claimed) -> None:
        """Count the faults of a stretch; raise Paused when they were too many."""
        first = start + part.first_fault
        (key,) = wire.elements(wire.cut(keys, first, first + 1))
        fault = Fault(part.reason, part.detail)
        span = wire.span_id(key or b"")
        if await blame(self.site, version, fault, spans=part.faults, span=span, job=job.job_id):
            raise Paused

    async def _isolate(self, batch: Batch, versions: Sequence[Version], fault: Fault) -> None:
        """Run the parts of a batch that failed, so that what works is judged and what fails is found."""
        job = batch.jobs[0]
        version = versions[0]
        if len(batch.version_ids) > 1:
            await self._run_parts(batch, [part for whole in batch.jobs for part in await self._split(batch, whole)])
        elif len(batch.jobs) > 1:
            for jobs in apart(batch.jobs, fault):
                await self.run(batch.only(jobs))
        elif job.span_count > 1 and version.status != "retired":
            if fault.reason == "timed_out":  # a limit for so many spans is generous: slow is slow
                await blame(self.site, version, fault, spans=job.span_count, span=None, job=job.job_id)
            await self._run_parts(batch, await self._split(batch, job))
        else:
            await self.mark(batch, version, fault)

    async def mark(self, batch: Batch, version: Version, fault: Fault) -> None:
        """End a job whose check fails: its span is unscored, with the reason.

        A job of a retired version is not cut further: nobody waits for it, and nothing could pause it.
        """
        job = batch.jobs[0]
        span = await queue.first_span(self.site.database, job.fence)
        try:
            async with self.site.database.transaction() as db:
                await queue.limit_transaction(db, self._seconds(batch.spans))
                await self._require_held(db, batch)
                scores = await queue.mark_unscored(db, batch.fences, version.version_id, fault.reason, fault.detail)
                await queue.finish(db, batch.worker_id, batch.fences)
                await self._log(db, batch, scores, "completed", fault.detail)
        except LeaseLost:
            self._void(1)
            return
        self._count(batch, scores)
        await blame(self.site, version, fault, spans=job.span_count, span=span, job=job.job_id)

    async def _hold(self, batch: Batch) -> None:
        """Hold jobs of paused versions; a job of several versions is cut first, so that the others run."""
        if len(batch.version_ids) > 1:
            await self._run_parts(batch, [part for whole in batch.jobs for part in await self._split(batch, whole)])
            return
        held = await queue.hold(self.site.database, batch.worker_id, batch.fences)
        self.site.metrics.jobs.labels("bulk", "held").inc(held)
        await self._log(self.site.database, batch, 0, "held")

    async def _put_off(self, batch: Batch, failure: CallFailed | PutOff | UsageError) -> None:
        """Put off jobs whose spans cannot be embedded now; one of several versions is cut first: the others run."""
        if len(batch.version_ids) > 1:
            await self._run_parts(batch, [part for whole in batch.jobs for part in await self._split(batch, whole)])
            return
        later = later_of(failure, batch.jobs[0].attempt)
        fault = later.fault
        await queue.retry(
            self.site.database,
            batch.worker_id,
            batch.fences,
            later.seconds,
            fault.reason,
            fault.detail,
            costs=later.costs,
        )
        self.site.metrics.jobs.labels(batch.jobs[0].lane, "retried").inc(len(batch.jobs))

    async def _split(self, batch: Batch, job: Claimed) -> list[Claimed]:
        parts = await queue.split(self.site.database, batch.worker_id, job)
        self.site.in_hand.update(part.fence for part in parts)
        if not parts:
            self._void(1)
        return parts

    async def _run_parts(self, batch: Batch, parts: Sequence[Claimed]) -> None:
        halves = len(batch.version_ids) == 1  # of what failed: together they would fail again
        try:
            for jobs in [[part] for part in parts] if halves else alike(parts):
                await self.run(batch.only(jobs))
        finally:
            self.site.put_down(part.fence for part in parts)

    async def _log(self, db: Database, batch: Batch, scores: int, outcome: str, detail: str | None = None) -> None:
        await queue.log_run(
            db,
            batch.worker_id,
            batch.jobs[0].lane,
            jobs=len(batch.jobs),
            spans=batch.spans,
            scores=scores,
            started_at=batch.began,
            outcome=outcome,
            detail=detail,
        )

    def _seconds(self, spans: int) -> float:
        options = self.site.options
        return options.span_seconds + (options.batch_seconds - options.span_seconds) * min(1.0, spans / FULL_SPANS)

    def _count(self, batch: Batch, scores: int) -> None:
        metrics, lane = self.site.metrics, batch.jobs[0].lane
        metrics.jobs.labels(lane, "completed").inc(len(batch.jobs))
        metrics.spans.labels(lane).inc(batch.spans)
        metrics.scores.labels(lane).inc(scores)
        log.debug("completed", extra={"lane": lane, "jobs": len(batch.jobs), "spans": batch.spans, "scores": scores})

    def _void(self, jobs: int) -> None:
        self.site.metrics.void.labels("bulk").inc(jobs)
        log.warning("the lease was lost; nothing was written", extra={"jobs": jobs})


def sliced(jobs: Sequence[Claimed], spans: int) -> list[list[Claimed]]:
    """Cut jobs into neighbouring groups of about so many spans."""
    slices: list[list[Claimed]] = []
    size = spans
    for job in jobs:
        if size + job.span_count > spans:
            slices.append([])
            size = 0
        slices[-1].append(job)
        size += job.span_count
    return slices


def apart(jobs: list[Claimed], fault: Fault) -> list[list[Claimed]]:
    """Return halves of failing jobs; each job alone when they took too long, since every further try does, too."""
    if fault.reason == "timed_out":
        return [[job] for job in jobs]
    middle = len(jobs) // 2
    return [jobs[:middle], jobs[middle:]]
