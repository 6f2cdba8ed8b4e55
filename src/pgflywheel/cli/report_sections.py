"""The sections of the report: what was read, in plots and tables, with a line on what each means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgflywheel.cli import figures
from pgflywheel.cli.metric_lines import MetricLine
from pgflywheel.db.metrics import LowScore, Quality, WeeklyAlignment
from pgflywheel.db.monitoring import ClusterExample, ClusterQuality, JudgeDrift, LowVerdict, Monitor, OpenAlert
from pgflywheel.db.operations import Cost, Latency, ValidationCost
from pgflywheel.report.model import Line, Note, Page, Plot, Point, Quote, Section, Table

MOST_PLOTS = 12
NO_CONTENT = "Left out: this role may not read content (examples, critiques). An admin's report has it."
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a report is made of; None where the role may not read it."""

    since: datetime
    until: datetime
    project: str | None
    quality: Sequence[MetricLine]
    series: Sequence[Quality]
    alignment: Sequence[WeeklyAlignment]
    cost: Sequence[Cost]
    judging: Sequence[ValidationCost]
    latency: Sequence[Latency]
    clusters: Sequence[ClusterQuality]
    examples: Sequence[tuple[str, Sequence[ClusterExample]]] | None
    lowest: Sequence[LowScore] | Sequence[LowVerdict]
    monitors: Sequence[Monitor]
    judges: Sequence[JudgeDrift]
    alerts: Sequence[OpenAlert]


def page(read: Gathered) -> Page:
    """Return the report of what was read."""
    of = f"project {read.project}" if read.project is not None else "all projects"
    facts = [
        f"Spans from {figures.moment(read.since)} to {figures.moment(read.until)} UTC, {of}.",
        "Intervals are of 95 %. A rate is of what was judged: what is unscored is in no rate, and never a fail.",
    ]
    sections = (_alerts, _quality, _over_time, _alignment, _drift, _cost, _latency, _clusters, _lowest)
    return Page("pgflywheel: quality report", facts, [section(read) for section in sections])


def _alerts(read: Gathered) -> Section:
    rows = [[each.severity, each.rule, each.what, figures.moment(each.opened_at)] for each in read.alerts]
    table = Table(("severity", "rule", "what", "since (UTC)"), rows)
    meaning = "What alert rules found and is still so, in all projects."
    return Section(
        "Open alerts", meaning, [table] if rows else [Note("Nothing is wrong, going by the rules there are.")]
    )


def _quality(read: Gathered) -> Section:
    columns = ("validator", "n", "judged", "pass rate [95 %]", "corrected by labels [95 %]", "labels", "mark")
    table = Table(columns, [_quality_cells(line) for line in read.quality], frozenset({1, 2, 5}))
    meaning = (
        "The pass rate is what a validator says; the corrected rate is what people would say, estimated from labels. "
        "Provisional: the judge is not yet shown to agree with people."
    )
    return Section("Quality", meaning, [table] if read.quality else [])


def _quality_cells(line: MetricLine) -> list[str]:
    known = line.corrected_rate is not None
    corrected = figures.rate(line.corrected_rate, line.corrected_low, line.corrected_high) if known else "no labels"
    marks = (line.status if line.status != "active" else "", "provisional" if line.provisional else "")
    return [
        f"{line.validator} v{line.version}",
        f"{line.n:,}",
        figures.percent(line.judged_share),
        figures.rate(line.pass_rate, line.pass_low, line.pass_high),
        corrected if line.method else "",
        "" if line.labels is None else f"{line.labels:,}",
        ", ".join(mark for mark in marks if mark),
    ]


def _over_time(read: Gathered) -> Section:
    versions: dict[str, list[Quality]] = defaultdict(list)
    for row in read.series:
        versions[f"{row.validator} v{row.version}"].append(row)
    most = sorted(versions.items(), key=lambda each: (-sum(row.judged for row in each[1]), each[0]))
    plots: list[Plot | Note] = [_rate_plot(name, rows, read) for name, rows in most[:MOST_PLOTS]]
    if len(most) > MOST_PLOTS:
        plots.append(Note(f"{len(most) - MOST_PLOTS} more with fewer verdicts are not plotted."))
    meaning = "Pass rate by day (UTC); the band is its interval, wide where little was judged. A gap is a day without."
    return Section("Quality over time", meaning, plots)


def _rate_plot(name: str, rows: Sequence[Quality], read: Gathered) -> Plot:
    known = {row.time: row for row in rows}
    days = [(day, known.get(day)) for day in _days(read)]
    points = [_share(day, row.pass_rate, row.pass_low, row.pass_high) if row else Point(day, None) for day, row in days]
    return Plot(name, [Line("pass rate", points)], "%", 100)


def _days(read: Gathered) -> list[datetime]:
    """Return the UTC days of the report; of more than 400 the last."""
    first = read.since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = max(first, read.until - 400 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    return [first + n * DAY for n in range((read.until - first).days + 1)]


def _alignment(read: Gathered) -> Section:
    judges: dict[str, list[WeeklyAlignment]] = defaultdict(list)
    for row in read.alignment:
        judges[f"{row.validator} v{row.version}"].append(row)
    plots = [Plot(name, _alignment_lines(rows), "%", 100) for name, rows in sorted(judges.items())[:MOST_PLOTS]]
    meaning = (
        "By week, of all projects: of what people pass, how much the judge passes (TPR), and of what people fail, how "
        "much it fails (TNR). Few labels make wide bands."
    )
    return Section("Judges against people", meaning, plots)


def _alignment_lines(rows: Sequence[WeeklyAlignment]) -> list[Line]:
    passes = [_share(row.time, row.tpr, row.tpr_low, row.tpr_high) for row in rows]
    fails = [_share(row.time, row.tnr, row.tnr_low, row.tnr_high) for row in rows]
    return [Line("TPR", passes), Line("TNR", fails)]


def _share(time: datetime, value: float | None, low: float, high: float) -> Point:
    return Point(time, None) if value is None else Point(time, 100 * value, 100 * low, 100 * high)


def _drift(read: Gathered) -> Section:
    alarmed = [each for each in read.monitors if each.drifted]
    rows = [
        [each.kind, each.subject, each.slice, _number(each.statistic), _number(each.threshold), _number(each.n_current)]
        for each in alarmed
    ]
    parts: list[Table | Note] = [Note(f"{len(read.monitors):,} things are watched; {len(alarmed):,} gave alarm.")]
    if rows:
        numeric = frozenset({3, 4, 5})
        parts.append(Table(("kind", "what", "slice", "statistic", "threshold", "n"), rows, numeric))
    if read.judges:
        told = [[f"{each.validator} v{each.version}", f"{each.n:,}", each.verdict, each.alarms] for each in read.judges]
        parts.append(Table(("judge", "sentinels", "verdict", "alarms"), told, frozenset({1})))
    meaning = "What is not as it was: sentinels, asked daily, tell a judge that changed from an application that did."
    return Section("Drift", meaning, parts if read.monitors or read.judges else [])


def _number(value: float | None) -> str:
    return figures.NO_DATA if value is None else f"{value:,.4g}"


def _cost(read: Gathered) -> Section:
    spans = _by_day((row.time, row.cost_usd) for row in read.cost if row.validator is None)
    judging = _by_day((row.time, row.cost_usd) for row in read.judging)
    plots = [
        Plot("cost of requests, USD a day", [Line("requests", spans)], "USD", bars=True),
        Plot("cost of judging, USD a day (all projects)", [Line("judging", judging)], "USD", bars=True),
    ]
    meaning = (
        "What spans and calls of judges say they cost, by day (UTC). An unknown price is left out, not taken as 0."
    )
    return Section("Cost", meaning, [plot for plot in plots if plot.lines[0].points])


def _by_day(costs: Iterable[tuple[datetime, float | None]]) -> list[Point]:
    days: dict[datetime, list[float | None]] = defaultdict(list)
    for time, cost in costs:
        days[time].append(cost)
    return [Point(day, _known_sum(values)) for day, values in sorted(days.items())]


def _known_sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _latency(read: Gathered) -> Section:
    known = {row.time: row for row in read.latency}
    days = [(day, known.get(day)) for day in _days(read)]
    lines = [
        Line("p50", [Point(day, row.p50_ms if row else None) for day, row in days]),
        Line("p95", [Point(day, row.p95_ms if row else None) for day, row in days]),
    ]
    meaning = "Half of the spans, and 95 of 100, were faster than this, by day (UTC); within 4.5 %."
    return Section("Latency", meaning, [Plot("latency of spans", lines, "ms")] if read.latency else [])


def _clusters(read: Gathered) -> Section:
    columns = ("cluster", "project", "validator", "n", "judged", "pass rate [95 %]")
    parts: list[Table | Quote | Note] = [
        Table(columns, [_cluster_cells(each) for each in read.clusters], frozenset({3, 4}))
    ]
    if read.examples is None:
        parts.append(Note(NO_CONTENT, important=True))
    for name, examples in read.examples or ():
        parts += [_example(name, each) for each in examples]
    meaning = (
        "Questions that mean the same, those with the lowest pass rates, over the last 30 days, of a sample of spans. "
        "Below are typical ones of each, not chosen by verdict."
    )
    return Section("Worst clusters", meaning, parts if read.clusters else [])


def _cluster_cells(each: ClusterQuality) -> list[str]:
    rate = figures.rate(each.pass_rate, each.pass_low, each.pass_high)
    return [each.cluster, each.project, f"{each.validator} v{each.version}", f"{each.n:,}", f"{each.judged:,}", rate]


def _example(name: str, each: ClusterExample) -> Quote:
    where = f"{name} · {each.node} · {figures.moment(each.started_at)} · {each.span_id}"
    return Quote(where, [("input", _cut(each.input)), ("output", _cut(each.output))])


def _lowest(read: Gathered) -> Section:
    parts: list[Table | Note] = [
        Table(("time (UTC)", "validator", "verdict", "node", "span", "why"), [_low(each) for each in read.lowest])
    ]
    if any(isinstance(each, LowVerdict) for each in read.lowest):
        parts.append(Note(NO_CONTENT, important=True))
    meaning = (
        "Fails first, then low values, the newest first. They are extremes: they say what to look at, not how often."
    )
    return Section("Lowest scores", meaning, parts if read.lowest else [])


def _low(each: LowScore | LowVerdict) -> list[str]:
    verdict = ("pass" if each.passed else "fail") + (", provisional" if each.provisional else "")
    why = _cut(each.critique) if isinstance(each, LowScore) else ""
    return [figures.moment(each.time), f"{each.validator} v{each.version}", verdict, each.node, str(each.span_id), why]


def _cut(text: str | None, most: int = 600) -> str:
    shown = "" if text is None else text
    return shown if len(shown) <= most else shown[: most - 1] + "…"
