"""What a benchmark says: figures, their ratio, the bar and whether it is met."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Options:
    """How to measure: against which server, how often, with which server version."""

    server_dsn: str
    runs: int = 3
    postgres: int = 18
    scale: float = 1.0
    quick: bool = False


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome; figures hold every repetition, medians their middle."""

    benchmark: str
    ratio: float | None
    bar: str
    met: bool | None
    figures: Mapping[str, Any]
    medians: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the object that is printed."""
        return {name: rounded(value) for name, value in asdict(self).items()}


class Clock:
    """Seconds measured by a ``timed`` block."""

    seconds = 0.0


@contextmanager
def timed() -> Iterator[Clock]:
    """Measure the block."""
    clock = Clock()
    began = time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - began


def interleaved(runs: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure every side in turn, ``runs`` times over: A B A B ..., so that a busy minute hits both."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, measure in sides.items():
            figures[name].append(measure())
    return figures


def medians(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each side."""
    return {name: statistics.median(values) for name, values in figures.items()}


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def rounded(value: Any) -> Any:
    """Return figures with four significant digits, all the way down."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value
