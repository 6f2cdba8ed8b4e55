"""The examples judges are shown: spans are embedded, and the database chooses for many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from time import monotonic
from uuid import UUID

from pgflywheel.db import judgements
from pgflywheel.db.connect import Database
from pgflywheel.db.embedders import EmbedderRow
from pgflywheel.db.judgements import Subject
from pgflywheel.judge.definition import JudgeDefinition
from pgflywheel.judge.embed import Embedder
from pgflywheel.judge.records import Shot
from pgflywheel.worker.embedders import Embedders

FRESH_SECONDS = 1.0
UNCOMPARED = ("recent", "random")  # strategies that look at no vector


@dataclass
class Shots:
    """Choose examples for spans."""

    database: Database
    embedders: Embedders
    rows: dict[str | None, tuple[float, EmbedderRow | None]] = field(default_factory=dict)

    async def of(
        self, worker_id: UUID, version_id: UUID, definition: JudgeDefinition, subjects: Sequence[Subject]
    ) -> list[tuple[Shot, ...]]:
        """Return the examples for each span, the most relevant last.

        CallFailed or PutOff when the spans cannot be embedded now.
        """
        if not definition.shots.wanted or not any(each.exemplified for each in subjects):
            return [() for _ in subjects]
        vectors = None
        if definition.shots.strategy not in UNCOMPARED and definition.shots.shot_set is None:
            embedder = await self.embedder(definition.shots.embedder, worker_id, version_id)
            if embedder:
                vectors = await embedder.embed([item_text(definition.target, each) for each in subjects])
        chosen = await judgements.shots_for(self.database, version_id, subjects, vectors)
        return [tuple(Shot(*astuple(each)) for each in shown) for shown in chosen]

    async def embedder(self, name: str | None, worker_id: UUID, version_id: UUID) -> Embedder | None:
        """Return the named embedder, or the one that serves; its calls are those of a version."""
        read_at, row = self.rows.get(name, (float("-inf"), None))
        if monotonic() - read_at > FRESH_SECONDS:
            row = await judgements.shot_embedder(self.database, name)
            self.rows[name] = monotonic(), row
        return None if row is None else await self.embedders.of(row, worker_id, version_id)


def item_text(target: str, subject: Subject) -> str:
    """Return the text by which a span is compared with examples."""
    parts = [subject.input] if target == "input" else [subject.input, subject.output]
    return "\n\n".join(part for part in parts if part is not None)
