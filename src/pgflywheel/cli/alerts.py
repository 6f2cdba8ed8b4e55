"""pgflywheel alerts: see what is wrong, acknowledge and snooze it, watch it come and go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from pgflywheel.cli.alert_rules import channels, rules
from pgflywheel.cli.numbers import FiniteRange
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.people import person, person_option
from pgflywheel.cli.text import at, echo, echo_rows, echo_table, one_line
from pgflywheel.cli.times import DURATION, TIME
from pgflywheel.errors import InvalidArgument

if TYPE_CHECKING:
    from pgflywheel.db.alerts import Alert
    from pgflywheel.db.connect import Database

SHORT = 8
WATCH_SECONDS = 1.0
COLUMNS = ("id", "severity", "rule", "what", "value", "threshold", "n", "since", "state", "verdict")

by_option = person_option("--by", "Who does so")


@click.group("alerts")
def alerts() -> None:
    """See what is wrong, acknowledge it, and say what to watch."""


alerts.add_command(rules)
alerts.add_command(channels)


@alerts.command("list")
@click.option("--all", "closed", is_flag=True, help="Closed ones too, the newest 200.")
@dsn_option
@schema_option
@json_option
def list_alerts(closed: bool, dsn: str, schema: str, as_json: bool) -> None:
    """List what is wrong now.

    \b
    Example:
        pgflywheel alerts list
    """
    from pgflywheel.db import alerts as calls

    found = run_call(calls.alerts, dsn, schema, closed=closed)
    if as_json or not found:
        echo_rows(found, as_json, empty="nothing is wrong" if not closed else "there was no alert")
    else:
        echo_table(COLUMNS, (_line(alert) for alert in found))


@alerts.command("show")
@click.argument("alert_id", metavar="ID")
@dsn_option
@schema_option
@json_option
def show(alert_id: str, dsn: str, schema: str, as_json: bool) -> None:
    """Show one alert with its evidence; the end of its id is enough.

    \b
    Example:
        pgflywheel alerts show 3d1f52ac
    """
    alert = run_call(_one, dsn, schema, alert_id)
    fields = {name: getattr(alert, name) for name in alert.__dataclass_fields__ if name not in ("evidence", "slice")}
    if as_json:
        echo(alert, True, "")
        return
    known = {**fields, **{f"evidence {name}": value for name, value in (alert.evidence or {}).items()}}
    echo_table(
        ("", " "),
        (
            [name.replace("_", " "), at(value) if isinstance(value, datetime) else one_line(value, 300)]
            for name, value in known.items()
            if value is not None
        ),
    )


@alerts.command("ack")
@click.argument("alert_id", metavar="ID")
@click.argument("verdict", type=click.Choice(["real", "noise"]))
@click.option("--note", metavar="TEXT", help="What was found.")
@by_option
@dsn_option
@schema_option
@json_option
def acknowledge(
    alert_id: str, verdict: str, note: str | None, by: str | None, dsn: str, schema: str, as_json: bool
) -> None:
    """Say that you looked at an alert, and whether it was real or noise.

    \b
    Example:
        pgflywheel alerts ack 3d1f52ac real --note "the new prompt cuts answers short"
    """

    async def say(database: Database) -> Alert:
        from pgflywheel.db import alerts as calls

        alert = await _one(database, alert_id)
        await calls.acknowledge(database, alert.alert_id, await person(database, by), verdict, note)
        return await _one(database, str(alert.alert_id))

    alert = run_call(say, dsn, schema)
    echo(alert, as_json, f"{alert.rule} ({alert.what}) was {verdict}, says {alert.acknowledged_by}.")


@alerts.command("snooze")
@click.argument("alert_id", metavar="ID")
@click.option("--for", "lasts", type=DURATION, metavar="DURATION", help="For how long: 90m, 4h, 2d.")
@click.option("--until", type=TIME, metavar="TIME", help="Until when.")
@by_option
@dsn_option
@schema_option
@json_option
def snooze(
    alert_id: str,
    lasts: timedelta | None,
    until: datetime | None,
    by: str | None,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Send no message of an alert for a while; if it is open then, it is told again.

    \b
    Example:
        pgflywheel alerts snooze 3d1f52ac --for 4h
    """
    if (lasts is None) == (until is None):
        raise click.UsageError("say either --for or --until")
    if until and until <= datetime.now(UTC):
        raise click.UsageError(f"{at(until)} is over; a while from now is --for 2h")

    async def wait(database: Database) -> Alert:
        from pgflywheel.db import alerts as calls

        alert = await _one(database, alert_id)
        end = until or await calls.now(database) + (lasts or timedelta())
        await calls.snooze(database, alert.alert_id, end, await person(database, by))
        return await _one(database, str(alert.alert_id))

    alert = run_call(wait, dsn, schema)
    echo(alert, as_json, f"{alert.rule} ({alert.what}) is silent until {at(alert.snoozed_until)}.")


@alerts.command("watch")
@click.option("--seconds", type=FiniteRange(min=0), metavar="N", help="Stop after so long (default: never).")
@dsn_option
@schema_option
def watch(seconds: float | None, dsn: str, schema: str) -> None:
    """Print what is wrong, then what opens, closes and is looked at, as it happens.

    \b
    Example:
        pgflywheel alerts watch
    """
    run_call(_watch, dsn, schema, seconds)


async def _watch(database: Database, seconds: float | None) -> None:
    """Poll, which works through every pooler; a second late is early enough."""
    import asyncio
    from time import monotonic

    from pgflywheel.db import alerts as calls

    ends = None if seconds is None else monotonic() + seconds
    since = await calls.now(database)
    for alert in await calls.alerts(database):
        click.echo(_news(alert))
    while ends is None or monotonic() < ends:
        await asyncio.sleep(WATCH_SECONDS if ends is None else max(0.01, min(WATCH_SECONDS, ends - monotonic())))
        for alert in await calls.changed(database, since):
            click.echo(_news(alert))
            since = alert.changed_at


async def _one(database: Database, text: str) -> Alert:
    """Return the alert an id, or the end of one, means; raises InvalidArgument."""
    from pgflywheel.db import alerts as calls

    found = await calls.matching(database, text.strip().lower()) if len(text.strip()) >= 4 else []
    if len(found) > 1:
        raise InvalidArgument(f"more than one alert has an id like {text}", hint="Write more of it.")
    alert = await calls.alert(database, found[0]) if found else None
    if alert is None:
        raise InvalidArgument(f"there is no alert {text}", hint="List them: pgflywheel alerts list --all.")
    return alert


def _line(alert: Alert) -> list[object]:
    what, verdict = one_line(alert.what, 80), alert.verdict or ""
    since = at(alert.opened_at)
    figures = (alert.value, alert.threshold, alert.n)
    return [_short(alert.alert_id), alert.severity, alert.rule, what, *figures, since, alert.state, verdict]


def _news(alert: Alert) -> str:
    """Return one line of what is watched."""
    told: dict[str, Any] = {"value": alert.value, "threshold": alert.threshold, "n": alert.n}
    figures = ", ".join(f"{name} {value:.4g}" for name, value in told.items() if value is not None)
    looked = f", {alert.verdict} says {alert.acknowledged_by}" if alert.verdict else ""
    text = f"{alert.severity} {alert.rule} ({alert.what}){': ' if figures else ''}{figures}{looked}"
    return f"{at(alert.changed_at)}  {_short(alert.alert_id)}  {alert.state:7}  {one_line(text, 300)}"


def _short(alert_id: UUID) -> str:
    return str(alert_id)[-SHORT:]
