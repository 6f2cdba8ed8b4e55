"""Metrics: the numbers of quality as the views have them, for whoever shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pgflywheel.db.connect import Database, columns_of

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Rate:
    """A pass rate of what was judged: unscored is in ``n`` and in no rate; None = nothing was judged."""

    n: int
    judged: int
    passed: int
    failed: int
    unscored: int
    judged_share: float | None
    pass_rate: float | None
    pass_low: float
    pass_high: float


@dataclass(frozen=True, slots=True)
class Quality(Rate):
    """A row of flywheel.quality(): dimensions not grouped by are None."""

    time: datetime | None
    validator: str
    version: int
    status: str
    annotator_kind: str
    provisional: bool
    project: str | None
    environment: str | None
    release: str | None
    node: str | None
    node_kind: str | None
    attribute_1: str | None
    attribute_2: str | None
    attribute_3: str | None
    mean_value: float | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class WindowQuality(Rate):
    """A row of quality_by_validator, _node or _release; ``slice`` is the node or release, None for a validator."""

    validator: str
    version: int
    project: str
    slice: str | None
    live_low: float
    live_high: float
    first_at: datetime
    last_at: datetime
    status: str
    annotator_kind: str
    provisional: bool


@dataclass(frozen=True, slots=True)
class Corrected:
    """A row of corrected_pass_rates; None: without labels there is no rate; no number of labels would halve it."""

    validator: str
    version: int
    project: str | None
    n: int
    judged: int
    raw_rate: float | None
    labels: int
    method: str
    corrected_rate: float | None
    corrected_low: float
    corrected_high: float
    live_low: float
    live_high: float
    labels_to_halve: int | None
    note: str | None
    status: str
    annotator_kind: str
    provisional: bool


@dataclass(frozen=True, slots=True)
class WeeklyRate:
    """A row of corrected_by_week."""

    time: datetime
    validator: str
    version: int
    project: str
    judged: int
    raw_rate: float | None
    labels: int
    method: str
    corrected_rate: float | None
    corrected_low: float
    corrected_high: float
    note: str | None


@dataclass(frozen=True, slots=True)
class ReleaseComparison:
    """A row of release_comparisons: candidate less baseline; corrected None = a side has no labels."""

    project: str
    environment: str
    validator: str
    version: int
    baseline_release: str
    candidate_release: str
    baseline_n: int
    candidate_n: int
    baseline_rate: float | None
    candidate_rate: float | None
    difference: float | None
    difference_low: float
    difference_high: float
    corrected_difference: float | None
    corrected_difference_low: float
    corrected_difference_high: float
    verdict: str
    baseline_labels: int
    candidate_labels: int
    status: str
    annotator_kind: str
    provisional: bool


@dataclass(frozen=True, slots=True)
class LowScore:
    """A row of lowest_scores(); its texts come from models and people."""

    span_id: UUID
    time: datetime
    validator: str
    version: int
    passed: bool
    value: float | None
    critique: str | None
    project: str
    environment: str
    release: str | None
    node: str
    trace_id: UUID
    severity: str
    provisional: bool


@dataclass(frozen=True, slots=True)
class WeeklyAlignment:
    """A row of alignment_by_week."""

    time: datetime
    validator: str
    version: int
    tp: int
    fp: int
    fn: int
    tn: int
    tpr: float | None
    tpr_low: float
    tpr_high: float
    tnr: float | None
    tnr_low: float
    tnr_high: float
    kappa: float | None
    labels: int
    status: str


@dataclass(frozen=True, slots=True)
class Bin:
    """How many values lie in a twentieth of [0, 1]."""

    validator: str
    version: int
    bin: int
    value_low: float
    value_high: float
    n: int


@dataclass(frozen=True, slots=True)
class MetricStatus:
    """A row of metric_status; ``age_seconds`` is 0 for what is always exact."""

    metric: str
    view: str
    measure: str
    validator: str | None
    grain: str
    by: str
    days: int
    storage: str
    refresh_seconds: int | None
    refreshed_at: datetime | None
    age_seconds: float
    refresh_ms: float | None
    refresh_error: str | None


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A row of a metric's view."""

    time: datetime
    dims: str
    n: int
    value: float | None
    low: float | None
    high: float | None


_WINDOWS = {"validator": "null::text", "node": "node", "release": "release"}


async def quality(database: Database, since: datetime, until: datetime, by: Sequence[str] = ()) -> list[Quality]:
    """Return quality of a time for any grouping; raises InvalidArgument for one there is not."""
    query = f"""
        select {columns_of(Quality)} from flywheel.quality(%s, %s, %s)
         order by time, validator, version, project, environment, release, node
    """
    return await database.rows(Quality, query, [since, until, list(by)])


async def window(database: Database, of: str = "validator", project: str | None = None) -> list[WindowQuality]:
    """Return quality over the window by ``of``: validator, node or release; the lowest rate first."""
    shown = columns_of(WindowQuality).replace('"slice"', f"{_WINDOWS[of]} as slice")
    query = f"""
        select {shown} from flywheel.quality_by_{of} where %s::text is null or project = %s
         order by pass_rate, validator, version, project
    """
    return await database.rows(WindowQuality, query, [project, project])


async def corrected_pass_rates(database: Database, project: str | None = None) -> list[Corrected]:
    """Return the corrected rate of each judge version and project over the window."""
    query = f"""
        select {columns_of(Corrected)} from flywheel.corrected_pass_rates where %s::text is null or project = %s
         order by validator, version, project
    """
    return await database.rows(Corrected, query, [project, project])


async def corrected_pass_rate(
    database: Database,
    validator: str,
    since: datetime,
    until: datetime,
    project: str | None = None,
    release: str | None = None,
    environment: str | None = None,
) -> list[Corrected]:
    """Return the corrected rate of each version of a validator in a time and slice."""
    query = f"select {columns_of(Corrected)} from flywheel.corrected_pass_rate(%s, %s, %s, %s, %s, %s)"
    return await database.rows(Corrected, query, [validator, since, until, project, release, environment])


async def corrected_by_week(database: Database, validator: str | None = None) -> list[WeeklyRate]:
    """Return corrected rates of the last 52 weeks, the oldest first."""
    query = f"""
        select {columns_of(WeeklyRate)} from flywheel.corrected_by_week where %s::text is null or validator = %s
         order by time, validator, version, project
    """
    return await database.rows(WeeklyRate, query, [validator, validator])


async def release_comparisons(database: Database, project: str | None = None) -> list[ReleaseComparison]:
    """Return each release against the one before it, the newest first."""
    query = f"""
        select {columns_of(ReleaseComparison)} from flywheel.release_comparisons where %s::text is null or project = %s
         order by candidate_first_at desc, project, environment, validator, version
    """
    return await database.rows(ReleaseComparison, query, [project, project])


async def compare_releases(
    database: Database,
    validator: str,
    baseline: str,
    candidate: str,
    since: datetime,
    until: datetime,
    project: str | None = None,
    environment: str | None = None,
) -> list[ReleaseComparison]:
    """Compare two releases; no rows where no version judged both."""
    query = f"select {columns_of(ReleaseComparison)} from flywheel.compare_releases(%s, %s, %s, %s, %s, %s, %s)"
    params = [validator, baseline, candidate, since, until, project, environment]
    return await database.rows(ReleaseComparison, query, params)


async def lowest_scores(
    database: Database, validator: str | None, since: datetime, until: datetime, n: int, project: str | None = None
) -> list[LowScore]:
    """Return the lowest scores of a validator (None = of all) in a time: fails first, then low values."""
    if project is not None:
        return await lowest(database, LowScore, validator, since, until, n, project)
    query = f"select {columns_of(LowScore)} from flywheel.lowest_scores(%s, %s, %s, %s)"
    return await database.rows(LowScore, query, [validator, since, until, n])


async def lowest(
    database: Database,
    model: type[Row],
    validator: str | None,
    since: datetime,
    until: datetime,
    n: int,
    project: str | None,
) -> list[Row]:
    """Return what lowest_scores() returns, of one project, or with fewer columns for who may not read content."""
    query = f"""
        select {columns_of(model).replace('"time"', "started_at as time")} from flywheel.current_scores
         where started_at >= %(since)s and started_at < %(until)s and passed is not null
           and (%(validator)s::text is null or validator = %(validator)s)
           and (%(project)s::text is null or project = %(project)s)
         order by passed, value nulls last, started_at desc, span_id limit %(n)s
    """
    asked = {"validator": validator, "since": since, "until": until, "n": n, "project": project}
    return await database.rows(model, query, asked)


async def alignment_by_week(database: Database, validator: str | None = None) -> list[WeeklyAlignment]:
    """Return how far versions agree with people, by week, the oldest first."""
    query = f"""
        select {columns_of(WeeklyAlignment)} from flywheel.alignment_by_week where %s::text is null or validator = %s
         order by time, validator, version
    """
    return await database.rows(WeeklyAlignment, query, [validator, validator])


async def score_distribution(database: Database, validator: str, since: datetime, until: datetime) -> list[Bin]:
    """Return how the values of each version of a validator are spread over the days that begin in a time."""
    query = """
        select validator, version, bin, value_low, value_high, sum(n)::bigint as n from flywheel.score_distributions
         where validator = %s and time >= %s and time < %s group by 1, 2, 3, 4, 5 order by version, bin
    """
    return await database.rows(Bin, query, [validator, since, until])


async def define_metric(database: Database, name: str, definition: Mapping[str, Any]) -> str:
    """Declare a metric and return the name of its view; raises InvalidArgument for what cannot be measured."""
    return str(await database.value("select flywheel.define_metric(%s, %s)", [name, json.dumps(definition)]))


async def drop_metric(database: Database, name: str) -> bool:
    """Forget a metric; False when there is none of this name."""
    return bool(await database.value("select flywheel.drop_metric(%s)", [name]))


async def metric_status(database: Database) -> list[MetricStatus]:
    """Return every declared metric, by name."""
    return await database.rows(
        MetricStatus, f"select {columns_of(MetricStatus)} from flywheel.metric_status order by 1"
    )


async def metric_values(database: Database, metric: MetricStatus) -> list[MetricValue]:
    """Return what a metric shows, the oldest first."""
    return await database.rows(MetricValue, f"select {columns_of(MetricValue)} from {metric.view} order by 1, 2")
