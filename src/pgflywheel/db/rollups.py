"""Rollups: how far they are behind, whether they are right, days to count anew, dimensions of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pgflywheel.db.connect import Database, columns_of

BOUNDS = "coalesce(%s::timestamptz, '-infinity'), coalesce(%s::timestamptz, 'infinity')"


@dataclass(frozen=True, slots=True)
class RollupStatus:
    """The row of flywheel.rollup_status."""

    unfolded_scores: int
    unfolded_spans: int
    waiting_days: int
    waiting_since: datetime | None
    folded_at: datetime | None
    folded: int | None
    lag_seconds: float | None
    attributes: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A count that is not what the raw rows say; a bucket is text, for a span may have started at infinity."""

    what: str
    grain: str
    bucket: str
    dimensions: str
    column_name: str
    expected: float
    found: float


async def status(db: Database) -> list[RollupStatus]:
    """Return the one row that says how far the rollups are behind."""
    columns = columns_of(RollupStatus)
    return await db.rows(RollupStatus, f"select {columns} from flywheel.rollup_status")


async def verify(db: Database, since: datetime | None = None, until: datetime | None = None) -> list[Difference]:
    """Return each count that differs from a recount; None = from the first day, to the last."""
    columns = "what, grain, bucket::text, dimensions, column_name, expected, found"
    query = f"select {columns} from flywheel.verify_rollups({BOUNDS})"
    return await db.rows(Difference, query, [since, until])


async def rebuild(db: Database, since: datetime | None = None, until: datetime | None = None) -> int:
    """Have days counted anew by workers; return how many were put on the list."""
    query = (
        "select flywheel.rebuild_rollups(coalesce(%s::timestamptz, '-infinity'), coalesce(%s::timestamptz, 'infinity'))"
    )
    asked: int = await db.value(query, [since, until])
    return asked


async def set_attributes(db: Database, paths: Sequence[str]) -> int:
    """Set the dimensions of one's own; return how many days are counted anew."""
    asked: int = await db.value("select flywheel.set_rollup_attributes(%s)", [list(paths)])
    return asked
