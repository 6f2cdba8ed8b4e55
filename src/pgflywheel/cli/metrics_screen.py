"""The screen of `metrics watch`: quality, backlog, cost and open alerts, drawn again every few seconds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pgflywheel.cli import figures
from pgflywheel.cli.metric_lines import Asked, MetricLine, lines
from pgflywheel.cli.text import one_line, stdout_console
from pgflywheel.db import monitoring, operations
from pgflywheel.db.connect import Database
from pgflywheel.db.monitoring import OpenAlert
from pgflywheel.db.operations import Backlog

WINDOW = timedelta(days=1)
MOST_ROWS = 12


@dataclass(frozen=True, slots=True)
class Look:
    """What one frame shows; ``cost_usd`` None = nothing is known."""

    at: datetime
    quality: Sequence[MetricLine]
    backlog: Sequence[Backlog]
    requests: int
    cost_usd: float | None
    judging_usd: float | None
    alerts: Sequence[OpenAlert]


async def look_on(database: Database, project: str | None, every: float, seconds: float | None) -> None:
    """Draw looks until it is time to stop; where there is no terminal draw one."""
    console = stdout_console()
    if not sys.stdout.isatty():
        console.print(frame(await look(database, project)))
        return
    ends = None if seconds is None else monotonic() + seconds
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(frame(await look(database, project)), refresh=True)
            rest = every if ends is None else min(every, ends - monotonic())
            if rest <= 0:
                return
            await asyncio.sleep(rest)


async def look(database: Database, project: str | None) -> Look:
    """Read what a frame shows: quality of the last 24 hours, cost since midnight UTC, the rest as it is now."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    cost = [row for row in await operations.cost(database, midnight, project) if row.validator is None]
    return Look(
        now,
        await lines(database, Asked(None, now - WINDOW, now, project=project)),
        await operations.backlog(database),
        sum(row.requests for row in cost),
        _sum(row.cost_usd for row in cost),
        _sum(row.cost_usd for row in await operations.validation_cost(database, midnight)),
        await monitoring.open_alerts(database),
    )


def _sum(costs: Iterable[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None


def frame(look: Look) -> RenderableType:
    """Return one frame of the screen."""
    head = Text(f"pgflywheel  {look.at:%Y-%m-%d %H:%M:%S} UTC", style="bold")
    cost = [f"requests {look.requests:,}", f"their cost {figures.money(look.cost_usd)}"]
    cost.append(f"judging {figures.money(look.judging_usd)}")
    parts: list[RenderableType] = [
        head,
        _titled("open alerts", _alerts(look.alerts), "nothing is wrong"),
        _titled("quality, 24 h", _quality(look.quality), figures.NO_DATA),
        _titled("backlog", _backlog([row for row in look.backlog if _waiting(row)]), "nothing waits"),
        _titled("cost today (UTC)", [cost], ""),
    ]
    return Group(*parts)


def _titled(title: str, rows: Sequence[Sequence[str]], empty: str) -> RenderableType:
    """Return a table of the first rows, or what is said where there is none."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    for row in rows[:MOST_ROWS] or [[empty]]:
        table.add_row(*(Text(one_line(cell), overflow="ellipsis", no_wrap=True) for cell in row))
    if len(rows) > MOST_ROWS:
        table.add_row(Text(f"and {len(rows) - MOST_ROWS} more"))
    return table


def _alerts(alerts: Sequence[OpenAlert]) -> list[list[str]]:
    return [[each.severity, each.rule, each.what, figures.moment(each.opened_at)] for each in alerts]


def _quality(quality: Sequence[MetricLine]) -> list[list[str]]:
    return [
        [
            f"{line.validator} v{line.version}",
            f"n {line.n:,}",
            f"judged {figures.percent(line.judged_share)}",
            figures.rate(line.pass_rate, line.pass_low, line.pass_high),
            _corrected(line),
            "provisional" if line.provisional else "",
        ]
        for line in quality
    ]


def _corrected(line: MetricLine) -> str:
    if line.corrected_rate is None:
        return ""
    return f"corrected {figures.rate(line.corrected_rate, line.corrected_low, line.corrected_high)}"


def _waiting(row: Backlog) -> int:
    return row.queued + row.running + row.later + row.dead


def _backlog(backlog: Sequence[Backlog]) -> list[list[str]]:
    return [
        [
            f"{row.validator} v{row.version}",
            row.lane,
            f"queued {row.queued:,}",
            f"running {row.running:,}",
            f"later {row.later:,}",
            f"dead {row.dead:,}",
            f"oldest {figures.duration(row.oldest_seconds)}",
        ]
        for row in backlog
    ]
