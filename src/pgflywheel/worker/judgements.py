"""Judges: a model is asked about a span, once or several times, and what it says becomes a score.

read ──shots──> asked ──votes──> one judgement ──> ledger: score, end of the job, money
                  │  a vote without a verdict is asked once more (repair)
                  ├─ PutOff ──> later; what was answered so far is in the calls and not paid twice
                  ├─ NoVerdict ──> ledger: unscored, with the reason
                  └─ Rejected ──> dead
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pgflywheel.db import judgements, queue
from pgflywheel.db.judgements import Subject
from pgflywheel.db.queue import Version
from pgflywheel.errors import FlywheelError, UsageError
from pgflywheel.judge.definition import JudgeDefinition
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.judgement import repair, unscored
from pgflywheel.judge.ladder import Ladder
from pgflywheel.judge.prompt import build
from pgflywheel.judge.records import Item, Judgement, Shot, Step, Turn
from pgflywheel.judge.template import TemplateFailed
from pgflywheel.judge.votes import combine, shot_subsets
from pgflywheel.worker.asks import Ask, put_off
from pgflywheel.worker.batch import Batch
from pgflywheel.worker.faults import blame
from pgflywheel.worker.ledger import Beginner, Ending, Ledger
from pgflywheel.worker.model_calls import Answered, Caller, NoVerdict, Rejected, StepDown, Void
from pgflywheel.worker.refusals import Fault, PutOff, later_of
from pgflywheel.worker.shots import Shots
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
MOST_STEPS_DOWN = 8


@dataclass(frozen=True, slots=True)
class Case:
    """A span as its judge is asked about it."""

    subject: Subject
    item: Item
    definition: JudgeDefinition
    degraded: str | None
    shots: tuple[Shot, ...]


@dataclass(slots=True)
class Bill:
    """What the calls of one judgement took; None = not known."""

    answered: list[Answered] = field(default_factory=list)

    def total(self, name: str) -> Any:
        """Return the sum of a column over all calls; None when one of them does not know it."""
        values = [getattr(each, name) for each in self.answered]
        return None if not values or None in values else sum(values)


class Judgements:
    """Judge spans by asking models."""

    def __init__(self, site: Site, hands: asyncio.Semaphore, ledger: Ledger) -> None:
        self.site = site
        self.ledger = ledger
        self.ladder = Ladder()
        self.caller = Caller(site, hands, ledger, Beginner(site), site.endpoints, self.ladder)
        self.shots = Shots(site.database, site.embedders)
        self.ahead = site.options.concurrency // 8  # so many calls are begun before a hand is free
        self.definitions: dict[tuple[UUID, str | None], JudgeDefinition] = {}

    async def read(self, batch: Batch, version: Version) -> list[Ask]:
        """Read claimed spans, and choose the examples each is shown with."""
        definition, degraded, smaller = await self._definition(version)
        subjects = await judgements.read_judgements(self.site.database, batch.fences, version.version_id)
        jobs = {job.fence: job for job in batch.jobs}
        if smaller:
            await self._let_wait(batch, version, [each for each in subjects if not each.sampled])
            subjects = [each for each in subjects if each.sampled]
        try:
            shots = await self.shots.of(batch.worker_id, version.version_id, definition, subjects)
        except (CallFailed, PutOff, UsageError) as failure:
            await self._without_embedder(batch, version, subjects, failure)
            return []
        return [
            Ask(
                batch.worker_id,
                jobs[subject.fence],
                version,
                subject.span_id,
                Case(subject, item_of(subject), definition, degraded, shown),
                definition.votes,
            )
            for subject, shown in zip(subjects, shots, strict=True)
        ]

    async def answer(self, ask: Ask) -> None:
        """Ask about a span; enter its score, or put it off."""
        bill = Bill()
        try:
            judgement = await self._judge(ask, bill)
        except PutOff as later:
            await put_off(self.site, ask, later.seconds, later.fault, costs=later.costs)
        except NoVerdict as none:
            self._end(ask, unscored(none.fault.reason, none.fault.detail), bill)
        except TemplateFailed as error:
            fault = Fault("raised", str(error))
            await blame(self.site, ask.version, fault, spans=1, span=ask.span_id, job=ask.job.job_id)
            self._end(ask, unscored(fault.reason, fault.detail), bill)
        except Rejected as error:
            await self._bury(ask, Fault("rejected", str(error)))
        except Void:
            self.site.metrics.void.labels("judge").inc()
            self.site.put_down([ask.job.fence])
        else:
            self._end(ask, judgement, bill)

    async def _judge(self, ask: Ask, bill: Bill) -> Judgement:
        """Return what all votes come to; when one cannot be had now, the others are still waited for."""
        case: Case = ask.subject
        subsets = shot_subsets(case.shots, case.definition.votes)
        if len(subsets) == 1:
            return combine([await self._vote(ask, subsets[0], 1, bill)])
        votes = [self._vote(ask, shown, place, bill) for place, shown in enumerate(subsets, 1)]
        said = await asyncio.gather(*votes, return_exceptions=True)
        given = [each for each in said if isinstance(each, Judgement)]
        missed = [each for each in said if isinstance(each, BaseException)]
        if missed:
            raise max(missed, key=_weight)
        return combine(given)

    async def _vote(self, ask: Ask, shots: Sequence[Shot], vote: int, bill: Bill) -> Judgement:
        """Return one vote; a reply that holds no verdict is asked for once more."""
        first = await self._ask(ask, shots, vote)
        bill.answered.append(first)
        if first.reading.scored:
            return first.reading.judgement
        try:
            again = await self.caller.call(ask, repair(first.prompt, first.reply, first.reading))
        except (NoVerdict, Rejected):  # it is longer than the first, and may be too long
            return first.reading.judgement
        bill.answered.append(again)
        return again.reading.judgement

    async def _ask(self, ask: Ask, shots: Sequence[Shot], vote: int) -> Answered:
        """Make a call, without what the endpoint turns out not to know."""
        case: Case = ask.subject
        for _ in range(MOST_STEPS_DOWN):
            endpoint = await self.caller.endpoint(case.definition.provider)
            form = self.ladder.form(endpoint.provider, case.definition)
            try:
                return await self.caller.call(ask, build(case.definition, case.item, shots, form, vote))
            except StepDown as error:
                log.info("an endpoint is asked in a simpler form", extra={"provider": case.definition.provider})
                refused = error
        raise Rejected(str(refused))

    def _end(self, ask: Ask, judgement: Judgement, bill: Bill) -> None:
        """Enter the score of a span; its claim ends with it."""
        self.ledger.add(Ending(ask.worker_id, fence=ask.job.fence, score=_score(ask, judgement, bill)))

    async def _bury(self, ask: Ask, fault: Fault) -> None:
        """Give a span up that the endpoint will never take."""
        await blame(self.site, ask.version, fault, spans=1, span=ask.span_id, job=ask.job.job_id)
        await queue.bury(self.site.database, ask.worker_id, [ask.job.fence], fault.reason, fault.detail)
        self.site.metrics.jobs.labels("judge", "buried").inc()
        self.site.put_down([ask.job.fence])

    async def _definition(self, version: Version) -> tuple[JudgeDefinition, str | None, bool]:
        """Return the judge as its budget leaves it, what became smaller, and whether its sample did."""
        key = version.version_id, None
        if key not in self.definitions:
            self.definitions[key] = JudgeDefinition.of(version.validator, version.definition)
        whole = self.definitions[key]
        degrade = whole.degrade
        if degrade.votes_at is None and degrade.model_at is None and degrade.sample_at is None:
            return whole, None, False
        share = await judgements.budget_share(self.site.database, version.version_id)
        smaller, degraded = whole.under(share)
        kept = self.definitions.setdefault((version.version_id, degraded), smaller)
        return kept, degraded, degrade.sample_at is not None and share >= degrade.sample_at

    async def _let_wait(self, batch: Batch, version: Version, subjects: Sequence[Subject]) -> None:
        """Put off what a smaller sample leaves out, until a period of budgets ends."""
        for ask in _unread(batch, version, subjects):
            fault = Fault("over_budget", "the budget runs short: only a smaller sample is judged until its period ends")
            await put_off(self.site, ask, _until_midnight(), fault, costs=False)

    async def _without_embedder(
        self, batch: Batch, version: Version, subjects: Sequence[Subject], failure: CallFailed | PutOff | UsageError
    ) -> None:
        """Put spans off that cannot be compared with the examples now."""
        for ask in _unread(batch, version, subjects):
            later = later_of(failure, ask.job.attempt)
            await put_off(self.site, ask, later.seconds, later.fault, costs=later.costs)


def _unread(batch: Batch, version: Version, subjects: Sequence[Subject]) -> list[Ask]:
    jobs = {job.fence: job for job in batch.jobs}
    return [Ask(batch.worker_id, jobs[each.fence], version, each.span_id, None) for each in subjects]


def item_of(subject: Subject) -> Item:
    """Return a span as the judge sees it."""
    return Item(
        subject.input,
        subject.output,
        span_id=subject.span_id,
        revision=subject.revision,
        trace_id=subject.trace_id,
        project=subject.project,
        node=subject.node,
        documents=subject.documents,
        messages=subject.messages,
        parents=tuple(Step(each["node"], each["input"], each["output"]) for each in subject.parents),
        session=tuple(Turn(each["input"], each["output"]) for each in subject.session),
    )


def _score(ask: Ask, judgement: Judgement, bill: Bill) -> dict[str, Any]:
    """Return the columns of a score."""
    case: Case = ask.subject
    subject = case.subject
    first = bill.answered[0] if bill.answered else None
    shown = dict.fromkeys(shot for each in bill.answered for shot in each.prompt.shots)
    return {
        "span_id": subject.span_id,
        "revision": subject.revision,
        "started_at": subject.started_at,
        "trace_id": subject.trace_id,
        "project": subject.project,
        "version_id": ask.version.version_id,
        "passed": judgement.passed,
        "value": judgement.value,
        "critique": judgement.critique,
        "reason": judgement.reason,
        "detail": judgement.detail,
        "confidence": judgement.confidence,
        "latency_ms": max((each.latency_ms for each in bill.answered), default=None),
        "input_tokens": bill.total("input_tokens"),
        "cached_tokens": bill.total("cached_tokens"),
        "output_tokens": bill.total("output_tokens"),
        "cost_usd": bill.total("cost_usd"),
        "votes": case.definition.votes,
        "shots": list(shown) or None,
        "request_hash": first and first.prompt.request_hash,
        "degraded": case.degraded,
    }


def _weight(missed: BaseException) -> tuple[int, float]:
    """Rank why votes are missing: what ends the span before what puts it off, a longer wait before a shorter one."""
    if isinstance(missed, PutOff):
        return int(missed.costs), missed.seconds
    order = (NoVerdict, TemplateFailed, Rejected, Void, FlywheelError, BaseException)
    return 2 + next(place for place, kind in enumerate(order) if isinstance(missed, kind)), 0.0


def _until_midnight() -> float:
    """Return the seconds until a day of budgets ends, spread so that not everything comes back at once."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds() + random.uniform(1, 30)
