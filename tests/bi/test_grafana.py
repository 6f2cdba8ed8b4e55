"""Grafana's own queries, and every query of the dashboards, as an analyst, on a database with a fortnight in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import yaml

from tests.bi import grafana
from tests.bi.grafana import FOLDER, Panel, View, boards, last, panels
from tests.conftest import Connection

NUMBERS = {20, 21, 23, 700, 701, 1700}  # type oids
TIMES = {1082, 1114, 1184}
TEXTS = {18, 19, 25, 1043}
DAYS = {"now-24h": 1, "now-7d": 7, "now-30d": 30, "now-90d": 90}

# What the query editor asks to list tables and columns: everything a login may see outside the catalogues.
TABLES = """
select quote_ident(table_schema) || '.' || quote_ident(table_name) as "table" from information_schema.tables
 where table_schema not in ('information_schema', 'pg_catalog') order by 1"""
COLUMNS = """
select quote_ident(column_name) as "column", data_type as "type" from information_schema.columns
 where table_schema = (parse_ident(%(name)s))[1] and table_name = (parse_ident(%(name)s))[2]"""


@pytest.fixture(scope="module")
def opened_boards(analyst_dsn: str) -> dict[str, View]:
    """Every dashboard as it opens: its own range, every variable at All."""
    with psycopg.connect(analyst_dsn) as session:
        return {board["uid"]: _opened(session, board) for board in boards()}


def _opened(analyst: Connection, board: dict[str, Any]) -> View:
    view = last(DAYS[board["time"]["from"]])
    values = {
        name: [str(value) for (value,) in analyst.execute(view.sql(query).encode())]
        for name, query in grafana.variables(board).items()
    }
    assert all(values.values()), values
    return View(view.since, view.until, chosen=values)


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: f"{panel.board}: {panel.title}")
def test_a_panel_gets_the_columns_its_kind_needs_and_rows(
    analyst: Connection, opened_boards: dict[str, View], panel: Panel
) -> None:
    opened = opened_boards[panel.board]
    values = dict(opened.chosen)
    for value in values[panel.repeat] if panel.repeat else [None]:
        if panel.repeat:
            values[panel.repeat] = [str(value)]
        cursor = analyst.execute(View(opened.since, opened.until, panel.interval, values).sql(panel.sql).encode())
        assert cursor.description
        kinds = {column.name: column.type_code for column in cursor.description}
        found = cursor.fetchall()
        assert found, "no rows"
        assert len(kinds) == len(cursor.description), "two columns of one name"
        if panel.kind == "timeseries":
            _assert_series(kinds, found)
        elif panel.kind in ("stat", "barchart"):
            assert set(kinds.values()) & (NUMBERS | TIMES)
            assert panel.kind != "stat" or found[0][0] is not None
        else:
            assert set(kinds.values()) <= NUMBERS | TIMES | TEXTS | {16}


def _assert_series(kinds: dict[str, int], found: list[tuple[object, ...]]) -> None:
    """Assert what long to wide needs: a time in order, at most one text, named metric, and numbers; no point twice."""
    names = list(kinds)
    assert names[0] == "time"
    assert kinds["time"] in TIMES | NUMBERS
    assert {name for name, kind in kinds.items() if kind in TEXTS} <= {"metric"}
    assert any(kind in NUMBERS for name, kind in kinds.items() if name != "time")
    times = [row[0] for row in found]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
    labels = [names.index("metric")] if "metric" in kinds else []
    points = {(row[0], *(row[place] for place in labels)) for row in found}
    assert len(points) == len(found)
    assert any(row[-1] is not None for row in found)


def test_the_query_editor_lists_flat_views_and_their_columns(analyst: Connection) -> None:
    tables = {name for (name,) in analyst.execute(TABLES)}
    assert {"flywheel_bi.quality_by_day", "flywheel_bi.spans", "flywheel_bi.scores"} <= tables
    assert not {name for name in tables if "content" in name}
    for name in tables:
        columns = analyst.execute(COLUMNS, {"name": name}).fetchall()
        assert columns, name
        assert not name.startswith("flywheel_bi.") or ('"time"', "timestamp with time zone") in columns


def test_every_panel_says_what_it_shows_and_reads_flat_views_only() -> None:
    for panel in panels():
        assert panel.description.endswith("."), panel
        assert "from flywheel_bi." in panel.sql
        assert "from flywheel." not in panel.sql
        assert "content_" not in panel.sql
        assert (panel.format == "time_series") == (panel.kind == "timeseries")


def test_dashboards_have_ids_of_their_own_and_the_data_source_that_is_provisioned() -> None:
    source = yaml.safe_load((FOLDER / "provisioning/datasources/pgflywheel.yaml").read_text("utf-8"))["datasources"][0]
    provider = yaml.safe_load((FOLDER / "provisioning/dashboards/pgflywheel.yaml").read_text("utf-8"))["providers"][0]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    assert {board["uid"].removeprefix("pgflywheel-") for board in boards()} == {
        "quality", "judges", "cost", "drift", "operations",
    }  # fmt: skip
    for board in boards():
        places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
        assert len(set(places)) == len(places)
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        assert all(panel["datasource"] == {"type": source["type"], "uid": source["uid"]} for panel in board["panels"])


def test_macros_become_what_the_documentation_says() -> None:
    view = View(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), "5m", {"of": ["it's", "b"]})
    assert view.sql("$__timeFilter(time)") == "time between '2026-01-01T00:00:00Z' and '2026-01-02T00:00:00Z'"
    assert view.sql("$__timeGroupAlias(time, $__interval)") == 'floor(extract(epoch from time) / 300) * 300 as "time"'
    assert view.sql("$__timeGroup(time,'1h')") == "floor(extract(epoch from time) / 3600) * 3600"
    assert view.sql("$__unixEpochFilter(t) $__interval_ms") == "t >= 1767225600 and t <= 1767312000 300000"
    assert view.sql("x in ($of) or y in (${of})") == "x in ('it''s','b') or y in ('it''s','b')"
    for wrong in ("$__timeRange(time)", "$nothing", "$__timeGroup(time, '1 hour')"):
        with pytest.raises(ValueError, match=r"no"):
            view.sql(wrong)
