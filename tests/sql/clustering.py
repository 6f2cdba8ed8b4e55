"""What the tests of clusters share: spans with vectors, and where they went."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from tests.sql.drifting import days_ago
from tests.sql.support import Connection, rows, value

Vector = Sequence[float]


@pytest.fixture(autouse=True)
def sampled(connection: Connection) -> None:
    """Let every trace be of the sample, and vectors join at a cosine of 0.8."""
    connection.execute("update flywheel.embedders set span_permille = 1000")
    setting(connection, "cluster_permille_hashing", 800)


def setting(connection: Connection, name: str, number: int) -> None:
    connection.execute("update flywheel.settings set value = to_jsonb(%s::numeric) where name = %s", [number, name])


def ask(
    connection: Connection,
    vector: Vector,
    output: str | None = "fine",
    out: Vector | None = None,
    days: int = 0,
    seconds: float = 0,
    **columns: Any,
) -> uuid.UUID:
    """Insert a span whose input has this vector, padded, and whose output has another; return its id."""
    given = {"span_id": uuid.uuid4(), "input": "how do I pay", "output": output, **columns}
    names, places = ", ".join(given), ", ".join(["%s"] * len(given))
    started_at = value(
        connection,
        f"insert into flywheel.spans (started_at, {names}) values (%s::timestamptz + %s * interval '1 s', {places})"
        " returning started_at",
        [days_ago(days), seconds, *given.values()],
    )
    for part, numbers in (("input", vector), ("output", out)):
        if numbers is not None:
            embed(connection, given["span_id"], started_at, numbers, part)
    found: uuid.UUID = given["span_id"]
    return found


def embed(connection: Connection, span_id: uuid.UUID, started_at: object, numbers: Vector, part: str = "input") -> None:
    connection.execute(
        """insert into flywheel.span_embeddings
               (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
           select %s, %s, 1, embedder_id, %s, %s,
                  (%s::real[] || array_fill(0::real, array[dimensions - %s]))::public.halfvec
             from flywheel.embedders where status = 'serving'
           on conflict on constraint span_embeddings_pkey do update set embedding = excluded.embedding""",
        [span_id, started_at, part, str(numbers), list(numbers), len(numbers)],
    )


def assign(connection: Connection, most: int = 1000) -> int:
    return int(value(connection, "select flywheel._assign_clusters(%s)", [most]))


def whole(connection: Connection) -> None:
    """Expect sums to equal members."""
    assert rows(connection, "select * from flywheel.verify_clusters()") == []


def cluster_of(connection: Connection, span_id: uuid.UUID) -> uuid.UUID | None:
    found: uuid.UUID | None = value(
        connection, "select cluster_id from flywheel.cluster_members where span_id = %s", [span_id]
    )
    return found


def cluster_ids(connection: Connection) -> list[uuid.UUID]:
    query = (
        "select cluster_id from flywheel.clusters where status = 'open' and n > 0 order by first_seen_at, cluster_id"
    )
    return [found for (found,) in rows(connection, query)]
