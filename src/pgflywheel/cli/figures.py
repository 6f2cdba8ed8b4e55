"""Rates as people read them, and small plots of them in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pgflywheel.cli.text import one_line

NO_DATA = "no data"
PLOT_WIDTH = 76
PLOT_HEIGHT = 12
_TICKS = 5
_MOST_COLUMNS = PLOT_WIDTH - 9

RatePoint = tuple[datetime, float | None, float, float]


def percent(share: float | None) -> str:
    """Return 93.1 %; nothing was measured is no data, never 0 %."""
    return NO_DATA if share is None else f"{in_percent(share)} %"


def in_percent(share: float) -> str:
    """Return 93.1, or the digits it takes to tell nearly all from all, and hardly any from none."""
    shown = [f"{share * 100:.{digits}f}" for digits in (1, 2, 3, 4)]
    return next((text for text in shown if float(text) not in (0, 100)), shown[-1] if 0 < share < 1 else shown[0])


def rate(share: float | None, low: float | None, high: float | None) -> str:
    """Return a rate with its interval in percent."""
    if share is None or low is None or high is None:
        return NO_DATA
    return f"{in_percent(share)} % [{in_percent(low)}, {in_percent(high)}]"


def points(difference: float | None, low: float | None, high: float | None) -> str:
    """Return a difference of rates with its interval in percentage points."""
    if difference is None or low is None or high is None:
        return NO_DATA
    return f"{difference * 100:+.1f} [{low * 100:+.1f}, {high * 100:+.1f}]"


def money(usd: float | None) -> str:
    """Return US dollars; an unknown price is not a price of 0, nor is a small one."""
    if usd is None:
        return "unknown"
    return f"{usd:.2g} USD" if 0 < usd < 0.0001 else f"{usd:,.4f} USD"


def cap(usd: float) -> str:
    """Return US dollars as they were given."""
    return f"{usd:,.2f} USD" if round(usd, 2) == usd else f"{usd:,.12g} USD"


def moment(time: datetime) -> str:
    """Return a time in UTC to the minute."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def duration(seconds: float | None) -> str:
    """Return how long, in the largest unit that leaves two digits."""
    if seconds is None:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def rate_plot(title: str, series: Sequence[RatePoint]) -> str:
    """Return a plot of a rate over time with an upright bar for each interval; buckets without data stay empty.

    Only the newest buckets are shown where there are more than columns.
    """
    known = [point for point in series if point[1] is not None][-_MOST_COLUMNS:]
    if not known:
        return f"{one_line(title)}: {NO_DATA}"
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(PLOT_WIDTH, PLOT_HEIGHT)
    plotext.title(one_line(title, PLOT_WIDTH - 12))
    seconds = [point[0].timestamp() for point in known]
    for at, (_, _, low, high) in zip(seconds, known, strict=True):
        plotext.plot([at, at], [low * 100, high * 100], marker="│")
    plotext.scatter(seconds, [100 * (point[1] or 0) for point in known], marker="●")
    plotext.ylim(max(0, min(point[2] for point in known) * 100 - 1), 100)
    _ticks(seconds)
    drawn: str = plotext.uncolorize(plotext.build())
    return drawn.rstrip("\n")


def _ticks(seconds: Sequence[float]) -> None:
    import plotext

    first, last = seconds[0], seconds[-1]
    if first == last:
        plotext.xlim(first - 1, last + 1)
        plotext.xticks([first], [_label(first, 0)])
        return
    places = [first + (last - first) * step / (_TICKS - 1) for step in range(_TICKS)]
    plotext.xticks(places, [_label(place, last - first) for place in places])


def _label(second: float, length: float) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%H:%M" if 0 < length < 86400 else "%b %d")
