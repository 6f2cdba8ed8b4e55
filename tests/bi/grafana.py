"""What Grafana's Postgres data source does with a query before it sends it, from its documentation.

https://grafana.com/docs/grafana/latest/datasources/postgres/query-editor/ lists the macros.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "grafana"
_MACRO = re.compile(r"\$(\w+)\(([^)]*)\)")
_VARIABLE = re.compile(r"\$(?!__)(?:\{(\w+)(?::\w+)?\}|(\w+))")
_INTERVAL = re.compile(r"(\d+)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class View:
    """What a reader of a dashboard has chosen: a time range, variables, and the width of a point."""

    since: datetime
    until: datetime
    interval: str = "1h"
    chosen: dict[str, list[str]] = field(default_factory=dict)

    def sql(self, query: str) -> str:
        """Return a query as the data source sends it; raises ValueError for a macro or variable that is not known."""
        query = _VARIABLE.sub(lambda found: self._values(found[1] or found[2]), query)
        milliseconds = str(round(seconds(self.interval) * 1000))
        query = query.replace("$__interval_ms", milliseconds).replace("$__interval", self.interval)
        return _MACRO.sub(lambda found: self._macro(found[1], [part.strip() for part in found[2].split(",")]), query)

    def _values(self, name: str) -> str:
        if name not in self.chosen:
            raise ValueError(f"the dashboard has no variable {name}")
        return ",".join("'" + value.replace("'", "''") + "'" for value in self.chosen[name])

    def _macro(self, name: str, given: list[str]) -> str:
        column, since, until = given[0], self.since.timestamp(), self.until.timestamp()
        said = {
            "__time": f'{column} as "time"',
            "__timeEpoch": f'extract(epoch from {column}) as "time"',
            "__timeFilter": f"{column} between '{_stamp(self.since)}' and '{_stamp(self.until)}'",
            "__timeFrom": f"'{_stamp(self.since)}'",
            "__timeTo": f"'{_stamp(self.until)}'",
            "__unixEpochFilter": f"{column} >= {since:.0f} and {column} <= {until:.0f}",
            "__unixEpochFrom": f"{since:.0f}",
            "__unixEpochTo": f"{until:.0f}",
            "__unixEpochNanoFilter": f"{column} >= {since * 1e9:.0f} and {column} <= {until * 1e9:.0f}",
        }
        if name in said:
            return said[name]
        if name.removesuffix("Alias") in ("__timeGroup", "__unixEpochGroup"):
            value = column if "Epoch" in name else f"extract(epoch from {column})"
            width = f"{seconds(given[1]):g}"
            return f"floor({value} / {width}) * {width}" + (' as "time"' if name.endswith("Alias") else "")
        raise ValueError(f"Grafana has no macro ${name}")


@dataclass(frozen=True, slots=True)
class Panel:
    """One query of a panel, with what its kind needs."""

    board: str
    title: str
    kind: str
    format: str
    sql: str
    description: str
    interval: str
    repeat: str | None


def boards() -> list[dict[str, Any]]:
    """Return the dashboards as Grafana reads them."""
    return [json.loads(path.read_text("utf-8")) for path in sorted((FOLDER / "dashboards").glob("*.json"))]


def panels() -> Iterator[Panel]:
    """Yield every query of every panel."""
    for board in boards():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield Panel(
                    *(board["uid"], panel["title"], panel["type"], target["format"], target["rawSql"]),
                    *(panel["description"], panel.get("interval", "5m"), panel.get("repeat")),
                )


def variables(board: dict[str, Any]) -> dict[str, str]:
    """Return the query of each variable of a dashboard."""
    return {variable["name"]: variable["query"] for variable in board["templating"]["list"]}


def seconds(interval: str) -> float:
    """Return the length of an interval such as 5m or '1h'."""
    found = _INTERVAL.fullmatch(interval.strip("'\""))
    if not found:
        raise ValueError(f"{interval} is no interval")
    return int(found[1]) * _SECONDS[found[2]]


def last(days: float, **chosen: Any) -> View:
    """Return a view of the last days."""
    now = datetime.now(UTC)
    return View(now - timedelta(days=days), now, **chosen)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
