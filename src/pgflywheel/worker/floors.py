"""Where to look for jobs: past the dead index entries of jobs claimed before.

With an old transaction open nothing removes those entries, and a claim that starts from the beginning walks over
all of them. Ids of jobs begin with the time, so a claim may start a little before the last id claimed. A writer
that commits late leaves jobs below that floor: claims from the start find them, as often as they are cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from pgflywheel.records import Claimed

_RANDOM_BITS = 80
_VERSION_7 = 0x7 << 76
MARGIN_MS = 250
FULL_SHARE = 20  # claims from the start take one twentieth of the time, at most


def uuid7_ms(value: UUID) -> int:
    """Return the milliseconds since 1970 a version 7 uuid begins with."""
    return value.int >> _RANDOM_BITS


def uuid7_floor(ms: int) -> UUID:
    """Return a uuid below every version 7 uuid of that millisecond and after."""
    return UUID(int=(max(ms, 0) << _RANDOM_BITS) | _VERSION_7)


@dataclass
class Floor:
    """The floor of one lane and priority."""

    clock: Callable[[], float] = monotonic
    highest_ms: int = 0
    full_at: float = float("-inf")
    full_seconds: float = 0.0

    def after(self) -> UUID | None:
        """Return the floor for the next claim; None is a claim from the start."""
        if self.highest_ms == 0 or self.clock() - self.full_at >= FULL_SHARE * self.full_seconds:
            return None
        return uuid7_floor(self.highest_ms - MARGIN_MS)

    def saw(self, jobs: Sequence[Claimed], after: UUID | None, seconds: float) -> None:
        """Remember what a claim found and how long it took."""
        if after is None:
            self.full_at, self.full_seconds = self.clock(), seconds
        if jobs:
            self.highest_ms = max(self.highest_ms, uuid7_ms(max(job.job_id for job in jobs)))
