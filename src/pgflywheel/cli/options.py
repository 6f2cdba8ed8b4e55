"""What commands share: options, the one asyncio.run, errors as exit codes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from pgflywheel import assets, settings
from pgflywheel.cli.text import clean
from pgflywheel.errors import FlywheelError, UsageError

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database

Result = TypeVar("Result")
Given = ParamSpec("Given")
Command = TypeVar("Command", bound=Callable[..., Any])


def _resolved(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    return None if context.resilient_parsing else settings.resolve_dsn(value)


def _named(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    return None if context.resilient_parsing else assets.checked_schema(settings.schema_name(value))


dsn_option = click.option(
    "--dsn",
    metavar="DSN",
    callback=_resolved,
    help="Database: a URI or key=value pairs; else PGFLYWHEEL_DSN, DATABASE_URL, PG*.",
)
schema_option = click.option(
    "--schema",
    metavar="NAME",
    callback=_named,
    help="Schema of the install; else PGFLYWHEEL_SCHEMA, else flywheel.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def reason_option(text: str, name: str = "reason") -> Callable[[Command], Command]:
    """Make the option that says why, which others will read: a blank one is none."""
    return click.option(f"--{name}", "reason", required=True, callback=_not_blank, metavar="TEXT", help=text)


def _not_blank(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value.strip() and not context.resilient_parsing:
        raise click.BadParameter("it is blank; say it in a few words", context, parameter)
    return value


def confirm(yes: bool, question: str) -> None:
    """Ask on stderr before something is lost; raises UsageError where nobody can answer."""
    if yes:
        return
    click.echo(clean(question), err=True)
    try:
        click.confirm("Go on?", abort=True, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            raise UsageError("nobody answered", hint="Pass --yes where nobody can.") from abort
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from abort
        raise


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end: the command line's one asyncio.run."""
    with closing(work):  # Ctrl-C during the import leaves none that was never awaited
        import asyncio  # here, for the sake of --help

        return asyncio.run(work)


def run_call(
    function: Callable[Concatenate[Database, Given], Awaitable[Result]],
    dsn: str,
    schema: str,
    *args: Given.args,
    **kwargs: Given.kwargs,
) -> Result:
    """Open the install, see that it is of this version, and return what one function of pgflywheel.db returns."""

    async def call() -> Result:
        from pgflywheel.db.connect import open_database
        from pgflywheel.db.version import require_current

        async with open_database(dsn, schema) as database:
            await require_current(database)
            return await function(database, *args, **kwargs)

    return run(call())


def run_list(
    function: Callable[Concatenate[Database, Given], Awaitable[Result]],
    dsn: str,
    schema: str,
    validator: str | None,
    *args: Given.args,
    **kwargs: Given.kwargs,
) -> Result:
    """Return what run_call does; nothing found of a validator that is not there is an error, and no empty list."""

    async def listed(database: Database) -> Result:
        found = await function(database, *args, **kwargs)
        await require_known(database, validator, found)
        return found

    return run_call(listed, dsn, schema)


async def require_known(database: Database, validator: str | None, found: object) -> None:
    """Raise ValidatorNotFound where nothing was found because there is no such validator."""
    if validator is not None and not found:
        from pgflywheel.db.validators import require

        await require(database, validator)


def root_error(error: BaseException) -> FlywheelError | None:
    """Return our error, also from inside a task group's; None when something else is in it."""
    if isinstance(error, FlywheelError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [root_error(inner) for inner in error.exceptions]
        return found[0] if all(found) else None
    return None


def system_error(error: OSError) -> FlywheelError:
    """Return what the operating system refused as an error of ours."""
    what = f"{error.filename} cannot be used" if error.filename else "the operating system refuses"
    return FlywheelError(
        f"{what}: {error.strerror or error}", hint="See that files can be read and written, and the disk has space."
    )


def report_error(error: FlywheelError) -> None:
    """Print an error on stderr: what is wrong, the fact behind it, what to do."""
    click.echo(f"error: {clean(error.message)}", err=True)
    for name, text in (("detail", error.detail), ("hint", error.hint)):
        if text:
            click.echo(f"{name}: {clean(text)}", err=True)
