"""What may not be done now: for how long it is put off, and why."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from pgflywheel.db import calls
from pgflywheel.db.connect import Database
from pgflywheel.errors import UsageError
from pgflywheel.judge.failures import CallFailed

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 2.0  # what is longer is waited for in the queue
MISSING_SECONDS = 60.0
UNEQUIPPED_SECONDS = 600.0
FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 1.0, 300.0
MOST_DOUBLINGS = 60  # more are too large for a float
BLOCKS = {"wait": "rate_limited", "quota": "quota_exhausted", "unauthorized": "unauthorized"}  # by treatment


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no verdict, or not yet: a reason and its detail."""

    reason: str
    detail: str


class Unanswered(Exception):
    """A call brought no reply that could be read as a verdict."""


class PutOff(Unanswered):
    """It is to be made later."""

    def __init__(self, seconds: float, fault: Fault, *, costs: bool) -> None:
        super().__init__(fault.detail)
        self.seconds = seconds
        self.fault = fault
        self.costs = costs


def no_provider(name: str) -> PutOff:
    """Return what becomes of calls to a provider that was dropped: it may come back."""
    return PutOff(MISSING_SECONDS, Fault("no_provider", f"there is no provider {name}"), costs=False)


def no_place(name: str) -> PutOff:
    """Return what becomes of a call that finds no place among those of this worker."""
    return PutOff(jittered(1.0), Fault("waits", f"{name} takes no more calls now"), costs=False)


async def blocked(database: Database, provider: str, failure: CallFailed) -> PutOff | None:
    """Leave a provider alone that asks for it, for all workers; None when a failure asks for nothing like that."""
    reason = BLOCKS.get(failure.treatment)
    if reason is None:
        return None
    seconds = await calls.block_provider(database, provider, failure.retry_after_seconds, reason, failure.detail)
    log.warning(
        "a provider is left alone",
        extra={"provider": provider, "reason": reason, "detail": failure.detail, "seconds": seconds},
    )
    return PutOff(jittered(seconds), Fault(reason, failure.detail), costs=False)


def later_of(failure: CallFailed | PutOff | UsageError, attempt: int) -> PutOff:
    """Return how long what cannot be embedded now is put off; a package that is missing here is not elsewhere."""
    if isinstance(failure, PutOff):
        return failure
    if isinstance(failure, UsageError):
        detail = " ".join(filter(None, (failure.message, failure.detail, failure.hint)))
        return PutOff(UNEQUIPPED_SECONDS, Fault("raised", detail), costs=False)
    seconds = max(delay_seconds(attempt), failure.retry_after_seconds or 0.0)
    return PutOff(seconds, Fault(failure.outcome, f"the embedder's endpoint: {failure.detail}"), costs=True)


def delay_seconds(attempt: int) -> float:
    """Return the wait before the next attempt: doubling, with jitter so that calls do not come back together."""
    return backoff_seconds(attempt - 1, FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS)


def backoff_seconds(failures: int, first: float = 0.1, last: float = 5.0) -> float:
    """Return the wait after so many failures in a row, however many a long outage makes of them."""
    return min(last, first * 2.0 ** min(failures, MOST_DOUBLINGS)) * random.uniform(0.5, 1.0)


def jittered(seconds: float) -> float:
    """Return a little more, so that what waits for the same thing does not come back together."""
    return seconds + random.uniform(0, min(1.0, 0.25 * seconds + 0.05))
