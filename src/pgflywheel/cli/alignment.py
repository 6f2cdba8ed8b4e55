"""pgflywheel judges align, compare, calibrate, tune: how far a judge may be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pgflywheel.cli.judge_name import JudgeName
from pgflywheel.cli.numbers import FiniteRange
from pgflywheel.cli.options import dsn_option, json_option, run, run_call, schema_option
from pgflywheel.cli.text import clean, echo_table, note, to_json
from pgflywheel.cli.tuning import tune, warn_of_missing_vectors

if TYPE_CHECKING:
    from pgflywheel.db.alignment import Alignment, Calibration, Comparison, JudgeVersion, Standing
    from pgflywheel.db.connect import Database

__all__ = ["align", "calibrate", "compare", "tune"]

LOOK_SECONDS = 0.1
EVIDENCE = math.log(20)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What align did and found."""

    queued: int
    stuck: int
    alignment: list[Alignment]
    standing: Standing


@click.command("align")
@click.argument("judge", type=JudgeName(), metavar="NAME[@VERSION]")
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "all", "test"]),
    default="all",
    show_default=True,
    help="Labels to judge and show; all: without test once there are 60 to hold out.",
)
@click.option("--again", is_flag=True, help="Read the test split although this version has; it is recorded.")
@click.option("--queued-only", is_flag=True, help="Leave the work to the workers that run.")
@dsn_option
@schema_option
@json_option
def align(
    judge: tuple[str, int | None], split: str, again: bool, queued_only: bool, dsn: str, schema: str, as_json: bool
) -> None:
    """Let a judge judge its labelled spans, and show how far it agrees with people.

    Spans it has judged are not judged again. The test split is shown once a version.

    \b
    Example:
        pgflywheel judges align polite
        pgflywheel judges align polite@2 --split test
    """
    outcome = run(_align(judge, split, again, queued_only, dsn, schema))
    if as_json:
        click.echo(to_json(outcome))
        return
    _echo_alignment(outcome.alignment)
    if outcome.stuck:
        note(f"{outcome.stuck:,} labelled spans wait longer or were given up: pgflywheel queue status.")
    word = "provisional" if outcome.standing.provisional else "it may decide"
    if not outcome.alignment:
        note(f"Label some spans first: pgflywheel labels next {outcome.standing.validator}.")
    click.echo(f"\n{outcome.standing.validator} v{outcome.standing.version}: {word}: {outcome.standing.reason}")


async def _align(
    judge: tuple[str, int | None], split: str, again: bool, queued_only: bool, dsn: str, schema: str
) -> Outcome:
    from pgflywheel.db import alignment
    from pgflywheel.db.connect import open_database
    from pgflywheel.db.version import require_current

    async with open_database(dsn, schema) as database:
        await require_current(database)
        version = await alignment.judge(database, *judge)
        queued = await alignment.queue_labelled(database, version.version_id, [split])
        if not queued_only:
            if queued:
                await warn_of_missing_vectors(database)
            await _work(database, dsn, version)
        left = await alignment.waiting(database, version.version_id)
        if split == "test":
            found = await alignment.read_test_split(database, version.validator, version.version, again)
        else:
            found = await alignment.alignment(database, version.validator, version.version)
        standing = await alignment.standing(database, version.validator, version.version)
    return Outcome(queued, left.stuck, [row for row in found if split in ("all", row.split)], standing)


async def _work(database: Database, dsn: str, version: JudgeVersion) -> None:
    """Run a worker in this process until nothing of the version waits for it."""
    import asyncio  # here, for the sake of --help

    from pgflywheel.cli.progress import progress_bar
    from pgflywheel.db import alignment
    from pgflywheel.db.connect import open_database
    from pgflywheel.worker.loop import MAX_CONNECTIONS, Worker
    from pgflywheel.worker.site import Options, Site

    total = (await alignment.waiting(database, version.version_id)).soon
    if total == 0:
        return
    async with open_database(dsn, database.schema, max_connections=MAX_CONNECTIONS) as own:
        worker = Worker(Site.of(own, Options(lanes=(version.lane,), name="judges align")), dsn)
        working = asyncio.create_task(worker.run())
        try:
            with progress_bar(f"judging with {version.validator}", total) as update:
                while not working.done() and (left := (await alignment.waiting(database, version.version_id)).soon):
                    update(max(0, total - left), f"{left:,} spans to go")
                    await asyncio.wait([working], timeout=LOOK_SECONDS)
        finally:
            worker.stop()
            await working


@click.command("compare")
@click.argument("first", type=JudgeName(), metavar="A[@VERSION]")
@click.argument("second", type=JudgeName(), metavar="B[@VERSION]")
@click.option("--split", type=click.Choice(["train", "dev", "all"]), default="dev", show_default=True, help="Labels.")
@dsn_option
@schema_option
@json_option
def compare(
    first: tuple[str, int | None], second: tuple[str, int | None], split: str, dsn: str, schema: str, as_json: bool
) -> None:
    """Compare two judge versions on the labelled spans both have judged.

    \b
    Example:
        pgflywheel judges compare polite@1 polite@2
    """
    a, b, found = run_call(_compare, dsn, schema, first, second, split)
    if as_json:
        click.echo(to_json({"a": a, "b": b, "split": split, **_as_dict(found)}))
        return
    names = [f"{one.validator} v{one.version}" for one in (a, b)]
    echo_table(
        ("judge", "right", "TPR", "TNR", "cost usd", "latency ms"),
        [
            (
                names[0],
                found.both_right + found.only_a_right,
                found.tpr_a,
                found.tnr_a,
                found.cost_usd_a,
                found.latency_ms_a,
            ),
            (
                names[1],
                found.both_right + found.only_b_right,
                found.tpr_b,
                found.tnr_b,
                found.cost_usd_b,
                found.latency_ms_b,
            ),
        ],
    )
    click.echo("\n" + clean(_verdict(found, names)))


async def _compare(
    database: Database, first: tuple[str, int | None], second: tuple[str, int | None], split: str
) -> tuple[JudgeVersion, JudgeVersion, Comparison]:
    from pgflywheel.db import alignment

    a, b = await alignment.judge(database, *first), await alignment.judge(database, *second)
    return a, b, await alignment.compare(database, a, b, split)


def _verdict(found: Comparison, names: list[str]) -> str:
    counts = (
        f"Of {found.labels:,} spans, only the first had {found.only_a_right:,} right, "
        f"only the second {found.only_b_right:,}"
    )
    better = names[0] if found.only_a_right > found.only_b_right else names[1]
    told = f"evidence for {better}" if found.log_e >= EVIDENCE else "no evidence for either"
    return f"{counts}: {told} (exact McNemar p = {found.mcnemar_p:.3g}, e-value {math.exp(min(found.log_e, 700)):.3g})."


@click.command("calibrate")
@click.argument("judge", type=JudgeName(), metavar="NAME[@VERSION]")
@click.option("--alpha", type=FiniteRange(0.001, 0.5), help="Share of trusted verdicts that may be wrong; else 0.10.")
@click.option("--delta", type=FiniteRange(0.001, 0.5), help="Probability that it is more; else 0.10.")
@click.option("--any-lane", is_flag=True, help="Also labels not drawn at random: more of them, no guarantee.")
@dsn_option
@schema_option
@json_option
def calibrate(
    judge: tuple[str, int | None],
    alpha: float | None,
    delta: float | None,
    any_lane: bool,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Fit what a judge's verdicts are worth, and from which confidence on they are trusted.

    \b
    Example:
        pgflywheel judges calibrate polite --alpha 0.05
    """
    found = run_call(_calibrate, dsn, schema, judge, alpha, delta, any_lane)
    if as_json:
        click.echo(to_json(found))
        return
    click.echo(
        clean(
            f"{found.validator} v{found.version}: {found.method} fit on {found.labels:,} labels; on those same labels, "
            f"and so at its best: Brier score {found.brier:.3f}, calibration error {found.calibration_error:.3f}."
        )
    )
    click.echo(clean(_trust(found)))


async def _calibrate(
    database: Database, judge: tuple[str, int | None], alpha: float | None, delta: float | None, any_lane: bool
) -> Calibration:
    from pgflywheel.db import alignment

    version = await alignment.judge(database, *judge)
    return await alignment.calibrate(database, version.validator, version.version, alpha, delta, any_lane)


def _trust(found: Calibration) -> str:
    if found.threshold is None:
        return (
            f"No verdict is trusted: {found.basis}.\nConfidence comes from votes, or from a provider with the ability "
            f"logprobs; drawn labels from: pgflywheel labels draw {found.validator}."
        )
    return (
        f"Verdicts with a confidence of {found.threshold:.3g} and more are trusted: {found.errors:,} of "
        f"{found.trusted:,} were wrong; with a probability of {1 - found.delta:.0%}, at most {found.alpha:.0%} "
        f"of all of them are ({found.basis})."
    )


def _echo_alignment(found: list[Alignment]) -> None:
    if not found:
        click.echo("no labelled span was judged")
        return
    echo_table(
        (
            "split",
            "labels",
            "TPR",
            "TNR",
            "fail precision",
            "MCC",
            "kappa",
            "pass",
            "fail",
            "disagreements",
            "unscored",
        ),
        [
            (
                *(
                    row.split,
                    row.labels,
                    _rate(row.tpr, row.tpr_low, row.tpr_high),
                    _rate(row.tnr, row.tnr_low, row.tnr_high),
                ),
                *(row.fail_precision, row.mcc, row.kappa, row.n_pass, row.n_fail, row.disagreements, row.unscored),
            )
            for row in found
        ],
    )


def _rate(rate: float | None, low: float, high: float) -> str:
    return "-" if rate is None else f"{rate:.3f} [{low:.2f}, {high:.2f}]"


def _as_dict(record: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(record)
