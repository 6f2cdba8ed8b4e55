"""pgflywheel rollups: the counts by minute, hour and day that views are made of."""

from __future__ import annotations

from datetime import datetime

import click

from pgflywheel.cli import times
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.text import echo, echo_rows

since_option = times.since_option("First day: ISO 8601, or 2h, 7d ago.")
until_option = times.until_option("End, whose day counts unless it is midnight.")


@click.group("rollups")
def rollups() -> None:
    """See, verify and rebuild the counts that views are made of."""


@rollups.command("status")
@dsn_option
@schema_option
@json_option
def status(dsn: str, schema: str, as_json: bool) -> None:
    """Show how far the rollups are behind; views are exact all the same.

    \b
    Example:
        pgflywheel rollups status
    """
    from pgflywheel.db import rollups as calls

    echo_rows(run_call(calls.status, dsn, schema), as_json, empty="")


@rollups.command("verify")
@since_option
@until_option
@dsn_option
@schema_option
@json_option
@click.pass_context
def verify(
    context: click.Context, since: datetime | None, until: datetime | None, dsn: str, schema: str, as_json: bool
) -> None:
    """Compare what views count with the raw rows; exit code 1 when something differs.

    \b
    Example:
        pgflywheel rollups verify --since 7d
    """
    from pgflywheel.db import rollups as calls

    found = run_call(calls.verify, dsn, schema, since, until)
    echo_rows(found, as_json, empty="what views count is what is there")
    if found:
        context.exit(1)


@rollups.command("rebuild")
@since_option
@until_option
@dsn_option
@schema_option
@json_option
def rebuild(since: datetime | None, until: datetime | None, dsn: str, schema: str, as_json: bool) -> None:
    """Have workers count days anew from the raw rows, after rows came past the triggers.

    \b
    Example:
        pgflywheel rollups rebuild --since 7d
    """
    from pgflywheel.db import rollups as calls

    days = run_call(calls.rebuild, dsn, schema, since, until)
    echo({"days": days}, as_json, f"{days} days were put on the list; a worker counts one a second at most.")


@rollups.command("attributes")
@click.argument("paths", nargs=-1)
@dsn_option
@schema_option
@json_option
def attributes(paths: tuple[str, ...], dsn: str, schema: str, as_json: bool) -> None:
    """Count by up to three dimensions of your own: model, provider, or keys of attributes; none = by none.

    \b
    Example:
        pgflywheel rollups attributes tenant.plan model
    """
    from pgflywheel.db import rollups as calls

    days = run_call(calls.set_attributes, dsn, schema, paths)
    text = f"{days} days are counted anew by {', '.join(paths) or 'no dimension of your own'}."
    echo({"attributes": list(paths), "days": days}, as_json, text)
