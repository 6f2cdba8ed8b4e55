"""Clusters by night: groups, ids and names that stay, merging and letting go."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from tests.sql.clustering import ask, assign, cluster_ids, cluster_of, sampled, setting, whole
from tests.sql.exampling import at, unit
from tests.sql.support import Connection, refused, rows, value

__all__ = ["sampled"]


def regroup(connection: Connection, groups: dict[uuid.UUID, int], kept: Sequence[uuid.UUID | None]) -> int:
    """Let spans go to groups, as a worker does that has looked at them."""
    query = """select flywheel._regroup_clusters('default',
                        (select embedder_id from flywheel.embedders where status = 'serving'),
                        array_agg(span_id order by place), array_agg(started_at order by place),
                        %s::integer[], %s::uuid[])
                 from unnest(%s::uuid[]) with ordinality as given(span_id, place) join flywheel.spans using (span_id)"""
    return int(value(connection, query, [list(groups.values()), list(kept), list(groups)]))


def tidy(connection: Connection) -> int:
    query = "select flywheel._tidy_clusters('default', embedder_id) from flywheel.embedders where status = 'serving'"
    return int(value(connection, query))


def test_names_of_people_stay_and_can_be_taken_back(connection: Connection) -> None:
    ask(connection, unit(1))
    assign(connection)
    (cluster,) = cluster_ids(connection)
    name = "select name, named_by from flywheel.clusters"
    assert rows(connection, name) == [(f"cluster {str(cluster)[-8:]}", None)]
    connection.execute("select flywheel._word_clusters(array[%s::uuid], '{5}', '{card lost}')", [cluster])
    assert rows(connection, name) == [("card lost", None)]
    hostile = "'; drop table x; -- \x1b[31m"
    connection.execute("select flywheel.rename_cluster(%s, %s, 'ada')", [cluster, hostile])
    connection.execute("select flywheel._word_clusters(array[%s::uuid], '{9}', '{other words}')", [cluster])
    assert rows(connection, name) == [(hostile, "ada")]
    connection.execute("select flywheel.rename_cluster(%s, ' ')", [cluster])
    assert rows(connection, name) == [("other words", None)]
    refusal = refused(connection, "select flywheel.rename_cluster(flywheel.new_id(), 'x')")
    assert "there is no cluster" in str(refusal.message_primary)
    assert refused(connection, "select flywheel.rename_cluster(%s, %s)", [cluster, "x" * 101]).sqlstate == "WF009"


def test_groups_keep_ids_and_what_went_up_in_them_is_merged(connection: Connection) -> None:
    a, b, c = (ask(connection, unit(1), seconds=1) for _ in range(3))
    d = ask(connection, at(0.5, 1), seconds=2)
    e = ask(connection, unit(0, 0, 0, 1), seconds=3)
    assign(connection)
    one, two, three = cluster_ids(connection)
    assert regroup(connection, {a: 0, b: 0, c: 0, d: 0, e: -1}, [one]) == 1
    whole(connection)
    assert {cluster_of(connection, span) for span in (a, b, c, d)} == {one}
    assert cluster_of(connection, e) == three
    merged = "select cluster_id, status, merged_into from flywheel.clusters where cluster_id <> %s order by 2"
    assert rows(connection, merged, [one]) == [(two, "merged", one), (three, "open", None)]
    ask(connection, unit(1))
    assign(connection)
    assert rows(connection, "select n from flywheel.clusters where status = 'open' order by 1") == [(1,), (5,)]


def test_a_name_goes_along_when_its_cluster_is_merged(connection: Connection) -> None:
    a, b, c = (
        ask(connection, unit(1), seconds=1),
        ask(connection, unit(1), seconds=2),
        ask(connection, at(0.5, 1), seconds=3),
    )
    assign(connection)
    one, two = cluster_ids(connection)
    connection.execute("select flywheel.rename_cluster(%s, 'lost card', 'ada')", [two])
    regroup(connection, {a: 0, b: 0, c: 0}, [one])
    assert rows(connection, "select name, n from flywheel.clusters where cluster_id = %s", [one]) == [("lost card", 3)]
    whole(connection)


def test_a_new_group_gets_a_new_id_and_unknown_spans_do_no_harm(connection: Connection) -> None:
    a, b = ask(connection, unit(1), seconds=1), ask(connection, unit(1), seconds=2)
    assign(connection)
    (one,) = cluster_ids(connection)
    regroup(connection, {a: 0, b: 1}, [one, None])
    assert cluster_of(connection, a) == one != cluster_of(connection, b)
    connection.execute("delete from flywheel._cluster_members where span_id = %s", [b])
    regroup(connection, {a: 0, b: 1}, [uuid.uuid4(), None])
    tidy(connection)
    whole(connection)
    assert value(connection, "select count(*) from flywheel.clusters where n > 0") == 1


def test_who_is_in_no_group_goes_to_the_nearest_cluster_or_to_none(connection: Connection) -> None:
    a, b = ask(connection, unit(1), seconds=1), ask(connection, at(0.9, 1), seconds=2)
    c = ask(connection, unit(0, 0, 0, 1), seconds=3)
    assign(connection)
    one, two = cluster_ids(connection)
    connection.execute("update flywheel._cluster_members set cluster_id = %s where span_id = %s", [two, b])
    setting(connection, "cluster_permille_hashing", 900)
    regroup(connection, {a: 0, b: -1, c: 0}, [two])
    assert cluster_of(connection, b) is None
    setting(connection, "cluster_permille_hashing", 600)
    regroup(connection, {a: 0, b: -1, c: 0}, [two])
    assert cluster_of(connection, b) == two != one
    whole(connection)


def test_clusters_that_grew_together_become_one_at_night(connection: Connection) -> None:
    setting(connection, "cluster_permille_hashing", 970)
    for place in range(3):
        ask(connection, unit(1), seconds=place)
    ask(connection, at(0.95, 1), seconds=5)
    assign(connection)
    assert len(cluster_ids(connection)) == 2
    assert tidy(connection) == 0
    setting(connection, "cluster_permille_hashing", 800)
    assert tidy(connection) == 1
    assert rows(connection, "select n, status from flywheel.clusters order by 1") == [(0, "merged"), (4, "open")]
    whole(connection)


def test_small_clusters_nobody_came_to_are_let_go(connection: Connection) -> None:
    ask(connection, unit(1), days=9)
    ask(connection, unit(0, 1), days=1)
    assign(connection)
    tidy(connection)
    assert rows(connection, "select n from flywheel.clusters") == [(1,)]
    assert rows(connection, "select members, clustered from flywheel.cluster_status") == [(2, 1)]


def test_when_there_are_too_many_clusters_the_rest_waits_for_the_night(connection: Connection) -> None:
    setting(connection, "cluster_most", 1)
    spans = [ask(connection, vector, seconds=place) for place, vector in enumerate([unit(1), unit(0, 1), unit(1)])]
    assign(connection)
    assert cluster_of(connection, spans[0]) == cluster_of(connection, spans[2])
    assert cluster_of(connection, spans[1]) is None
    whole(connection)
