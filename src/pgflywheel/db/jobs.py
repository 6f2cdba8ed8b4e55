"""The queue as its keeper sees it: what waits, what is dead, which lane is paused, backfills."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgflywheel.db.connect import Database, columns_of


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """How much work waits in a lane."""

    lane: str
    ready_jobs: int
    ready_spans: int
    running_jobs: int
    running_spans: int
    retrying_jobs: int
    later_spans: int
    dead_spans: int
    oldest_ready_seconds: float | None
    paused: bool
    paused_reason: str | None


@dataclass(frozen=True, slots=True)
class DeadJob:
    """A job given up, with the reason."""

    job_id: UUID
    lane: str
    validators: str
    spans: int
    attempts: int
    reason: str
    detail: str | None
    died_at: datetime
    origin: str


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill would do, in spans."""

    eligible: int
    already_scored: int
    to_judge: int


@dataclass(frozen=True, slots=True)
class BackfillStep:
    """How far a backfill has come; the counts are totals."""

    done: bool
    queued: int
    skipped: int
    cursor: datetime


async def status(database: Database) -> list[LaneStatus]:
    """Return one row for each lane."""
    columns = columns_of(LaneStatus)
    return await database.rows(LaneStatus, f"select {columns} from flywheel.queue_status order by lane")


async def dead(database: Database, limit: int) -> list[DeadJob]:
    """Return the jobs given up last."""
    return await database.rows(
        DeadJob, "select * from flywheel.dead_jobs order by died_at desc, job_id limit %s", [limit]
    )


async def replay(database: Database, job_id: UUID | None) -> int:
    """Queue a dead job again, or all of them; raises JobNotFound."""
    replayed: int = await database.value("select flywheel.replay_dead(%s::uuid)", [job_id])
    return replayed


async def pause_lane(database: Database, lane: str, reason: str) -> None:
    """Stop workers from claiming jobs of a lane."""
    await database.execute("select flywheel.pause_lane(%s, %s)", [lane, reason])


async def resume_lane(database: Database, lane: str) -> None:
    """Let workers claim jobs of a lane again."""
    await database.execute("select flywheel.resume_lane(%s)", [lane])


async def plan_backfill(database: Database, name: str, since: datetime, until: datetime) -> BackfillPlan:
    """Count what a backfill would judge and skip."""
    plan = await database.row(BackfillPlan, "select * from flywheel.plan_backfill(%s, %s, %s)", [name, since, until])
    assert plan is not None  # the function returns one row or raises
    return plan


async def start_backfill(
    database: Database, name: str, since: datetime, until: datetime, lane: str | None = None
) -> UUID:
    """Begin a backfill, or find the unfinished one it goes on with; return its id. Lane batch is the cheaper one."""
    query = "select flywheel.start_backfill(%s, %s, %s, %s)"
    backfill_id: UUID = await database.value(query, [name, since, until, lane])
    return backfill_id


async def judge_unscored(database: Database, name: str, since: datetime, until: datetime) -> int:
    """Queue spans again on which a validator gave no verdict; return how many."""
    queued: int = await database.value("select flywheel.judge_unscored(%s, %s, %s)", [name, since, until])
    return queued


async def advance_backfill(database: Database, backfill_id: UUID, max_spans: int) -> BackfillStep:
    """Queue the next spans of a backfill."""
    step = await database.row(BackfillStep, "select * from flywheel.advance_backfill(%s, %s)", [backfill_id, max_spans])
    assert step is not None  # the function returns one row or raises
    return step
