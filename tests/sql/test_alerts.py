"""Alerts: rules that are what they say, one open alert for each problem, few messages, and evidence before an alarm."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from pgflywheel.db import alerts
from tests.sql.paying import judge, provider
from tests.sql.support import Connection, activate, insert, refused, rows, value

NOW = datetime.now(UTC).replace(microsecond=0)
Slice = dict[str, str]


def rule(connection: Connection, name: str, **definition: Any) -> bool:
    changed: bool = value(connection, "select flywheel.set_alert_rule(%s, %s)", [name, Jsonb(definition)])
    return changed


def channel(connection: Connection, name: str = "team", **definition: Any) -> bool:
    given = {"url": "https://hooks.example/x", **definition}
    changed: bool = value(connection, "select flywheel.set_alert_channel(%s, %s)", [name, Jsonb(given)])
    return changed


def evaluate(connection: Connection, at: datetime = NOW) -> int:
    """Look at every rule at a time."""
    connection.execute("update flywheel._alert_evaluations set next_at = '-infinity'")
    told: int = value(connection, "select flywheel._evaluate_alerts(%s)", [at])
    return told


def scored(
    connection: Connection, passed: int, failed: int, at: datetime = NOW, check: str = "polite", **columns: Any
) -> None:
    """Insert spans of one moment with scores of a check that are already there."""
    given = {"environment": "production", "node": "writer", "release": None, **columns}
    connection.execute(
        """
        with made as (
          insert into flywheel.spans (span_id, started_at, input, output, environment, node, release)
          select gen_random_uuid(), %(at)s, 'in', case when n <= %(passed)s then 'good' else 'bad' end,
                 %(environment)s, %(node)s, %(release)s
            from generate_series(1, %(passed)s + %(failed)s) as n
          returning span_id, started_at, trace_id, project, revision, output)
        insert into flywheel.scores
               (span_id, revision, version_id, started_at, trace_id, project, passed, annotator_kind)
        select made.span_id, made.revision, status.version_id, made.started_at, made.trace_id, made.project,
               made.output = 'good', 'code'
          from made, flywheel.validator_status as status where status.validator = %(check)s and status.status = 'active'
        """,
        {"at": at, "passed": passed, "failed": failed, "check": check, **given},
    )


def opened(connection: Connection) -> list[tuple[str, Slice]]:
    return rows(
        connection, "select rule, slice from flywheel.alerts where closed_at is null order by rule, slice::text"
    )


def deliveries(connection: Connection) -> list[dict[str, Any]]:
    return [
        body for (body,) in rows(connection, "select body from flywheel._deliveries order by created_at, delivery_id")
    ]


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A check that judges no span by itself."""
    return activate(connection, "polite", filter={"project": "nowhere"})


@pytest.fixture
def floor(connection: Connection, polite: uuid.UUID) -> None:
    """A rule with a floor, and spans far below it."""
    rule(connection, "floor", metric="pass_rate", threshold=0.9)
    scored(connection, 50, 50, NOW - timedelta(minutes=5))


def test_a_rule_is_set_once_and_changed_by_its_content(connection: Connection) -> None:
    assert rule(connection, "backlog", metric="backlog_seconds")
    assert not rule(connection, "backlog", metric="backlog_seconds", threshold=300, hold="1m")
    assert rule(connection, "backlog", metric="backlog_seconds", threshold=60)
    assert value(connection, "select definition ->> 'severity' from flywheel.alert_rules") == "medium"
    drop = "select flywheel.drop_alert_rule('backlog')"
    assert [value(connection, drop), value(connection, drop)] == [True, False]


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ({}, "metric is missing"),
        ({"metric": "vibes"}, 'metric is "vibes"'),
        ({"metric": "drift", "colour": "red"}, "rule.colour"),
        ({"metric": "drift", "threshold": 1}, "rule.threshold"),
        ({"metric": "latency_p95"}, "threshold is missing"),
        ({"metric": "latency_p95", "threshold": 0}, "threshold is 0"),
        ({"metric": "pass_rate", "threshold": 90}, "threshold is 90"),
        ({"metric": "pass_rate", "threshold": "high"}, 'threshold is "high"'),
        ({"metric": "pass_rate", "test": "magic"}, 'test is "magic"'),
        ({"metric": "pass_rate", "test": "change", "threshold": 0.9}, "threshold is 0.9"),
        ({"metric": "pass_rate", "window": "soon"}, 'window is "soon"'),
        ({"metric": "pass_rate", "window": "7d; drop table x"}, "window is"),
        ({"metric": "pass_rate", "hold": "-1m"}, 'hold is "-1m"'),
        ({"metric": "pass_rate", "severity": "red"}, 'severity is "red"'),
        ({"metric": "pass_rate", "slice": {"user": "x"}}, "slice.user"),
        ({"metric": "pass_rate", "slice": {"node": 5}}, "slice.node is 5"),
        ({"metric": "pass_rate", "slice": "node"}, 'slice is "node"'),
        ({"metric": "pass_rate", "by": ["user_id"]}, 'by holds "user_id"'),
        ({"metric": "pass_rate", "by": "node"}, 'by is "node"'),
        ({"metric": "budget_used", "by": ["scope"]}, 'by is ["scope"]'),
        ({"metric": "pass_rate", "minimum_n": -1}, "minimum_n is -1"),
        ({"metric": "pass_rate", "minimum_n": 1.5}, "minimum_n is 1.5"),
        ({"metric": "canary", "alpha": 2}, "alpha is 2"),
        ({"metric": "pass_rate", "channels": ["nowhere"]}, 'channels holds "nowhere"'),
        ({"metric": "pass_rate", "channels": "team"}, 'channels is "team"'),
    ],
)
def test_a_wrong_rule_is_refused_with_the_key_and_the_value(
    calculator: Connection, definition: dict[str, Any], said: str
) -> None:
    told = refused(calculator, "select flywheel.set_alert_rule('wrong', %s)", [Jsonb(definition)])
    assert told.sqlstate == "WF009"
    assert said in str(told.message_primary)


@pytest.mark.parametrize("name", ["", "No", "a b", "x" * 64, None])
def test_a_rule_needs_a_plain_name(calculator: Connection, name: str | None) -> None:
    query = 'select flywheel.set_alert_rule(%s, \'{"metric": "drift"}\')'
    assert refused(calculator, query, [name]).sqlstate == "WF009"


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ({}, "either url or url_variable"),
        ({"url": "https://a", "url_variable": "B"}, "either url or url_variable"),
        ({"url": "file:///etc/passwd"}, "not an http address"),
        ({"url": "https://user:word@host/"}, "url_variable"),
        ({"url": "http://host/"}, "insecure = true"),
        ({"url": "https://host/ x"}, "not an http address"),
        ({"url": "https://host/\r\nHost: other"}, "not an http address"),
        ({"url": "https://host", "secret": "hunter2"}, "channel.secret"),
        ({"url": "https://host", "secret_variable": "a-b"}, "secret_variable is not the name"),
        ({"url": "https://host", "insecure": "yes"}, 'insecure is "yes"'),
    ],
)
def test_a_wrong_channel_is_refused(calculator: Connection, definition: dict[str, Any], said: str) -> None:
    told = refused(calculator, "select flywheel.set_alert_channel('team', %s)", [Jsonb(definition)])
    assert (told.sqlstate, said in str(told.message_primary)) == ("WF009", True), told.message_primary


def test_a_channel_that_rules_name_cannot_be_dropped(connection: Connection) -> None:
    assert [channel(connection), channel(connection)] == [True, False]
    rule(connection, "backlog", metric="backlog_seconds", channels=["team"])
    assert "backlog" in str(refused(connection, "select flywheel.drop_alert_channel('team')").message_detail)
    connection.execute("select flywheel.drop_alert_rule('backlog')")
    assert value(connection, "select flywheel.drop_alert_channel('team')")


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


def test_three_alerts_of_a_release_are_told_as_one(connection: Connection, polite: uuid.UUID) -> None:
    channel(connection)
    rule(connection, "floor", metric="pass_rate", threshold=0.9, by=["release", "node"])
    for node in ("a", "b", "c", "d"):
        scored(connection, 0, 100, NOW - timedelta(minutes=5), node=node, release="v2")
    scored(connection, 0, 100, NOW - timedelta(minutes=5), node="a", release="v1")
    evaluate(connection)
    bodies = deliveries(connection)
    assert sorted(body["kind"] for body in bodies) == ["alert", "incident"]
    assert [body["incident"]["alerts"] for body in bodies if body["kind"] == "incident"] == [4]
    for minutes in (120, 136):
        for node in ("a", "b", "c", "d"):
            scored(connection, 100, 0, NOW + timedelta(minutes=119), node=node, release="v2")
        evaluate(connection, NOW + timedelta(minutes=minutes))
    assert [body["state"] for body in deliveries(connection) if body["kind"] == "incident"] == ["opened", "closed"]


def test_no_channel_gets_more_messages_than_its_hour_holds(connection: Connection, polite: uuid.UUID) -> None:
    connection.execute("update flywheel.settings set value = '3' where name = 'alert_notifications_per_hour'")
    channel(connection)
    rule(connection, "floor", metric="pass_rate", threshold=0.9, by=["node"])
    for node in range(10):
        scored(connection, 0, 100, NOW - timedelta(minutes=5), node=f"node {node}")
    assert evaluate(connection) == 10
    bodies = deliveries(connection)
    assert [body["kind"] for body in bodies if body["kind"] != "summary"] == ["alert"] * 3
    (summary,) = [body for body in bodies if body["kind"] == "summary"]
    assert (summary["count"], len(summary["messages"])) == (7, 7)


def test_only_channels_a_rule_names_are_told(connection: Connection, polite: uuid.UUID) -> None:
    channel(connection, "team")
    channel(connection, "boss")
    rule(connection, "floor", metric="pass_rate", threshold=0.9, channels=["boss"])
    rule(connection, "silent", metric="pass_rate", threshold=0.8, channels=[])
    scored(connection, 0, 100, NOW - timedelta(minutes=5))
    assert evaluate(connection) == 2
    assert rows(connection, "select channel, body ->> 'state' from flywheel._deliveries") == [("boss", "opened")]


def test_a_snoozed_alert_is_silent_and_told_again_when_it_is_still_open(connection: Connection, floor: None) -> None:
    channel(connection)
    evaluate(connection)
    alert_id = value(connection, "select alert_id from flywheel.open_alerts")
    connection.execute("select flywheel.snooze_alert(%s, %s, 'ann')", [alert_id, NOW + timedelta(hours=1)])
    evaluate(connection, NOW + timedelta(minutes=30))
    assert [body["state"] for body in deliveries(connection)] == ["opened"]
    evaluate(connection, NOW + timedelta(hours=1))
    assert [body["state"] for body in deliveries(connection)] == ["opened", "still open"]


def test_acknowledging_keeps_the_record_of_a_rule(connection: Connection, polite: uuid.UUID) -> None:
    rule(connection, "floor", metric="pass_rate", threshold=0.9, by=["node"])
    for node in range(4):
        scored(connection, 0, 100, NOW - timedelta(minutes=5), node=f"node {node}")
    evaluate(connection)
    query = "select precision, unjudged, advice from flywheel.alert_precision"
    assert rows(connection, query) == [(None, 4, None)]
    ids = [row[0] for row in rows(connection, "select alert_id from flywheel.open_alerts")]
    for place, alert_id in enumerate(ids):
        said = "real" if place == 0 else "noise"
        connection.execute("select flywheel.acknowledge_alert(%s, 'ann', %s, 'looked')", [alert_id, said])
    ((precision, unjudged, advice),) = rows(connection, query)
    assert (precision, unjudged) == (0.25, 0)
    assert "raise the threshold" in advice


def test_alerts_are_acknowledged_with_a_verdict_and_a_name(connection: Connection, floor: None) -> None:
    evaluate(connection)
    alert_id = value(connection, "select alert_id from flywheel.open_alerts")
    for given in ([alert_id, "ann", "maybe"], [alert_id, " ", "real"], [uuid.uuid4(), "ann", "real"]):
        assert refused(connection, "select flywheel.acknowledge_alert(%s, %s, %s)", given).sqlstate == "WF009"
    assert refused(connection, "select flywheel.snooze_alert(%s, null, 'ann')", [alert_id]).sqlstate == "WF009"


def test_listeners_hear_of_opening_and_closing_without_content(
    connection: Connection, connect: Callable[[], Connection], floor: None
) -> None:
    listener = connect()
    listener.execute("listen flywheel_alert")
    evaluate(connection)
    evaluate(connection, NOW + timedelta(seconds=20))
    (heard,) = listener.notifies(timeout=5, stop_after=1)
    alert_id = value(connection, "select alert_id from flywheel.open_alerts")
    assert heard.payload == f'{{"id": "{alert_id}", "rule": "floor", "state": "opened"}}'


HOSTILE = 'x", "admin": true}\x1b[2J\u202e<!channel> & <b>\r\n\t'


def test_hostile_names_stay_names(connection: Connection, polite: uuid.UUID) -> None:
    channel(connection)
    rule(connection, "floor", metric="pass_rate", threshold=0.9, by=["node", "release"])
    scored(connection, 0, 100, NOW - timedelta(minutes=5), node=HOSTILE, release="r" * 5000)
    evaluate(connection)
    (body,) = deliveries(connection)
    assert body["alert"]["slice"]["node"] == HOSTILE
    assert not set("\x1b\u202e<>\r\n\t") & set(body["text"])
    assert len(body["text"]) < 1000


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


def test_dropping_a_rule_closes_its_alerts_and_keeps_them(connection: Connection, floor: None) -> None:
    evaluate(connection)
    connection.execute("select flywheel.drop_alert_rule('floor')")
    assert rows(connection, "select rule, closed_because from flywheel.alerts") == [("floor", "rule dropped")]
    assert evaluate(connection) == 0


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


def test_each_role_may_do_its_part_and_no_more(connection: Connection, floor: None) -> None:
    channel(connection)
    acts = {
        "flywheel_worker": ["select flywheel._evaluate_alerts()", "select * from flywheel._claim_deliveries(1)"],
        "flywheel_analyst": [alerts.LISTED, "table flywheel.open_alerts", "table flywheel.alert_precision"],
        "flywheel_reviewer": [
            "select flywheel.acknowledge_alert(alert_id, 'ann', 'real') from flywheel.open_alerts",
            "select flywheel.snooze_alert(alert_id, now(), 'ann') from flywheel.open_alerts",
        ],
        "flywheel_admin": ["select flywheel.set_alert_rule('drift', '{\"metric\": \"drift\"}')"],
    }
    for role, statements in acts.items():
        connection.execute(f"set role {role}".encode())
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount >= 0
        if role != "flywheel_admin":
            told = refused(connection, "select flywheel.drop_alert_rule('floor')")
            assert told.sqlstate == "42501", role
    connection.execute("reset role")
    assert value(connection, "select verdict from flywheel.open_alerts") == "real"


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
