"""What a rule and a channel may say."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from pgflywheel.db import alerts
from tests.sql.alerting import channel, evaluate, floor, polite, rule
from tests.sql.support import Connection, refused, rows, value

__all__ = ["floor", "polite"]


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


def test_dropping_a_rule_closes_its_alerts_and_keeps_them(connection: Connection, floor: None) -> None:
    evaluate(connection)
    connection.execute("select flywheel.drop_alert_rule('floor')")
    assert rows(connection, "select rule, closed_because from flywheel.alerts") == [("floor", "rule dropped")]
    assert evaluate(connection) == 0


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
