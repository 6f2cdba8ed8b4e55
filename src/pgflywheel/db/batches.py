"""What a worker asks of the database for batches: spans leave the queue as lines, answers come back as scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pgflywheel.db.connect import Database
from pgflywheel.db.judgements import dumped
from pgflywheel.records import Claimed

Entry = Literal["line", "kept", "cached", "twice", "released", "wait", "over_budget", "void"]


@dataclass(frozen=True, slots=True)
class Entered:
    """What became of one vote on a span; ``cached`` means that all its votes are known and its claim still holds."""

    call_id: UUID
    decision: Entry
    wait_seconds: float | None
    detail: str | None
    reply: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Open:
    """A batch that is due to be asked for; without a remote id nobody knows whether the endpoint has it."""

    batch_id: UUID
    provider: str
    model: str
    remote_id: str | None
    lines: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Back:
    """A span of a batch that has ended, with what came of each vote; ``trace_id`` is None when it was purged."""

    version_id: UUID
    span_id: UUID
    revision: int
    started_at: datetime
    trace_id: UUID | None
    project: str | None
    attempt: int
    request_hash: str
    degraded: str | None
    answers: list[dict[str, Any]]


async def claim(db: Database, priority: int, worker_id: UUID, max_spans: int, after: UUID | None) -> list[Claimed]:
    """Claim whole jobs of lane batch with about so many spans, one row and one fence for each span."""
    return await db.rows(
        Claimed,
        "select fence, job_id, version_ids, span_count, attempt, origin, 'batch' as lane, %s::smallint as priority"
        "  from flywheel._claim_lines(%s::smallint, %s, %s, %s)",
        [priority, priority, worker_id, max_spans, after],
    )


async def begin_lines(
    db: Database, worker_id: UUID, batch_id: UUID, provider: str, model: str, calls: Sequence[Mapping[str, Any]]
) -> list[Entered]:
    """Let claimed spans leave for a batch with the money of all their votes set aside, or learn why not."""
    return await db.rows(
        Entered,
        "select * from flywheel._begin_lines(%s, %s, %s, %s, %s::jsonb)",
        [worker_id, batch_id, provider, model, dumped(calls)],
    )


async def seal(db: Database, batch_id: UUID) -> int | None:
    """Count the lines of a batch before it is handed in; None when it was closed."""
    lines: int | None = await db.value("select flywheel._seal_batch(%s)", [batch_id])
    return lines


async def submitted(db: Database, batch_id: UUID, remote_id: str) -> bool:
    """Note the endpoint's id of a batch; False when the batch was given up meanwhile."""
    waits: bool = await db.value("select flywheel._batch_submitted(%s, %s)", [batch_id, remote_id])
    return waits


async def take(db: Database, worker_id: UUID, in_hand: Collection[UUID]) -> list[Open]:
    """Return batches that are due; they are this worker's until it leaves or closes them."""
    return await db.rows(Open, "select * from flywheel._take_batches(%s, %s)", [worker_id, list(in_hand)])


async def leave(db: Database, batch_id: UUID, status: str | None, detail: str | None = None) -> None:
    """Note how far a batch is, and leave it until it is due again."""
    await db.execute("select flywheel._leave_batch(%s, %s, %s)", [batch_id, status, detail])


async def answer(db: Database, batch_id: UUID, answers: Sequence[Mapping[str, Any]]) -> int:
    """Note what came of lines and settle their calls; return how many were new."""
    new: int = await db.value("select flywheel._answer_lines(%s, %s::jsonb)", [batch_id, dumped(answers)])
    return new


async def miss(db: Database, batch_id: UUID, detail: str) -> int:
    """End the lines nothing came back for; return how many."""
    missed: int = await db.value("select flywheel._miss_lines(%s, %s)", [batch_id, detail])
    return missed


async def answered(db: Database, batch_id: UUID, most: int) -> list[Back]:
    """Return up to so many spans of a batch that has ended."""
    return await db.rows(Back, "select * from flywheel._answered_spans(%s, %s)", [batch_id, most])


async def end(
    db: Database, worker_id: UUID, batch_id: UUID, ends: Sequence[Mapping[str, Any]], began_at: datetime
) -> tuple[int, int]:
    """Write scores or queue spans again, and end their lines; return the spans that were in it and new scores."""
    rows = await db.rows(
        tuple,
        "select spans, scores from flywheel._end_lines(%s, %s, %s::jsonb, %s)",
        [worker_id, batch_id, dumped(ends), began_at],
    )
    spans, scores = rows[0]
    return spans, scores


async def give_back(
    db: Database, batch_id: UUID, lane: str, seconds: float, reason: str, detail: str, *, costs: bool = True
) -> int:
    """Close a batch of which nothing was judged and queue its spans again; return how many."""
    returned: int = await db.value(
        "select flywheel._return_batch(%s, %s, %s, %s, %s, %s)", [batch_id, lane, seconds, reason, detail, costs]
    )
    return returned


async def close(db: Database, batch_id: UUID, status: str, detail: str | None) -> bool:
    """Close a batch that is accounted for; return whether it was open and empty."""
    closed: bool = await db.value("select flywheel._close_batch(%s, %s, %s)", [batch_id, status, detail])
    return closed


async def ask_at_once(db: Database, worker_id: UUID, fences: Sequence[UUID]) -> int:
    """Hand claims of lane batch to lane judge; return how many."""
    moved: int = await db.value("select flywheel._ask_at_once(%s, %s)", [worker_id, list(fences)])
    return moved
