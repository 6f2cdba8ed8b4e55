"""Sampling: a replay picks the same traces, a higher rate takes in those of a lower one."""

from __future__ import annotations

import uuid

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.sql.support import Connection, activate, define, insert, rows, scores, value

SHARED = settings(max_examples=60)
rates = st.floats(min_value=1e-6, max_value=1, exclude_min=True)
names = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)
TRACES = [uuid.uuid5(uuid.NAMESPACE_URL, str(place)) for place in range(4_000)]


def picked(connection: Connection, name: str, rate: float, traces: list[uuid.UUID]) -> set[uuid.UUID]:
    predicate = value(connection, "select coalesce(flywheel._sample_sql(%s, %s), 'true')", [name, rate])
    query = f"select span.trace_id from unnest(%s::uuid[]) as span(trace_id) where {predicate}"
    return {trace_id for (trace_id,) in rows(connection, query, [traces])}


@SHARED
@given(names, rates, rates, st.lists(st.uuids(), max_size=200))
@example("short", 0.1, 1.0, TRACES[:50])
def test_a_higher_rate_takes_in_the_traces_of_a_lower_one(
    connection: Connection, name: str, one: float, other: float, traces: list[uuid.UUID]
) -> None:
    low, high = sorted((one, other))
    assert picked(connection, name, low, traces) <= picked(connection, name, high, traces)


@SHARED
@given(names, rates, st.lists(st.uuids(), unique=True, max_size=50), st.randoms(use_true_random=False))
def test_who_is_picked_depends_on_the_trace_alone(
    connection: Connection, name: str, rate: float, traces: list[uuid.UUID], random: object
) -> None:
    together = picked(connection, name, rate, traces)
    one_by_one = {trace for trace in traces if picked(connection, name, rate, [trace])}
    assert together == one_by_one


def test_the_share_is_the_rate(connection: Connection) -> None:
    for rate in (0.01, 0.1, 0.5, 0.9):
        share = len(picked(connection, "short", rate, TRACES)) / len(TRACES)
        assert abs(share - rate) < 4 * (rate * (1 - rate) / len(TRACES)) ** 0.5
    assert picked(connection, "short", 1, TRACES) == set(TRACES)


def test_two_validators_pick_different_traces(connection: Connection) -> None:
    both = picked(connection, "one", 0.5, TRACES) & picked(connection, "other", 0.5, TRACES)
    assert 0.2 < len(both) / len(TRACES) < 0.3


def test_every_span_of_a_trace_is_judged_or_none(connection: Connection) -> None:
    activate(connection, "half", lane="inline", sample=0.5, expression="true")
    for trace in TRACES[:100]:
        for _ in range(3):
            insert(connection, trace_id=trace)
    judged = rows(connection, "select trace_id, count(*) from flywheel.current_scores group by 1")
    assert {count for _, count in judged} == {3}
    assert {trace for trace, _ in judged} == picked(connection, "half", 0.5, TRACES[:100])


def test_a_replay_of_the_same_spans_is_scored_the_same(connection: Connection) -> None:
    activate(connection, "half", lane="inline", sample=0.5, expression="true")
    outcomes = []
    for _ in range(2):
        for trace in TRACES[:50]:
            insert(connection, trace_id=trace, span_id=trace)
        outcomes.append(scores(connection))
        connection.execute("delete from flywheel.spans")
        connection.execute("delete from flywheel.scores")
    assert outcomes[0] == outcomes[1]
    assert 10 < len(outcomes[0]) < 40


def test_a_new_version_at_a_higher_rate_keeps_the_traces(connection: Connection) -> None:
    activate(connection, "some", lane="inline", sample=0.2, expression="true")
    for trace in TRACES[:200]:
        insert(connection, trace_id=trace)
    before = {trace for (trace,) in rows(connection, "select trace_id from flywheel.current_scores")}
    define(connection, "some", lane="inline", sample=0.6, expression="true")
    connection.execute("select flywheel.activate_validator('some')")
    for trace in TRACES[:200]:
        insert(connection, trace_id=trace)
    after = {trace for (trace,) in rows(connection, "select trace_id from flywheel.current_scores where version = 2")}
    assert before < after
