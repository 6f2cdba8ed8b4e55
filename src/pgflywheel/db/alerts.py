"""Alerts: rules, what is open, channels, and the messages on their way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflywheel.db.connect import Database


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; ``what`` is its slice in words, ``evidence`` None in lists: analysts do not read it."""

    alert_id: UUID
    rule: str
    metric: str
    severity: str
    what: str
    slice: dict[str, str]
    value: float | None
    threshold: float | None
    effect: float | None
    n: int | None
    opened_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    closed_because: str | None
    reopened: int
    evidence: dict[str, Any] | None
    incident_id: UUID | None
    verdict: str | None
    note: str | None
    acknowledged_by: str | None
    snoozed_until: datetime | None
    changed_at: datetime

    @property
    def state(self) -> str:
        """Return open, snoozed or closed."""
        if self.closed_at is not None:
            return "closed"
        snoozed = self.snoozed_until is not None and self.snoozed_until > datetime.now(self.snoozed_until.tzinfo)
        return "snoozed" if snoozed else "open"


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """One row of the view alert_rule_status, with the share of its alerts that were real."""

    rule: str
    metric: str
    severity: str
    state: str
    open_alerts: int
    slices: int | None
    evaluated_at: datetime | None
    precision: float | None
    advice: str | None
    problem: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a rule says of one slice; ``firing`` is None without enough data, or in between."""

    slice: str
    n: int | None
    value: float | None
    threshold: float | None
    effect: float | None
    firing: bool | None
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """One row of the view alert_channel_status."""

    channel: str
    url: str | None
    url_variable: str | None
    signed: bool
    sent_last_hour: int
    waiting: int
    dead: int
    last_problem: str | None
    last_sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A claimed message, and where it goes; ``fence`` is the right to end it."""

    delivery_id: UUID
    fence: UUID
    channel: str
    url: str | None
    url_variable: str | None
    secret_variable: str | None
    insecure: bool
    body: str
    attempt: int


LISTED = """
    select alert_id, rule, metric, severity, flywheel._slice_words(slice) as what, slice, value, threshold, effect, n,
           opened_at, last_seen_at, closed_at, closed_because, reopened, null::jsonb as evidence, incident_id, verdict,
           note, acknowledged_by, snoozed_until, changed_at
      from flywheel.alerts
"""
WHOLE = LISTED.replace("null::jsonb as evidence", "evidence")


async def alerts(database: Database, *, closed: bool = False, limit: int = 200) -> list[Alert]:
    """Return what is open, and with ``closed`` the rest too; the newest first."""
    query = f"{LISTED} where %s or closed_at is null order by closed_at is not null, opened_at desc limit %s"
    return await database.rows(Alert, query, [closed, limit])


async def alert(database: Database, alert_id: UUID) -> Alert | None:
    """Return one alert; None when no alert has this id."""
    return await database.row(Alert, f"{WHOLE} where alert_id = %s", [alert_id])


async def matching(database: Database, start: str) -> list[UUID]:
    """Return ids of alerts that begin or end with a text, the newest first, three at most."""
    query = (
        "select alert_id from flywheel.alerts where starts_with(alert_id::text, %(start)s)"
        " or right(alert_id::text, length(%(start)s)) = %(start)s order by opened_at desc limit 3"
    )
    return await database.rows(UUID, query, {"start": start})


async def changed(database: Database, since: datetime) -> list[Alert]:
    """Return the alerts that opened, closed or were looked at since a time, in that order."""
    return await database.rows(Alert, f"{LISTED} where changed_at > %s order by changed_at limit 200", [since])


async def now(database: Database) -> datetime:
    """Return the time as the database has it."""
    time: datetime = await database.value("select clock_timestamp()")
    return time


async def set_rule(database: Database, name: str, definition: Mapping[str, Any]) -> bool:
    """Watch a metric, or change how; return whether anything changed."""
    query = "select flywheel.set_alert_rule(%s, %s::jsonb)"
    is_new: bool = await database.value(query, [name, json.dumps(definition, default=str)])
    return is_new


async def set_channel(database: Database, name: str, definition: Mapping[str, Any]) -> bool:
    """Name an address alerts are posted to, or change it; return whether anything changed."""
    query = "select flywheel.set_alert_channel(%s, %s::jsonb)"
    is_new: bool = await database.value(query, [name, json.dumps(definition, default=str)])
    return is_new


async def drop_rule(database: Database, name: str) -> bool:
    """Watch no longer; return whether there was such a rule."""
    dropped: bool = await database.value("select flywheel.drop_alert_rule(%s)", [name])
    return dropped


async def drop_channel(database: Database, name: str) -> bool:
    """Send nothing more to a channel; return whether there was one."""
    dropped: bool = await database.value("select flywheel.drop_alert_channel(%s)", [name])
    return dropped


async def definition(database: Database, name: str) -> dict[str, Any] | None:
    """Return the whole definition of a rule; None when there is no such rule."""
    found: dict[str, Any] | None = await database.value(
        "select definition from flywheel.alert_rules where rule = %s", [name]
    )
    return found


async def rules(database: Database) -> list[RuleStatus]:
    """Return the rules with what came of looking at them last."""
    query = """
        select status.rule, status.metric, status.severity, status.state, status.open_alerts, status.slices,
               status.evaluated_at, judged.precision, judged.advice, status.problem, status.description
          from flywheel.alert_rule_status as status left join flywheel.alert_precision as judged using (rule)
         order by status.rule
    """
    return await database.rows(RuleStatus, query)


async def try_rule(database: Database, definition: Mapping[str, Any]) -> list[Reading]:
    """Return what a rule would say now of each slice, without setting it."""
    query = "select * from flywheel.test_alert_rule(%s::jsonb)"
    return await database.rows(Reading, query, [json.dumps(definition, default=str)])


async def acknowledge(database: Database, alert_id: UUID, by: str, verdict: str, note: str | None) -> None:
    """Say who looked at an alert, and whether it was real or noise."""
    await database.execute("select flywheel.acknowledge_alert(%s, %s, %s, %s)", [alert_id, by, verdict, note])


async def snooze(database: Database, alert_id: UUID, until: datetime, by: str) -> None:
    """Send no message of an alert before a time."""
    await database.execute("select flywheel.snooze_alert(%s, %s, %s)", [alert_id, until, by])


async def channels(database: Database) -> list[ChannelStatus]:
    """Return the channels and how their messages fare."""
    return await database.rows(ChannelStatus, "select * from flywheel.alert_channel_status order by channel")


async def send_test(database: Database, channel: str) -> UUID:
    """Queue a message that says it is a test; return its id."""
    made: UUID = await database.value("select flywheel.test_alert_channel(%s)", [channel])
    return made


async def claim_deliveries(database: Database, lease_seconds: float) -> list[Delivery]:
    """Take at most one waiting message of each channel."""
    return await database.rows(Delivery, "select * from flywheel._claim_deliveries(%s)", [lease_seconds])


async def settle_delivery(database: Database, delivery: Delivery, problem: str | None) -> bool:
    """Note that a message was taken, or why not; return whether the claim still held."""
    held: bool = await database.value(
        "select flywheel._settle_delivery(%s, %s, %s)", [delivery.delivery_id, delivery.fence, problem]
    )
    return held
