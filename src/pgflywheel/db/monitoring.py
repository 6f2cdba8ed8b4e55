"""What is looked at beside rates: drift, judges on sentinels, open alerts, clusters, low scores without content."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from pgflywheel.db.connect import Database, columns_of
from pgflywheel.db.metrics import lowest
from pgflywheel.errors import FlywheelError

Result = TypeVar("Result")
_NOT_PERMITTED = "42501"


@dataclass(frozen=True, slots=True)
class Monitor:
    """A row of drift_status without its evidence, which may quote spans; ``drifted`` None = not enough data."""

    tested_at: datetime
    kind: str
    subject: str
    slice: str
    project: str | None
    validator: str | None
    version: int | None
    window_from: datetime | None
    window_until: datetime | None
    statistic: float | None
    threshold: float | None
    effect: float | None
    n_reference: int | None
    n_current: int | None
    drifted: bool | None


@dataclass(frozen=True, slots=True)
class JudgeDrift:
    """A row of judge_drift: whether a judge or the application changed."""

    validator: str
    version: int
    run_at: datetime
    n: int
    agreement: float | None
    agreement_low: float
    agreement_high: float
    usual_agreement: float | None
    changed: int | None
    p_value: float | None
    judge_changed: bool
    application_alarmed: bool
    verdict: str
    alarms: str


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """A row of open_alerts; ``what`` is its slice in words."""

    alert_id: UUID
    severity: str
    rule: str
    metric: str
    what: str
    value: float | None
    threshold: float | None
    n: int | None
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class ClusterQuality:
    """A row of quality_by_cluster."""

    validator: str
    version: int
    project: str
    cluster_id: UUID | None
    cluster: str
    n: int
    judged: int
    passed: int
    unscored: int
    judged_share: float | None
    pass_rate: float | None
    pass_low: float
    pass_high: float
    volume_share: float | None


@dataclass(frozen=True, slots=True)
class ClusterExample:
    """A typical span of a cluster: content."""

    span_id: UUID
    started_at: datetime
    node: str
    input: str | None
    output: str | None


@dataclass(frozen=True, slots=True)
class LowVerdict:
    """A low score without its critique."""

    span_id: UUID
    time: datetime
    validator: str
    version: int
    passed: bool
    value: float | None
    project: str
    environment: str
    release: str | None
    node: str
    severity: str
    provisional: bool


async def where_permitted(asked: Awaitable[Result]) -> Result | None:
    """Return what was asked for; None where the role may not read it."""
    try:
        return await asked
    except FlywheelError as error:
        if getattr(error.__cause__, "sqlstate", None) != _NOT_PERMITTED:
            raise
        return None


async def monitors(database: Database, project: str | None = None) -> list[Monitor]:
    """Return the latest test of each monitor, those that drifted first."""
    query = f"""
        select {columns_of(Monitor)} from flywheel.drift_status where %s::text is null or project = %s
         order by drifted desc nulls last, kind, subject, slice
    """
    return await database.rows(Monitor, query, [project, project])


async def judge_drift(database: Database) -> list[JudgeDrift]:
    """Return for each judge with sentinels whether it or the application changed."""
    query = f"select {columns_of(JudgeDrift)} from flywheel.judge_drift order by judge_changed desc, validator, version"
    return await database.rows(JudgeDrift, query)


async def open_alerts(database: Database) -> list[OpenAlert]:
    """Return what is wrong now, the gravest and newest first."""
    query = f"""
        select {columns_of(OpenAlert)} from flywheel.open_alerts
         order by array_position(array['critical', 'high', 'medium', 'low', 'info'], severity), opened_at desc
    """
    return await database.rows(OpenAlert, query)


async def worst_clusters(database: Database, project: str | None, judged: int, n: int) -> list[ClusterQuality]:
    """Return the n clusters with the lowest pass rates among those with so many verdicts."""
    query = f"""
        select {columns_of(ClusterQuality)} from flywheel.quality_by_cluster
         where cluster_id is not null and judged >= %s and (%s::text is null or project = %s)
         order by pass_rate, judged desc, validator, version, cluster_id limit %s
    """
    return await database.rows(ClusterQuality, query, [judged, project, project, n])


async def cluster_examples(database: Database, cluster_id: UUID, n: int) -> list[ClusterExample]:
    """Return the n spans nearest to the middle of a cluster."""
    query = f"select {columns_of(ClusterExample)} from flywheel.cluster_examples(%s, %s)"
    return await database.rows(ClusterExample, query, [cluster_id, n])


async def low_verdicts(
    database: Database, validator: str | None, since: datetime, until: datetime, n: int, project: str | None = None
) -> list[LowVerdict]:
    """Return what lowest_scores() returns, for who may not read content: no critiques."""
    return await lowest(database, LowVerdict, validator, since, until, n, project)
