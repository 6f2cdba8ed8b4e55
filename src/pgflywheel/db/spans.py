"""Spans: load them, look at them, drop old days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from pgflywheel.db.connect import Database, over_connection
from pgflywheel.errors import SpanNotFound
from pgflywheel.importer.rows import COLUMNS, SpanRow, values

_DAY = timedelta(days=1)
_STORED = tuple(column for column in COLUMNS if column != "timed")
_INCOMING = """
create temporary table incoming on commit drop as
select {columns}, true as timed from flywheel.spans with no data
"""
# A span without a time of its own was given the time of its import: it is there already whatever time it has.
_INSERT = """
insert into flywheel.spans ({columns})
select {incoming}
  from pg_temp.incoming
  left join lateral (
    select spans.span_id from flywheel.spans
     where spans.span_id = incoming.span_id and not incoming.timed
     limit 1) as known on true
 where known.span_id is null
    on conflict do nothing
"""
_LIST = """
select span.trace_id, span.started_at, span.project, span.environment, span.node,
       left(span.input, 200) as input, left(span.output, 200) as output,
       (select count(*) from flywheel.spans as part where part.trace_id = span.trace_id) as spans
  from flywheel.spans as span
 where span.parent_span_id is null
   and (%(project)s::text is null or span.project = %(project)s)
   and (%(since)s::timestamptz is null or span.started_at >= %(since)s)
   and (%(before)s::timestamptz is null or span.started_at < %(before)s)
 order by span.started_at desc
 limit %(limit)s
"""
_TRACE = """
select span_id, parent_span_id, trace_id, project, environment, release, session_id, user_id, node, node_kind,
       input, output, model, input_tokens, output_tokens, cost_usd, status, error, started_at, ended_at, latency_ms,
       attributes, revision
  from flywheel.spans
 where trace_id = coalesce(
         (select by_id.trace_id from flywheel.spans as by_id where by_id.span_id = %(id)s limit 1), %(id)s)
 order by started_at, span_id
"""
_PURGEABLE = """
select parts.* from (
  select parent.relname::text as relation, child.relname::text as partition,
         to_date(right(child.relname, 8), 'YYYYMMDD') as day
    from pg_inherits as link
    join pg_class as parent on parent.oid = link.inhparent
    join pg_class as child on child.oid = link.inhrelid
   where parent.relnamespace = to_regnamespace('flywheel') and parent.relkind = 'p'
     and child.relname ~ '_[0-9]{8}$') as parts
 where (parts.day + 1)::timestamp at time zone 'UTC' <= %s
 order by parts.day, parts.relation
"""


@dataclass(frozen=True, slots=True)
class TraceLine:
    """A root span, its texts cut to 200 characters."""

    trace_id: UUID
    started_at: datetime
    project: str
    environment: str
    node: str
    input: str | None
    output: str | None
    spans: int


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span as it is stored."""

    span_id: UUID
    parent_span_id: UUID | None
    trace_id: UUID
    project: str
    environment: str
    release: str | None
    session_id: str | None
    user_id: str | None
    node: str
    node_kind: str
    input: str | None
    output: str | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    status: str
    error: str | None
    started_at: datetime
    ended_at: datetime | None
    latency_ms: float | None
    attributes: Any
    revision: int


@dataclass(frozen=True, slots=True)
class DroppedPartition:
    """A day of a table that purge() dropped."""

    relation: str
    partition: str
    day: date


async def load(database: Database, rows: Sequence[SpanRow]) -> int:
    """Insert spans in one transaction and return how many were new; those already there are left as they are."""
    await ensure_days(database, {row.started_at.date() for row in rows})
    async with database.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        session = over_connection(connection, database.schema)
        await session.execute(_INCOMING.format(columns=", ".join(_STORED)))
        async with cursor.copy(f"copy pg_temp.incoming ({', '.join(COLUMNS)}) from stdin".encode()) as copy:
            for row in rows:
                await copy.write_row(values(row))
        incoming = ", ".join(f"incoming.{column}" for column in _STORED)
        return await session.execute(_INSERT.format(columns=", ".join(_STORED), incoming=incoming))


async def ensure_days(database: Database, days: Iterable[date]) -> int:
    """Make the partitions of these UTC days, and of no others; return how many were missing."""
    made = 0
    for first, last in _ranges(sorted(set(days))):
        made += await database.value("select flywheel.ensure_partitions(%s, %s)", [first, last])
    return made


async def traces(
    database: Database, project: str | None, since: datetime | None, before: datetime | None, limit: int
) -> list[TraceLine]:
    """Return the newest root spans."""
    filters = {"project": project, "since": since, "before": before, "limit": limit}
    return await database.rows(TraceLine, _LIST, filters)


async def trace(database: Database, trace_or_span_id: UUID) -> list[StoredSpan]:
    """Return all spans of a trace, given its id or that of one of its spans; raises SpanNotFound."""
    found = await database.rows(StoredSpan, _TRACE, {"id": trace_or_span_id})
    if not found:
        raise SpanNotFound(f"there is no trace or span {trace_or_span_id}", hint="List traces: pgflywheel traces list.")
    return found


async def purgeable(database: Database, before: datetime) -> list[DroppedPartition]:
    """Return what purge() would drop."""
    return await database.rows(
        DroppedPartition,
        _PURGEABLE,
        [before],
    )


async def purge(database: Database, before: datetime) -> list[DroppedPartition]:
    """Drop the days that ended before a time; raises DatabaseError when somebody uses them all the while."""
    return await database.rows(DroppedPartition, "select * from flywheel.purge(%s)", [before])


def _ranges(days: Sequence[date]) -> list[tuple[date, date]]:
    """Return the first and last day of each run of days without a gap."""
    starts = [day for before, day in pairwise([None, *days]) if before is None or day - before > _DAY]  # type: ignore[operator]
    ends = [day for day, after in pairwise([*days, None]) if after is None or after - day > _DAY]  # type: ignore[operator]
    return list(zip(starts, ends, strict=True))  # type: ignore[arg-type]
