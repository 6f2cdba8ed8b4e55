"""pgflywheel metrics: rates with their intervals, releases compared, low scores, drift, and a screen to watch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from pgflywheel.cli import figures, times
from pgflywheel.cli.csv_text import csv_option, echo_csv
from pgflywheel.cli.numbers import FiniteRange
from pgflywheel.cli.options import dsn_option, json_option, require_known, run_call, run_list, schema_option
from pgflywheel.cli.text import clean, echo_rows, echo_table, note, one_line, to_json

if TYPE_CHECKING:
    from pgflywheel.cli.metric_lines import Asked, MetricLine
    from pgflywheel.db.connect import Database
    from pgflywheel.db.metrics import LowScore, Quality, ReleaseComparison
    from pgflywheel.db.monitoring import JudgeDrift, LowVerdict, Monitor

MOST_PLOTS = 4
MONITORS = ("drift", "kind", "subject", "slice", "statistic", "threshold", "effect", "n", "tested (UTC)")
JUDGES = ("judge", "sentinels", "agreement [95 %]", "usual", "changed", "verdict", "alarms")
WINDOW = timedelta(days=30)
WHY_CRITIQUE_IS_MISSING = "critiques are left out: they quote spans, and this role may not read content (an admin may)"


since_filter = times.since_option("Spans from this time on (default: 30d).", default=times.ago(WINDOW))
until_filter = times.until_option("Spans before it.", default=times.now)
project_option = click.option("--project", metavar="NAME", help="Only of this project.")


def _one_format(as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise click.UsageError("say either --json or --csv")


@click.group("metrics")
def metrics() -> None:
    """See how good the application is: rates, releases, low scores, drift."""


@metrics.command("show")
@click.argument("validator", required=False)
@click.option("--by", type=click.Choice(["node", "release", "environment", "project"]), help="A line for each.")
@click.option("--grain", type=click.Choice(["minute", "hour", "day"]), help="A line for each of these, in UTC.")
@since_filter
@until_filter
@project_option
@dsn_option
@schema_option
@json_option
@csv_option
def show(dsn: str, schema: str, as_json: bool, as_csv: bool, **asked: Any) -> None:
    """Show pass rates with intervals, and what labels make of them.

    A rate is of what was judged; what is unscored is in no rate, and what has no verdict has no data.

    \b
    Example:
        pgflywheel metrics show
        pgflywheel metrics show polite --by release --since 7d
        pgflywheel metrics show polite --grain day --csv > polite.csv
    """
    from pgflywheel.cli.metric_lines import Asked, MetricLine

    _one_format(as_json, as_csv)
    wanted = Asked(**asked)
    lines, series = run_call(_numbers, dsn, schema, wanted, plotted=not (as_json or as_csv or wanted.grain))
    if as_csv:
        echo_csv(lines, MetricLine)
    elif as_json:
        click.echo(to_json(lines))
    else:
        _print_lines(lines, wanted)
        _print_plots(series)


async def _numbers(database: Database, asked: Asked, plotted: bool) -> tuple[list[MetricLine], list[Quality]]:
    from pgflywheel.cli.metric_lines import lines, series

    found = await lines(database, asked)
    await require_known(database, asked.validator, found)
    await _tell_days_to_count(database)
    return found, await series(database, asked) if plotted else []


async def _tell_days_to_count(database: Database) -> None:
    """Say on stderr that numbers are too low after an upgrade, until a worker has counted the days before it."""
    from pgflywheel.db import rollups

    for behind in await rollups.status(database):
        if behind.waiting_days:
            days = f"days that wait for a worker to count them anew: {behind.waiting_days:,}"
            note(f"{days}; until then their numbers are not right")


def _print_lines(lines: Sequence[MetricLine], asked: Asked) -> None:
    from pgflywheel.cli.metric_lines import MOST_CORRECTED

    if not lines:
        click.echo(figures.NO_DATA)
        return
    columns = ["time (UTC)"] if asked.grain else []
    columns += ["validator", *([asked.by] if asked.by else []), "n", "judged", "pass rate [95 %]"]
    columns += [] if asked.grain else ["corrected [95 %]", "labels", "mark"]
    echo_table(columns, (_line_cells(line, asked) for line in lines))
    if not asked.grain and len(lines) > MOST_CORRECTED:
        note(f"of many lines, the {MOST_CORRECTED} largest of judges alone are corrected by labels")
    for line in lines:
        if line.note and line.method not in (None, "none"):
            click.echo(f"{one_line(_named(line))}: {clean(line.note)}")


def _line_cells(line: MetricLine, asked: Asked) -> list[object]:
    cells: list[object] = [figures.moment(line.time) if line.time else ""] if asked.grain else []
    cells += [one_line(_named(line), 40), *([one_line(line.slice or "unknown", 40)] if asked.by else [])]
    cells += [line.n, figures.percent(line.judged_share), figures.rate(line.pass_rate, line.pass_low, line.pass_high)]
    return cells if asked.grain else [*cells, _corrected(line), line.labels, _mark(line)]


def _named(line: MetricLine | Quality) -> str:
    return f"{line.validator} v{line.version}"


def _corrected(line: MetricLine) -> str:
    if line.method is None:
        return ""
    known = line.corrected_rate is not None
    return figures.rate(line.corrected_rate, line.corrected_low, line.corrected_high) if known else "no labels"


def _mark(line: MetricLine) -> str:
    marks = (line.status if line.status != "active" else "", "provisional" if line.provisional else "")
    return ", ".join(mark for mark in marks if mark)


def _print_plots(series: Sequence[Quality]) -> None:
    """Plot the versions with the most verdicts over time."""
    versions: dict[str, list[Quality]] = {}
    for row in series:
        versions.setdefault(_named(row), []).append(row)
    most = sorted(versions.items(), key=lambda each: (-sum(row.judged for row in each[1]), each[0]))
    for name, rows in most[:MOST_PLOTS]:
        points = [(row.time, row.pass_rate, row.pass_low, row.pass_high) for row in rows if row.time is not None]
        click.echo(f"\n{clean(figures.rate_plot(f'{name}: pass rate in %', points))}")
    if len(most) > MOST_PLOTS:
        note(f"{len(most) - MOST_PLOTS} more are not plotted; name one: pgflywheel metrics show VALIDATOR")


@metrics.command("compare")
@click.argument("validator")
@click.argument("baseline")
@click.argument("candidate")
@since_filter
@until_filter
@project_option
@click.option("--environment", metavar="NAME", help="Only of this environment.")
@dsn_option
@schema_option
@json_option
@csv_option
def compare(dsn: str, schema: str, as_json: bool, as_csv: bool, validator: str, **asked: Any) -> None:
    """Compare two releases: the difference of their pass rates, and whether it is one.

    \b
    Example:
        pgflywheel metrics compare polite v41 v42
    """
    from pgflywheel.db import metrics as calls
    from pgflywheel.db.metrics import ReleaseComparison

    _one_format(as_json, as_csv)
    found = run_list(calls.compare_releases, dsn, schema, validator, validator, **asked)
    if as_csv:
        echo_csv(found, ReleaseComparison)
    elif as_json:
        click.echo(to_json(found))
    elif not found:
        click.echo(
            clean(f"no data: no version of {validator} judged both {asked['baseline']} and {asked['candidate']}")
        )
    for row in [] if as_json or as_csv else found:
        _print_comparison(row)


def _print_comparison(row: ReleaseComparison) -> None:
    """Print one comparison, its verdict last."""
    click.echo(clean(one_line(f"{row.validator} v{row.version}, {row.project}, {row.environment}", 200)))
    corrected = (row.corrected_difference, row.corrected_difference_low, row.corrected_difference_high)
    raw = (row.difference, row.difference_low, row.difference_high)
    sides = (
        [one_line(row.baseline_release), row.baseline_n, figures.percent(row.baseline_rate), row.baseline_labels],
        [one_line(row.candidate_release), row.candidate_n, figures.percent(row.candidate_rate), row.candidate_labels],
    )
    echo_table(("release", "judged", "pass rate", "labels"), sides)
    click.echo(f"difference in points [95 %]: {figures.points(*raw)}")
    by_labels = "no labels" if row.corrected_difference is None else figures.points(*corrected)
    click.echo(f"corrected by labels:         {by_labels}")
    click.echo(f"{'provisional: ' if row.provisional else ''}{clean(row.verdict)}")


@metrics.command("top-failures")
@click.argument("validator", required=False)
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@times.since_option("Spans from this time on (default: 1d).", default=times.ago(timedelta(days=1)))
@until_filter
@project_option
@dsn_option
@schema_option
@json_option
@csv_option
def top_failures(dsn: str, schema: str, as_json: bool, as_csv: bool, **asked: Any) -> None:
    """Show the lowest scores and why: fails first, then low values, the newest first.

    Critiques quote spans: a role that may not read content gets the list without them.

    \b
    Example:
        pgflywheel metrics top-failures polite -n 10
    """
    from pgflywheel.db.metrics import LowScore
    from pgflywheel.db.monitoring import LowVerdict

    _one_format(as_json, as_csv)
    found, whole = run_call(_lowest, dsn, schema, **asked)
    if not whole:
        note(WHY_CRITIQUE_IS_MISSING)
    if as_csv:
        echo_csv(found, LowScore if whole else LowVerdict)
    else:
        echo_rows(found if as_json else [_low_cells(score) for score in found], as_json, empty=figures.NO_DATA)


async def _lowest(
    database: Database, validator: str | None, number: int, since: datetime, until: datetime, project: str | None
) -> tuple[Sequence[LowScore | LowVerdict], bool]:
    """Return the lowest scores, and whether the role may read why."""
    from pgflywheel.db import metrics as calls
    from pgflywheel.db import monitoring

    permitted = await monitoring.where_permitted(
        calls.lowest_scores(database, validator, since, until, number, project)
    )
    whole = permitted is not None
    found: Sequence[LowScore | LowVerdict] = permitted or []
    if not whole:
        found = await monitoring.low_verdicts(database, validator, since, until, number, project)
    await require_known(database, validator, found)
    return found, whole


def _low_cells(score: LowScore | LowVerdict) -> dict[str, object]:
    cells: dict[str, object] = {
        "span_id": score.span_id,
        "time (UTC)": figures.moment(score.time),
        "validator": one_line(f"{score.validator} v{score.version}", 40),
        "verdict": ("pass" if score.passed else "FAIL") + (" (provisional)" if score.provisional else ""),
        "value": score.value,
        "node": one_line(score.node, 30),
    }
    critique = getattr(score, "critique", "")
    return {**cells, "why": one_line(critique, 120)}


@metrics.command("drift")
@project_option
@dsn_option
@schema_option
@json_option
@csv_option
def drift(project: str | None, dsn: str, schema: str, as_json: bool, as_csv: bool) -> None:
    """Show what is watched for drift, what gave alarm, and whether it was the judge or the application.

    --csv prints the monitors alone.

    \b
    Example:
        pgflywheel metrics drift
    """
    from pgflywheel.db.monitoring import Monitor

    _one_format(as_json, as_csv)
    monitors, judges = run_call(_drift, dsn, schema, project)
    if as_csv:
        echo_csv(monitors, Monitor)
    elif as_json:
        click.echo(to_json({"monitors": monitors, "judges": judges}))
    else:
        _print_drift(monitors, judges)


async def _drift(database: Database, project: str | None) -> tuple[list[Monitor], list[JudgeDrift]]:
    from pgflywheel.db import monitoring

    return await monitoring.monitors(database, project), await monitoring.judge_drift(database)


def _print_drift(monitors: Sequence[Monitor], judges: Sequence[JudgeDrift]) -> None:
    if not monitors:
        click.echo("no data: nothing was tested for drift in the last eight days")
    else:
        echo_table(MONITORS, (_monitor_cells(each) for each in monitors))
    if judges:
        click.echo()
        echo_table(JUDGES, (_judge_cells(each) for each in judges))


def _monitor_cells(each: Monitor) -> list[object]:
    drifted = {True: "ALARM", False: "no", None: figures.NO_DATA if each.statistic is None else "shown only"}
    texts = [each.kind, one_line(each.subject, 50), one_line(each.slice, 40)]
    numbers = [each.statistic, each.threshold, each.effect, each.n_current]
    return [drifted[each.drifted], *texts, *numbers, figures.moment(each.tested_at)]


def _judge_cells(each: JudgeDrift) -> list[object]:
    agreement = figures.rate(each.agreement, each.agreement_low, each.agreement_high)
    usual = figures.percent(each.usual_agreement)
    name = one_line(f"{each.validator} v{each.version}", 40)
    return [name, each.n, agreement, usual, each.changed, clean(each.verdict), one_line(each.alarms, 120)]


@metrics.command("watch")
@click.option("--every", type=FiniteRange(0.2, 3600), default=5.0, show_default=True, help="Seconds between.")
@click.option("--seconds", type=FiniteRange(min=0), metavar="N", help="Stop after so long (default: at Ctrl-C).")
@project_option
@dsn_option
@schema_option
def watch(every: float, seconds: float | None, project: str | None, dsn: str, schema: str) -> None:
    """Watch quality, backlog, cost and open alerts until Ctrl-C; in a pipe print one look.

    \b
    Example:
        pgflywheel metrics watch --every 2
    """
    from pgflywheel.cli.metrics_screen import look_on

    try:
        run_call(look_on, dsn, schema, project, every, seconds)
    except KeyboardInterrupt:
        note("stopped")
