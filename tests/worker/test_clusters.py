"""Clusters formed anew: by a real process, with ids and names that stay, and words from what people ask."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from psycopg.conninfo import make_conninfo

from pgflywheel.db import clusters as calls
from pgflywheel.db.connect import Database, open_database
from pgflywheel.judge.embed.hashing import Hashing
from pgflywheel.worker import clusters
from tests.worker.support import Connection, set_setting, until, value, work

Answer = TypeVar("Answer")
TOPICS = {
    "card": "my card {} is lost, please block the lost card",
    "loan": "what is the interest rate of a loan {} for a house",
    "tax": "where do I upload the tax form {} of last year",
}


def run(dsn: str, task: Callable[[Database], Awaitable[Answer]]) -> Answer:
    async def opened() -> Answer:
        async with open_database(dsn, "flywheel") as database:
            return await task(database)

    return asyncio.run(opened())


def ask(connection: Connection, count: int = 8, **texts: str) -> None:
    """Insert spans of three topics with the vectors that the hashing embedder gives them."""
    embedder = Hashing()
    for text in (texts or TOPICS).values():
        for number in range(count):
            body = text.format(["now", "today", "abroad", "again", "online", "soon", "here", "there"][number % 8])
            connection.execute(
                """with added as (
                     insert into flywheel.spans (span_id, input, output) values (%s, %s, 'fine')
                     returning span_id, started_at, revision)
                   insert into flywheel.span_embeddings
                          (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
                   select span_id, started_at, revision, embedder_id, 'input', '', %s::real[]::public.halfvec
                     from added, flywheel.embedders where embedders.status = 'serving'""",
                [uuid.uuid4(), body, list(embedder.vector(body))],
            )


@pytest.fixture(autouse=True)
def sampled(connection: Connection) -> None:
    connection.execute("update flywheel.embedders set span_permille = 1000")


def words(connection: Connection) -> list[str]:
    query = "select name from flywheel.clusters where status = 'open' and n > 0 order by name"
    return [name for (name,) in connection.execute(query).fetchall()]


def test_a_worker_lets_new_vectors_join_clusters(connection: Connection, dsn: str) -> None:
    ask(connection)

    def joined() -> bool:
        work(dsn, lanes=("embed",))
        return bool(value(connection, "select sum(n) = 24 from flywheel.clusters"))

    until(joined)
    assert value(connection, "select count(*) from flywheel.verify_clusters()") == 0


def test_clusters_are_formed_anew_and_get_their_words(connection: Connection, dsn: str) -> None:
    set_setting(connection, "cluster_permille_hashing", 950)
    ask(connection)
    run(dsn, calls.assign)
    assert value(connection, "select count(*) from flywheel.clusters") > 3
    assert run(dsn, lambda database: clusters.recluster(database, forced=True)) == 1
    assert run(dsn, clusters.word) == 3
    assert sorted(" ".join(set(name.split()) & set(TOPICS)) for name in words(connection)) == ["card", "loan", "tax"]
    assert value(connection, "select array[sampled, groups, ungrouped] from flywheel.cluster_status") == [24, 3, 0]
    assert value(connection, "select note from flywheel.cluster_status") is None
    assert value(connection, "select count(*) from flywheel.verify_clusters()") == 0


def test_ids_and_names_stay_from_night_to_night(connection: Connection, dsn: str) -> None:
    ask(connection)
    run(dsn, calls.assign)
    run(dsn, lambda database: clusters.recluster(database, forced=True))
    query = "select array_agg(cluster_id order by cluster_id) from flywheel.clusters where status = 'open' and n > 0"
    before = value(connection, query)
    connection.execute("select flywheel.rename_cluster(%s, 'what we call it', 'ada')", [before[0]])
    ask(connection)
    run(dsn, calls.assign)
    run(dsn, lambda database: clusters.recluster(database, forced=True))
    run(dsn, clusters.word)
    assert value(connection, query) == before
    assert "what we call it" in words(connection)
    assert value(connection, "select sum(n) from flywheel.clusters") == 48


def test_only_one_worker_forms_clusters_and_only_once_a_night(connection: Connection, dsn: str) -> None:
    ask(connection)
    run(dsn, calls.assign)

    async def both(database: Database) -> list[int]:
        return list(await asyncio.gather(*(clusters.recluster(database, forced=True) for _ in range(2))))

    assert sorted(run(dsn, both)) == [0, 1]
    set_setting(connection, "cluster_hour", 24)
    assert run(dsn, clusters.recluster) == 0
    connection.execute("update flywheel._cluster_runs set grouped_at = now() - interval '1 day'")
    assert run(dsn, clusters.recluster) == 1
    connection.execute("update flywheel._cluster_runs set grouped_at = now() - interval '1 day'")
    set_setting(connection, "cluster_hour", 25)
    assert run(dsn, clusters.recluster) == 0


def test_without_scikit_learn_clusters_are_kept_and_it_is_said(
    connection: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(connection)
    run(dsn, calls.assign)
    before = value(connection, "select count(*) from flywheel.clusters where n > 0")
    monkeypatch.setattr(clusters, "installed", lambda: False)
    assert run(dsn, lambda database: clusters.recluster(database, forced=True)) == 1
    assert value(connection, "select note from flywheel.cluster_status") == clusters.MISSING
    assert value(connection, "select count(*) from flywheel.clusters where n > 0") == before


def test_a_grouping_that_dies_leaves_the_clusters_and_is_said(
    connection: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(connection)
    run(dsn, calls.assign)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert run(dsn, lambda database: clusters.recluster(database, forced=True)) == 1
    assert "exit code 1" in value(connection, "select note from flywheel.cluster_status")
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    assert run(dsn, lambda database: clusters.recluster(database, forced=True)) == 1
    assert "FileNotFoundError" in value(connection, "select note from flywheel.cluster_status")
    assert value(connection, "select sum(n) from flywheel.clusters") == 24


def test_hostile_texts_make_harmless_names(connection: Connection, dsn: str) -> None:
    ask(connection, text="<script>alert('{}')</script> \x1b[31m '; drop table flywheel.spans; -- ‮evil")
    run(dsn, calls.assign)
    run(dsn, clusters.word)
    said: list[Any] = words(connection)
    assert said
    assert all(character.isalnum() or character == " " for name in said for character in name)


@pytest.mark.parametrize("role", ["flywheel_worker", "flywheel_admin"])
def test_workers_and_admins_may_do_all_of_it(connection: Connection, dsn: str, role: str) -> None:
    ask(connection)
    only = make_conninfo(dsn, options=f"-c role={role}")
    assert run(only, calls.assign) == 24
    assert run(only, lambda database: clusters.recluster(database, forced=True)) == 1
    assert run(only, clusters.word) >= 3
    assert len(run(only, calls.clusters)) >= 3
