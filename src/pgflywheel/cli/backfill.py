"""pgflywheel backfill: run a validator over spans that are there already."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from pgflywheel.cli.figures import money
from pgflywheel.cli.options import dsn_option, json_option, run_call, schema_option
from pgflywheel.cli.text import echo, note
from pgflywheel.cli.times import since_option, until_option

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database
    from pgflywheel.db.jobs import BackfillStep

STEP_SPANS = 10_000


@click.command("backfill")
@click.argument("validator")
@since_option("First started_at: ISO 8601, or 2h, 7d ago.", required=True)
@until_option("End, not included.", default="now", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only count what would be judged, and say what it would cost.")
@click.option("--batch", is_flag=True, help="Use the provider's batch endpoint: cheaper, and within a day.")
@click.option("--unscored", is_flag=True, help="Instead: judge again where it gave no verdict.")
@dsn_option
@schema_option
@json_option
def backfill(
    validator: str,
    since: datetime,
    until: datetime,
    dry_run: bool,
    batch: bool,
    unscored: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Run a validator over spans that are there already.

    They are queued for its newest version behind all live work; spans that have a score are skipped.
    After an interruption the same times go on where it stopped.

    \b
    Example:
        pgflywheel backfill no_email --since 2026-03-01 --until 2026-03-08
        pgflywheel backfill plan_has_steps --since 2d --unscored
    """
    if unscored:
        if dry_run or batch:
            raise click.UsageError("--unscored goes with neither --dry-run nor --batch")
        _echo_unscored(run_call(_judge_unscored, dsn, schema, validator, since, until), validator, as_json)
        return
    lane = "batch" if batch else None
    if dry_run:
        found, text = run_call(_planned, dsn, schema, validator, since, until, lane)
        echo(found, as_json, text)
        return
    step = run_call(_backfill, dsn, schema, validator, since, until, lane)
    text = f"{step.queued:,} spans are queued for {validator}; {step.skipped:,} had a score already."
    echo({"validator": validator, "since": since, "until": until, **asdict(step)}, as_json, text)
    if step.queued:
        note("Workers judge them after live spans: pgflywheel queue status.")


def _echo_unscored(queued: int, validator: str, as_json: bool) -> None:
    text = f"{queued:,} spans without a verdict are queued for {validator} again."
    echo({"validator": validator, "queued": queued}, as_json, text)


async def _judge_unscored(database: Database, validator: str, since: datetime, until: datetime) -> int:
    from pgflywheel.db import jobs

    return await jobs.judge_unscored(database, validator, since, until)


async def _planned(
    database: Database, validator: str, since: datetime, until: datetime, lane: str | None
) -> tuple[dict[str, Any], str]:
    """Return what a backfill would do, with its price where it makes calls; and the same in words."""
    from pgflywheel.db import budgets, jobs

    plan = await jobs.plan_backfill(database, validator, since, until)
    price = await budgets.price_backfill(database, validator, since, until, lane)
    text = f"{plan.to_judge:,} spans would be judged; {plan.already_scored:,} of {plan.eligible:,} have a score."
    if price is None:
        return asdict(plan), text
    usd = "an unknown sum" if price.usd is None else money(price.usd)
    text += (
        f"\nThat is {price.calls:,} calls with {price.input_tokens:,} tokens in and {price.output_tokens:,} out: {usd}."
        f"\nBasis: {price.basis}."
    )
    return asdict(plan) | {"price": asdict(price)}, text


async def _backfill(
    database: Database, validator: str, since: datetime, until: datetime, lane: str | None
) -> BackfillStep:
    from pgflywheel.cli.progress import progress_bar
    from pgflywheel.db import jobs

    backfill_id = await jobs.start_backfill(database, validator, since, until, lane)
    times = f"--since {since.isoformat()} --until {until.isoformat()}" + (" --batch" if lane else "")
    note(f"To go on after an interruption: pgflywheel backfill {validator} {times}")
    total = (until - since).total_seconds()
    with progress_bar(f"backfill {validator}", total) as update:
        while True:
            step = await jobs.advance_backfill(database, backfill_id, STEP_SPANS)
            update((step.cursor - since).total_seconds(), f"{step.queued:,} queued, {step.skipped:,} skipped")
            if step.done:
                return step
