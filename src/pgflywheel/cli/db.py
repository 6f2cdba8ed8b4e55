"""pgflywheel db: install, upgrade, check and remove one install."""

from __future__ import annotations

import click

from pgflywheel.cli.numbers import FiniteRange
from pgflywheel.cli.options import confirm, dsn_option, json_option, schema_option, yes_option
from pgflywheel.cli.text import clean, echo, to_json

lock_timeout_option = click.option(
    "--lock-timeout",
    "lock_timeout_seconds",
    type=FiniteRange(0, 86_400),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up, changing nothing, when a table stays locked this long; 0 waits.",
)


@click.group("db")
def db() -> None:
    """Install, upgrade, check and remove the schema."""


@db.command("upgrade")
@dsn_option
@schema_option
@lock_timeout_option
@click.option("--reapply", is_flag=True, help="Make functions and views again even when nothing changed.")
@json_option
def upgrade(dsn: str, schema: str, lock_timeout_seconds: float, reapply: bool, as_json: bool) -> None:
    """Install the schema, or bring it to this version; safe to run again.

    \b
    Example:
        pgflywheel db upgrade --dsn postgresql://app@localhost/app
    """
    from pgflywheel.db import schema as install

    change = install.upgrade(dsn, schema, lock_timeout_seconds=lock_timeout_seconds, reapply=reapply)
    done = f"Schema {schema} is now at revision {change.after} (was {change.before or 'not installed'})."
    if change.changed and change.before == change.after:
        done = f"Functions and views of schema {schema} were made anew, at revision {change.after}."
    echo(change, as_json, done if change.changed else f"Schema {schema} is up to date, at revision {change.after}.")


@db.command("downgrade")
@click.argument("revision")
@dsn_option
@schema_option
@lock_timeout_option
@yes_option
@json_option
def downgrade(revision: str, dsn: str, schema: str, lock_timeout_seconds: float, yes: bool, as_json: bool) -> None:
    """Undo migrations down to REVISION; `base` undoes all, with their data.

    \b
    Example:
        pgflywheel db downgrade base --schema trial
    """
    from pgflywheel.db import schema as install

    confirm(yes, f"Undo the migrations of schema {schema} down to {revision}? Data of the tables they made is lost.")
    change = install.downgrade(dsn, revision, schema, lock_timeout_seconds=lock_timeout_seconds)
    echo(change, as_json, f"Schema {schema} is now at revision {change.after or 'base'}.")


@db.command("verify")
@dsn_option
@schema_option
@json_option
def verify(dsn: str, schema: str, as_json: bool) -> None:
    """Check that every table, column, function and view is there; changes nothing.

    \b
    Example:
        pgflywheel db verify
    """
    from pgflywheel.db import schema as install

    checked = install.verify(dsn, schema)
    text = f"Schema {schema} is whole: revisions {', '.join(checked)} and all functions and views."
    echo({"schema": schema, "revisions": checked}, as_json, text)


@db.command("sql")
@schema_option
def print_sql(schema: str) -> None:
    """Print the SQL of a new install, without connecting anywhere.

    \b
    Example:
        pgflywheel db sql --schema acme | psql --set ON_ERROR_STOP=1
    """
    from pgflywheel.db import schema as install

    click.echo(install.script(schema))


@db.command("status")
@dsn_option
@schema_option
@json_option
def status(dsn: str, schema: str, as_json: bool) -> None:
    """Show what is installed; exit code 4 when it is not what this package needs.

    \b
    Example:
        pgflywheel db status --json
    """
    from pgflywheel.db import schema as install
    from pgflywheel.db.version import Installed, check_versions

    found = install.status(dsn, schema)
    lines = [
        f"schema      {found.schema}",
        f"revision    {found.revision or 'not installed'} (this package: {found.head})",
        f"functions   {_functions(found.sql_hash, found.sql_hash_expected)}",
        f"package     {found.package} (installed by: {found.installed_by or '-'})",
        f"server      PostgreSQL {found.server_version}",
        f"pgvector    {found.pgvector_version or 'not created'}",
    ]
    click.echo(to_json(found) if as_json else clean("\n".join(lines)))
    check_versions(Installed(found.revision, found.sql_hash, found.installed_by), schema)


@db.command("drop")
@dsn_option
@schema_option
@yes_option
@json_option
def drop(dsn: str, schema: str, yes: bool, as_json: bool) -> None:
    """Remove the schema with all its data; its roles stay.

    \b
    Example:
        pgflywheel db drop --schema trial --yes
    """
    from pgflywheel.db import schema as install

    confirm(yes, f"Drop schemas {schema} and {schema}_bi with all spans, scores and validators?")
    dropped = install.drop(dsn, schema)
    text = f"Schema {schema} is dropped." if dropped else f"Schema {schema} was not there."
    echo({"schema": schema, "dropped": dropped}, as_json, text)


def _functions(applied: str | None, expected: str) -> str:
    if applied is None:
        return "not installed"
    return "up to date" if applied == expected else "differ from this package's; run pgflywheel db upgrade"
