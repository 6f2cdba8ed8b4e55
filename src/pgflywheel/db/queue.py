"""What a worker asks of the database: one typed call for each function of the queue."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import tuple_row

from pgflywheel import __version__
from pgflywheel.db import wire
from pgflywheel.db.connect import Database
from pgflywheel.records import Claimed

# A claim that a crash of the server takes back leaves its job ready: there is nothing to wait for the disk for.
_UNHURRIED = "with unhurried as materialized (select set_config('synchronous_commit', 'off', true))"
# A worker stopped in the middle of a transaction (SIGSTOP, a frozen machine) gives up its locks.
_NEVER_LONG = "with never_long as materialized (select set_config('idle_in_transaction_session_timeout', '10s', true))"
STANDSTILL_SECONDS = 5
CHORE_SECONDS = 60
_JOB = "fence, job_id, version_ids, span_count, attempt, origin"


@dataclass(frozen=True, slots=True)
class Version:
    """What a worker knows of a validator version."""

    version_id: UUID
    validator: str
    version: int
    kind: str
    status: str
    definition: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One row of the view worker_status."""

    name: str
    lanes: list[str]
    listening: bool
    in_hand: int
    release: str
    started_at: datetime
    last_seen_at: datetime
    alive: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One span of the judge lane, read: its claim, an array of its one key, and its declared columns as text."""

    fence: UUID
    key: wire.Array
    texts: list[str | None]


async def claim(
    db: Database, priority: int, worker_id: UUID, max_jobs: int, after: UUID | None, lane: str = "bulk"
) -> list[Claimed]:
    """Claim whole jobs of a lane."""
    return await db.rows(
        Claimed,
        f"{_UNHURRIED} select {_JOB}, %s as lane, %s::smallint as priority"
        "  from unhurried, flywheel._claim(%s, %s::smallint, %s, %s, %s)",
        [lane, priority, lane, priority, worker_id, max_jobs, after],
    )


async def claim_together(
    db: Database, priority: int, worker_id: UUID, max_jobs: int, after: UUID | None
) -> list[Claimed]:
    """Claim jobs of the bulk lane, those of single inserts made few."""
    return await db.rows(
        Claimed,
        f"{_UNHURRIED} select {_JOB}, jobs, 'bulk' as lane, %s::smallint as priority"
        "  from unhurried, flywheel._claim_together('bulk', %s::smallint, %s, %s, %s)",
        [priority, priority, worker_id, max_jobs, after],
    )


async def claim_calls(
    db: Database, priority: int, worker_id: UUID, max_calls: int, after: UUID | None
) -> list[Claimed]:
    """Claim spans of the judge lane, one row and one fence each."""
    return await db.rows(
        Claimed,
        f"{_UNHURRIED} select {_JOB}, 'judge' as lane, %s::smallint as priority"
        "  from unhurried, flywheel._claim_calls(%s::smallint, %s, %s, %s)",
        [priority, priority, worker_id, max_calls, after],
    )


async def versions(db: Database, version_ids: Collection[UUID]) -> list[Version]:
    """Return what is known of these versions now."""
    return await db.rows(
        Version,
        "select version_id, validators.name as validator, version, kind, status, definition"
        "  from flywheel.validator_versions join flywheel.validators using (validator_id)"
        " where version_id = any (%s)",
        [list(version_ids)],
    )


async def process_definitions(db: Database) -> list[dict[str, Any]]:
    """Return the definitions of Python versions that judge new spans in the bulk lane."""
    rows = await db.rows(
        tuple,
        "select definition from flywheel.validator_versions"
        " where kind = 'python' and lane = 'bulk' and status in ('active', 'shadow')",
    )
    return [row[0] for row in rows]


async def read_spans(
    db: Database, fences: Sequence[UUID], version_id: UUID, columns: Sequence[str]
) -> tuple[bytes, bytes]:
    """Return keys and texts of the spans a version means, both as binary arrays, empty when there are none."""
    statement = db.render("select keys, array_send(texts) from flywheel._read_spans(%s, %s, %s)")
    async with db.connection() as connection, connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(statement.encode(), [list(fences), version_id, list(columns)])
        row = await cursor.fetchone()
    return (row[0] or b"", row[1] or b"") if row else (b"", b"")


async def read_calls(db: Database, fences: Sequence[UUID], version_id: UUID, columns: Sequence[str]) -> list[Call]:
    """Return the claimed calls whose span the version means."""
    statement = db.render("select held, keys, texts from flywheel._read_calls(%s, %s, %s)")
    async with db.connection() as connection, connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(statement.encode(), [list(fences), version_id, list(columns)])
        row = await cursor.fetchone()
    if row is None or row[0] is None:
        return []
    held, keys, texts = row
    spans = len(held)
    return [
        Call(fence, wire.cut(keys, place, place + 1), [texts[column * spans + place] for column in range(len(columns))])
        for place, fence in enumerate(held)
    ]


async def lock_fences(db: Database, worker_id: UUID, fences: Sequence[UUID]) -> list[UUID]:
    """Return which claims still hold, locked until the transaction ends; it may be idle for ten seconds at most."""
    held: list[UUID] = await db.value(
        f"{_NEVER_LONG} select flywheel._lock_fences(%s, %s) from never_long", [worker_id, list(fences)]
    )
    return held


async def limit_transaction(db: Database, seconds: float) -> None:
    """Let no statement of this transaction take longer, and the server end it when this process stands still.

    Otherwise a stopped worker would keep its rows locked, and nobody could give its jobs to another.
    """
    await db.execute(
        "select set_config('statement_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)",
        [f"{round(seconds * 1000)}ms", f"{STANDSTILL_SECONDS}s"],
    )


async def do_chore(db: Database, call: str) -> Any:
    """Make a call in the turn of maintenance and return its value; None when another worker has the turn.

    It is one message and so one transaction, which ends even if this process stands still. A call that
    waits for a lock makes others wait behind it: below deadlock_timeout, so that no application is ever
    told of a deadlock.
    """
    statements = (
        f"select set_config('statement_timeout', '{CHORE_SECONDS}s', true), set_config('lock_timeout', '500ms', true);"
        " select case when flywheel._win_turn('maintenance', false)"
        f" then {call} end"
    )
    async with db.connection() as connection:
        cursor = await connection.execute(db.render(statements).encode())
        cursor.nextset()
        row = await cursor.fetchone()
        return row[0] if row else None


async def write_scores(db: Database, version_id: UUID, keys: wire.Array, columns: Sequence[wire.Array | None]) -> int:
    """Write passed, values, critiques, reasons and details, in this order; return how many scores were new."""
    written: int = await db.value(
        "select flywheel._write_scores(%s, %s::flywheel._span_key[], %s::boolean[], %s::double precision[],"
        " %s::text[], %s::text[], %s::text[])",
        [version_id, keys, *columns],
    )
    return written


async def complete(
    db: Database,
    worker_id: UUID,
    fences: Sequence[UUID],
    version_ids: Sequence[UUID],
    started_at: datetime,
    written: int,
) -> tuple[int, int]:
    """Score the spans of running jobs by sql versions, end the jobs and log the run; raise what a check raises.

    ``written`` scores were written before, in this transaction. Returns the jobs that were still the worker's,
    and all scores written.
    """
    rows = await db.rows(
        tuple,
        "select jobs, scores from flywheel._complete(%s, %s, %s, %s, %s)",
        [worker_id, list(fences), list(version_ids), started_at, written],
    )
    jobs, scores = rows[0]
    return jobs, scores


async def mark_unscored(db: Database, fences: Sequence[UUID], version_id: UUID, reason: str, detail: str) -> int:
    """Record why a version gives no verdict on the spans of running jobs."""
    written: int = await db.value(
        "select flywheel._mark_unscored(%s, %s, %s, %s)", [list(fences), version_id, reason, detail]
    )
    return written


async def finish(db: Database, worker_id: UUID, fences: Sequence[UUID]) -> int:
    """End jobs; return how many were still the worker's."""
    ended: int = await db.value("select flywheel._finish(%s, %s)", [worker_id, list(fences)])
    return ended


async def split(db: Database, worker_id: UUID, job: Claimed) -> list[Claimed]:
    """Replace a job by one for each version, or by its halves; empty when it is no longer the worker's."""
    return await db.rows(
        Claimed,
        f"select {_JOB}, %s as lane, %s::smallint as priority from flywheel._split(%s, %s)",
        [job.lane, job.priority, worker_id, job.fence],
    )


async def hold(db: Database, worker_id: UUID, fences: Sequence[UUID]) -> int:
    """Hold jobs until their validator resumes."""
    held: int = await db.value("select flywheel._hold(%s, %s)", [worker_id, list(fences)])
    return held


async def retry(
    db: Database,
    worker_id: UUID,
    fences: Sequence[UUID],
    delay_seconds: float,
    reason: str,
    detail: str,
    *,
    costs: bool = True,
) -> int:
    """Put jobs off; they are dead once they had all their attempts."""
    put_off: int = await db.value(
        "select flywheel._retry(%s, %s, %s, %s, %s, %s)",
        [worker_id, list(fences), delay_seconds, reason, detail, costs],
    )
    return put_off


async def retry_each(
    db: Database,
    worker_id: UUID,
    fences: Sequence[UUID],
    delays: Sequence[float],
    reasons: Sequence[str],
    details: Sequence[str | None],
    costs: Sequence[bool],
) -> int:
    """Put many jobs off, each for its own time and reason; return how many were still the worker's."""
    put_off: int = await db.value(
        "select flywheel._retry_each(%s, %s, %s::float8[], %s::text[], %s::text[], %s::boolean[])",
        [worker_id, list(fences), list(delays), list(reasons), list(details), list(costs)],
    )
    return put_off


async def bury(db: Database, worker_id: UUID, fences: Sequence[UUID], reason: str, detail: str) -> int:
    """Give jobs up; return how many were still the worker's."""
    buried: int = await db.value("select flywheel._bury(%s, %s, %s, %s)", [worker_id, list(fences), reason, detail])
    return buried


async def record_fault(db: Database, version_id: UUID, reason: str, detail: str, spans: int) -> bool:
    """Count a fault; tell whether the version is paused by it."""
    paused: bool = await db.value("select flywheel._record_fault(%s, %s, %s, %s)", [version_id, reason, detail, spans])
    return paused


async def first_span(db: Database, fence: UUID) -> UUID | None:
    """Return the first span of a running job."""
    span_id: UUID | None = await db.value("select span_ids[1] from flywheel._running where fence = %s", [fence])
    return span_id


async def log_run(
    db: Database,
    worker_id: UUID,
    lane: str,
    *,
    jobs: int,
    spans: int,
    scores: int,
    started_at: datetime,
    outcome: str,
    detail: str | None = None,
) -> None:
    """Write one row of run_log."""
    await db.execute(
        "select flywheel._log_run(%s, %s, %s, %s, %s, %s, %s, %s)",
        [worker_id, lane, jobs, spans, scores, started_at, outcome, detail],
    )


async def heartbeat(
    db: Database,
    worker_id: UUID,
    name: str,
    lanes: Sequence[str],
    lease_seconds: float,
    *,
    listening: bool,
    in_hand: int,
    first: bool,
) -> datetime | None:
    """Enter a worker or renew its lease; None when the lease had run out."""
    leased_until: datetime | None = await db.value(
        "select flywheel._heartbeat(%s, %s, %s, %s, %s, %s, %s, %s)",
        [worker_id, name, list(lanes), lease_seconds, listening, in_hand, __version__, first],
    )
    return leased_until


async def leave(db: Database, worker_id: UUID) -> int:
    """End a worker; its jobs become ready again."""
    given: int = await db.value("select flywheel._leave(%s)", [worker_id])
    return given


async def give_back_strays(db: Database, worker_id: UUID, in_hand: Collection[UUID]) -> int:
    """Make jobs ready again that the worker holds without knowing it, because a connection broke."""
    given: int = await db.value("select flywheel._give_back_strays(%s, %s)", [worker_id, list(in_hand)])
    return given


async def notify(db: Database, payload: str) -> None:
    """Send a notification to every worker that listens."""
    await db.execute("select pg_notify('flywheel_wake', %s)", [payload])


async def is_idle(db: Database, lanes: Sequence[str]) -> bool:
    """Tell whether nothing in these lanes is ready, running or due within a minute; a paused lane counts as idle.

    So does what a provider or a budget holds for longer. A batch is work when it is to be asked for within a minute.
    """
    idle: bool = await db.value(
        "select not exists (select from flywheel._ready where lane = any (%(lanes)s) and flywheel._lane_runs(lane)"
        "                      and not version_ids && flywheel._held_versions(now() + interval '1 minute'))"
        "   and not exists (select from flywheel._running where lane = any (%(lanes)s))"
        "   and not exists (select from flywheel._later where lane = any (%(lanes)s)"
        "                      and run_at <= now() + interval '1 minute' and flywheel._lane_runs(lane))"
        "   and not ('batch' = any (%(lanes)s) and exists (select from flywheel._batches"
        "                      where closed_at is null and next_poll_at <= now() + interval '1 minute'))",
        {"lanes": list(lanes)},
    )
    return idle


async def worker_status(db: Database) -> list[WorkerStatus]:
    """Return the workers there are, the newest first."""
    return await db.rows(
        WorkerStatus,
        "select name, lanes, listening, in_hand, release, started_at, last_seen_at, alive"
        "  from flywheel.worker_status order by started_at desc",
    )
