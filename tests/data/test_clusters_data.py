"""Clusters of labelled questions: how well they match what people say is one intent. Figures: pytest -s this file."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from hashlib import md5
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from sklearn.metrics import adjusted_rand_score

from pgflywheel.db import clusters as calls
from pgflywheel.db.connect import open_database
from pgflywheel.judge.embed.hashing import Hashing
from pgflywheel.worker import clusters

from .conftest import DATA

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of recorded data is not beside the checkout")
Connection = psycopg.Connection[tuple[Any, ...]]
QUESTIONS = 4000
# dataset: what clusters of five and more cover, their purity and adjusted Rand index, at least; joined, then at night
FLOORS = {
    "banking77": ((0.7, 0.5, 0.2), (0.7, 0.5, 0.15)),
    "clinc150": ((0.5, 0.6, 0.3), (0.55, 0.5, 0.25)),
}


def questions(name: str) -> list[tuple[str, str]]:
    """Return texts with their intents, in an order that no intent has a part in."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [line for line in map(json.loads, file) if line["intent"]]
    lines.sort(key=lambda line: md5(line["id"].encode()).digest())
    return [(line["text"], line["intent"]) for line in lines[:QUESTIONS]]


def store(connection: Connection, asked: Sequence[tuple[str, str]]) -> None:
    """Insert spans with the vectors of the hashing embedder, a second apart."""
    embedder = Hashing()
    connection.execute("update flywheel.embedders set span_permille = 1000")
    with connection.cursor() as cursor:
        cursor.executemany(
            """with added as (
                 insert into flywheel.spans (span_id, started_at, input, attributes)
                 values (%s, now() - interval '1 day' + %s * interval '1 s', %s, %s)
                 returning span_id, started_at, revision)
               insert into flywheel.span_embeddings
                      (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
               select span_id, started_at, revision, embedder_id, 'input', '', %s::real[]::public.halfvec
                 from added, flywheel.embedders where embedders.status = 'serving'""",
            [
                (uuid.uuid4(), place, text, Jsonb({"intent": intent}), list(embedder.vector(text)))
                for place, (text, intent) in enumerate(asked)
            ],
        )


def fit(connection: Connection) -> tuple[int, float, float, float]:
    """Return how many clusters of five and more there are, what they cover, their purity and adjusted Rand index."""
    found = connection.execute(
        """select members.cluster_id::text, attributes ->> 'intent', known.n >= 5
             from flywheel.cluster_members as members join flywheel.spans using (span_id, started_at)
             left join flywheel.clusters as known using (cluster_id)"""
    ).fetchall()
    kept = [(cluster, intent) for cluster, intent, large in found if large]
    pairs = Counter(kept)
    best: dict[str, int] = {}
    for (cluster, _), n in pairs.items():
        best[cluster] = max(n, best.get(cluster, 0))
    rand = adjusted_rand_score([intent for _, intent in kept], [cluster for cluster, _ in kept])
    return len(best), len(kept) / len(found), sum(best.values()) / len(kept), float(rand)


async def join(dsn: str) -> None:
    async with open_database(dsn, "flywheel") as database:
        while await calls.assign(database):
            pass


async def night(dsn: str) -> None:
    async with open_database(dsn, "flywheel") as database:
        assert await clusters.recluster(database, forced=True) == 1


@pytest.mark.parametrize("name", FLOORS)
def test_clusters_match_intents(name: str, connection: Connection, dsn: str) -> None:
    store(connection, questions(name))
    asyncio.run(join(dsn))
    joined = fit(connection)
    asyncio.run(night(dsn))
    formed = fit(connection)
    for when, said, floor in zip(("joined", "at night"), (joined, formed), FLOORS[name], strict=True):
        clusters_found, *figures = said
        print(f"\n{name} {when}: {clusters_found} clusters, covered/purity/ARI", *(f"{each:.2f}" for each in figures))
        assert all(each >= least for each, least in zip(figures, floor, strict=True)), (when, said)
    assert connection.execute("select * from flywheel.verify_clusters()").fetchall() == []
