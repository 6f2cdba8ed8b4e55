"""The command line's root: knows every noun by name, and loads only the one that is called."""

from __future__ import annotations

import errno
import importlib
from typing import Any

import click
from click.shell_completion import CompletionItem

from pgflywheel import __version__
from pgflywheel.cli.options import report_error, root_error, system_error
from pgflywheel.errors import CheckFailed, FlywheelError

NOUNS = {
    "quickstart": "Start a Postgres of your own with sample traces, validators and scores.",
    "db": "Install, upgrade, check and remove the schema.",
    "traces": "Import traces, look at them, and drop old days.",
    "validators": "Define, try, activate, pause and retire validators.",
    "judges": "Try judges, see what they are shown, and how far they may be trusted.",
    "providers": "Set, list, check and release the endpoints judges call.",
    "budgets": "Cap what judging may cost, and see what is used.",
    "scores": "Read scores, and why a span has or has none.",
    "why": "Tell for each validator why a span has a score or has none.",
    "embedders": "Add, serve and retire the models that turn texts into vectors.",
    "labels": "Label spans, draw and queue them, and move labels in and out.",
    "examples": "See, sign, release, revoke and freeze the examples judges are shown.",
    "clusters": "See what users ask about, and give it names.",
    "metrics": "See how good the application is: rates, releases, low scores, drift.",
    "sentinels": "Choose labelled items a judge is asked about every day, to know when it changes.",
    "report": "Write one page of HTML with plots of quality, judges, cost and what is worst.",
    "alerts": "See what is wrong, acknowledge it, and say what to watch.",
    "rollups": "See, verify and rebuild the counts that views are made of.",
    "queue": "See the queue, its dead jobs, and pause a lane.",
    "backfill": "Run a validator over spans that are there already.",
    "worker": "Run a worker, and see the ones that run.",
    "doctor": "Check an install and say how to mend it.",
    "completion": "Print the shell's completion script.",
}
INTERRUPTED = 130


class LazyGroup(click.Group):
    """Import a noun's module when it is called, so that --help needs no database driver."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the nouns in the order a newcomer needs them."""
        return list(NOUNS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the noun's module; its command has the module's name."""
        if name not in NOUNS:
            return None
        command: click.Command = getattr(importlib.import_module(f"pgflywheel.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the nouns without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a noun without importing any."""
        nouns = [CompletionItem(name, help=text) for name, text in NOUNS.items() if name.startswith(incomplete)]
        return nouns + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours becomes a message on stderr and its exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except (FlywheelError, BaseExceptionGroup) as error:
            known = root_error(error)
            if known is None:
                raise
            report_error(known)
            ctx.exit(known.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read the output has enough: click ends quietly
                raise
            report_error(system_error(error))
            ctx.exit(CheckFailed.exit_code)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pgflywheel")
def cli() -> None:
    """Validate what your LLM application did, inside its own Postgres.

    The database is named by --dsn, PGFLYWHEEL_DSN, DATABASE_URL or libpq's PG* variables. Times are in UTC.

    \b
    Exit codes: 0 done, 1 check failed, 2 wrong use, 3 database unreachable,
    4 schema missing, behind or newer, 130 interrupted.

    \b
    Example:
        pgflywheel quickstart
    """
