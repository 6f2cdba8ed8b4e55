"""Alerts: rules that are what they say, one open alert for each problem, few messages, and evidence before an alarm."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.sql.alerting import NOW, evaluate, floor, opened, polite, rule, scored
from tests.sql.support import Connection, insert, rows, value

__all__ = ["floor", "polite"]


def test_firing_again_updates_the_one_open_alert(connection: Connection, floor: None) -> None:
    assert evaluate(connection) == 1
    scored(connection, 0, 100, NOW - timedelta(minutes=2))
    assert evaluate(connection, NOW + timedelta(minutes=1)) == 0
    (alert,) = rows(connection, "select value, n, last_seen_at, opened_at from flywheel.alerts")
    assert alert == (0.25, 200, NOW + timedelta(minutes=1), NOW)


def test_an_alert_closes_by_itself_and_opens_again_within_the_hour_as_the_same(
    connection: Connection, floor: None
) -> None:
    evaluate(connection)
    scored(connection, 9900, 0, NOW)
    evaluate(connection, NOW + timedelta(minutes=1))
    assert evaluate(connection, NOW + timedelta(minutes=15)) == 0, "clear, but not for long enough"
    assert evaluate(connection, NOW + timedelta(minutes=16)) == 1
    assert opened(connection) == []
    scored(connection, 0, 9900, NOW + timedelta(minutes=17))
    assert evaluate(connection, NOW + timedelta(minutes=20)) == 1
    assert rows(connection, "select reopened, closed_at from flywheel.alerts") == [(1, None)]


def test_an_alert_of_another_metric_is_not_opened_again(connection: Connection) -> None:
    columns = "lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin"
    job = f"""insert into flywheel.%s ({columns}%s)
              values ('bulk', 1, flywheel.new_id(), '{{}}', array[gen_random_uuid()], now(), now(), 0, 'live'%s)"""
    connection.execute((job % ("_dead", ", reason", ", 'raised'")).encode())
    rule(connection, "queue", metric="dead_spans", clear_hold="0s")
    assert evaluate(connection) == 1
    connection.execute("delete from flywheel._dead")
    assert evaluate(connection, NOW + timedelta(minutes=1)) == 1
    connection.execute((job % ("_ready", "", "")).encode())
    rule(connection, "queue", metric="backlog_seconds", threshold=0)
    assert evaluate(connection, NOW + timedelta(minutes=2)) == 0
    assert evaluate(connection, NOW + timedelta(minutes=4)) == 1
    found = rows(connection, "select metric, closed_at is null from flywheel.alerts order by opened_at")
    assert found == [("dead_spans", False), ("backlog_seconds", True)]


def test_an_alert_that_comes_back_after_an_hour_is_a_new_one(connection: Connection, floor: None) -> None:
    evaluate(connection)
    scored(connection, 990, 0, NOW)
    for minutes in (1, 16):
        evaluate(connection, NOW + timedelta(minutes=minutes))
    later = NOW + timedelta(hours=2)
    scored(connection, 0, 100, later)
    evaluate(connection, later + timedelta(minutes=1))
    assert value(connection, "select count(*) from flywheel.alerts") == 2


def test_without_enough_data_nothing_opens_and_nothing_closes(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "floor", metric="pass_rate", threshold=0.9)
    assert evaluate(connection) == 0, "no rows at all"
    scored(connection, 0, 29, NOW - timedelta(minutes=5))
    assert evaluate(connection) == 0, "29 fails are fewer than minimum_n"
    scored(connection, 0, 1, NOW - timedelta(minutes=5))
    assert evaluate(connection) == 1
    for hours in (2, 24, 100):
        assert evaluate(connection, NOW + timedelta(hours=hours)) == 0, "no news is no good news"
    assert evaluate(connection, NOW + timedelta(days=8)) == 1
    assert value(connection, "select closed_because from flywheel.alerts") == "no data"


def test_a_rate_just_below_its_floor_is_no_alarm_until_the_interval_is(
    connection: Connection, polite: uuid.UUID
) -> None:
    rule(connection, "floor", metric="pass_rate", threshold=0.9)
    scored(connection, 43, 7, NOW - timedelta(minutes=5))
    assert evaluate(connection) == 0
    scored(connection, 1720, 280, NOW - timedelta(minutes=4))
    assert evaluate(connection) == 1


def test_a_rule_fires_for_as_long_as_it_says_before_it_opens(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "floor", metric="pass_rate", threshold=0.9, hold="5m")
    scored(connection, 50, 50, NOW - timedelta(minutes=5))
    assert [evaluate(connection, NOW + timedelta(minutes=minutes)) for minutes in (0, 4, 5)] == [0, 0, 1]


def test_a_clock_set_back_neither_opens_nor_closes_early(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "floor", metric="pass_rate", threshold=0.9, hold="5m")
    scored(connection, 50, 50, NOW - timedelta(minutes=8))
    assert evaluate(connection) == 0
    assert evaluate(connection, NOW - timedelta(minutes=3)) == 0
    assert evaluate(connection, NOW - timedelta(minutes=1)) == 0
    assert evaluate(connection, NOW + timedelta(minutes=2)) == 1
    assert evaluate(connection, NOW - timedelta(minutes=1)) == 0
    assert value(connection, "select last_seen_at from flywheel.alerts") == NOW + timedelta(minutes=2)


def test_a_perfect_and_a_hopeless_check_are_told_apart(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "floor", metric="pass_rate", threshold=0.9, by=["node"])
    scored(connection, 500, 0, NOW - timedelta(minutes=5), node="sure")
    scored(connection, 0, 500, NOW - timedelta(minutes=5), node="lost")
    evaluate(connection)
    assert opened(connection) == [("floor", {"node": "lost", "validator": "polite"})]


def history(connection: Connection, days: range, passed: int, failed: int, **columns: Any) -> None:
    for day in days:
        scored(connection, passed, failed, NOW - timedelta(days=day), **columns)


def test_a_drop_against_the_own_past_is_found_and_over_when_it_is_over(
    connection: Connection, polite: uuid.UUID
) -> None:
    rule(connection, "drop", metric="pass_rate", baseline="14d")
    scored(connection, 5, 95, NOW - timedelta(days=1))
    assert evaluate(connection) == 0, "without a past nothing is unusual"
    connection.execute("delete from flywheel.scores")
    connection.execute("delete from flywheel.spans")
    history(connection, range(10, 20), 95, 5)
    history(connection, range(3, 7), 95, 5)
    assert evaluate(connection) == 0
    scored(connection, 160, 80, NOW - timedelta(hours=2))
    assert evaluate(connection) == 1
    seen = rows(
        connection,
        "select round(value::numeric, 2), round(threshold::numeric, 2), evidence ->> 'test' from flywheel.alerts",
    )
    assert [(float(now), float(usual), test) for now, usual, test in seen] == [(0.67, 0.95, "cusum")]
    scored(connection, 297, 3, NOW + timedelta(hours=1))
    for minutes in (65, 81):
        evaluate(connection, NOW + timedelta(minutes=minutes))
    assert opened(connection) == []
    assert evaluate(connection, NOW + timedelta(hours=3)) == 0, "what is over is not counted again"


def test_late_scores_are_counted_where_they_belong(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "drop", metric="pass_rate", baseline="14d")
    history(connection, range(8, 18), 95, 5)
    scored(connection, 90, 4, NOW - timedelta(days=2))
    assert evaluate(connection) == 0
    scored(connection, 0, 100, NOW - timedelta(days=2))
    assert evaluate(connection) == 1


@pytest.mark.parametrize("passed", [0, 1])
def test_a_past_that_never_changed_makes_no_false_alarm(connection: Connection, polite: uuid.UUID, passed: int) -> None:
    rule(connection, "drop", metric="pass_rate", baseline="14d")
    history(connection, range(1, 18), 50 * passed, 50 * (1 - passed))
    assert evaluate(connection) == 0


def test_slices_beyond_the_limit_are_one_alert(connection: Connection, polite: uuid.UUID) -> None:
    connection.execute("update flywheel.settings set value = '5' where name = 'alerts_per_rule'")
    rule(connection, "floor", metric="pass_rate", threshold=0.9, by=["node"])
    for node in range(12):
        scored(connection, 0, 100 + node, NOW - timedelta(minutes=5), node=f"node {node}")
    assert evaluate(connection) == 6
    (others,) = rows(connection, 'select n from flywheel.alerts where slice = \'{"others": ""}\'')
    assert others == (7,)
    assert evaluate(connection, NOW + timedelta(seconds=20)) == 0


def test_of_ten_thousand_slices_the_quiet_ones_leave_no_trace(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "errors", metric="error_rate", threshold=0.2, by=["node"])
    connection.execute(
        "insert into flywheel.spans (started_at, input, output, node, status) select %s, '', '', 'node ' || n %% 10000,"
        " case when n %% 10000 < 3 then 'error' else 'ok' end from generate_series(1, 30000) as n",
        [NOW - timedelta(minutes=5)],
    )
    connection.execute(
        "insert into flywheel.spans (started_at, input, output, node, status)"
        " select %s, '', '', 'node 1', 'error' from generate_series(1, 60)",
        [NOW - timedelta(minutes=4)],
    )
    assert evaluate(connection) == 1
    assert value(connection, "select count(*) from flywheel._alert_states") == 1
    assert value(connection, "select slices from flywheel.alert_rule_status") == 10000


def test_two_evaluators_at_once_open_one_alert(
    connection: Connection, connect: Callable[[], Connection], floor: None
) -> None:
    sessions = [connect() for _ in range(4)]
    threads = [
        threading.Thread(target=lambda session=session: session.execute("select flywheel._evaluate_alerts(%s)", [NOW]))
        for session in sessions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened(connection)) == 1


def test_a_rule_that_breaks_is_an_alert_and_stops_no_other(connection: Connection, floor: None) -> None:
    rule(connection, "a_broken_one", metric="error_rate", threshold=0.5)
    connection.execute(
        'update flywheel.alert_rules set definition = definition || \'{"threshold": "x"}\''
        " where rule = 'a_broken_one'"
    )
    insert(connection, started_at=NOW - timedelta(minutes=5))
    assert evaluate(connection) == 2
    assert [name for name, _ in opened(connection)] == ["a_broken_one", "floor"]
    state, problem = rows(connection, "select state, problem from flywheel.alert_rule_status order by rule")[0]
    assert state == "broken"
    assert "double precision" in problem
    rule(connection, "a_broken_one", metric="error_rate", threshold=0.6)
    assert evaluate(connection) == 1
    assert [name for name, _ in opened(connection)] == ["floor"]


def test_a_rule_that_takes_too_long_stops_no_other(connection: Connection, floor: None) -> None:
    rule(connection, "a_slow_one", metric="drift")
    connection.execute("""
        create or replace function flywheel._drift_readings(definition jsonb)
        returns table (slice jsonb, n bigint, value double precision, threshold double precision,
                       effect double precision, firing boolean, evidence jsonb)
        language plpgsql stable as $$begin perform pg_sleep(600); end$$""")
    connection.execute("set statement_timeout = '1s'")
    assert evaluate(connection) == 2
    assert rows(connection, "select rule, state from flywheel.alert_rule_status order by rule") == [
        ("a_slow_one", "broken"),
        ("floor", "firing"),
    ]
    wait = "select next_at - evaluated_at from flywheel._alert_evaluations where rule = 'a_slow_one'"
    assert value(connection, wait) > timedelta(seconds=15)
