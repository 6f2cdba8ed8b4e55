"""Value objects that more than one room speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

Lane = Literal["inline", "bulk", "judge"]
LANES: tuple[Lane, ...] = ("inline", "bulk", "judge")
LIVE, BACKFILL = 1, 2
UNSCORED_REASONS = ("raised", "timed_out", "out_of_memory", "wrong_type", "no_verdict", "missing_callable", "crashed")


@dataclass(frozen=True, slots=True)
class Span:
    """What a check sees of a span: its id and the columns the validator declares; all others are None."""

    span_id: UUID
    trace_id: UUID | None = None
    parent_span_id: UUID | None = None
    project: str | None = None
    environment: str | None = None
    release: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    node: str | None = None
    node_kind: str | None = None
    input: str | None = None
    output: str | None = None
    messages: Any = None
    documents: Any = None
    model: str | None = None
    provider: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    status: str | None = None
    error: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    latency_ms: float | None = None
    attributes: Any = None
    revision: int | None = None
    ingested_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Pass or fail, with an optional value in [0, 1] and the reason in words."""

    passed: bool
    value: float | None = None
    critique: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job one worker holds; ``fence`` makes the write of a late worker void."""

    fence: UUID
    job_id: UUID
    lane: str
    priority: int
    version_ids: list[UUID]
    span_count: int
    attempt: int
    origin: str


@dataclass(frozen=True, slots=True)
class InstallStatus:
    """What one install is, beside what this package would make of it; None where nothing is installed."""

    schema: str
    revision: str | None
    head: str
    sql_hash: str | None
    sql_hash_expected: str
    installed_by: str | None
    package: str
    server_version: str
    pgvector_version: str | None

    @property
    def current(self) -> bool:
        """Tell whether the install is exactly what this package would install."""
        return self.revision == self.head and self.sql_hash == self.sql_hash_expected
