"""Sentinels: a judge is asked about the same labelled items every day; a run is written whole, or not at all.

due ──turn taken──> items asked one by one (purpose test, within limits and budgets) ──> run and test, together
                       └─ the provider does not answer, or a budget is used up: tried again at the next turn
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import UUID

from pgflywheel.db import calls, drift
from pgflywheel.db.judgements import Subject
from pgflywheel.db.queue import Version
from pgflywheel.errors import UsageError
from pgflywheel.judge.definition import JudgeDefinition
from pgflywheel.judge.entry import announced, answered, failed
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.judgement import read, repair, unscored
from pgflywheel.judge.ladder import Ladder
from pgflywheel.judge.price import cost_usd
from pgflywheel.judge.prompt import build
from pgflywheel.judge.records import Item, Judgement, Prompt, Shot
from pgflywheel.judge.template import TemplateFailed
from pgflywheel.judge.votes import combine, shot_subsets
from pgflywheel.worker.endpoints import Endpoint
from pgflywheel.worker.judgements import MOST_STEPS_DOWN, item_of
from pgflywheel.worker.model_calls import Answered
from pgflywheel.worker.refusals import Unanswered, blocked, no_provider
from pgflywheel.worker.shots import Shots
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
LOOK_SECONDS = 300.0
TURN_SECONDS = 1800.0
PATIENCE_SECONDS = 120.0
AT_A_TIME = 4
_OF_THE_ITEM = ("too_long", "content_filter")  # what another try would not change
_OF_THE_REPAIR = (*_OF_THE_ITEM, "dead", "step_down")


class NotNow(Unanswered):
    """No verdicts are to be had at the moment."""


@dataclass
class Sentinels:
    """Look for judges whose sentinels are due; not all workers at the same moment."""

    site: Site
    shots: Shots = field(init=False)
    ladder: Ladder = field(default_factory=Ladder)

    def __post_init__(self) -> None:
        self.shots = Shots(self.site.database, self.site.embedders)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))
            with self.site.going_on("sentinels"):
                await self.ask_due()

    async def ask_due(self) -> int:
        """Ask the judges that are due and in nobody's hands; return how many runs were written."""
        written = 0
        due = await drift.due_sentinels(self.site.database)
        for version in await self.site.versions.of(due):
            if await drift.take_turn(self.site.database, f"sentinels {version.version_id}", TURN_SECONDS):
                written += await self._ask(version)
        return written

    async def _ask(self, version: Version) -> bool:
        """Ask one judge about all its sentinels; tell whether a run came of it."""
        run_at = datetime.now(UTC)
        subjects = await drift.sentinels(self.site.database, version.version_id)
        try:
            said = await self._verdicts(version, subjects)
        except (Unanswered, CallFailed) as error:
            log.warning("sentinels are not asked now", extra={"validator": version.validator, "reason": str(error)})
            return False
        await drift.write_sentinel_run(self.site.database, version.version_id, run_at, said)
        log.info("sentinels asked", extra={"validator": version.validator, "items": len(said)})
        return True

    async def _verdicts(self, version: Version, subjects: list[Subject]) -> list[dict[str, Any]]:
        """Return a row for each sentinel; after the first that fails no call begins, those begun are settled."""
        definition = JudgeDefinition.of(version.validator, version.definition)
        shown = await self.shots.of(self.site.lease.worker_id, version.version_id, definition, subjects)
        hands = asyncio.Semaphore(AT_A_TIME)
        case = Asking(self.site, version.version_id, definition, self.ladder, hands)
        work = [case.about(each, shots) for each, shots in zip(subjects, shown, strict=True)]
        rows = await asyncio.gather(*work, return_exceptions=True)
        if case.refusal is not None:
            raise case.refusal
        return [row for row in rows if not isinstance(row, BaseException)]


@dataclass
class Asking:
    """A judge version that is asked about items without writing scores.

    What cannot be had ends the asking: no further call begins. Calls that were begun are waited for, as they are paid.
    """

    site: Site
    version_id: UUID
    definition: JudgeDefinition
    ladder: Ladder
    hands: asyncio.Semaphore
    refusal: Exception | None = None

    async def about(self, subject: Subject, shots: tuple[Shot, ...]) -> dict[str, Any]:
        """Return the row of one sentinel."""
        bill: list[Answered] = []
        item = item_of(subject)
        async with self.hands:
            try:
                subsets = shot_subsets(shots, self.definition.votes)
                votes = [await self._vote(item, shown, vote, bill) for vote, shown in enumerate(subsets, 1)]
                judgement = combine(votes)
            except TemplateFailed as error:
                judgement = unscored("raised", str(error))
            except Exception as error:
                self.refusal = self.refusal or error
                raise
        costs = [each.cost_usd for each in bill]
        return {
            "sentinel_id": subject.fence,
            "passed": judgement.passed,
            "value": judgement.value,
            "reason": judgement.reason,
            "detail": judgement.detail,
            "answered_by": bill[-1].reply.model if bill else None,
            "cost_usd": None if not costs or None in costs else sum(each for each in costs if each is not None),
        }

    async def _vote(self, item: Item, shots: tuple[Shot, ...], vote: int, bill: list[Answered]) -> Judgement:
        """Return one vote, after one repair at most; what the endpoint never takes is unscored."""
        try:
            first = await self._built(item, shots, vote)
        except CallFailed as failure:
            if failure.treatment in _OF_THE_ITEM:
                return unscored(failure.treatment, failure.detail)
            raise
        bill.append(first)
        if first.reading.scored:
            return first.reading.judgement
        try:
            again = await self._call(item, repair(first.prompt, first.reply, first.reading))
        except CallFailed as failure:
            if failure.treatment in _OF_THE_REPAIR:  # it is longer than the first, and may be too long
                return first.reading.judgement
            raise
        bill.append(again)
        return again.reading.judgement

    async def _built(self, item: Item, shots: tuple[Shot, ...], vote: int) -> Answered:
        """Ask without what the endpoint turns out not to know."""
        for _ in range(MOST_STEPS_DOWN):
            endpoint = await self._endpoint(self.definition.provider)
            prompt = build(self.definition, item, shots, self.ladder.form(endpoint.provider, self.definition), vote)
            try:
                return await self._call(item, prompt)
            except CallFailed as failure:
                if not self.ladder.step_down(prompt, failure):
                    raise
        raise NotNow("the endpoint refuses every form of the request")

    async def _endpoint(self, name: str) -> Endpoint:
        endpoint = await self.site.endpoints.of(name)
        if endpoint is None:
            raise no_provider(name)
        return endpoint

    async def _call(self, item: Item, prompt: Prompt) -> Answered:
        """Make a call within the limits and budgets all workers share, and record it."""
        if self.refusal is not None:
            raise self.refusal
        endpoint = await self._endpoint(prompt.provider)
        of_test = {"fence": None, "version_id": self.version_id, "attempt": 1, "purpose": "test"}
        call = announced(prompt, item) | of_test
        patience = monotonic() + PATIENCE_SECONDS
        while True:
            if not await endpoint.pass_gate(patience):
                raise NotNow(f"{endpoint.provider.name} takes no more calls now")
            try:
                seconds = await self._begin(call, patience)
                if seconds is None:
                    return await self._make(endpoint, prompt, call)
            finally:
                endpoint.gate.release()
            await asyncio.sleep(seconds)

    async def _make(self, endpoint: Endpoint, prompt: Prompt, call: Mapping[str, Any]) -> Answered:
        try:
            reply = await endpoint.client.complete(prompt, self.definition.time_limit_ms)
        except CallFailed as failure:
            await self._end(endpoint, call, failed(failure))
            if later := await blocked(self.site.database, endpoint.provider.name, failure):
                raise later from failure
            raise
        except UsageError as error:  # a package is missing here: nothing was sent
            await self._end(endpoint, call, {"outcome": "rejected", "detail": error.message})
            raise NotNow(error.message) from error
        reading = read(reply)
        await self._end(endpoint, call, answered(reply, reading))
        return Answered(prompt, reply, reading, cost_usd(reply.usage, endpoint.provider.prices.get(prompt.model)))

    async def _begin(self, call: Mapping[str, Any], patience: float) -> float | None:
        """Return None when the call may be made, and else when to ask again; a budget is not waited for."""
        (begun,) = await calls.begin_calls(self.site.database, self.site.lease.worker_id, [call])
        if begun.decision == "go":
            return None
        if begun.decision != "wait" or monotonic() + begun.wait_seconds > patience or self.site.stopping.is_set():
            raise NotNow(begun.detail or begun.decision)
        return begun.wait_seconds

    async def _end(self, endpoint: Endpoint, call: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        await calls.end_calls(self.site.database, [{**call, **said}])
        self.site.metrics.calls.labels(endpoint.provider.name, said["outcome"]).inc()
