"""The files under docker/superset/assets, from the catalogue of an install: a dataset and a chart for every flat view.

PGFLYWHEEL_WRITE_ASSETS=1 python -m pytest tests/bi/test_superset_assets.py writes them anew.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import Connection

FOLDER = Path(__file__).parents[2] / "docker" / "superset" / "assets"
DATABASE_FILE = "databases/pgflywheel.yaml"
_NAMES = uuid.UUID("6a1f2a52-6d0c-4b0e-9a57-3f1f6c1d9a10")
_KINDS = {"timestamp with time zone": "TIMESTAMP WITH TIME ZONE", "double precision": "DOUBLE PRECISION"}
_COLUMNS = r"""
select relname::text, obj_description(pg_class.oid, 'pg_class'), attname::text, format_type(atttypid, null),
       col_description(attrelid, attnum)
  from pg_class join pg_attribute on attrelid = pg_class.oid
 where relnamespace = 'flywheel_bi'::regnamespace and relkind = 'v' and relname !~ '^metric_' and attnum > 0
   and has_table_privilege(pg_class.oid, 'select')
 order by relname, attnum"""


@dataclass(frozen=True, slots=True)
class View:
    """A flat view: its comment, and type and comment of each column."""

    name: str
    description: str
    columns: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Line:
    """A chart of one metric over time, a line for each value of the groups."""

    title: str
    metric: str
    groups: tuple[str, ...]
    grain: str = "P1D"
    format: str = ".1%"


# Every other view is charted as a table of its rows.
LINES = {
    "quality_by_day": Line("Pass rate by day", "pass_rate", ("validator", "version")),
    "quality_by_hour": Line("Pass rate by hour", "pass_rate", ("validator", "version"), "PT1H"),
    "quality_by_minute": Line("Verdicts by minute", "sum_judged", ("validator",), "PT1M", ",d"),
    "scores": Line("Scores by day", "rows", ("validator",), "P1D", ",d"),
    "spans": Line("Spans by day", "rows", ("node",), "P1D", ",d"),
    "latency_by_day": Line("Error rate by day", "error_rate", ("node",)),
    "latency_by_hour": Line("Spans by hour", "sum_n", ("node",), "PT1H", ",d"),
    "validation_coverage": Line("Coverage by day", "judged_share", ("validator",)),
    "validation_reasons": Line("Unscored by day", "sum_n", ("reason",), "P1D", ",d"),
    "validation_cost_by_day": Line("Cost of judging by day", "sum_cost_usd", ("validator",), "P1D", "$,.2f"),
    "drift_tests": Line("Tests for drift by day", "rows", ("kind",), "P1D", ",d"),
    "run_log": Line("Spans worked off", "sum_spans", ("lane",), "PT1M", ",d"),
    "calls": Line("Calls by day", "rows", ("outcome",), "P1D", ",d"),
}
_RATES = {
    "pass_rate": ("passed", "judged"), "judged_share": ("judged", "n"), "error_rate": ("errors", "n"),
    "thumb_rate": ("thumbs_up", "thumbs"),
}  # fmt: skip
_SUMS = ("n", "judged", "spans", "requests", "cost_usd", "calls")


def flat_views(connection: Connection) -> list[View]:
    """Return every flat view the session may read, without those of an install's own metrics."""
    found: dict[str, View] = {}
    for view, said, column, kind, comment in connection.execute(_COLUMNS.encode()):
        found.setdefault(view, View(view, said, {})).columns[column] = (kind, comment)
    return list(found.values())


def files(views: Iterable[View]) -> dict[str, str]:
    """Return every file of the assets by its path."""
    listed = list(views)
    made = {
        "metadata.yaml": {"version": "1.0.0", "type": "assets", "timestamp": "2026-11-21T00:00:00+00:00"},
        DATABASE_FILE: _database(),
        "dashboards/pgflywheel.yaml": _dashboard(listed),
    }
    made |= {f"datasets/pgflywheel/{view.name}.yaml": _dataset(view) for view in listed}
    made |= {f"charts/{view.name}.yaml": _chart(view) for view in listed}
    return {path: yaml.safe_dump(made[path], sort_keys=False, allow_unicode=True, width=120) for path in sorted(made)}


def read() -> dict[str, dict[str, Any]]:
    """Return the files as they are, parsed."""
    paths = sorted(FOLDER.rglob("*.yaml"))
    return {str(path.relative_to(FOLDER)): yaml.safe_load(path.read_text("utf-8")) for path in paths}


def metrics(view: View) -> dict[str, str]:
    """Return the expression of each metric that the columns of a view allow."""
    columns = view.columns
    sums = {f"sum_{name}": f"sum({name})" for name in _SUMS if name in columns}
    rates = {
        name: f"sum({part})::double precision / nullif(sum({whole}), 0)"
        for name, (part, whole) in _RATES.items()
        if {part, whole} <= columns.keys()
    }
    return {"rows": "count(*)", **sums, **rates}


def chart_sql(dataset: Mapping[str, Any], query: Mapping[str, Any]) -> str:
    """Return the SQL that a chart's query means, as Superset would write it for its dataset."""
    expressions = {metric["metric_name"]: metric["expression"] for metric in dataset["metrics"]}
    columns = [_column_sql(column) for column in query["columns"]]
    chosen = columns + [expressions[name] for name in query["metrics"]]
    grouped = f" group by {', '.join(columns)}" if query["metrics"] else ""
    return f"select {', '.join(chosen)} from {dataset['schema']}.{dataset['table_name']}{grouped} limit 100"


def _column_sql(column: str | Mapping[str, str]) -> str:
    if isinstance(column, str):
        return f'"{column}"'
    grains = {"P1D": "day", "PT1H": "hour", "PT1M": "minute"}
    return f"date_trunc('{grains[column['timeGrain']]}', {column['sqlExpression']})"


def _id(kind: str, name: str = "") -> str:
    return str(uuid.uuid5(_NAMES, f"{kind}:{name}"))


def _database() -> dict[str, Any]:
    return {
        "database_name": "pgflywheel",
        "sqlalchemy_uri": "postgresql+psycopg2://analyst:XXXXXXXXXX@database:5432/postgres",
        "expose_in_sqllab": True, "allow_run_async": False, "allow_ctas": False, "allow_cvas": False,
        "allow_dml": False, "allow_csv_upload": False, "cache_timeout": 60,
        "extra": {"allows_virtual_table_explore": True, "metadata_cache_timeout": {"schema_cache_timeout": 600}},
        "uuid": _id("database"), "version": "1.0.0",
    }  # fmt: skip


def _dataset(view: View) -> dict[str, Any]:
    return {
        "table_name": view.name, "schema": "flywheel_bi", "main_dttm_col": "time", "description": view.description,
        "offset": 0, "sql": None, "filter_select_enabled": True, "normalize_columns": False,
        "metrics": [{"metric_name": name, "expression": said} for name, said in metrics(view).items()],
        "columns": [_column(name, *told) for name, told in view.columns.items()],
        "uuid": _id("dataset", view.name), "version": "1.0.0", "database_uuid": _id("database"),
    }  # fmt: skip


def _column(name: str, kind: str, comment: str) -> dict[str, Any]:
    return {
        "column_name": name, "type": _KINDS.get(kind, kind.upper()), "is_dttm": kind.startswith("timestamp"),
        "is_active": True, "groupby": True, "filterable": True, "description": comment,
    }  # fmt: skip


def _chart(view: View) -> dict[str, Any]:
    line = LINES.get(view.name)
    params, query = _line(line) if line else _table(view)
    context = {
        "datasource": {"id": 0, "type": "table"}, "force": False, "queries": [query], "form_data": params,
        "result_format": "json", "result_type": "full",
    }  # fmt: skip
    return {
        "slice_name": title(view.name), "description": view.description, "viz_type": params["viz_type"],
        "params": params, "query_context": json.dumps(context), "cache_timeout": None,
        "uuid": _id("chart", view.name), "version": "1.0.0", "dataset_uuid": _id("dataset", view.name),
    }  # fmt: skip


def title(name: str) -> str:
    """Return what the chart of a view is called."""
    line = LINES.get(name)
    return line.title if line else name.replace("_", " ").capitalize()


def _line(line: Line) -> tuple[dict[str, Any], dict[str, Any]]:
    groups = list(line.groups)
    params = {
        "viz_type": "echarts_timeseries_line", "x_axis": "time", "time_grain_sqla": line.grain,
        "metrics": [line.metric], "groupby": groups, "row_limit": 10000, "time_range": "No filter",
        "y_axis_format": line.format, "show_legend": True, "rich_tooltip": True, "adhoc_filters": [_whenever()],
    }  # fmt: skip
    axis = {
        "timeGrain": line.grain, "columnType": "BASE_AXIS", "sqlExpression": "time", "label": "time",
        "expressionType": "SQL",
    }  # fmt: skip
    return params, _query([axis, *groups], [line.metric], groups)


def _table(view: View) -> tuple[dict[str, Any], dict[str, Any]]:
    shown = list(view.columns)[:15]
    params = {
        "viz_type": "table", "query_mode": "raw", "all_columns": shown, "row_limit": 1000, "time_range": "No filter",
        "server_page_length": 50, "adhoc_filters": [_whenever()],
    }  # fmt: skip
    return params, _query(shown, [], [])


def _query(columns: list[Any], chosen: list[str], groups: list[str]) -> dict[str, Any]:
    return {
        "columns": columns, "metrics": chosen, "series_columns": groups, "row_limit": 1000,
        "filters": [{"col": "time", "op": "TEMPORAL_RANGE", "val": "No filter"}],
        "orderby": [], "extras": {"having": "", "where": ""}, "is_timeseries": False, "order_desc": True,
    }  # fmt: skip


def _whenever() -> dict[str, Any]:
    return {
        "clause": "WHERE", "expressionType": "SIMPLE", "subject": "time", "operator": "TEMPORAL_RANGE",
        "comparator": "No filter",
    }  # fmt: skip


def _dashboard(views: list[View]) -> dict[str, Any]:
    """Return one dashboard: the lines first, then the tables, two to a row."""
    names = sorted((view.name for view in views), key=lambda name: (name not in LINES, name))
    rows = [names[start : start + 2] for start in range(0, len(names), 2)]
    position: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "GRID_ID": {
            "type": "GRID", "id": "GRID_ID", "parents": ["ROOT_ID"],
            "children": [f"ROW-{place}" for place in range(len(rows))],
        },
        "HEADER_ID": {"type": "HEADER", "id": "HEADER_ID", "meta": {"text": "pgflywheel"}},
    }  # fmt: skip
    for place, row in enumerate(rows):
        position |= _row(f"ROW-{place}", row)
    return {
        "dashboard_title": "pgflywheel", "description": "A chart of every flat view.", "slug": "pgflywheel",
        "css": "", "uuid": _id("dashboard"), "position": position, "published": True, "version": "1.0.0",
        "metadata": {"refresh_frequency": 0, "cross_filters_enabled": True, "native_filter_configuration": []},
    }  # fmt: skip


def _row(row: str, names: list[str]) -> dict[str, Any]:
    parents = ["ROOT_ID", "GRID_ID"]
    children = {
        f"CHART-{name}": {
            "type": "CHART", "id": f"CHART-{name}", "children": [], "parents": [*parents, row],
            "meta": {"chartId": 0, "width": 6, "height": 50, "sliceName": title(name), "uuid": _id("chart", name)},
        }
        for name in names
    }  # fmt: skip
    meta = {"background": "BACKGROUND_TRANSPARENT"}
    return {row: {"type": "ROW", "id": row, "children": list(children), "parents": parents, "meta": meta}, **children}
