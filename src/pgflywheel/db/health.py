"""Facts about an install that tell whether it is well."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgflywheel.db.connect import Database, open_database

PROBE_SECONDS = 2.0
ROLES = ("writer", "worker", "reviewer", "analyst", "admin")


@dataclass(frozen=True, slots=True)
class Server:
    """The server, and its clock."""

    version: str
    version_num: int
    pgvector: str | None
    clock: datetime


@dataclass(frozen=True, slots=True)
class ChoreLeft:
    """A chore that was due and not done, and why."""

    chore: str
    note: str


@dataclass(frozen=True, slots=True)
class Partitions:
    """Which daily partitions there are."""

    today: bool
    tomorrow: bool
    last_day: str | None
    default_rows: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """Work that waits; None = nothing waits."""

    oldest_ready_seconds: float | None
    dead_spans: int
    paused_lanes: list[str]


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's heartbeat."""

    name: str
    lanes: list[str]
    listening: bool
    alive: bool


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """The transaction that has been open longest, of anyone else in this database."""

    pid: int | None
    who: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PausedValidator:
    """An active validator that was paused by itself."""

    validator: str
    paused_reason: str
    paused_detail: str | None


@dataclass(frozen=True, slots=True)
class FaultyValidator:
    """A version that gave no verdict on more than half of what it looked at, and the most frequent fault."""

    validator: str
    version: int
    n: int
    unscored: int
    reason: str


async def server(database: Database) -> Server:
    """Return version, pgvector and the clock."""
    found = await database.row(
        Server,
        """
        select current_setting('server_version') as version,
               current_setting('server_version_num')::integer as version_num,
               (select extversion from pg_extension where extname = 'vector') as pgvector, clock_timestamp() as clock
        """,
    )
    assert found is not None  # a select without from
    return found


async def missing_roles(database: Database) -> list[str]:
    """Return the install's roles that the server does not have."""
    wanted = [f"{database.schema}_{role}" for role in ROLES]
    return await database.rows(
        str, "select name from unnest(%s::text[]) as wanted(name) where to_regrole(name) is null", [wanted]
    )


async def partitions(database: Database) -> Partitions:
    """Return whether today and tomorrow have their partitions, and how many rows fell into the default one."""
    found = await database.row(
        Partitions,
        """
        with parts as (
          select to_date(right(child.relname, 8), 'YYYYMMDD') as day
            from pg_inherits as link join pg_class as child on child.oid = link.inhrelid
           where link.inhparent = 'flywheel.spans'::regclass and child.relname ~ '_[0-9]{8}$')
        select exists (select from parts where day = (now() at time zone 'UTC')::date) as today,
               exists (select from parts where day = (now() at time zone 'UTC')::date + 1) as tomorrow,
               (select max(day)::text from parts) as last_day,
               (select count(*) from (select from flywheel.spans_default limit 1000000) as few) as default_rows
        """,
    )
    assert found is not None  # a select without from
    return found


async def lost_triggers(database: Database) -> list[str]:
    """Return the triggers on spans that are missing or disabled."""
    return await database.rows(
        str,
        """
        select wanted.name from unnest(array['dispatch_insert', 'dispatch_update', 'next_revision']) as wanted(name)
         where not exists (select from pg_trigger
                            where tgrelid = 'flywheel.spans'::regclass and tgname = wanted.name
                              and tgenabled in ('O', 'A'))
        """,
    )


async def listening(database: Database, dsn: str) -> bool:
    """Tell whether a NOTIFY of another session arrives; behind a transaction pooler it does not."""
    async with database.connection() as connection, open_database(dsn, database.schema) as other:
        await connection.execute("listen pgflywheel_doctor")
        try:
            await other.execute("select pg_notify('pgflywheel_doctor', '')")
            return bool([hint async for hint in connection.notifies(timeout=PROBE_SECONDS, stop_after=1)])
        finally:
            await connection.execute("unlisten pgflywheel_doctor")


async def uses(database: Database) -> list[str]:
    """Return what this install has work for that needs an optional package: kinds of work, and names of checks."""
    return await database.rows(
        str,
        """
        select use from (
          select 'judges' as use, exists (select from flywheel.provider_status) as used
          union all
          select 'sentences', exists (select from flywheel.embedder_status
                                       where kind = 'sentence_transformers' and status <> 'retired')
          union all
          select 'vectors', exists (select from flywheel.embedder_status where span_permille > 0 and status = 'serving')
          union all
          select distinct definition ->> 'callable', true from flywheel.validator_status
           where kind = 'python' and status in ('active', 'shadow')) as known
         where used order by use
        """,
    )


async def chores_left(database: Database) -> list[ChoreLeft]:
    """Return the chores that workers could not do, with what they said of it."""
    return await database.rows(
        ChoreLeft,
        """
        select 'clusters of ' || project as chore, note from flywheel.cluster_status where note is not null
        union all
        select 'drift of inputs', evidence ->> 'note' from flywheel.drift_status
         where kind = 'domain_classifier' and project is null and evidence ? 'note'
         order by 1
        """,
    )


async def workers(database: Database) -> list[Worker]:
    """Return the workers and whether their lease is running."""
    return await database.rows(Worker, "select name, lanes, listening, alive from flywheel.worker_status order by name")


async def backlog(database: Database) -> Backlog:
    """Return the age of the oldest ready job, dead spans and paused lanes."""
    found = await database.row(
        Backlog,
        """
        select max(oldest_ready_seconds) as oldest_ready_seconds, coalesce(sum(dead_spans), 0)::bigint as dead_spans,
               array_agg(lane || ': ' || paused_reason) filter (where paused) as paused_lanes
          from flywheel.queue_status
        """,
    )
    assert found is not None  # an aggregate without group by
    return found


async def faulty_validators(database: Database) -> list[FaultyValidator]:
    """Return active versions that mostly failed to give a verdict, today and yesterday; no_verdict is no fault."""
    query = """
        with faults as (
          select validator, version, sum(n) as unscored, (array_agg(reason order by n desc))[1] as reason
            from flywheel.validation_reasons
           where time >= now() - interval '2 days' and status = 'active' and reason <> 'no_verdict'
           group by validator, version
        ), seen as (
          select validator, version, sum(n) as n
            from flywheel.validation_coverage
           where time >= now() - interval '2 days' and status = 'active'
           group by validator, version
        )
        select validator, version, seen.n::bigint as n, faults.unscored::bigint as unscored, faults.reason
          from faults join seen using (validator, version) where faults.unscored * 2 > seen.n order by validator"""
    return await database.rows(FaultyValidator, query)


async def paused_validators(database: Database) -> list[PausedValidator]:
    """Return the validators that were paused for errors or slowness."""
    return await database.rows(
        PausedValidator,
        """
        select validator, paused_reason, paused_detail from flywheel.validator_status
         where status = 'paused' and paused_reason <> 'manual' order by validator
        """,
    )


async def oldest_transaction(database: Database) -> OpenTransaction | None:
    """Return the oldest transaction of anyone else, prepared ones too."""
    return await database.row(
        OpenTransaction,
        """
        select pid, who, seconds from (
          select pid, concat_ws(' ', usename, nullif(application_name, ''), state) as who,
                 extract(epoch from clock_timestamp() - xact_start)::double precision as seconds
            from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
             and backend_type = 'client backend'
          union all
          select null, 'prepared transaction ' || gid,
                 extract(epoch from clock_timestamp() - prepared)::double precision
            from pg_prepared_xacts where database = current_database()) as open
         order by seconds desc limit 1
        """,
    )
