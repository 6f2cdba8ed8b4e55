"""The batch lane: spans become lines of a file, which an endpoint answers some hours later at a lower price.

claimed ──read──> asks ──_begin_lines──> lines, with their money set aside ──the file is full, or all is read──> sealed
                           │                                                    ──upload, create──> at the endpoint
                           ├─ all votes are known ──> score
                           └─ over budget, or the provider is blocked ──> put off

From sealing on, the batch may be at the endpoint without our knowing; whoever polls finds it there by its id, or gives
its spans back (batch_polls).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from pgflywheel.db import batches, calls, judgements, queue
from pgflywheel.db.batches import Back, Entered
from pgflywheel.db.queue import Version
from pgflywheel.errors import FlywheelError
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.judgement import read, unscored
from pgflywheel.judge.prompt import build
from pgflywheel.judge.records import Judgement, Prompt, Reply
from pgflywheel.judge.template import TemplateFailed
from pgflywheel.judge.votes import combine, shot_subsets
from pgflywheel.records import Claimed
from pgflywheel.worker.asks import Ask
from pgflywheel.worker.batch import Batch, Runner, alike
from pgflywheel.worker.batch_answers import NOTHING, request_line, score_of
from pgflywheel.worker.endpoints import Endpoint, Endpoints
from pgflywheel.worker.faults import blame, fault_of
from pgflywheel.worker.judgements import Case, Judgements
from pgflywheel.worker.refusals import BLOCKS, MISSING_SECONDS, Fault
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
MOST_SPANS = 10_000
SLICE_SPANS = 200
MOST_LINES, MOST_BYTES = 50_000, 100_000_000  # of a file, as endpoints have it
RECHECK_SECONDS = 300.0  # nothing in this lane is in a hurry
OUR_KEY = "pgflywheel_batch"  # in the metadata of a batch at the endpoint


@dataclass
class Desk:
    """What the lane and the polls share: the batches this worker has in hand."""

    site: Site
    endpoints: Endpoints
    in_hand: set[UUID] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Vote:
    """One request for a span, and its line in the file."""

    ask: Ask
    prompt: Prompt
    call: dict[str, Any]
    line: bytes


@dataclass
class Draft:
    """A file that is being written."""

    model: str
    batch_id: UUID = field(default_factory=uuid4)
    lines: list[bytes] = field(default_factory=list)
    size: int = 0

    def takes(self, votes: Sequence[Vote]) -> bool:
        """Tell whether there is room for more, of the same model."""
        size = self.size + sum(len(vote.line) for vote in votes)
        model = votes[0].prompt.model if votes else self.model
        return len(self.lines) + len(votes) <= MOST_LINES and size <= MOST_BYTES and model == self.model


class BatchLane:
    """Hand in what is claimed, one claim at a time."""

    longest_pace_seconds = 2.0  # a fuller file is a better one

    def __init__(self, desk: Desk, wake: Callable[[], None], reader: Judgements) -> None:
        self.desk = desk
        self.site = desk.site
        self.wake = wake
        self.reader = reader
        self.runner = Runner(self.site)
        self.busy = False

    def room(self) -> int:
        """Return how many spans to claim."""
        return 0 if self.busy else MOST_SPANS

    async def claim(self, priority: int, worker_id: UUID, max_jobs: int, after: UUID | None) -> list[Claimed]:
        """Claim the spans of whole jobs."""
        return await batches.claim(self.site.database, priority, worker_id, max_jobs, after)

    def start(self, worker_id: UUID, jobs: list[Claimed], group: asyncio.TaskGroup) -> None:
        """Hand in claimed spans."""
        self.busy = True
        group.create_task(self._run(worker_id, jobs))

    async def _run(self, worker_id: UUID, jobs: list[Claimed]) -> None:
        try:
            for alikes in alike(jobs):
                await self._run_group(Batch(worker_id, alikes))
        finally:
            self.busy = False
            self.wake()

    async def _run_group(self, batch: Batch) -> None:
        """Hand in the spans of one version; what an error leaves claimed is claimed again."""
        try:
            with self.site.going_on("batch"):
                await self._hand_in(batch)
        finally:
            self.site.put_down(batch.fences)

    async def _hand_in(self, batch: Batch) -> None:
        versions = await self.site.versions.of(batch.version_ids)
        if not versions or versions[0].status == "paused":
            await queue.hold(self.site.database, batch.worker_id, batch.fences)
            return
        version = versions[0]
        endpoint = await self.desk.endpoints.of(version.definition.get("provider", ""))
        if endpoint is None:
            detail = f"there is no provider {version.definition.get('provider')}"
            await _put_off(self.site, batch.worker_id, batch.fences, MISSING_SECONDS, Fault("no_provider", detail))
        elif not endpoint.provider.able("batch"):
            await batches.ask_at_once(self.site.database, batch.worker_id, batch.fences)
        else:
            await self._fill(Tray(self.desk, batch.worker_id, endpoint, self.reader), batch, version)

    async def _fill(self, tray: Tray, batch: Batch, version: Version) -> None:
        """Lay spans on the tray until all are there, or the worker is to stop; hand in what lies there."""
        try:
            for start in range(0, len(batch.jobs), SLICE_SPANS):
                if self.site.stopping.is_set():
                    break
                await tray.lay(await self._read(batch.only(batch.jobs[start : start + SLICE_SPANS]), version))
            await tray.hand_in()
        finally:
            tray.put_down()

    async def _read(self, batch: Batch, version: Version) -> list[Ask]:
        """Read spans; those that fail together are read in halves, and the claims of those left out end."""
        try:
            asks = await self.reader.read(batch, version)
        except FlywheelError as error:
            return await self._isolate(batch, version, error)
        asked = {ask.job.fence for ask in asks}
        left = [fence for fence in batch.fences if fence not in asked and fence in self.site.in_hand]
        if left:  # no longer meant, judged meanwhile, or purged
            await queue.finish(self.site.database, batch.worker_id, left)
        return asks

    async def _isolate(self, batch: Batch, version: Version, error: FlywheelError) -> list[Ask]:
        fault, middle = fault_of(error), len(batch.jobs) // 2
        if fault is None:
            raise error
        if middle:
            first = await self._read(batch.only(batch.jobs[:middle]), version)
            return first + await self._read(batch.only(batch.jobs[middle:]), version)
        await self.runner.mark(batch, version, fault)
        return []


class Tray:
    """Files for one endpoint, one after the other."""

    def __init__(self, desk: Desk, worker_id: UUID, endpoint: Endpoint, reader: Judgements) -> None:
        self.desk = desk
        self.site = desk.site
        self.worker_id = worker_id
        self.endpoint = endpoint
        self.reader = reader
        self.draft: Draft | None = None

    async def lay(self, asks: Sequence[Ask]) -> None:
        """Make lines of spans; a file that is full is handed in."""
        waiting: list[Vote] = []
        for ask in asks:
            votes = await self._votes(ask)
            if votes and self.draft is None:
                self.draft = Draft(votes[0].prompt.model)
            if self.draft and not self.draft.takes([*waiting, *votes]):
                await self._enter(waiting)
                await self.hand_in()
                self.draft, waiting = Draft(votes[0].prompt.model), []
            waiting += votes
        await self._enter(waiting)

    async def hand_in(self) -> None:
        """Give the file to the endpoint; what is not known to be there is looked for by whoever polls."""
        draft = self.draft
        try:
            if draft and draft.lines and await batches.seal(self.site.database, draft.batch_id) is not None:
                await self._submit(draft)
        except CallFailed as failure:
            assert draft is not None  # something was sent
            await self._refused(draft, failure)
        finally:
            self.put_down()

    def put_down(self) -> None:
        """Leave the file in hand to whoever polls."""
        if self.draft:
            self.desk.in_hand.discard(self.draft.batch_id)
            self.draft = None

    async def _submit(self, draft: Draft) -> None:
        client, name = self.endpoint.client, f"{draft.batch_id}.jsonl"
        file_id = await client.upload(name, b"".join(draft.lines))
        told = await client.create_batch(file_id, {OUR_KEY: str(draft.batch_id)})
        remote_id: str = told["id"]
        if not await batches.submitted(self.site.database, draft.batch_id, remote_id):
            await client.cancel_batch(remote_id)  # it was given up while this worker stood still
        log.info("handed in", extra={"batch": str(draft.batch_id), "remote": remote_id, "lines": len(draft.lines)})

    async def _refused(self, draft: Draft, failure: CallFailed) -> None:
        """Queue the spans of a file again that the endpoint did not take; after a lost answer, look there first."""
        name, database = self.endpoint.provider.name, self.site.database
        log.warning("a batch was not taken", extra={"provider": name, "detail": failure.detail})
        if reason := BLOCKS.get(failure.treatment):
            seconds = await calls.block_provider(database, name, failure.retry_after_seconds, reason, failure.detail)
            await batches.give_back(database, draft.batch_id, "batch", seconds, reason, failure.detail, costs=False)
        elif failure.treatment == "retry":
            await batches.leave(database, draft.batch_id, None, failure.detail)
        else:
            await batches.give_back(database, draft.batch_id, "dead", 0, "rejected", failure.detail)

    async def _votes(self, ask: Ask) -> list[Vote]:
        """Build the requests for a span; none when its template fails, which is its score then."""
        case: Case = ask.subject
        form = self.reader.ladder.form(self.endpoint.provider, case.definition)
        try:
            return [
                _vote(ask, build(case.definition, case.item, shown, form, place))
                for place, shown in enumerate(shot_subsets(case.shots, case.definition.votes), 1)
            ]
        except TemplateFailed as error:
            fault = Fault("raised", str(error))
            await blame(self.site, ask.version, fault, spans=1, span=ask.span_id, job=ask.job.job_id)
            await self._score([(ask, [], unscored(fault.reason, fault.detail))])
            return []

    async def _enter(self, votes: Sequence[Vote]) -> None:
        """Enter requests as lines where their money can be set aside; put the spans of the others off."""
        if not votes or self.draft is None:
            return
        draft, asked = self.draft, [vote.call for vote in votes]
        self.desk.in_hand.add(draft.batch_id)
        provider = self.endpoint.provider.name
        entered = await batches.begin_lines(
            self.site.database, self.worker_id, draft.batch_id, provider, draft.model, asked
        )
        by_id = {each.call_id: each for each in entered}
        for vote in votes:
            if by_id[vote.call["call_id"]].decision == "line":
                draft.lines.append(vote.line)
                draft.size += len(vote.line)
        await self._treat([(vote, by_id[vote.call["call_id"]]) for vote in votes])

    async def _treat(self, entered: Sequence[tuple[Vote, Entered]]) -> None:
        """Score spans that are known, put off those that are refused, forget all that are no longer claimed."""
        spans: dict[UUID, list[tuple[Vote, Entered]]] = {}
        for vote, told in entered:
            spans.setdefault(vote.ask.job.fence, []).append((vote, told))
        known = [span for span in spans.values() if all(told.decision == "cached" for _, told in span)]
        await self._score([_known(span) for span in known])
        late: dict[tuple[float, Fault], list[UUID]] = {}
        for fence, span in spans.items():
            if delay := _delay([told for _, told in span]):
                late.setdefault(delay, []).append(fence)
        for (seconds, fault), fences in late.items():
            await _put_off(self.site, self.worker_id, fences, seconds, fault)
        self.site.put_down(spans)

    async def _score(self, known: Sequence[tuple[Ask, list[dict[str, Any]], Judgement]]) -> None:
        """Write scores of spans that need no line."""
        if known:
            fences = [ask.job.fence for ask, _, _ in known]
            scores = [
                score_of(_back(ask, answers), judgement) | {"fence": ask.job.fence} for ask, answers, judgement in known
            ]
            await judgements.end_judgements(self.site.database, self.worker_id, fences, scores, [], datetime.now(UTC))
            self.site.put_down(fences)


def _vote(ask: Ask, prompt: Prompt) -> Vote:
    """Describe one request, as the ledger and the batch know it."""
    case: Case = ask.subject
    call_id = uuid4()
    call = {
        "call_id": call_id,
        "fence": ask.job.fence,
        "version_id": ask.version.version_id,
        "span_id": case.subject.span_id,
        "revision": case.subject.revision,
        "started_at": case.subject.started_at,
        "trace_id": case.subject.trace_id,
        "project": case.subject.project,
        "vote": prompt.vote,
        "attempt": ask.job.attempt,
        "provider": prompt.provider,
        "model": prompt.model,
        "rung": prompt.rung,
        "request_hash": prompt.request_hash,
        "shots": list(prompt.shots),
        "input_tokens": prompt.input_tokens,
        "output_tokens": prompt.output_tokens,
        "purpose": "batch",
        "degraded": case.degraded,
    }
    return Vote(ask, prompt, call, request_line(call_id, prompt.body))


def _known(span: Sequence[tuple[Vote, Entered]]) -> tuple[Ask, list[dict[str, Any]], Judgement]:
    """Return a span all of whose votes were answered before, with what they come to."""
    answers = [{**NOTHING, "shots": list(vote.prompt.shots), "hash": vote.prompt.request_hash} for vote, _ in span]
    judgement = combine([read(Reply.of_json(told.reply or {})).judgement for _, told in span])
    return span[0][0].ask, answers, judgement


def _back(ask: Ask, answers: list[dict[str, Any]]) -> Back:
    case: Case = ask.subject
    subject = case.subject
    return Back(
        ask.version.version_id,
        subject.span_id,
        subject.revision,
        subject.started_at,
        subject.trace_id,
        subject.project,
        ask.job.attempt,
        answers[0]["hash"] if answers else "",
        case.degraded,
        answers,
    )


def _delay(entered: Sequence[Entered]) -> tuple[float, Fault] | None:
    """Return how long a span waits, and why: what its votes wait for longest; None when it does not."""
    refused = [each for each in entered if each.decision in ("wait", "over_budget")]
    if not refused:
        return None
    worst = max(refused, key=lambda each: (each.decision == "over_budget", each.wait_seconds or 0.0))
    reason = "over_budget" if worst.decision == "over_budget" else "provider_full"
    return max(worst.wait_seconds or 0.0, RECHECK_SECONDS), Fault(reason, worst.detail or "")


async def _put_off(site: Site, worker_id: UUID, fences: list[UUID], seconds: float, fault: Fault) -> None:
    await queue.retry(site.database, worker_id, fences, seconds, fault.reason, fault.detail, costs=False)
    site.put_down(fences)
