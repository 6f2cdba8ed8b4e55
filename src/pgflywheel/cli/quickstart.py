"""pgflywheel quickstart: from nothing to judged traces with one command."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgflywheel import assets, settings
from pgflywheel.cli.options import json_option, run, schema_option
from pgflywheel.cli.text import clean, echo, echo_table, note, one_line, to_json
from pgflywheel.errors import TooSlow, UsageError

if TYPE_CHECKING:
    from pgflywheel.db.alignment import Standing
    from pgflywheel.db.connect import Database
    from pgflywheel.db.explain import Failure, PassRate

LOOK_SECONDS = 0.1
FAILURES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What quickstart did and found; ``changed`` is False when everything was there already."""

    dsn: str
    schema: str
    changed: bool
    spans_loaded: int
    spans_already_there: int
    validators_activated: int
    labels_recorded: int
    pass_rates: list[PassRate]
    provisional: list[Standing]
    failures: list[Failure]


@click.command("quickstart")
@click.option("--dsn", metavar="DSN", help="Use this server instead of an embedded one.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the embedded server; else PGFLYWHEEL_DATA_DIR, else your data directory.",
)
@click.option("--stop", is_flag=True, help="Stop the embedded server; its data stays.")
@schema_option
@json_option
def quickstart(dsn: str | None, data_dir: Path | None, stop: bool, schema: str, as_json: bool) -> None:
    """Start a Postgres of your own with sample traces, validators and scores.

    Running it again changes nothing.

    \b
    Example:
        pgflywheel quickstart
        pgflywheel quickstart --dsn postgresql://app@localhost/app
    """
    folder = data_dir or settings.data_dir()
    if dsn is not None and (stop or data_dir):
        raise UsageError(
            "--dsn is of a server of your own, --stop and --data-dir of the embedded one", hint="Leave one of them out."
        )
    if stop:
        from pgflywheel.db import embedded

        stopped = embedded.stop(folder)
        text = f"The server in {folder} is stopped." if stopped else f"No server runs in {folder}."
        echo({"data_dir": str(folder), "stopped": stopped}, as_json, text)
        return
    address = _server(dsn, folder)
    _install(address, schema)
    outcome = run(_quickstart(address, schema))
    if as_json:
        click.echo(to_json(outcome))
    else:
        _print(outcome, "" if dsn else _stop_command(data_dir))


def _server(dsn: str | None, folder: Path) -> str:
    """Return the DSN of the user's server, or of an embedded one that is started where it does not run."""
    if dsn is not None:
        return settings.normalised_dsn(dsn)
    from pgflywheel.db import embedded

    note(f"Postgres 18 in {folder} ...")
    return embedded.start(folder)


def _install(dsn: str, schema: str) -> None:
    from pgflywheel.db import schema as install

    change = install.upgrade(dsn, schema)
    note(f"Schema {schema} " + ("is installed." if change.changed else "was there."))


async def _quickstart(dsn: str, schema: str) -> Outcome:
    from pgflywheel.db import alignment, explain, spans
    from pgflywheel.db.connect import open_database
    from pgflywheel.importer.sample import sample_rows

    rows = sample_rows(datetime.now(UTC))
    async with open_database(dsn, schema) as database:
        activated = await _activate_new(database)  # first, so that the triggers judge and queue the spans
        loaded = await spans.load(database, rows)
        note(f"{activated} validators activated, {loaded} spans of {len(rows)} loaded.")
        await _drain(database, dsn)
        taught = await _teach(database, dsn)
        meant = explain.ScoreFilter(project=rows[0].project)
        return Outcome(
            dsn,
            schema,
            bool(activated or loaded or taught),
            loaded,
            len(rows) - loaded,
            activated,
            taught,
            await explain.pass_rates(database, meant),
            await alignment.provisional(database),
            await explain.failures(database, meant, FAILURES_SHOWN),
        )


async def _teach(database: Database, dsn: str) -> int:
    """Label a part of the messages, and let those in the train split vote on all of them; return the labels made."""
    from pgflywheel.cli.definitions import read
    from pgflywheel.db import jobs, labels, validators
    from pgflywheel.importer.sample import sample_labels

    ((name, definition),) = read(assets.sample_dir() / "neighbours.toml", database.schema)
    async with database.transaction() as session:
        defined = await validators.define(session, name, definition)
        if not defined.changed:
            return 0
        said = sample_labels()
        for label in said:
            await labels.import_line(session, label)
    await _drain(database, dsn)  # examples get their vectors
    await validators.activate(database, name, defined.version)
    backfill = await jobs.start_backfill(database, name, datetime.now(UTC) - timedelta(days=30), datetime.now(UTC))
    while not (await jobs.advance_backfill(database, backfill, 10_000)).done:
        pass
    note(f"{len(said)} labels recorded; those of the train split vote as {name}.")
    await _drain(database, dsn)
    return len(said)


async def _activate_new(database: Database) -> int:
    """Activate the sample's validators, all or none; one that is stored already keeps the status it has."""
    from pgflywheel.cli.definitions import read
    from pgflywheel.db import validators

    activated = 0
    async with database.transaction() as session:
        for name, definition in read(assets.sample_dir() / "validators.toml", database.schema):
            defined = await validators.define(session, name, definition)
            if defined.changed:
                await _activate(session, name, definition, defined.version)
                activated += 1
    return activated


async def _activate(session: Database, name: str, definition: dict[str, Any], version: int) -> None:
    """Activate a version; on a machine too busy for it to be inline, a version of it in lane bulk."""
    from pgflywheel.db import validators

    try:
        async with session.transaction() as attempt:
            await validators.activate(attempt, name, version)
    except TooSlow as error:
        note(f"{name} runs in lane bulk here: {error.message}")
        defined = await validators.define(session, name, {**definition, "lane": "bulk"})
        await validators.activate(session, name, defined.version)


async def _drain(database: Database, dsn: str) -> None:
    """Run a worker in this process until nothing waits."""
    import asyncio  # here, for the sake of --help

    from pgflywheel.cli.progress import progress_bar
    from pgflywheel.worker.loop import run_worker
    from pgflywheel.worker.site import Options

    total = await _waiting(database)
    if total == 0:
        return
    working = asyncio.create_task(run_worker(dsn, database.schema, Options(name="quickstart", until_idle=True)))
    with progress_bar("judging", total) as update:
        while not working.done():
            left = await _waiting(database)
            update(total - left, f"{left:,} spans to go")
            await asyncio.wait([working], timeout=LOOK_SECONDS)
    await working


async def _waiting(database: Database) -> int:
    from pgflywheel.db import jobs

    return sum(lane.ready_spans + lane.running_spans for lane in await jobs.status(database))


def _print(outcome: Outcome, stop_command: str) -> None:
    if not outcome.changed:
        click.echo("Nothing changed: the sample, its validators and their scores were there already.\n")
    echo_table(
        ("validator", "node", "judged", "pass rate", "unscored"),
        [(rate.validator, rate.node, rate.judged, _percent(rate), rate.unscored) for rate in outcome.pass_rates],
    )
    for standing in outcome.provisional:
        click.echo(f"\n{standing.validator} is provisional and decides nothing: {standing.reason}.")
    for failure in outcome.failures:
        click.echo(
            f"\n{failure.validator} failed on span {failure.span_id} ({clean(failure.node)}, {failure.severity})"
        )
        click.echo(f"  why: {one_line(failure.critique or failure.description or 'no critique', 160)}")
        click.echo(f"  {failure.target}: {one_line(failure.text, 160)}")
    click.echo("\n" + "\n".join(_next_steps(outcome, stop_command)))


def _percent(rate: PassRate) -> str:
    share = "-" if rate.pass_rate is None else f"{rate.pass_rate:.1%}"
    return f"({share})" if rate.provisional else share


def _next_steps(outcome: Outcome, stop_command: str) -> list[str]:
    address, schema = shlex.quote(outcome.dsn), outcome.schema
    query = f"select * from {schema}.current_scores where not passed limit 5"
    option = "" if schema == assets.DEFAULT_SCHEMA else f" --schema {schema}"
    span: Any = outcome.failures[0].span_id if outcome.failures else "SPAN_ID"
    steps = [
        "Look further:",
        f'  {_psql(bool(stop_command))} {address} -c "{query}"',
        "Go on:",
        f"  export PGFLYWHEEL_DSN={address}",
        f"  pgflywheel why {span}{option}",
        f"  pgflywheel labels next customer_has_no_complaint{option}",
        f"  pgflywheel traces import FILE.jsonl --input input --output output{option}",
        f"  pgflywheel worker run{option}",
    ]
    return [*steps, f"  {stop_command}"] if stop_command else steps


def _stop_command(data_dir: Path | None) -> str:
    folder = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"pgflywheel quickstart --stop{folder}"


def _psql(embedded: bool) -> str:
    """Return psql, or the path of the one that came with the embedded server where there is no other."""
    if embedded and shutil.which("psql") is None:
        from pgflywheel.db.embedded import psql

        return str(psql())
    return "psql"
