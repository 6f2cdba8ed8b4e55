"""Value objects that more than one room speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

LIVE, BACKFILL = 1, 2
_DEFAULT_ABILITIES = {"json_schema": True, "json_object": True}


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
    jobs: int = 1
    """How many jobs of the queue it is: those of single inserts are claimed together."""


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


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for a million tokens of one model; None = unknown. ``batch_share`` of them is paid in batches."""

    input_usd: float | None = None
    cached_input_usd: float | None = None
    output_usd: float | None = None
    batch_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Provider:
    """An endpoint that speaks the OpenAI API; its key is in the environment variable ``key_variable``."""

    name: str
    base_url: str
    key_variable: str | None = None
    abilities: Mapping[str, bool] = field(default_factory=dict)
    time_limit_ms: float = 60_000
    max_in_flight: int = 16
    prices: Mapping[str, Prices] = field(default_factory=dict)

    def able(self, ability: str) -> bool:
        """Tell whether the endpoint knows something; where nothing is said, only the JSON forms are tried."""
        return bool(self.abilities.get(ability, _DEFAULT_ABILITIES.get(ability, False)))
