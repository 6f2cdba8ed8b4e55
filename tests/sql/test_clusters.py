"""Clusters: who joins which, sums that equal their members, and what views say of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from tests.sql.drifting import days_ago
from tests.sql.exampling import unit
from tests.sql.reference import case
from tests.sql.support import Connection, rows, value

Vector = Sequence[float]
COUNTS = "select n, words, status from flywheel.clusters order by first_seen_at, cluster_id"


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


@pytest.mark.parametrize("most", [1, 1000])
@pytest.mark.parametrize("tau", ["0.5", "0.7", "0.85"])
def test_leaders_are_those_of_the_reference(connection: Connection, tau: str, most: int) -> None:
    setting(connection, "cluster_permille_hashing", round(1000 * float(tau)))
    given, expected = (
        case("clustering", "data")["input"]["X"],
        case("clustering", f"leader_tau_{tau}")["expected"]["ids"],
    )
    spans = [ask(connection, vector, seconds=place) for place, vector in enumerate(given)]
    while assign(connection, most):
        pass
    ids: dict[uuid.UUID | None, int] = {}
    assert [ids.setdefault(cluster_of(connection, span), len(ids)) for span in spans] == expected
    whole(connection)


def test_without_vectors_there_are_no_clusters_and_every_view_is_empty(connection: Connection) -> None:
    assert assign(connection) == 0
    views = ("clusters", "cluster_members", "cluster_status", "quality_by_cluster", "cluster_growth")
    for view in (*views, "cluster_consistency", "rephrases_by_cluster"):
        assert rows(connection, f"select * from flywheel.{view}") == []


def test_one_and_constant_inputs_make_one_cluster_without_false_certainty(connection: Connection) -> None:
    ask(connection, unit(1), out=unit(1))
    assign(connection)
    said = rows(connection, "select n, input_cohesion, gap, inconsistent from flywheel.cluster_consistency")
    assert said == [(1, None, None, None)]
    for _ in range(6):
        ask(connection, unit(1), out=unit(1))
    assign(connection)
    assert rows(connection, "select n, share from flywheel.clusters") == [(7, 1.0)]
    said = rows(connection, "select n, input_cohesion, output_cohesion, inconsistent from flywheel.cluster_consistency")
    assert said == [(7, pytest.approx(1, abs=1e-3), pytest.approx(1, abs=1e-3), False)]
    whole(connection)


def test_projects_have_clusters_of_their_own_and_unsampled_traces_have_none(connection: Connection) -> None:
    ask(connection, unit(1), project="one")
    ask(connection, unit(1), project="two")
    assert assign(connection) == 2
    connection.execute("update flywheel.embedders set span_permille = 0")
    ask(connection, unit(1), project="three")
    assert assign(connection) == 1
    assert rows(connection, "select project, n from flywheel.clusters order by 1") == [("one", 1), ("two", 1)]
