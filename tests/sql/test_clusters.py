"""Clusters: who joins which, sums that equal their members, and what views say of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.sql.clustering import ask, assign, cluster_ids, cluster_of, embed, sampled, setting, whole
from tests.sql.drifting import cloud
from tests.sql.exampling import unit
from tests.sql.reference import case
from tests.sql.support import Connection, inline, insert, refused, rows, value

__all__ = ["sampled"]


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
    for view in (*views, "cluster_consistency", "rephrases_by_cluster", "rephrased_topics"):
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


def test_a_span_whose_text_changes_leaves_its_cluster(connection: Connection) -> None:
    first, second = ask(connection, unit(1)), ask(connection, unit(1))
    assign(connection)
    before = cluster_of(connection, first)
    started_at = value(connection, "select started_at from flywheel.spans where span_id = %s", [first])
    embed(connection, first, started_at, unit(0, 1))
    assert assign(connection) == 1
    assert cluster_of(connection, second) == before != cluster_of(connection, first)
    assert sorted(rows(connection, "select n from flywheel.clusters")) == [(1,), (1,)]
    whole(connection)


def test_purged_days_leave_their_clusters_and_named_ones_stay(connection: Connection) -> None:
    connection.execute("select flywheel.ensure_partitions(current_date - 6, current_date + 1)")
    for vector, days in ((unit(1), 5), (unit(1), 0), (unit(0, 1), 5), (unit(0, 0, 1), 5)):
        ask(connection, vector, days=days)
    assign(connection)
    named = value(connection, "select cluster_id from flywheel.clusters where n = 1 order by cluster_id limit 1")
    connection.execute("select flywheel.rename_cluster(%s, 'lost card', 'ada')", [named])
    first_seen = value(connection, "select first_seen_at from flywheel.clusters where n = 2")
    connection.execute("select flywheel.purge(now() - interval '2 days')")
    assert rows(connection, "select n, named_by, status from flywheel.clusters order by 1") == [
        (0, "ada", "open"),
        (1, None, "open"),
    ]
    assert value(connection, "select first_seen_at from flywheel.clusters where n = 1") == first_seen
    assert value(connection, "select count(*) from flywheel.cluster_members") == 1
    whole(connection)


def test_two_workers_do_not_count_a_span_twice(connection: Connection, connect: Callable[[], Connection]) -> None:
    for place in range(5):
        ask(connection, unit(1), seconds=place)
    other = connect()
    with connection.transaction():
        assert assign(connection, 3) == 3
        assert assign(other) == 0
    assert assign(other) == 2
    assert rows(connection, "select n from flywheel.clusters") == [(5,)]
    whole(connection)


def test_a_crash_in_the_middle_leaves_everything_for_the_next_time(connection: Connection) -> None:
    for place in range(4):
        ask(connection, unit(1), seconds=place)
    assign(connection, 2)
    with connection.transaction(force_rollback=True):
        assert assign(connection) == 2
    assert rows(connection, "select n from flywheel.clusters") == [(2,)]
    assert value(connection, "select waiting from flywheel.cluster_status") == 2
    whole(connection)
    assert assign(connection) == 2
    whole(connection)


def test_a_sum_that_is_not_of_its_members_is_found(connection: Connection) -> None:
    for place in range(3):
        ask(connection, unit(1), seconds=place)
    assign(connection)
    connection.execute(
        "delete from flywheel._cluster_members where span_id = (select min(span_id::text)::uuid from flywheel.spans)"
    )
    assert rows(connection, "select n, members from flywheel.verify_clusters()") == [(3, 2)]


def test_quality_by_cluster_adds_up(connection: Connection) -> None:
    inline(connection, "short")
    for vector, output in [
        (unit(1), "good"),
        (unit(1), "much too long an answer"),
        (unit(0, 1), "good"),
        (unit(0, 1), "also"),
    ]:
        ask(connection, vector, output)
    assign(connection)
    query = """select n, judged, passed, pass_rate, volume_share, pass_low > 0, pass_high < 1
                 from flywheel.quality_by_cluster order by pass_rate"""
    assert rows(connection, query) == [(2, 2, 1, 0.5, 0.5, True, True), (2, 2, 2, 1.0, 0.5, True, False)]


def test_growth_compares_shares_of_weeks(connection: Connection) -> None:
    for days in range(14):
        for place in range(20):
            ask(connection, unit(1) if place >= (12 if days < 7 else 2) else unit(0, 1), days=days, seconds=place)
    for place in range(3):
        ask(connection, unit(0, 0, 1), seconds=place)
    assign(connection)
    query = """select week_n, previous_week_n, round(growth::numeric, 2)::float8, is_new, grows
                 from flywheel.cluster_growth
                where time = date_trunc('day', now(), 'UTC') order by week_n"""
    assert rows(connection, query) == [
        (3, 0, None, True, False),
        (56, 126, 0.44, False, False),
        (84, 14, 5.87, False, True),
    ]


def test_the_same_question_with_different_answers_is_told(connection: Connection) -> None:
    for number in range(6):
        ask(connection, unit(1), "same", unit(1), project="alike")
        ask(connection, unit(1), f"answer {number}", unit(*[0.0] * number, 1), project="unlike")
        ask(connection, unit(1), f"answer {number % 2}", project="texts")
        ask(connection, unit(1), None, project="silent")
    assign(connection)
    query = """select project, answers, round(input_cohesion::numeric, 2)::float8,
                      round(output_cohesion::numeric, 2)::float8, measured_by, inconsistent
                 from flywheel.cluster_consistency order by 1"""
    assert rows(connection, query) == [
        ("alike", 6, 1.0, 1.0, "embedding", False),
        ("silent", 0, 1.0, None, None, None),
        ("texts", 6, 1.0, 0.4, "exact answers", True),
        ("unlike", 6, 1.0, 0.0, "embedding", True),
    ]


def test_what_users_ask_again_is_told_by_cluster(connection: Connection) -> None:
    session: dict[str, Any] = {"session_id": "s", "user_id": "u"}
    ask(connection, unit(1), input="how do I get my money back", **session)
    ask(connection, unit(1), input="how do i get the money back please", seconds=20, **session)
    ask(connection, unit(0, 1), input="something else entirely", seconds=60, **session)
    assign(connection)
    query = """select turns, rephrased + retried
                 from flywheel.rephrases_by_cluster(now() - interval '2 days', now() + interval '1 day')
                order by 1"""
    assert rows(connection, query) == [(1, 0), (2, 1)]


def test_topics_asked_about_again_are_clusters_and_nodes_where_there_are_none(connection: Connection) -> None:
    for place, text in enumerate(("how do I get my money back", "how do i get the money back please")):
        for session in "ab":
            ask(connection, unit(1), input=text, seconds=place * 20, session_id=session, user_id="u", node="writer")
            insert(connection, input=text, session_id=f"{session} unsampled", user_id="u", node="writer")
    ask(connection, unit(0, 1), input="something else entirely", session_id="c", user_id="u", node="writer")
    assign(connection)
    connection.execute("select flywheel.rename_cluster(cluster_id, 'money') from flywheel.clusters where n = 4")
    query = """select topic_kind, turns, rephrased + retried, rephrase_low, topic, cluster_id is null
                 from flywheel.rephrased_topics(now() - interval '2 days', now() + interval '1 day')"""
    topics = rows(connection, query)
    assert sorted(topic[:3] for topic in topics) == [("cluster", 1, 0), ("cluster", 4, 2), ("node", 4, 2)]
    assert {topic[4:] for topic in topics if topic[1] == 4} == {("money", False), ("writer", True)}
    assert [topic[3] for topic in topics] == sorted((topic[3] for topic in topics), reverse=True)


def test_analysts_read_names_and_no_texts(connection: Connection) -> None:
    ask(connection, unit(1), "fine")
    assign(connection)
    (cluster,) = cluster_ids(connection)
    examples = "select input, output from flywheel.cluster_examples(%s)"
    assert rows(connection, examples, [cluster]) == [("how do I pay", "fine")]
    with connection.transaction():
        connection.execute("set local role flywheel_analyst")
        views = ("clusters", "cluster_members", "cluster_status", "quality_by_cluster", "cluster_growth")
        for view in (*views, "cluster_consistency", "rephrases_by_cluster", "rephrased_topics"):
            connection.execute(f"select * from flywheel.{view}".encode())
    connection.execute("set role flywheel_analyst")
    for query in (examples, "select flywheel.rename_cluster(%s, 'x')"):
        assert refused(connection, query, [cluster]).sqlstate == "42501"
    assert refused(connection, "select embedding from flywheel._cluster_members").sqlstate == "42501"


def test_clouds_far_apart_are_clusters(connection: Connection) -> None:
    setting(connection, "cluster_permille_hashing", 600)
    for seed, centre in enumerate(([1.0], [0.0, 1.0], [0.0, 0.0, 1.0])):
        for place, vector in enumerate(cloud(seed, 10, centre, 0.3)):
            ask(connection, vector, seconds=10 * place + seed)
    assign(connection)
    assert [n for (n,) in rows(connection, "select n from flywheel.clusters")] == [10, 10, 10]
    whole(connection)


def test_what_another_embedder_made_joins_when_that_one_serves(connection: Connection) -> None:
    span = ask(connection, unit(1))
    assign(connection)
    before = cluster_of(connection, span)
    connection.execute("select flywheel.add_embedder('wide', 'hashing', null, null, 384, '{}', 1000)")
    connection.execute(
        """insert into flywheel.span_embeddings
                  (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
           select made.span_id, made.started_at, 1, embedders.embedder_id, 'input', '', made.embedding
             from flywheel.span_embeddings as made, flywheel.embedders where embedders.name = 'wide'"""
    )
    assert assign(connection) == 0
    connection.execute("select flywheel.serve_embedder('wide')")
    assert rows(connection, "select status from flywheel.clusters") == [("former",)]
    assert assign(connection) == 1
    assert cluster_of(connection, span) not in (None, before)
    assert rows(connection, "select status, n from flywheel.clusters order by 1") == [("former", 1), ("open", 1)]
    whole(connection)
