"""One call to a model, from the question whether it may be made to its entry in the ledger.

begin ──go──> a hand is free ──> called ──reply──> entered in the ledger
  ├─ cached: the reply of before                └──failure──> entered; PutOff, NoVerdict or Rejected
  ├─ wait: here for a moment, else PutOff
  └─ over_budget: PutOff; void: the claim is lost
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from pgflywheel.db.calls import Begun
from pgflywheel.errors import UsageError
from pgflywheel.judge.entry import announced, answered, failed
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.judgement import Reading, read
from pgflywheel.judge.ladder import Ladder
from pgflywheel.judge.price import cost_usd
from pgflywheel.judge.records import Prompt, Reply
from pgflywheel.worker.asks import Ask
from pgflywheel.worker.endpoints import Endpoint, Endpoints
from pgflywheel.worker.ledger import Beginner, Ending, Ledger
from pgflywheel.worker.refusals import (
    PATIENCE_SECONDS,
    Fault,
    PutOff,
    Unanswered,
    blocked,
    delay_seconds,
    jittered,
    no_place,
    no_provider,
)
from pgflywheel.worker.site import Site

NOTHING_SAID = {"input_tokens": None, "output_tokens": None}  # else they are those of the estimate


class NoVerdict(Unanswered):
    """The span gets no verdict, whoever asks again."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.detail)
        self.fault = fault


class Rejected(Unanswered):
    """The endpoint says that the request itself is wrong."""


class StepDown(Unanswered):
    """The endpoint does not know something the request asks for; it can be built without."""


class Void(Unanswered):
    """The claim is no longer the worker's."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that brought a reply, read; one of before costs nothing now."""

    prompt: Prompt
    reply: Reply
    reading: Reading
    cost_usd: float | None

    @property
    def latency_ms(self) -> float:
        return self.reply.latency_ms

    @property
    def input_tokens(self) -> int | None:
        return self.reply.usage.input_tokens

    @property
    def cached_tokens(self) -> int | None:
        return self.reply.usage.cached_tokens

    @property
    def output_tokens(self) -> int | None:
        return self.reply.usage.output_tokens


@dataclass
class Caller:
    """Make calls, and enter each in the ledger as its reply comes."""

    site: Site
    hands: asyncio.Semaphore
    ledger: Ledger
    beginner: Beginner
    endpoints: Endpoints
    ladder: Ladder

    async def call(self, ask: Ask, prompt: Prompt) -> Answered:
        """Return the reply to a prompt; Unanswered says what is to be done when there is none."""
        endpoint = await self.endpoint(prompt.provider)
        call = announced(prompt, ask.subject.item) | {
            "fence": ask.job.fence,
            "version_id": ask.version.version_id,
            "attempt": ask.job.attempt,
            "purpose": "score",
        }
        patience = monotonic() + PATIENCE_SECONDS
        while True:
            begun = await self._begin(ask, endpoint, call, patience)
            if begun.decision == "go":
                return await self._make(ask, endpoint, prompt, call)
            if begun.decision == "cached":
                reply = Reply.of_json(begun.reply or {})
                return Answered(prompt, reply, read(reply), 0.0)
            await self._wait(begun, patience)

    async def endpoint(self, name: str) -> Endpoint:
        """Return a provider that is there; one that was dropped may come back."""
        endpoint = await self.endpoints.of(name)
        if endpoint is None:
            raise no_provider(name)
        return endpoint

    async def _begin(self, ask: Ask, endpoint: Endpoint, call: Mapping[str, Any], patience: float) -> Begun:
        """Ask whether a call may be made; go keeps the gate until the call is settled."""
        if not await endpoint.pass_gate(patience):
            raise no_place(endpoint.provider.name)
        going = False
        try:
            begun = await self.beginner.begin(ask.worker_id, call)
            going = begun.decision == "go"
        finally:
            if not going:
                endpoint.gate.release()
        return begun

    async def _wait(self, begun: Begun, patience: float) -> None:
        """Wait here when it is for a moment."""
        if begun.decision == "void":
            raise Void("the claim is lost")
        detail, seconds = begun.detail or "", begun.wait_seconds
        if begun.decision == "over_budget":
            raise PutOff(seconds, Fault("over_budget", detail), costs=False)
        if monotonic() + seconds > patience or self.site.stopping.is_set():
            raise PutOff(jittered(seconds), Fault("waits", detail), costs=False)
        await asyncio.sleep(jittered(seconds))

    async def _make(self, ask: Ask, endpoint: Endpoint, prompt: Prompt, call: Mapping[str, Any]) -> Answered:
        limit_ms = ask.version.definition.get("time_limit_ms")
        try:
            async with self.hands:
                reply = await endpoint.client.complete(prompt, limit_ms)
            reading = read(reply)
        except CallFailed as failure:
            self._enter(ask, endpoint, call, failed(failure))
            raise await self._treated(ask, endpoint, prompt, failure) from failure
        except UsageError as error:  # a package is missing here: nothing was sent
            self._enter(ask, endpoint, call, {"outcome": "rejected", "detail": error.message})
            raise Rejected(f"{error.message}: {error.hint}") from error
        except Exception as error:
            self._enter(ask, endpoint, call, {"outcome": "connection_lost", "detail": type(error).__name__})
            raise
        self._enter(ask, endpoint, call, answered(reply, reading))
        return Answered(prompt, reply, reading, cost_usd(reply.usage, endpoint.provider.prices.get(prompt.model)))

    def _enter(self, ask: Ask, endpoint: Endpoint, call: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        self.ledger.add(Ending(ask.worker_id, call={**call, **NOTHING_SAID, **said}, settled=endpoint.gate.release))
        self.site.metrics.calls.labels(endpoint.provider.name, said["outcome"]).inc()

    async def _treated(self, ask: Ask, endpoint: Endpoint, prompt: Prompt, failure: CallFailed) -> Unanswered:
        """Return what a failure means for its span; the provider is left alone where it asks for it."""
        if later := await blocked(self.site.database, endpoint.provider.name, failure):
            return later
        if failure.treatment == "retry":
            seconds = max(delay_seconds(ask.job.attempt), failure.retry_after_seconds or 0.0)
            return PutOff(seconds, Fault(failure.outcome, failure.detail), costs=True)
        if failure.treatment in ("too_long", "content_filter"):
            return NoVerdict(Fault(failure.treatment, failure.detail))
        if failure.treatment == "step_down" and not prompt.repair and self.ladder.step_down(prompt, failure):
            return StepDown(failure.detail)
        return Rejected(failure.detail)
