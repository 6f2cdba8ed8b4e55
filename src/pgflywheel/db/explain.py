"""Scores, and why a span has them or lacks them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgflywheel.db.connect import Database


@dataclass(frozen=True, slots=True)
class Reason:
    """For one validator, the state of one span, and why."""

    validator: str
    version: int
    state: str
    detail: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class CurrentScore:
    """What the newest version that judged a span's current revision says of it."""

    span_id: UUID
    validator: str
    version: int
    passed: bool | None
    value: float | None
    critique: str | None
    unscored_reason: str | None
    unscored_detail: str | None
    severity: str
    project: str
    node: str
    trace_id: UUID
    started_at: datetime
    scored_at: datetime
    provisional: bool


@dataclass(frozen=True, slots=True)
class ScoreFilter:
    """Which scores are meant; None leaves a part open."""

    validator: str | None = None
    project: str | None = None
    node: str | None = None
    span_id: UUID | None = None
    verdict: str | None = None  # pass, fail or unscored
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class PassRate:
    """How many spans of a node a validator passed; ``pass_rate`` is None when none was judged.

    ``provisional``: a judge says so whose agreement with people is too low or not known; it decides nothing.
    """

    validator: str
    node: str
    judged: int
    passed: int
    pass_rate: float | None
    unscored: int
    provisional: bool


@dataclass(frozen=True, slots=True)
class Account:
    """The books of one version: every eligible span is in exactly one of the other columns."""

    validator: str
    version: int
    status: str
    eligible: int
    scored: int
    unscored: int
    queued: int
    running: int
    later: int
    dead: int
    missing: int
    balanced: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A span that failed, with what was judged and why."""

    validator: str
    span_id: UUID
    node: str
    severity: str
    description: str | None
    critique: str | None
    target: str
    text: str | None


_MEANT = """
   (%(validator)s::text is null or validator = %(validator)s)
   and (%(project)s::text is null or project = %(project)s)
   and (%(node)s::text is null or node = %(node)s)
   and (%(span_id)s::uuid is null or span_id = %(span_id)s)
   and (%(since)s::timestamptz is null or started_at >= %(since)s)
   and (%(before)s::timestamptz is null or started_at < %(before)s)
   and (%(verdict)s::text is null
        or %(verdict)s = case passed when true then 'pass' when false then 'fail' else 'unscored' end)
"""


async def why(database: Database, span_id: UUID) -> list[Reason]:
    """Return one row for each validator; raises SpanNotFound."""
    return await database.rows(Reason, "select * from flywheel.why(%s)", [span_id])


@asynccontextmanager
async def by_day(database: Database) -> AsyncIterator[Database]:
    """Join spans and scores day by day: a filter by time names one of the two and would read every day of the other."""
    async with database.transaction() as session:
        await session.execute("set local enable_partitionwise_join = on")
        yield session


async def scores(database: Database, meant: ScoreFilter, limit: int) -> list[CurrentScore]:
    """Return the current scores of the newest spans."""
    query = f"""
        select span_id, validator, version, passed, value, critique, unscored_reason, unscored_detail, severity,
               project, node, trace_id, started_at, scored_at, provisional
          from flywheel.current_scores where {_MEANT}
         order by started_at desc, span_id, validator limit %(limit)s
    """
    async with by_day(database) as session:
        return await session.rows(CurrentScore, query, {**_parameters(meant), "limit": limit})


async def pass_rates(database: Database, meant: ScoreFilter) -> list[PassRate]:
    """Return the pass rate of each validator on each node."""
    query = f"""
        select validator, node, count(passed) as judged, count(*) filter (where passed) as passed,
               (count(*) filter (where passed))::double precision / nullif(count(passed), 0) as pass_rate,
               count(*) filter (where passed is null) as unscored, provisional
          from flywheel.current_scores where {_MEANT}
         group by validator, node, provisional order by provisional, validator, node
    """
    async with by_day(database) as session:
        return await session.rows(PassRate, query, _parameters(meant))


async def failures(database: Database, meant: ScoreFilter, limit: int) -> list[Failure]:
    """Return one failing span for each validator that may decide, the most severe first."""
    query = f"""
        with failed as (
          select distinct on (validator) span_id, started_at, validator, version, node, severity, critique
            from flywheel.current_scores where passed = false and not provisional and {_MEANT}
           order by validator, started_at desc, span_id)
        select failed.validator, failed.span_id, failed.node, failed.severity, known.description, failed.critique,
               case when known.target = 'input' then 'input' else 'output' end as target,
               left(case when known.target = 'input' then span.input else span.output end, 2000) as text
          from failed
          join flywheel.validator_status as known
            on (known.validator, known.version) = (failed.validator, failed.version)
          join flywheel.spans as span on (span.span_id, span.started_at) = (failed.span_id, failed.started_at)
         order by array_position(array['critical', 'high', 'medium', 'low', 'info'], failed.severity),
                  failed.critique is null, failed.validator
         limit %(limit)s
    """
    async with by_day(database) as session:
        return await session.rows(Failure, query, {**_parameters(meant), "limit": limit})


async def accounts(database: Database) -> list[Account]:
    """Return the books of every version that ever judged, recounted from the spans."""
    return await database.rows(Account, "select * from flywheel.accounts order by validator, version")


def _parameters(meant: ScoreFilter) -> dict[str, object]:
    return {name: getattr(meant, name) for name in ScoreFilter.__dataclass_fields__}
