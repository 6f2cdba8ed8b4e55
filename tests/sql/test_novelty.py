"""Novelty: how unlike recent inputs an input is, for the application, for people and for drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.sql.drifting import cloud, days_ago, embedded, minutes_ago, status
from tests.sql.support import Connection, activate, insert, refused, rows, value

DIMENSIONS = 384


@pytest.fixture(autouse=True)
def sampled(connection: Connection) -> None:
    """Let the embedder that serves have all spans in its sample."""
    connection.execute("update flywheel.embedders set span_permille = 1000")


def known(connection: Connection, count: int = 150, **columns: str) -> None:
    """Let so many alike inputs be the recent ones."""
    embedded(connection, cloud(1, count, [1.0], width=0.2), days_ago(1), **columns)
    refresh(connection)


def refresh(connection: Connection) -> int:
    value(connection, "select flywheel._sum_embeddings(%s, %s)", [days_ago(2).date(), days_ago(0).date()])
    return int(value(connection, "select flywheel._refresh_novelty()"))


def padded(numbers: Sequence[float]) -> list[float]:
    return [*numbers, *[0.0] * (DIMENSIONS - len(numbers))]


def novelty(connection: Connection, numbers: Sequence[float], project: str = "default") -> tuple[Any, ...]:
    query = "select distance, percentile, novel, compared_with from flywheel.novelty(%s, %s::real[])"
    return rows(connection, query, [project, padded(numbers)])[0]


def test_an_input_like_the_others_is_not_novel_and_another_is(connection: Connection) -> None:
    known(connection)
    usual, strange = novelty(connection, [1.0]), novelty(connection, [0.0, 1.0])
    assert (usual[2], usual[3]) == (False, 150)
    assert strange[2] is True
    assert strange[0] > usual[0]
    assert strange[1] == 1.0
    assert novelty(connection, [5.0])[:3] == usual[:3]  # its length does not matter


def test_too_little_is_known_below_thirty_and_below_a_hundred_inputs(connection: Connection) -> None:
    assert novelty(connection, [1.0]) == (None, None, None, 0)
    known(connection, 29)
    assert novelty(connection, [0.0, 1.0])[1:] == (None, None, 29)
    known(connection, 31)
    assert novelty(connection, [0.0, 1.0])[1:] == (1.0, None, 60)
    assert novelty(connection, [1.0], "another")[3] == 0


def test_where_all_inputs_are_the_same_the_same_is_not_novel(connection: Connection) -> None:
    embedded(connection, [[1.0]] * 120, days_ago(1))
    refresh(connection)
    assert novelty(connection, [1.0])[1:3] == (0.0, False)
    assert novelty(connection, [1.0, 0.5])[1:3] == (1.0, True)


def test_what_is_no_embedding_of_this_embedder_is_refused_or_unknown(connection: Connection) -> None:
    known(connection)
    said = refused(connection, "select flywheel.novelty('default', '{1,2,3}')")
    assert said.message_primary == "an embedding of 3 numbers cannot be compared with those of 384"
    assert novelty(connection, [0.0])[:3] == (None, None, None)
    assert value(connection, "select (flywheel.novelty('default', null)).novel") is None
    for given in ("null", "3", "[]", '["x"]', '{"a": 1}', "[null]"):
        assert value(connection, "select flywheel.is_novel('default', %s::jsonb)", [given]) is None


def test_a_guardrail_blocks_a_novel_input_whose_embedding_comes_with_the_span(connection: Connection) -> None:
    known(connection)
    expression = "not coalesce(flywheel.is_novel(span.project, span.attributes -> 'embedding'), false)"
    activate(connection, "familiar", lane="inline", action="block", expression=expression, target="span")
    attributes = "select jsonb_build_object('embedding', %s::real[])::text"
    insert(connection, attributes=value(connection, attributes, [padded([1.0])]))
    insert(connection)  # without an embedding nothing is known
    strange = value(connection, attributes, [padded([0.0, 1.0])])
    said = refused(connection, "insert into flywheel.spans (input, attributes) values ('in', %s)", [strange])
    assert said.sqlstate == "WF001"
    assert said.constraint_name == "familiar"


def test_spans_embedded_since_are_compared_and_the_novel_ones_listed(connection: Connection) -> None:
    hostile = "a'; drop table flywheel.spans; --\x1b[31m"
    known(connection, project=hostile)
    embedded(connection, cloud(2, 5, [1.0], width=0.1), minutes_ago(10), project=hostile)
    embedded(connection, [[0.0, 1.0]], minutes_ago(9), project=hostile, node="odd")
    assert refresh(connection) >= 6
    assert refresh(connection) == 0
    listed = rows(
        connection, "select project, node from flywheel.novel_spans where started_at > now() - interval '1 hour'"
    )
    assert listed == [(hostile, "odd")]


def test_a_day_with_many_novel_inputs_drifts_and_a_usual_day_does_not(connection: Connection) -> None:
    for project in ("usual", "changed"):
        embedded(connection, cloud(1, 150, [1.0], width=0.2), days_ago(3), project=project)
        value(connection, "select flywheel._sum_embeddings(%s, %s)", [days_ago(3).date(), days_ago(3).date()])
    refresh(connection)
    embedded(connection, cloud(2, 60, [1.0], width=0.15), days_ago(1), project="usual")
    embedded(connection, cloud(3, 45, [1.0], width=0.15), days_ago(1), project="changed")
    embedded(connection, cloud(4, 9, [0.0, 1.0]), days_ago(1), project="changed")
    connection.execute("update flywheel._novelty_references set fitted_at = now(), n = 1000")  # not drawn anew
    refresh(connection)
    said = {where: found[0] for (_, where), found in status(connection, "novelty").items()}
    assert said == {"project usual": False, "project changed": True}
    evidence = value(
        connection, "select evidence from flywheel.drift_status where slice = 'project changed' and kind = 'novelty'"
    )
    assert len(evidence["spans"]) == 10


def test_inputs_older_than_a_month_are_not_compared_with_and_a_silent_project_is_forgotten(
    connection: Connection,
) -> None:
    embedded(connection, cloud(1, 40, [0.0, 1.0]), days_ago(40))
    known(connection)
    assert novelty(connection, [0.0, 1.0])[2:] == (True, 150)
    connection.execute("update flywheel._novelty_references set fitted_at = now() - interval '31 days'")
    connection.execute("delete from flywheel._embedding_days")
    value(connection, "select flywheel._refresh_novelty()")
    assert novelty(connection, [0.0, 1.0])[3] == 0
    assert value(connection, "select count(*) from flywheel._novelty_points") == 0
