"""Days are UTC days, and 24 hours long, whatever the time zone of who looks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sql.measured import Spot, judge
from tests.sql.support import Connection, rows, value

ZONES = ("America/New_York", "Australia/Sydney", "Asia/Kolkata")
MEASURES = ("pass_rate", "requests")


@pytest.mark.parametrize("zone", ZONES)
def test_the_window_of_quality_begins_with_a_utc_day(connection: Connection, zone: str) -> None:
    connection.execute("select set_config('timezone', %s, false)", [zone])
    for days in (30, 90, 180, 270):
        connection.execute(
            "update flywheel.settings set value = to_jsonb(%s) where name = 'quality_window_days'", [days]
        )
        begins = "(select flywheel._quality_since()) at time zone 'UTC'"
        assert value(connection, f"select {begins} = date_trunc('day', {begins})"), days


@pytest.mark.parametrize("storage", ["live", "rollup"])
def test_a_metric_shows_the_same_days_in_every_time_zone(connection: Connection, storage: str) -> None:
    version = judge(connection)
    for days in (90, 180, 270):
        edge = value(
            connection, "select date_bin('1 day', now(), '2000-01-01 00:00:00+00') - %s * interval '24 h'", [days]
        )
        for hours in (-1, 0):
            at = value(connection, "select %s + %s * interval '1 hour'", [edge, hours])
            Spot(at).score(connection, version, 1, True)
        for measure in MEASURES:
            given: dict[str, Any] = {"measure": measure, "grain": "hour", "days": days + 1, "storage": storage}
            given |= {"validator": "polite"} if measure == "pass_rate" else {}
            view = value(connection, "select flywheel.define_metric('edge', %s)", [json.dumps(given)])
            for zone in ("UTC", *ZONES):
                connection.execute("select set_config('timezone', %s, false)", [zone])
                assert rows(connection, f'select min("time") from {view}') == [(edge,)], (days, measure, zone)


def test_no_view_takes_days_of_the_session_off_an_instant(connection: Connection) -> None:
    query = r"""
        select oid::regclass::text from pg_class
         where relnamespace = 'flywheel'::regnamespace and relkind in ('v', 'm')
           and relname not in ('cluster_growth', 'judge_calibration', 'drift_status')  -- of dates, or to the day or so
           and replace(pg_get_viewdef(oid), 'date_bin(''1 day''::interval', '') ~ '\d+ days?''::interval'"""
    assert rows(connection, query) == []
