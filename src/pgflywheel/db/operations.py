"""Latency, cost, feedback and backlog, for the terminal and the report. None = nothing is known, never zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pgflywheel.db.connect import Database, columns_of


@dataclass(frozen=True, slots=True)
class Latency:
    """Spans that started in [since, until), by the dimensions asked for; one not asked for is None."""

    time: datetime
    project: str | None
    environment: str | None
    release: str | None
    node: str | None
    n: int
    errors: int
    running: int
    error_rate: float | None
    error_low: float
    error_high: float
    timed: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    priced_share: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What the requests of a UTC day cost; of a validator version, or of all (validator None: only these add up)."""

    time: datetime
    project: str
    environment: str
    release: str | None
    requests: int
    spans: int
    cost_usd: float | None
    priced_share: float | None
    cost_per_request: float | None
    validator: str | None
    version: int | None
    judged: int | None
    passed: int | None
    cost_per_pass: float | None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What users of a project did on a UTC day."""

    time: datetime
    project: str
    thumbs: int
    thumbs_up: int
    thumb_rate: float | None
    thumb_low: float
    thumb_high: float
    ratings: int
    mean_rating: float | None
    edits: int
    mean_edit_ratio: float | None
    restarts: int
    corrections: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """Spans that wait for a validator version."""

    validator: str
    version: int
    status: str
    lane: str
    queued: int
    running: int
    later: int
    dead: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class ValidationCost:
    """What calls to a model cost on a UTC day; validator None = nobody's, as calls for vectors."""

    time: datetime
    validator: str | None
    version: int | None
    provider: str
    model: str
    purpose: str
    calls: int
    judged: int
    cost_usd: float | None
    priced_share: float
    cost_per_judged: float | None


async def latency(
    database: Database,
    since: datetime,
    until: datetime,
    by: Sequence[str] = (),
    step: str | None = None,
    project: str | None = None,
) -> list[Latency]:
    """Return latency, errors and cost of a time by dimensions and in steps of minute, hour or day.

    A project narrows to its spans. Raises InvalidArgument for a dimension or step that is not counted.
    """
    dimensions = [*by, "project"] if project is not None and "project" not in by else list(by)
    query = f"""
        select {columns_of(Latency)} from flywheel.latency(%s, %s, %s, %s)
         where %s::text is null or project = %s order by time, n desc
        """
    return await database.rows(Latency, query, [since, until, dimensions, step, project, project])


async def cost(database: Database, since: datetime, project: str | None = None) -> list[Cost]:
    """Return what requests cost by UTC day from ``since`` on: the rows of all first, then by validator version."""
    query = f"""
        select {columns_of(Cost)} from flywheel.cost_by_day
         where time >= %s and (%s::text is null or project = %s)
         order by time, project, environment, release, validator nulls first, version
        """
    return await database.rows(Cost, query, [since, project, project])


async def feedback(database: Database, since: datetime, project: str | None = None) -> list[Feedback]:
    """Return what users did by UTC day from ``since`` on."""
    query = f"""
        select {columns_of(Feedback)} from flywheel.feedback_by_day
         where time >= %s and (%s::text is null or project = %s) order by time, project
        """
    return await database.rows(Feedback, query, [since, project, project])


async def backlog(database: Database) -> list[Backlog]:
    """Return what waits for each validator version, the longest queues first."""
    query = f"""
        select {columns_of(Backlog)} from flywheel.validation_backlog
         order by queued + running + later + dead desc, validator, version
        """
    return await database.rows(Backlog, query)


async def validation_cost(database: Database, since: datetime) -> list[ValidationCost]:
    """Return what judging cost by UTC day from ``since`` on."""
    query = f"""
        select {columns_of(ValidationCost)} from flywheel.validation_cost_by_day
         where time >= %s order by time, validator, version, provider, model, purpose
        """
    return await database.rows(ValidationCost, query, [since])
