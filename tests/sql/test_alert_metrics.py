"""What rules watch: rates, latency, cost, queues, budgets, drift, judges."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from tests.sql.alerting import NOW, evaluate, opened, polite, rule, scored
from tests.sql.paying import judge, provider
from tests.sql.support import Connection, activate, insert, rows, value

__all__ = ["polite"]

READING = """select reading.* from flywheel.alert_rules as rules,
                    lateral flywheel._alert_readings(rules.rule, rules.definition, %s) as reading
              where rules.rule = 'spend'"""


def test_slow_requests_are_told_by_the_share_that_is_slower(connection: Connection) -> None:
    rule(connection, "slow", metric="latency_p95", threshold=1000)
    query = """insert into flywheel.spans (started_at, ended_at, input, output)
               select %s, %s + make_interval(secs => case when n <= %s then 5 else 0.1 end), '', ''
                 from generate_series(1, 400) as n"""
    at = NOW - timedelta(minutes=5)
    connection.execute(query, [at, at, 16])
    assert evaluate(connection) == 0
    connection.execute(query, [at, at, 80])
    assert evaluate(connection) == 1
    assert 4500 < value(connection, "select value from flywheel.open_alerts") < 5500


def test_errors_and_missing_verdicts_are_rates_with_a_ceiling(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "errors", metric="error_rate", threshold=0.1, slice={"node": "tool"})
    rule(connection, "unscored", metric="unscored_rate", threshold=0.1)
    connection.execute(
        "insert into flywheel.spans (started_at, input, output, node, status)"
        " select %s, '', '', 'tool', case when n <= 50 then 'error' else 'ok' end from generate_series(1, 100) as n",
        [NOW - timedelta(minutes=5)],
    )
    scored(connection, 50, 0, NOW - timedelta(minutes=5))
    connection.execute(
        "update flywheel.scores set passed = null, unscored_reason = 'timed_out'"
        " where span_id in (select span_id from flywheel.scores limit 40)"
    )
    assert evaluate(connection) == 2
    assert opened(connection) == [("errors", {"node": "tool"}), ("unscored", {"validator": "polite"})]


def test_a_candidate_that_passes_less_often_is_found(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "canary", metric="canary")
    scored(connection, 90, 10, NOW - timedelta(hours=60), release="v1")
    for hour in range(40, 2, -1):
        at = NOW - timedelta(hours=hour)
        scored(connection, 9, 1, at, release="v1")
        scored(connection, 9, 1, at, release="v2")
    assert evaluate(connection) == 0
    for hour in range(40, 2, -1):
        scored(connection, 2, 8, NOW - timedelta(hours=hour) + timedelta(minutes=1), release="v2")
    assert evaluate(connection) == 1
    assert opened(connection) == [("canary", {"release": "v2", "validator": "polite"})]


def test_a_cost_far_above_the_usual_hour_is_an_alert(connection: Connection) -> None:
    rule(connection, "spend", metric="cost_usd", minimum_n=1)
    pay = (
        "insert into flywheel.spans (started_at, input, output, cost_usd)"
        " select %s - make_interval(hours => n), '', '', 2 from generate_series(2, 60) as n"
    )
    connection.execute(pay, [NOW])
    assert evaluate(connection) == 0
    connection.execute(
        "insert into flywheel.spans (started_at, input, output, cost_usd) values (%s, '', '', 9)",
        [NOW - timedelta(minutes=5)],
    )
    assert evaluate(connection) == 1
    assert value(connection, "select value from flywheel.open_alerts") == pytest.approx(4.5)


@pytest.mark.parametrize(("every", "known", "fires"), [(2, 29, True), (3, 20, None)])
def test_hours_of_unknown_cost_are_not_usual_hours(
    connection: Connection, every: int, known: int, fires: bool | None
) -> None:
    rule(connection, "spend", metric="cost_usd", minimum_n=1)
    pay = """insert into flywheel.spans (started_at, input, output, cost_usd)
             select %s - make_interval(hours => n), '', '', case when (n - 2) %% %s = 0 then 2 end
               from generate_series(2, 59) as n"""
    connection.execute(pay, [NOW, every])
    connection.execute(
        "insert into flywheel.spans (started_at, input, output, cost_usd) values (%s, '', '', 9)",
        [NOW - timedelta(minutes=5)],
    )
    query = f"select value, firing, evidence ->> 'baseline_hours' from ({READING}) as reading"
    assert rows(connection, query, [NOW]) == [(pytest.approx(4.5), fires, str(known))]


def test_a_window_of_unknown_cost_is_neither_free_nor_dear(connection: Connection) -> None:
    rule(connection, "spend", metric="cost_usd", minimum_n=0)
    connection.execute(
        "insert into flywheel.spans (started_at, input, output) values (%s, '', '')", [NOW - timedelta(minutes=5)]
    )
    assert rows(connection, f"select value, firing from ({READING}) as reading", [NOW]) == [(None, None)]


def test_backlog_dead_work_and_budgets_are_watched(connection: Connection) -> None:
    activate(connection, "later", lane="bulk")
    insert(connection)
    connection.execute("select flywheel.set_budget('project', 'shop', 'day', 0)")
    rule(connection, "stuck", metric="backlog_seconds", threshold=0, hold="0s", slice={"lane": "bulk"})
    rule(connection, "dead", metric="dead_spans")
    rule(connection, "budget", metric="budget_used", severity="high")
    rule(connection, "judges", metric="judge_standing")
    rule(connection, "drift", metric="drift")
    assert evaluate(connection) == 2
    assert opened(connection) == [
        ("budget", {"scope": "project", "name": "shop", "period": "day"}),
        ("stuck", {"lane": "bulk"}),
    ]
    connection.execute("select flywheel.drop_budget('project', 'shop', 'day')")
    for minutes in (1, 16):
        evaluate(connection, NOW + timedelta(minutes=minutes))
    assert [name for name, _ in opened(connection)] == ["stuck"], "what is gone is clear"


def test_a_corrected_rate_needs_labels(connection: Connection, polite: uuid.UUID) -> None:
    definition = {"metric": "corrected_pass_rate", "threshold": 0.9}
    rule(connection, "corrected", **definition)
    scored(connection, 10, 90, NOW - timedelta(minutes=5))
    assert evaluate(connection) == 0
    assert rows(
        connection,
        "select firing, n from flywheel.test_alert_rule(%s)",
        [Jsonb(definition)],
    ) == [(None, 0)]


def test_monitors_of_drift_that_give_alarm_are_alerts_until_they_do_not(connection: Connection) -> None:
    rule(connection, "drift", metric="drift", slice={"kind": "psi"})
    connection.execute(
        "insert into flywheel.drift_tests (test_id, kind, subject, slice, window_from, statistic, threshold, effect,"
        " n_current, drifted)"
        " values (gen_random_uuid(), 'psi', 'length', 'node writer', now(), 0.4, 0.1, 0.3, 500, true),"
        " (gen_random_uuid(), 'ks', 'length', 'node writer', now(), 0.4, 0.1, 0.3, 500, true),"
        " (gen_random_uuid(), 'psi', 'score', 'node writer', now(), null, null, null, 5, null)"
    )
    assert evaluate(connection) == 1
    assert opened(connection) == [("drift", {"kind": "psi", "part": "node writer", "subject": "length"})]
    connection.execute("update flywheel.drift_tests set drifted = false")
    for minutes in (1, 16):
        evaluate(connection, NOW + timedelta(minutes=minutes))
    assert opened(connection) == []


def test_a_judge_below_its_floor_is_an_alert_once_it_has_labels(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection)
    rule(connection, "judges", metric="judge_standing")
    stand = """insert into flywheel._standings (version_id, provisional, reason, n_pass, n_fail)
               values (%s, true, 'r', %s, 10)
               on conflict (version_id) do update set n_pass = excluded.n_pass"""
    connection.execute(stand, [version_id, 5])
    assert evaluate(connection) == 0
    connection.execute(stand, [version_id, 50])
    assert evaluate(connection) == 1
    assert opened(connection) == [("judges", {"validator": "polite"})]


def test_a_corrected_rate_surely_below_its_floor_opens(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "corrected", metric="corrected_pass_rate", threshold=0.9)
    scored(connection, 950, 50, NOW - timedelta(hours=5))
    assert evaluate(connection) == 0
    connection.execute("""
        insert into flywheel._slices (slice_id, project, environment, node, node_kind, root)
        select flywheel._slice_id('default', 'production', null, 'writer', 'app', true, null, null, null),
               'default', 'production', 'writer', 'app', true""")
    connection.execute(
        "insert into flywheel._cell_rollups (grain, bucket, version_id, slice_id, lane, tp, fp, fn, tn, valued,"
        " y_sum, f_sum, yf_sum, ff_sum)"
        " select 'hour', date_trunc('hour', %s), %s, slice_id, 'estimation', 60, 40, 0, 20, 0, 0, 0, 0, 0"
        " from flywheel._slices",
        [NOW - timedelta(hours=5), polite],
    )
    assert evaluate(connection) == 1
    ((value_, n),) = rows(connection, "select value, n from flywheel.open_alerts")
    assert (round(value_, 2), n) == (0.57, 120)
