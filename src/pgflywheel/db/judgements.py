"""What a worker asks of the database for a judge: spans to judge, and the act that ends them."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflywheel.db import wire
from pgflywheel.db.connect import Database
from pgflywheel.db.embedders import EmbedderRow

_UNSTORABLE = re.compile(r"\\u(?:0000|d[89a-f])")  # in JSON that escapes everything; a backslash before it is possible
_NEVER = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Subject:
    """A claimed span with what its judge is shown.

    ``sampled`` tells whether it stays when a budget runs short, ``exemplified`` whether there may be examples to show.
    """

    fence: UUID
    span_id: UUID
    revision: int
    started_at: datetime
    trace_id: UUID
    project: str
    node: str
    input: str | None
    output: str | None
    messages: Any
    documents: Any
    parents: list[dict[str, str | None]]
    session: list[dict[str, str | None]]
    sampled: bool
    exemplified: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """An example a judge is shown, with why it was chosen."""

    example_id: UUID
    input: str | None
    output: str | None
    corrected_output: str | None
    passed: bool
    critique: str
    similarity: float | None
    recency: float | None
    disagreement: float | None
    trust: float | None
    relevance: float | None
    tokens: int


async def read_judgements(db: Database, fences: Sequence[UUID], version_id: UUID) -> list[Subject]:
    """Return the claimed spans that a judge version means and has not judged."""
    return await db.rows(Subject, "select * from flywheel._read_judgements(%s, %s)", [list(fences), version_id])


async def shots_for(
    db: Database,
    version_id: UUID,
    subjects: Sequence[Subject],
    vectors: Sequence[array[float]] | None,
) -> list[list[Shown]]:
    """Return the examples each span's judge is shown, the most relevant last; without vectors, the newest."""
    rows = await db.rows(
        tuple,
        "select place, example_id, input, output, corrected_output, passed, critique, similarity, recency,"
        "       disagreement, trust, relevance, tokens from flywheel._shots_for(%s, %s, %s, %s::real[], %s)",
        [
            version_id,
            [each.span_id for each in subjects],
            [each.started_at for each in subjects],
            None if vectors is None else wire.reals(vectors),
            len(vectors[0]) if vectors else 0,
        ],
    )
    shown: list[list[Shown]] = [[] for _ in subjects]
    for place, *columns in rows:
        shown[place - 1].append(Shown(*columns))
    return shown


async def shot_embedder(db: Database, name: str | None) -> EmbedderRow | None:
    """Return the embedder of that name, or without a name the one that serves; None when there is none."""
    return await db.row(
        EmbedderRow,
        "select embedder_id, name, kind, model, provider, dimensions, parameters, status from flywheel.embedders"
        " where case when %(name)s::text is null then status = 'serving'"
        "            else name = %(name)s and status <> 'retired' end",
        {"name": name},
    )


async def end_judgements(
    db: Database,
    worker_id: UUID,
    fences: Sequence[UUID],
    judgements: Sequence[Mapping[str, Any]],
    calls: Sequence[Mapping[str, Any]],
    started_at: datetime,
) -> tuple[int, int]:
    """Write scores, end their claims, log the run and settle calls; return the claims that held and the new scores."""
    rows = await db.rows(
        tuple,
        "select jobs, scores from flywheel._end_judgements(%s, %s, %s::jsonb, %s::jsonb, %s)",
        [worker_id, list(fences), dumped(judgements), dumped(calls), started_at],
    )
    jobs, scores = rows[0]
    return jobs, scores


async def budget_share(db: Database, version_id: UUID) -> float:
    """Return how much of its tightest budget a version has used: 0 is nothing, or no budget."""
    share: float | None = await db.value("select flywheel._budget_share(%s)", [version_id])
    return share or 0.0


def dumped(value: Any) -> str:
    """Return JSON that jsonb takes: NUL and lone surrogates become U+FFFD, NaN and infinity null."""
    try:
        text = json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_clean(value), default=str)
    return json.dumps(_clean(value), default=str) if _UNSTORABLE.search(text) else text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _NEVER.sub("\ufffd", value)
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(name): _clean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value
