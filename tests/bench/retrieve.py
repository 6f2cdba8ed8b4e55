"""Six shots with MMR of 100,000 examples of 20 questions, against a bare pgvector top-50 query on the same index."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from psycopg import sql

from pgflywheel.db.connect import open_database
from pgflywheel.worker.index_upkeep import keep_indexes
from tests.bench.figures import Options, Result, quantile
from tests.bench.index_upkeep import DIMENSIONS, TOPICS, Topics, Vectors
from tests.bench.server import Session, connected, installed_database, value

MOST_RATIO, LEAST_RECALL = 2.0, 0.97
EXAMPLES, QUESTIONS, QUERIES, NEAREST = 100_000, 20, 400, 50
_BLOCK = 5_000
_COPY = """
copy flywheel.examples (example_id, kind, validator_id, label_id, span_id, started_at, revision, trace_id, project,
     node, session_id, user_id, group_key, input, output, passed, critique, author, disagreed, tokens, content_hash,
     status)
from stdin
"""
_COPY_VECTORS = """
copy flywheel._example_embeddings (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
from stdin
"""
_BARE = sql.SQL("""
select example_id, (embedding::halfvec(384)) <=> %(vector)s::halfvec(384) from flywheel._example_embeddings
 where embedder_id = {embedder} and validator_id = {question} and part = 'item' and servable
 order by (embedding::halfvec(384)) <=> %(vector)s::halfvec(384) limit 50
""")
_OURS = "select * from flywheel._shots_for(%s, array[%s]::uuid[], array[%s]::timestamptz[], %s::real[], 384)"


def measure(options: Options) -> Result:
    """Return the median of a retrieval over that of the bare query; a connection of its own for each side."""
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session, connected(dsn) as other:
        pool = _Pool(session, int(EXAMPLES * options.scale))
        asyncio.run(_index(dsn))
        recall = statistics.fmean(pool.recall(number) for number in range(100))
        waits: dict[str, list[float]] = {"bare": [], "shots": []}
        other.execute("set hnsw.ef_search = 200")
        for _ in range(options.runs):
            for number in range(QUERIES):
                waits["bare"].append(_milliseconds(other, *pool.bare(number)))
                waits["shots"].append(_milliseconds(session, _OURS, pool.shots(number)))
    figures = {name: {"median_ms": quantile(each, 0.5), "p99_ms": quantile(each, 0.99)} for name, each in waits.items()}
    ratios = {key: figures["shots"][key] / figures["bare"][key] for key in figures["bare"]}
    return Result(
        "retrieve",
        ratios["median_ms"],
        f"median and p99 <= {MOST_RATIO:g} of the bare query, recall@50 >= {LEAST_RECALL}",
        max(ratios.values()) <= MOST_RATIO and recall >= LEAST_RECALL,
        figures | {"ratios": ratios, "recall": recall},
    )


async def _index(dsn: str) -> None:
    async with open_database(dsn) as database:
        await keep_indexes(database)


def _milliseconds(session: Session, statement: Any, params: Any) -> float:
    began = time.perf_counter()
    rows = session.execute(statement, params, prepare=False).fetchall()
    seconds = time.perf_counter() - began
    if not rows:
        raise RuntimeError("nothing was found")
    return seconds * 1000


class _Pool:
    """Examples about many topics, evenly over the questions, with a target span and a query for each retrieval."""

    def __init__(self, session: Session, examples: int) -> None:
        self.session = session
        topics = Topics(1)
        self.vectors: Vectors = topics.draw(examples, 0, TOPICS)
        self.queries: Vectors = topics.draw(QUERIES, 0, TOPICS)
        self.ids = [uuid4() for _ in range(examples)]
        self.embedder: UUID = value(session, "select embedder_id from flywheel.embedders where status = 'serving'")
        self.questions, self.versions = _questions(session)
        session.execute("set session_replication_role = replica")
        for first in range(0, examples, _BLOCK):
            self._load(range(first, min(first + _BLOCK, examples)))
        session.execute("set session_replication_role = origin")
        session.execute("insert into flywheel.spans (input, output) select 'a', 'b' from generate_series(1, 100)")
        session.execute("vacuum analyze flywheel.examples, flywheel._example_embeddings, flywheel.spans")
        self.spans: list[Any] = session.execute("select span_id, started_at from flywheel.spans").fetchall()

    def _load(self, places: range) -> None:
        with self.session.cursor().copy(_COPY) as rows:
            for place in places:
                rows.write_row(self._example(place))
        with self.session.cursor().copy(_COPY_VECTORS) as rows:
            for place in places:
                question = self.questions[place % QUESTIONS]
                rows.write_row([self.ids[place], self.embedder, "item", question, True, "", _text(self.vectors[place])])

    def _example(self, place: int) -> list[Any]:
        session, user = f"session {place // 3}", f"user {place // 5}"
        return [
            *(self.ids[place], "label", self.questions[place % QUESTIONS], uuid4(), uuid4(), "2026-01-01", 1, uuid4()),
            *("support", "answer", session, user, session, "a question " * 20, "an answer " * 40, place % 3 > 0),
            *("because " * 10, "ada", place % 7 == 0, 150, str(place), "servable"),
        ]

    def bare(self, number: int) -> tuple[sql.Composed, dict[str, str]]:
        """Return the bare query of one retrieval, with its ids as literals, and its vector."""
        question = sql.Literal(str(self.questions[number % QUESTIONS]))
        statement = _BARE.format(embedder=sql.Literal(str(self.embedder)), question=question)
        return statement, {"vector": _text(self.queries[number])}

    def shots(self, number: int) -> list[Any]:
        """Return what is asked of the judge's retrieval."""
        vector = "{" + _text(self.queries[number])[1:-1] + "}"
        return [self.versions[number % QUESTIONS], *self.spans[number % len(self.spans)], vector]

    def recall(self, number: int) -> float:
        """Return the share of the nearest 50 that the statement retrieval uses finds."""
        self.session.execute("set hnsw.ef_search = 200; set hnsw.iterative_scan = relaxed_order")
        question = number % QUESTIONS
        near = "select flywheel._near_sql(%s, null, null, 'item', %s, %s)"
        statement = value(self.session, near, self.questions[question], self.embedder, DIMENSIONS)
        query = sql.Literal(_text(self.queries[number])) + sql.SQL("::halfvec")
        text = statement.replace("$1", query.as_string(self.session)).replace("$2", str(NEAREST))
        row = self.session.execute(text.encode()).fetchone()
        similar = self.vectors[question::QUESTIONS] @ self.queries[number]
        exact = {self.ids[question + QUESTIONS * int(place)] for place in np.argsort(-similar)[:NEAREST]}
        return len(exact & set(row[0] if row else ())) / NEAREST


def _questions(session: Session) -> tuple[list[UUID], list[UUID]]:
    definition = {"kind": "neighbours", "question": "Is it?", "pass_when": "it is", "fail_when": "it is not"}
    for number in range(QUESTIONS):
        session.execute("select flywheel.define_validator(%s, %s)", [f"question_{number}", json.dumps(definition)])
    found = session.execute("select validator_id, version_id from flywheel.validator_versions").fetchall()
    return [question for question, _ in found], [version for _, version in found]


def _text(vector: Any) -> str:
    return "[" + ",".join(f"{number:.5f}" for number in vector) + "]"
