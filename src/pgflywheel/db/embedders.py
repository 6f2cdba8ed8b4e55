"""Embedders: add, sample, serve and retire them; the texts a worker embeds and the vectors it writes."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflywheel.db import wire
from pgflywheel.db.connect import Database, columns_of


@dataclass(frozen=True, slots=True)
class EmbedderStatus:
    """A row of flywheel.embedder_status."""

    name: str
    kind: str
    model: str | None
    provider: str | None
    dimensions: int
    status: str
    span_permille: int
    examples: int
    embedded: int
    waiting: int
    dead: int
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class EmbedderRow:
    """What is needed to make an embedder."""

    embedder_id: UUID
    name: str
    kind: str
    model: str | None
    provider: str | None
    dimensions: int
    parameters: Mapping[str, Any]
    status: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text without a vector: part ``item``, ``input`` or ``output`` of an example or a span."""

    embedder_id: UUID
    subject_id: UUID
    part: str
    content_hash: str
    body: str


@dataclass(frozen=True, slots=True)
class IndexWork:
    """A statement the upkeep of indexes asks for; it runs outside of any transaction."""

    action: str
    index_name: str
    statement: str


async def status(db: Database) -> list[EmbedderStatus]:
    """Return the embedders, the one that serves first."""
    columns = columns_of(EmbedderStatus)
    order = "array_position('{serving,filling,retired}', status), created_at"
    return await db.rows(EmbedderStatus, f"select {columns} from flywheel.embedder_status order by {order}")


async def add(
    db: Database,
    name: str,
    kind: str,
    model: str | None = None,
    provider: str | None = None,
    dimensions: int = 384,
    parameters: Mapping[str, Any] | None = None,
    span_permille: int = 0,
) -> UUID:
    """Add an embedder, queue every example for it, and return its id."""
    embedder_id: UUID = await db.value(
        "select flywheel.add_embedder(%s, %s, %s, %s, %s, %s::jsonb, %s)",
        [name, kind, model, provider, dimensions, json.dumps(dict(parameters or {})), span_permille],
    )
    return embedder_id


async def sample(db: Database, name: str, permille: int) -> None:
    """Embed the spans of so many traces of a thousand, too."""
    await db.execute("select flywheel.sample_embedder(%s, %s)", [name, permille])


async def serve(db: Database, name: str, *, force: bool = False) -> None:
    """Let retrieval use an embedder."""
    await db.execute("select flywheel.serve_embedder(%s, %s)", [name, force])


async def retire(db: Database, name: str) -> int:
    """End an embedder and return how many vectors were deleted."""
    deleted: int = await db.value("select flywheel.retire_embedder(%s)", [name])
    return deleted


async def by_id(db: Database, embedder_id: UUID) -> EmbedderRow | None:
    """Return an embedder; None when there is none of this id."""
    columns = columns_of(EmbedderRow)
    return await db.row(EmbedderRow, f"select {columns} from flywheel.embedders where embedder_id = %s", [embedder_id])


async def read(db: Database, fences: Sequence[UUID]) -> list[Text]:
    """Return the texts of running jobs that have no vector yet."""
    query = "select embedder_id, subject_id, part, content_hash, body from flywheel._read_embeddings(%s)"
    return await db.rows(Text, query, [list(fences)])


async def write(
    db: Database,
    worker_id: UUID,
    fences: Sequence[UUID],
    embedder_id: UUID,
    texts: Sequence[Text],
    vectors: Sequence[array[float]],
) -> int:
    """Store the vectors of running jobs and end the jobs; return how many were still the worker's."""
    ended: int = await db.value(
        "select flywheel._write_embeddings(%s, %s, %s, %s, %s, %s, %s::real[])",
        [
            worker_id,
            list(fences),
            embedder_id,
            [text.subject_id for text in texts],
            [text.part for text in texts],
            [text.content_hash for text in texts],
            wire.reals(vectors),
        ],
    )
    return ended


async def index_work(db: Database) -> list[IndexWork]:
    """Return what is to be done to the indexes of vectors."""
    return await db.rows(IndexWork, "select action, index_name, statement from flywheel._index_work()")


async def do_index_work(db: Database, work: IndexWork) -> None:
    """Build, rebuild or drop an index, which may take minutes, beside readers and writers."""
    async with db.connection() as connection:
        await connection.execute(work.statement.encode())
        await connection.execute(db.render("select flywheel._index_done(%s)").encode(), [work.index_name])
