"""pgflywheel alerts rules and channels: what is watched, and who is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgflywheel.cli.files import TOML_FILE, read_toml, require_names
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.text import echo, echo_rows
from pgflywheel.errors import InvalidArgument

if TYPE_CHECKING:
    from pgflywheel.db.alerts import Reading
    from pgflywheel.db.connect import Database

KINDS = ("channel", "rule")
Table = dict[str, Any]


@click.group("rules")
def rules() -> None:
    """Say what to watch."""


@rules.command("set")
@click.argument("files", nargs=-1, required=True, type=TOML_FILE, metavar="FILE...")
@dsn_option
@schema_option
@json_option
def set_rules(files: tuple[Path, ...], dsn: str, schema: str, as_json: bool) -> None:
    """Set the rules and channels of TOML files, or change them; all or none.

    \b
    Example:
        pgflywheel alerts rules set alerts.toml
    """
    echo_rows(run_call(_set, dsn, schema, [read_alerts(file) for file in files]), as_json)


@rules.command("list")
@dsn_option
@schema_option
@json_option
def list_rules(dsn: str, schema: str, as_json: bool) -> None:
    """List the rules, what came of looking at them, and how many of their alerts were real.

    \b
    Example:
        pgflywheel alerts rules list
    """
    from pgflywheel.db import alerts as calls

    found = run_call(calls.rules, dsn, schema)
    columns = ("rule", "metric", "severity", "state", "open_alerts", "slices", "precision", "advice", "problem")
    echo_rows(found, as_json, columns, "no rule is set")


@rules.command("drop")
@click.argument("name")
@dsn_option
@schema_option
@json_option
def drop_rule(name: str, dsn: str, schema: str, as_json: bool) -> None:
    """Watch no longer; open alerts of the rule close, closed ones stay.

    \b
    Example:
        pgflywheel alerts rules drop quality
    """
    from pgflywheel.db import alerts as calls

    dropped = run_call(calls.drop_rule, dsn, schema, name)
    text = f"{name} is watched no longer." if dropped else f"there was no rule {name}."
    echo({"rule": name, "dropped": dropped}, as_json, text)


@rules.command("test")
@click.argument("name", metavar="NAME|FILE")
@dsn_option
@schema_option
@json_option
def test_rule(name: str, dsn: str, schema: str, as_json: bool) -> None:
    """Show what a rule, or those of a file, would say now of each slice; nothing is set and nobody told.

    \b
    Example:
        pgflywheel alerts rules test alerts.toml
    """
    found = run_call(_test, dsn, schema, name)
    columns = ("rule", "slice", "n", "value", "threshold", "effect", "says")
    echo_rows(found, as_json, columns, "there is nothing the rule could say something of")


@click.group("channels")
def channels() -> None:
    """See who is told, and try it."""


@channels.command("list")
@dsn_option
@schema_option
@json_option
def list_channels(dsn: str, schema: str, as_json: bool) -> None:
    """List channels and how their messages fare.

    \b
    Example:
        pgflywheel alerts channels list
    """
    from pgflywheel.db import alerts as calls

    columns = ("channel", "url", "url_variable", "signed", "sent_last_hour", "waiting", "dead", "last_problem")
    echo_rows(run_call(calls.channels, dsn, schema), as_json, columns, "no channel is set")


@channels.command("test")
@click.argument("name")
@dsn_option
@schema_option
@json_option
def test_channel(name: str, dsn: str, schema: str, as_json: bool) -> None:
    """Have a worker send a message that says it is a test.

    \b
    Example:
        pgflywheel alerts channels test team
    """
    from pgflywheel.db import alerts as calls

    made = run_call(calls.send_test, dsn, schema, name)
    text = f"A worker sends message {made}. See what comes of it: pgflywheel alerts channels list."
    echo({"channel": name, "delivery_id": made}, as_json, text)


@channels.command("drop")
@click.argument("name")
@dsn_option
@schema_option
@json_option
def drop_channel(name: str, dsn: str, schema: str, as_json: bool) -> None:
    """Send nothing more to a channel; no rule may name it.

    \b
    Example:
        pgflywheel alerts channels drop team
    """
    from pgflywheel.db import alerts as calls

    dropped = run_call(calls.drop_channel, dsn, schema, name)
    text = f"{name} is told nothing more." if dropped else f"there was no channel {name}."
    echo({"channel": name, "dropped": dropped}, as_json, text)


def read_alerts(file: Path) -> dict[str, list[Table]]:
    """Return the [[rule]] and [[channel]] tables of a TOML file; raises InvalidArgument."""
    document = read_toml(file)
    found = {kind: document.pop(kind, []) for kind in KINDS}
    if document or not any(found.values()):
        names = ", ".join(document) or "nothing"
        hint = "Each rule is a [[rule]] table with a name, each channel a [[channel]] table."
        raise InvalidArgument(f"{file} holds {names} instead of rules and channels", hint=hint)
    return {kind: require_names(file, kind, tables) for kind, tables in found.items()}


def _definition(table: Table) -> Table:
    return {key: value for key, value in table.items() if key != "name"}


async def _set(database: Database, documents: list[dict[str, list[Table]]]) -> list[dict[str, Any]]:
    from pgflywheel.db import alerts as calls

    done: list[dict[str, Any]] = []
    async with database.transaction() as session:
        for kind, setter in (("channel", calls.set_channel), ("rule", calls.set_rule)):  # rules name channels
            for table in (table for document in documents for table in document[kind]):
                changed = await setter(session, table["name"], _definition(table))
                done.append({"kind": kind, "name": table["name"], "changed": changed})
    return done


async def _test(database: Database, name: str) -> list[dict[str, Any]]:
    from pgflywheel.db import alerts as calls

    if name.endswith(".toml") or os.sep in name:
        if not Path(name).is_file():
            raise InvalidArgument(f"there is no file {name}")
        tried = {table["name"]: _without_channels(_definition(table)) for table in read_alerts(Path(name))["rule"]}
    else:
        definition = await calls.definition(database, name)
        if definition is None:
            raise InvalidArgument(f"there is no rule {name}", hint="List them: pgflywheel alerts rules list.")
        tried = {name: definition}
    return [_row(rule, reading) for rule, given in tried.items() for reading in await calls.try_rule(database, given)]


def _without_channels(definition: Table) -> Table:
    """Return a rule without the channels, which may not be set yet."""
    return {key: value for key, value in definition.items() if key != "channels"}


def _row(rule: str, reading: Reading) -> dict[str, Any]:
    says = {True: "fires", False: "clear", None: "not enough to tell"}[reading.firing]
    figures = {name: getattr(reading, name) for name in ("slice", "n", "value", "threshold", "effect")}
    return {"rule": rule, **figures, "says": says, "evidence": reading.evidence}
