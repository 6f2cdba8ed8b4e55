"""The vote of neighbours: the worker embeds what is to be judged, the database finds the examples and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from pgflywheel.db import examples, queue, wire
from pgflywheel.db.connect import Database
from pgflywheel.db.queue import Version
from pgflywheel.records import Claimed
from pgflywheel.worker.embedders import Embedders
from pgflywheel.worker.shots import UNCOMPARED, Shots

VOTING_SPANS = 500  # embedded and voted on together


@dataclass(frozen=True, slots=True)
class Voters:
    """Spans one version is to judge, with the vectors by which their neighbours are found."""

    version_id: UUID
    keys: wire.Array
    vectors: wire.Array | None
    dimensions: int

    def __bool__(self) -> bool:
        return wire.count(self.keys) > 0

    async def write(self, db: Database) -> int:
        """Let the neighbours vote, write the scores and return how many were new."""
        return await examples.write_neighbours(db, self.version_id, self.keys, self.vectors, self.dimensions)


@dataclass
class Neighbours:
    """Embed spans with the embedder of the examples."""

    database: Database
    embedders: Embedders
    shots: Shots = field(init=False)

    def __post_init__(self) -> None:
        self.shots = Shots(self.database, self.embedders)

    async def ask(self, worker_id: UUID, jobs: Sequence[Claimed], version: Version) -> Voters:
        """Return the spans a version means, with their vectors; none where the policy compares none.

        CallFailed or PutOff when the spans cannot be embedded now.
        """
        names = ["input"] if version.definition["target"] == "input" else ["input", "output"]
        keys, texts = await queue.read_spans(self.database, [job.fence for job in jobs], version.version_id, names)
        policy = version.definition.get("shots", {})
        vectors, dimensions = None, 0
        if keys and policy.get("strategy") not in UNCOMPARED:
            embedder = await self.shots.embedder(policy.get("embedder"), worker_id, version.version_id)
            if embedder:
                found = await embedder.embed(item_texts(texts, len(names)))
                vectors, dimensions = wire.reals(found), embedder.dimensions
        return Voters(version.version_id, wire.Array(keys), vectors, dimensions)


def item_texts(texts: bytes, columns: int) -> list[str]:
    """Return one text for each span, of columns that follow each other in one array."""
    parts = [None if part is None else bytes(part).decode() for part in wire.elements(texts)]
    spans = len(parts) // columns
    return ["\n\n".join(part for part in parts[place::spans] if part is not None) for place in range(spans)]
