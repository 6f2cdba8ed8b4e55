"""pgflywheel budgets: hard caps on what judging may cost."""

from __future__ import annotations

import click

from pgflywheel.cli import figures
from pgflywheel.cli.numbers import FiniteRange
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.text import echo, echo_rows
from pgflywheel.errors import UsageError

PERIOD = click.Choice(["day", "month"])


@click.group("budgets")
def budgets() -> None:
    """Cap what judging may cost, and see what is used."""


@budgets.command("set")
@click.argument("what", metavar="SCOPE:NAME")
@click.argument("period", type=PERIOD)
@click.argument("usd", type=FiniteRange(0, 1e12))
@dsn_option
@schema_option
@json_option
def set_budget(what: str, period: str, usd: float, dsn: str, schema: str, as_json: bool) -> None:
    """Cap what a validator, a provider or a project may cost in a day or month (UTC), in US dollars.

    \b
    Example:
        pgflywheel budgets set validator:polite day 5.00
    """
    from pgflywheel.db import budgets as calls

    scope, name = _parts(what)
    changed = run_call(calls.set_budget, dsn, schema, scope, name, period, usd)
    text = f"{what} may cost {figures.cap(usd)} a {period}." + ("" if changed else " It was so before.")
    echo({"scope": scope, "name": name, "period": period, "cap_usd": usd, "changed": changed}, as_json, text)


@budgets.command("drop")
@click.argument("what", metavar="SCOPE:NAME")
@click.argument("period", type=PERIOD)
@dsn_option
@schema_option
@json_option
def drop(what: str, period: str, dsn: str, schema: str, as_json: bool) -> None:
    """Take a cap away; what waited for it goes on.

    \b
    Example:
        pgflywheel budgets drop validator:polite day
    """
    from pgflywheel.db import budgets as calls

    scope, name = _parts(what)
    dropped = run_call(calls.drop_budget, dsn, schema, scope, name, period)
    text = f"{what} has no cap a {period} any more." if dropped else f"{what} had no cap a {period}."
    echo({"scope": scope, "name": name, "period": period, "dropped": dropped}, as_json, text)


@budgets.command("list")
@dsn_option
@schema_option
@json_option
def list_budgets(dsn: str, schema: str, as_json: bool) -> None:
    """List budgets with what is spent and reserved in the period that runs.

    \b
    Example:
        pgflywheel budgets list
    """
    from pgflywheel.db import budgets as calls

    columns = ("scope", "name", "period", "cap_usd", "spent_usd", "reserved_usd", "used_share", "reached", "resumes_at")
    echo_rows(run_call(calls.status, dsn, schema), as_json, columns, "no budget is set")


def _parts(what: str) -> tuple[str, str]:
    scope, colon, name = what.partition(":")
    if not colon or scope not in ("validator", "provider", "project") or not name:
        raise UsageError(f"{what} names no budget", hint="Write validator:NAME, provider:NAME or project:NAME.")
    return scope, name
