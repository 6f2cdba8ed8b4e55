"""What a report shows: sections of plots, tables and quotes. Texts are plain; the page escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a time, with its interval where it has one; None = no data."""

    time: datetime
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A named row of points, the oldest first."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over time, or bars when ``bars``; the scale ends at ``top``, or at the largest value."""

    title: str
    lines: Sequence[Line]
    unit: str = "%"
    top: float | None = None
    bars: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are shown; ``numeric`` columns stand to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Quote:
    """Content: what somebody or some model wrote, and where."""

    where: str
    texts: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence, ``important`` where a reader must not miss it."""

    text: str
    important: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, what its numbers mean, and what it shows; empty = no data."""

    title: str
    meaning: str
    parts: Sequence[Plot | Table | Quote | Note] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    title: str
    facts: Sequence[str]
    sections: Sequence[Section] = field(default_factory=tuple)
