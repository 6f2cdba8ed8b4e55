"""One span as the importer sends it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

NODE_KINDS = ("app", "classifier", "writer", "codegen", "retriever", "tool", "agent", "other")
STATUSES = ("ok", "error", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRow:
    """A row for flywheel.spans; ``timed`` is false where ``started_at`` is only the time of the import."""

    span_id: UUID
    trace_id: UUID
    started_at: datetime
    timed: bool = True
    parent_span_id: UUID | None = None
    project: str = "default"
    environment: str = "production"
    release: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    node: str = "app"
    node_kind: str = "app"
    input: str | None = None
    output: str | None = None
    messages: str | None = None
    documents: str | None = None
    model: str | None = None
    provider: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    status: str = "ok"
    error: str | None = None
    ended_at: datetime | None = None
    attributes: str = "{}"


COLUMNS = tuple(field.name for field in fields(SpanRow))


def values(row: SpanRow) -> tuple[Any, ...]:
    """Return the row's values in the order of COLUMNS."""
    return tuple(getattr(row, column) for column in COLUMNS)
