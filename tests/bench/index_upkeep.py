"""Recall of a question's HNSW index after half of its examples were replaced one by one, against one built anew."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
from psycopg import sql

from tests.bench.figures import Options, Result, quantile, timed
from tests.bench.server import Session, connected, installed_database, value

MOST_LOSS = 0.02
VECTORS, OTHERS, OTHER_QUESTIONS, DIMENSIONS = 50_000, 50_000, 10, 384
TOPICS, SPREAD, NEAREST, QUERIES = 500, 0.8, 50, 400
ROUND_PERCENT = 10  # between one upkeep and the next
AS_RETRIEVAL = "set hnsw.ef_search = 100; set hnsw.iterative_scan = relaxed_order; set enable_seqscan = off"
COPY = """
copy flywheel._example_embeddings (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
from stdin
"""
INSERT = """
insert into flywheel._example_embeddings
       (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
values (%s, %s, 'item', %s, true, '', %s::text::halfvec)
"""
REVOKE = "update flywheel._example_embeddings set servable = false where example_id = %s"
DELETE = "delete from flywheel._example_embeddings where example_id = %s"
SEARCH = sql.SQL("""
select example_id from flywheel._example_embeddings
 where embedder_id = {} and validator_id = {} and part = 'item' and servable
 order by embedding::halfvec(384) <=> %s::text::halfvec(384) limit {}
""")
Vectors = npt.NDArray[np.float32]
Stages = dict[str, dict[str, float]]


class Topics:
    """Unit vectors around random centres: as texts about some hundred things lie."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.centres = self._units(self.random.standard_normal((TOPICS, DIMENSIONS)))

    def draw(self, count: int, first: int = 0, last: int = TOPICS // 2) -> Vectors:
        """Return vectors about the topics from first up to last."""
        centres = self.centres[self.random.integers(first, last, count)]
        noise = self.random.standard_normal((count, DIMENSIONS)) * (SPREAD / np.sqrt(DIMENSIONS))
        return self._units(centres + noise)

    @staticmethod
    def _units(vectors: npt.NDArray[Any]) -> Vectors:
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@dataclass
class Pool:
    """The servable examples of one question, in the database and here, where search is exact."""

    session: Session
    embedder_id: UUID
    question: UUID
    ids: list[UUID]
    vectors: Vectors

    def replace(self, place: int, vector: Vectors, *, delete: bool) -> None:
        """Write one example and take another one back, a commit each."""
        made = uuid4()
        self.session.execute(INSERT, [made, self.embedder_id, self.question, as_text(vector)])
        self.session.execute(DELETE if delete else REVOKE, [self.ids[place]])
        self.ids[place], self.vectors[place] = made, vector

    def search(self, queries: Vectors) -> dict[str, float]:
        """Return recall of the nearest and milliseconds, through the index."""
        statement = SEARCH.format(self.embedder_id, self.question, NEAREST)
        shares, waits = [], []
        for query in queries:
            text = as_text(query)
            began = time.perf_counter()
            found = {row[0] for row in self.session.execute(statement, [text])}
            waits.append((time.perf_counter() - began) * 1000)
            exact = np.argpartition(self.vectors @ query, -NEAREST)[-NEAREST:]
            shares.append(len(found & {self.ids[place] for place in exact}) / NEAREST)
        return {"recall": statistics.fmean(shares), "p50_ms": quantile(waits, 0.5), "p99_ms": quantile(waits, 0.99)}

    def look(self, queries: Vectors) -> dict[str, float]:
        """Return recall, milliseconds and the size of the index, each query asked twice and the second time counted."""
        self.search(queries)
        size = "select sum(pg_relation_size(oid)) / 1e6 from pg_class where relname like '\\_hnsw%' and relkind = 'i'"
        return self.search(queries) | {"index_mb": float(value(self.session, size))}


def measure(options: Options) -> Result:
    """Return the recall after half was replaced over that of an index built anew from the same rows."""
    runs = [_stages(options, seed) for seed in range(options.runs)]
    losses = [run["50 % replaced, built anew"]["recall"] - _worst(run) for run in runs]
    stages = {
        name: {key: statistics.median(run[name][key] for run in runs) for key in runs[0][name]} for name in runs[0]
    }
    loss = statistics.median(losses)
    anew = stages["50 % replaced, built anew"]["recall"]
    return Result(
        "index_upkeep",
        (anew - loss) / anew,
        f"recall@{NEAREST} at most {MOST_LOSS} below that of an index built anew",
        loss <= MOST_LOSS,
        {"recall_lost": losses, "stages": stages},
        {"recall_lost": loss},
        [
            f"{int(VECTORS * options.scale):,} vectors of one question, {int(OTHERS * options.scale):,} of others",
            "half of those taken back are revoked, half are deleted; half of the new ones are about new topics",
            "upkeep after every tenth, and no vacuum; the bar takes the worse of before and after the last one",
        ],
    )


def _worst(run: Stages) -> float:
    return min(run["50 % replaced"]["recall"], run["50 % replaced, after upkeep"]["recall"])


def _stages(options: Options, seed: int) -> Stages:
    """Return what each stage gives."""
    topics = Topics(seed)
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        pool = _loaded(session, topics, options.scale)
        stages = {"new": _kept(session, "create") | pool.look(topics.draw(QUERIES))}
        for percent in range(0, 50, ROUND_PERCENT):
            changed = _replaced(pool, topics, percent, percent + ROUND_PERCENT)
            queries = topics.draw(QUERIES, 0, int(TOPICS * (0.5 + percent / 200)))
            stages[f"{percent + ROUND_PERCENT} % replaced"] = changed | pool.look(queries)
            kept = _kept(session, "reindex")
        stages["50 % replaced, after upkeep"] = kept | pool.look(queries)
        stages["50 % replaced, built anew"] = _built_anew(pool, queries)
        if not options.quick:
            stages["the other 50 % without upkeep"] = _replaced(pool, topics, 50, 100) | pool.look(queries)
            stages["the other 50 %, vacuumed"] = _vacuumed(session) | pool.look(queries)
            stages["the other 50 %, built anew"] = _built_anew(pool, queries)
        return stages


def _kept(session: Session, expected: str) -> dict[str, float]:
    """Do what the upkeep would."""
    work = session.execute("select action, statement, index_name from flywheel._index_work()").fetchall()
    if [action for action, *_ in work] != [expected]:
        raise RuntimeError(f"the upkeep would do {work}, not one {expected}")
    with timed() as clock:
        session.execute(work[0][1].encode())
    session.execute("select flywheel._index_done(%s)", [work[0][2]])
    return {f"{expected}_seconds": clock.seconds}


def _vacuumed(session: Session) -> dict[str, float]:
    with timed() as clock:
        session.execute("vacuum flywheel._example_embeddings")
    return {"vacuum_seconds": clock.seconds}


def _replaced(pool: Pool, topics: Topics, from_percent: int, to_percent: int) -> dict[str, float]:
    """Replace examples one by one; every second new one is about a topic there was none of before."""
    start, stop = (len(pool.ids) * percent // 100 for percent in (from_percent, to_percent))
    old, new = topics.draw(stop - start), topics.draw(stop - start, TOPICS // 2, TOPICS)
    with timed() as clock:
        for place in range(start, stop):
            kind = old if place % 2 else new
            pool.replace(place, kind[place - start], delete=place % 4 < 2)
    return {"replace_ms": clock.seconds * 1000 / (stop - start)}


def _built_anew(pool: Pool, queries: Vectors) -> dict[str, float]:
    """Look through a second index, while the first is gone in a transaction that is taken back."""
    find = "select relname::text, pg_get_indexdef(oid) from pg_class where relname like '\\_hnsw%' and relkind = 'i'"
    name, definition = pool.session.execute(find).fetchone() or ("", "")
    with timed() as clock:
        pool.session.execute(definition.replace(name, "_hnsw_anew").encode())
    with pool.session.transaction(force_rollback=True):
        pool.session.execute(sql.SQL("drop index flywheel.{}").format(sql.Identifier(name)))
        looked = pool.look(queries)
    pool.session.execute("drop index flywheel._hnsw_anew")
    return {"build_seconds": clock.seconds} | looked


def _loaded(session: Session, topics: Topics, scale: float) -> Pool:
    """Write the vectors of this question and of ten others."""
    session.execute("set synchronous_commit = off")
    session.execute(AS_RETRIEVAL)
    session.execute("set session_replication_role = replica")  # the examples themselves are not needed
    session.execute("alter table flywheel._example_embeddings set (autovacuum_enabled = off)")
    embedder_id: UUID = value(session, "select embedder_id from flywheel.embedders")
    vectors = topics.draw(int(VECTORS * scale))
    pool = Pool(session, embedder_id, uuid4(), [uuid4() for _ in vectors], vectors)
    others = [uuid4() for _ in range(OTHER_QUESTIONS)]
    with session.cursor().copy(COPY) as copy:
        for example_id, vector in zip(pool.ids, vectors, strict=True):
            copy.write_row([example_id, embedder_id, "item", pool.question, True, "", as_text(vector)])
        for place, vector in enumerate(topics.draw(int(OTHERS * scale))):
            other = others[place % OTHER_QUESTIONS]
            copy.write_row([uuid4(), embedder_id, "item", other, True, "", as_text(vector)])
    session.execute("analyze flywheel._example_embeddings")
    fewest = "update flywheel.settings set value = to_jsonb(%s::integer) where name = 'index_examples_from'"
    session.execute(fewest, [len(vectors)])  # so that the others get no index
    return pool


def as_text(vector: Sequence[float] | Vectors) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join(f"{number:.5f}" for number in np.asarray(vector).tolist()) + "]"
