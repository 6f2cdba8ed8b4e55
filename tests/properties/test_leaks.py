"""Leaks: whatever the graph of groups, sessions, traces, splits and labels, no prompt holds a row it must not hold."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.sql.exampling import DIMENSIONS, POLITE, label, polite
from tests.sql.support import Connection, insert, rows, value, version_id

SHARED = settings(max_examples=40)
STRATEGIES = [
    "similar",
    "recent",
    "similar_recent",
    "disagreement_first",
    "fixed_first",
    "any_plus_fixed",
    "diverse",
    "random",
]
FEW = st.integers(0, 5)


@dataclass(frozen=True)
class Row:
    """One span of a graph: where it belongs, what people say of it, and where its vector points."""

    group: int | None
    session: int | None
    trace: int
    user: int | None
    said: str
    direction: int
    embedded: bool


ROWS = st.lists(
    st.builds(
        Row,
        st.none() | FEW,
        st.none() | FEW,
        FEW,
        st.none() | FEW,
        st.sampled_from(["pass", "fail", "fix", "withdrawn", "disputed", "nothing"]),
        st.integers(0, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=14,
)


def build(connection: Connection, graph: list[Row]) -> list[uuid.UUID]:
    """Insert a graph in place of the one before."""
    connection.execute("truncate flywheel.labels, flywheel.fixes, flywheel.examples, flywheel.spans cascade")
    return [_row(connection, number, row) for number, row in enumerate(graph)]


def _row(connection: Connection, number: int, row: Row) -> uuid.UUID:
    span_id = insert(
        connection,
        f"answer {number}",
        trace_id=uuid.UUID(int=row.trace + 1),
        session_id=None if row.session is None else f"session {row.session}",
        user_id=None if row.user is None else f"user {row.user}",
        attributes=Jsonb({} if row.group is None else {"group_key": f"group {row.group}"}),
        node="answer",
    )
    if row.said == "fix":
        connection.execute("select flywheel.record_fix(%s, 'better', 'ada', 'polite')", [span_id])
    elif row.said != "nothing":
        made = label(connection, span_id, row.said == "pass")
        if row.said == "withdrawn":
            connection.execute("select flywheel.withdraw_label(%s, 'ada')", [made])
        elif row.said == "disputed":
            label(connection, span_id, True, by="bob")
    if row.embedded:
        connection.execute(
            """insert into flywheel._example_embeddings
                      (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
               select example_id, embedder_id, part, validator_id, examples.status = 'servable', content_hash,
                      %s::real[]::halfvec
                 from flywheel.examples, flywheel.embedders, unnest('{item,input}'::text[]) as part
                where span_id = %s and embedders.status = 'serving'""",
            [_vector(row.direction), span_id],
        )
    return span_id


def _vector(direction: int) -> list[float]:
    vector = [0.1] * DIMENSIONS
    vector[direction] = 5.0
    return vector


def shown(connection: Connection, version: uuid.UUID, targets: list[uuid.UUID], graph: list[Row]) -> list[Any]:
    """Return target and shot of every prompt, with what must differ and the split of the label behind the shot."""
    query = """
      select target.span_id = e.span_id, target.trace_id = e.trace_id,
             flywheel._group_key(target) = flywheel._group_key(source), coalesce(labels.split, fixes.split),
             flywheel._split(flywheel._group_key(source)), coalesce(labels.withdrawn, false), e.status
        from (select array_agg(span_id order by place) as ids, array_agg(started_at order by place) as times
                from unnest(%s::uuid[]) with ordinality as given(span_id, place)
                join flywheel.spans using (span_id)) as asked
       cross join lateral flywheel._shots_for(%s, asked.ids, asked.times, %s::real[], 384) as shot
        join flywheel.examples as e using (example_id)
        join flywheel.spans as source on source.span_id = e.span_id
        left join flywheel.labels using (label_id) left join flywheel.fixes using (fix_id)
        join flywheel.spans as target on target.span_id = asked.ids[shot.place]"""
    numbers = [number for row in graph for number in _vector(row.direction)]
    return rows(connection, query, [targets, version, numbers])


@SHARED
@given(ROWS, st.sampled_from(STRATEGIES))
def test_no_dev_or_test_row_and_nothing_of_its_own_group_or_trace_is_ever_shown(
    connection: Connection, graph: list[Row], strategy: str
) -> None:
    polite(connection, shots={"strategy": strategy, "count": 50})
    targets = build(connection, graph)
    newest = "select version from flywheel.validator_versions where status = 'active' limit 1"
    version = version_id(connection, "polite", value(connection, newest))
    for same_span, same_trace, same_group, split, cut, withdrawn, status in shown(connection, version, targets, graph):
        assert (same_span, same_trace, same_group, withdrawn) == (False, False, False, False)
        assert (split, cut, status) == ("train", "train", "servable")


@SHARED
@given(ROWS, st.sampled_from(STRATEGIES), FEW)
def test_an_application_is_never_shown_its_own_group_nor_what_somebody_failed(
    connection: Connection, graph: list[Row], strategy: str, group: int
) -> None:
    if not rows(connection, "select from flywheel.validators"):
        polite(connection, **POLITE)
    build(connection, graph)
    query = """
      select e.group_key, coalesce(labels.split, fixes.split), e.kind, e.passed
        from flywheel.retrieve_examples(
               'default', 'answer', 'x', 50, %s, embedding => %s::real[], group_key => %s) as shot
        join flywheel.examples as e using (example_id)
        left join flywheel.labels using (label_id) left join flywheel.fixes using (fix_id)"""
    found = rows(connection, query, [strategy, _vector(0), f"group {group}"])
    assert all(key != f"group {group}" and split == "train" for key, split, *_ in found)
    assert all(kind == "fix" or passed for _, _, kind, passed in found)


def test_the_graphs_are_not_all_empty(connection: Connection) -> None:
    version = polite(connection, shots={"strategy": "similar", "count": 50})
    graph = [Row(group, None, group, None, "pass", group % 4, True) for group in range(60)]
    targets = build(connection, graph)
    assert len(shown(connection, version, targets, graph)) > 100
