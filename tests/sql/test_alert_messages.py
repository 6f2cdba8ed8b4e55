"""What is told of an alert, to whom, and what people answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tests.sql.alerting import NOW, channel, evaluate, floor, polite, rule, scored
from tests.sql.support import Connection, refused, rows, value

__all__ = ["floor", "polite"]


def deliveries(connection: Connection) -> list[dict[str, Any]]:
    return [
        body for (body,) in rows(connection, "select body from flywheel._deliveries order by created_at, delivery_id")
    ]


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
