"""Plots as inline SVG: pure functions from points to markup, coloured by classes of the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import floor, isfinite, log10

from pgflywheel.report.markup import element, text
from pgflywheel.report.model import Line, Plot, Point

WIDTH, HEIGHT = 540, 220
LEFT, RIGHT, TOP, BOTTOM = 76, 14, 12, 30
COLOURS = 6
_GRID = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """Where times and values stand in the picture."""

    first: float
    last: float
    top: float
    inset: float = 4

    def x(self, time: datetime) -> float:
        """Return the place of a time from the left; the only time there is stands in the middle."""
        share = 0.5 if self.last <= self.first else (time.timestamp() - self.first) / (self.last - self.first)
        return LEFT + self.inset + share * (WIDTH - LEFT - RIGHT - 2 * self.inset)

    def y(self, value: float) -> float:
        """Return the place of a value from above, within the picture."""
        share = min(1.0, max(0.0, value / self.top))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def draw(plot: Plot) -> str:
    """Return a plot as an SVG element; without a value in it only its frame and the words no data."""
    plot = replace(plot, lines=[Line(line.name, [_finite(each) for each in line.points]) for line in plot.lines])
    scale = _scale(plot)
    known = any(point.value is not None for line in plot.lines for point in line.points)
    shapes = "".join(_bars(plot.lines, scale) if plot.bars else _lines(plot.lines, scale))
    inside = text("title", plot.title) + _grid(scale, plot.unit) + shapes
    inside += _dates(scale) if known else _words("no data", WIDTH / 2, HEIGHT / 2)
    size = {"width": WIDTH, "height": HEIGHT, "viewBox": f"0 0 {WIDTH} {HEIGHT}"}
    return element("svg", inside, role="img", aria_label=plot.title, **size)


def _finite(point: Point) -> Point:
    """Return the point without what is at infinity; where its value is, it is no data."""
    if point.value is None or not isfinite(point.value):
        return Point(point.time, None)
    low, high = (None if each is None or not isfinite(each) else each for each in (point.low, point.high))
    return Point(point.time, point.value, low, high)


def _scale(plot: Plot) -> Scale:
    points = [point for line in plot.lines for point in line.points if point.value is not None]
    seconds = [point.time.timestamp() for point in points] or [0.0]
    largest = max([point.high if point.high is not None else point.value or 0 for point in points] or [0.0])
    return Scale(min(seconds), max(seconds), plot.top or round_above(largest), 24 if plot.bars else 4)


def round_above(value: float) -> float:
    """Return the next number above that divides into even steps; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next((each * power for each in (1, 2, 4, 6, 8, 10, 20) if each * power >= value), 2 * value)


def _lines(lines: Sequence[Line], scale: Scale) -> Iterator[str]:
    for number, line in enumerate(lines):
        for run in _runs(line.points):
            yield _band(run, scale, number % COLOURS)
            yield _curve(run, scale, number % COLOURS)
        yield from (_dot(line.name, point, scale, number % COLOURS) for point in line.points)


def _runs(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Yield stretches with data: over a gap nothing is drawn."""
    run: list[Point] = []
    for point in points:
        if point.value is None and run:
            yield run
            run = []
        elif point.value is not None:
            run.append(point)
    if run:
        yield run


def _band(run: Sequence[Point], scale: Scale, colour: int) -> str:
    known = [
        (scale.x(each.time), each.low, each.high) for each in run if each.low is not None and each.high is not None
    ]
    if not known:
        return ""
    if len(known) == 1:
        ((x, low, high),) = known
        known = [(x - 4, low, high), (x + 4, low, high)]
    edge = [(x, scale.y(high or 0)) for x, _, high in known] + [(x, scale.y(low or 0)) for x, low, _ in reversed(known)]
    return element("polygon", points=_places(edge), class_=f"band c{colour}")


def _curve(run: Sequence[Point], scale: Scale, colour: int) -> str:
    places = _places([(scale.x(each.time), scale.y(each.value or 0)) for each in run])
    return element("polyline", points=places, class_=f"line c{colour}")


def _dot(name: str, point: Point, scale: Scale, colour: int) -> str:
    if point.value is None:
        return ""
    place = {"cx": f"{scale.x(point.time):.1f}", "cy": f"{scale.y(point.value):.1f}"}
    said = text("title", f"{name}, {point.time.astimezone(UTC):%Y-%m-%d %H:%M}: {point.value:,.4g}")
    return element("circle", said, r=2.5, class_=f"dot c{colour}", **place)


def _bars(lines: Sequence[Line], scale: Scale) -> Iterator[str]:
    """Draw lines side by side at each time."""
    times = max((len(line.points) for line in lines), default=1)
    width = max(1.0, 0.7 * (WIDTH - LEFT - RIGHT) / max(2, times) / max(1, len(lines)))
    for number, line in enumerate(lines):
        shift = (number - len(lines) / 2) * width
        yield from (
            _bar(line.name, each, scale, shift, width, number) for each in line.points if each.value is not None
        )


def _bar(name: str, point: Point, scale: Scale, shift: float, width: float, number: int) -> str:
    left = min(max(LEFT, scale.x(point.time) + shift), WIDTH - RIGHT - width)
    top = scale.y(point.value or 0)
    place = {"x": f"{left:.1f}", "y": f"{top:.1f}", "width": f"{width:.1f}", "height": f"{HEIGHT - BOTTOM - top:.1f}"}
    said = text("title", f"{name}, {point.time.astimezone(UTC):%Y-%m-%d}: {point.value:,.4g}")
    return element("rect", said, class_=f"bar c{number % COLOURS}", **place)


def _grid(scale: Scale, unit: str) -> str:
    drawn = ""
    for step in range(_GRID + 1):
        value = scale.top * step / _GRID
        y = scale.y(value)
        drawn += element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
        drawn += _words(f"{value:,.3g} {unit}", LEFT - 6, y + 4, "end")
    return drawn


def _dates(scale: Scale) -> str:
    first, last = (f"{datetime.fromtimestamp(each, UTC):%Y-%m-%d}" for each in (scale.first, scale.last))
    if first == last:
        return _words(first, WIDTH / 2, HEIGHT - 8)
    return _words(first, LEFT, HEIGHT - 8, "start") + _words(last, WIDTH - RIGHT, HEIGHT - 8, "end")


def _words(said: str, x: float, y: float, anchor: str = "middle") -> str:
    return text("text", said, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _places(edge: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in edge)
