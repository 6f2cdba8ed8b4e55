"""What `metrics show` prints: the rows of quality of a time, each with the corrected rate where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from pgflywheel.db import metrics
from pgflywheel.db.connect import Database
from pgflywheel.db.metrics import Corrected, Quality

MOST_CORRECTED = 50  # each is a query of its own where lines are of slices
SLICES_WITH_LABELS = ("project", "environment", "release")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which numbers: ``by`` a dimension or None, ``grain`` a bucket or None for the whole time."""

    validator: str | None
    since: datetime
    until: datetime
    by: str | None = None
    grain: str | None = None
    project: str | None = None

    @property
    def dimensions(self) -> list[str]:
        """Return what flywheel.quality() is grouped by."""
        wanted = (self.by, self.grain, "project" if self.project is not None else None)
        return sorted({name for name in wanted if name is not None})


@dataclass(frozen=True, slots=True)
class MetricLine:
    """One line of `metrics show`; shares in 0..1, None = no data."""

    time: datetime | None
    validator: str
    version: int
    status: str
    provisional: bool
    slice: str | None
    n: int
    judged: int
    passed: int
    failed: int
    unscored: int
    judged_share: float | None
    pass_rate: float | None
    pass_low: float
    pass_high: float
    corrected_rate: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    labels: int | None = None
    method: str | None = None
    note: str | None = None


async def lines(database: Database, asked: Asked) -> list[MetricLine]:
    """Return the numbers asked for; shadows and drafts only of a validator that is named."""
    found = await _quality(database, asked, asked.dimensions)
    corrected = {} if asked.grain else await _corrected(database, asked, found)
    return [_line(row, asked.by, corrected.get(_key(row, asked.by))) for row in found]


async def series(database: Database, asked: Asked) -> list[Quality]:
    """Return the rates of a time in buckets, over all slices."""
    grain = asked.grain or grain_for(asked.until - asked.since)
    plain = Asked(asked.validator, asked.since, asked.until, None, grain, asked.project)
    return await _quality(database, plain, plain.dimensions)


def grain_for(length: timedelta) -> str:
    """Return the bucket that divides a time into some dozens of points."""
    if length <= timedelta(hours=2):
        return "minute"
    return "hour" if length <= timedelta(days=3) else "day"


async def _quality(database: Database, asked: Asked, by: Sequence[str]) -> list[Quality]:
    rows = await metrics.quality(database, asked.since, asked.until, by)
    return [
        row
        for row in rows
        if (row.status not in ("shadow", "draft") if asked.validator is None else row.validator == asked.validator)
        and (asked.project is None or row.project == asked.project)
    ]


Key = tuple[str, int, str | None]
_COUNTED = frozenset(Quality.__dataclass_fields__)


def _key(row: Quality, by: str | None) -> Key:
    return row.validator, row.version, _slice(row, by)


def _slice(row: Quality, by: str | None) -> str | None:
    return None if by is None else getattr(row, by)


async def _corrected(database: Database, asked: Asked, found: Sequence[Quality]) -> dict[Key, Corrected]:
    """Return corrected rates of the largest lines that people's labels can correct, those of judges first."""
    if asked.by is not None and asked.by not in SLICES_WITH_LABELS:
        return {}
    judges_first = sorted(found, key=lambda row: (row.annotator_kind == "code", -row.n))
    wanted = dict.fromkeys(
        (row.validator, _slice(row, asked.by)) for row in judges_first if asked.by is None or _slice(row, asked.by)
    )
    corrected: dict[Key, Corrected] = {}
    for validator, part in list(wanted)[:MOST_CORRECTED]:
        where = {"project": asked.project} if asked.project is not None else {}
        if asked.by is not None and part is not None:
            where[asked.by] = part
        call = partial(metrics.corrected_pass_rate, database, validator, asked.since, asked.until)
        for row in await call(**where):
            corrected[row.validator, row.version, part] = row
    return corrected


def _line(row: Quality, by: str | None, corrected: Corrected | None) -> MetricLine:
    shown = {name: getattr(row, name) for name in MetricLine.__dataclass_fields__ if name in _COUNTED}
    if corrected is None or (row.annotator_kind == "code" and not corrected.labels):
        return MetricLine(**shown, slice=_slice(row, by))
    known = corrected.corrected_rate is not None
    return MetricLine(
        **shown,
        slice=_slice(row, by),
        corrected_rate=corrected.corrected_rate,
        corrected_low=corrected.corrected_low if known else None,
        corrected_high=corrected.corrected_high if known else None,
        labels=corrected.labels,
        method=corrected.method,
        note=corrected.note,
    )
