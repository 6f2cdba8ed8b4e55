"""Neighbours: the weighted vote of the nearest examples."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.sql.blocking import meanwhile
from tests.sql.exampling import at, embed, example, polite, span, unit
from tests.sql.support import Connection, refused, rows, value

KEYS = "array_agg((span_id, revision, started_at, trace_id, project)::flywheel._span_key)"


def vote(connection: Connection, version_id: uuid.UUID, span_id: uuid.UUID, vector: list[float]) -> dict[str, Any]:
    """Return what the neighbours of a span say."""
    query = """select vote.passed, vote.value, vote.confidence, vote.critique, vote.shots, vote.reason, vote.detail
                 from flywheel.spans,
                      flywheel._vote_neighbours(%s, array[span_id], array[started_at], %s::real[], 384) as vote
                where span_id = %s"""
    names = ["passed", "value", "confidence", "critique", "shots", "reason", "detail"]
    return dict(zip(names, rows(connection, query, [version_id, vector, span_id])[0], strict=True))


def pool(connection: Connection, passed: list[bool]) -> list[uuid.UUID]:
    """Label so many spans; those that pass lie near unit(1), those that fail near unit(0, 1)."""
    made = []
    for number, each in enumerate(passed):
        made.append(example(connection, number, each, output=f"answer {number}"))
        near = at(0.9, number + 1)
        embed(connection, made[-1], *(near if each else [0.0, *near]))
    return made


@pytest.mark.parametrize(("vector", "passed"), [(unit(1), True), (unit(0, 1), False)])
def test_the_nearest_examples_decide(connection: Connection, vector: list[float], passed: bool) -> None:
    version_id = polite(connection)
    made = pool(connection, [True, False] * 5)
    said = vote(connection, version_id, span(connection, "dev"), vector)
    assert said["passed"] is passed
    assert said["confidence"] == pytest.approx(max(said["value"], 1 - said["value"]))
    assert said["confidence"] > 0.9
    assert set(said["shots"]) <= set(made)
    assert said["critique"] == (None if passed else "it is rude")


def test_the_vote_is_the_weighted_share_of_pass(connection: Connection) -> None:
    version_id = polite(connection)
    made = pool(connection, [True] * 6 + [False] * 3)
    connection.execute("update flywheel.examples set trust = 1 where example_id = %s", [made[0]])
    said = vote(connection, version_id, span(connection, "dev"), unit(1, 0.5))
    query = """select sum(weight) filter (where passed) / sum(weight) from (
                 select passed, exp(10 * (1 - (embedding <=> %s::real[]::halfvec))) * trust
                                  / case when passed then 6 else 3 end as weight
                   from flywheel.examples join flywheel._example_embeddings using (example_id)
                  where part = 'item') as v"""
    assert said["value"] == pytest.approx(value(connection, query, [unit(1, 0.5)]), abs=2e-2)


@pytest.mark.parametrize(
    ("passed", "detail"),
    [([True, False] * 3, "3 servable examples pass, 3 fail"), ([True] * 9, "9 servable examples pass, 0 fail")],
)
def test_too_few_examples_give_no_verdict(connection: Connection, passed: list[bool], detail: str) -> None:
    version_id = polite(connection)
    pool(connection, passed)
    said = vote(connection, version_id, span(connection, "dev"), unit(1))
    assert (said["passed"], said["reason"]) == (None, "no_examples")
    assert detail in said["detail"]


def test_minimum_says_how_many_are_enough(connection: Connection) -> None:
    version_id = polite(connection, shots={"minimum": 2})
    pool(connection, [True, False])
    assert vote(connection, version_id, span(connection, "dev"), unit(1))["passed"] is True


def test_scores_say_who_voted_and_how_sure_they_are(connection: Connection) -> None:
    version_id = polite(connection)
    pool(connection, [True, False] * 5)
    targets = [span(connection, "dev", number) for number in range(3)]
    write = f"""select flywheel._write_neighbours(%s, {KEYS}, %s::real[], 384)
                  from (select * from flywheel.spans where span_id = any (%s) order by span_id) as spans"""
    given = [version_id, unit(1) * 3, targets]
    assert value(connection, write, given) == 3
    assert value(connection, write, given) == 0
    query = """select passed, annotator_kind, confidence > 0.9, cardinality(shots) > 3, cost_usd
                 from flywheel.scores where version_id = %s"""
    assert rows(connection, query, [version_id]) == [(True, "neighbours", True, True, None)] * 3


@pytest.mark.parametrize("revoked_first", [True, False])
def test_an_example_revoked_while_it_votes_has_no_vote(
    connection: Connection, connect: Callable[[], Connection], revoked_first: bool
) -> None:
    version_id = polite(connection)
    nearest = pool(connection, [True, False] * 6)[0]
    target = span(connection, "dev")
    write = f"select flywheel._write_neighbours(%s, {KEYS}, %s::real[], 384) from flywheel.spans where span_id = %s"
    voting = (connect(), write, [version_id, unit(1), target])
    revoking = (connect(), "select flywheel.revoke_example(%s, 'wrong', true)", [nearest])
    first, second = (revoking, voting) if revoked_first else (voting, revoking)
    first[0].execute("begin")
    first[0].execute(first[1].encode(), first[2])
    with meanwhile(connection, *second):
        first[0].execute("commit")
    query = "select count(*) filter (where shots @> array[%s]), count(*) from flywheel.scores where version_id = %s"
    assert rows(connection, query, [nearest, version_id]) == [(0, int(revoked_first))]
    again = "select count(*) from flywheel._ready where lane = 'bulk' and span_ids = array[%s] and origin = 'replay'"
    assert value(connection, again, [target]) == int(not revoked_first)


def test_an_error_of_whoever_listens_to_scores_ends_a_vote_and_does_not_repeat_it(connection: Connection) -> None:
    version_id = polite(connection)
    pool(connection, [True, False] * 6)
    target = span(connection, "dev")
    connection.execute(
        """create function public.refuse() returns trigger language plpgsql as $$
           begin raise exception using errcode = 'WF012', message = 'not here'; end $$"""
    )
    connection.execute("create trigger refuse after insert on flywheel.scores execute function public.refuse()")
    connection.execute("set statement_timeout = '10s'")
    write = f"select flywheel._write_neighbours(%s, {KEYS}, %s::real[], 384) from flywheel.spans where span_id = %s"
    assert refused(connection, write, [version_id, unit(1), target]).sqlstate == "WF012"


def test_a_tier_of_a_cascade_votes_with_the_examples_of_its_question(connection: Connection) -> None:
    polite(connection)
    pool(connection, [True, False] * 5)
    version_id = polite(connection, "cheap_polite", labels_of="polite")
    assert vote(connection, version_id, span(connection, "dev"), unit(1))["passed"] is True
