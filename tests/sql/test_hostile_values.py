"""What applications write may be huge or no number: nothing that counts it stops."""

from __future__ import annotations

import random
import uuid

import pytest

from tests.sql.drifting import cloud, days_ago, embedded
from tests.sql.support import Connection, refused, rows, value

LONG = "".join(random.Random(1).choices([chr(code) for code in range(0x10000, 0x10FFF)], k=3000))


def test_a_rating_beyond_all_scales_breaks_no_view(connection: Connection) -> None:
    for rating in (1e308, 1e308, 4.0):
        connection.execute(
            "insert into flywheel.feedback (feedback_id, span_id, kind, value) values (%s, %s, 'rating', %s)",
            [uuid.uuid4(), uuid.uuid4(), rating],
        )
    assert rows(connection, "select ratings, mean_rating from flywheel.feedback_by_day") == [(1, 4.0)]


def test_names_too_long_for_an_index_stop_no_test_of_drift(connection: Connection) -> None:
    names = ("shop", LONG)
    for project in names:
        for node in names:
            connection.execute(
                "insert into flywheel.spans (started_at, project, node, input) values (%s, %s, %s, 'some words')",
                [days_ago(1), project, node],
            )
    connection.execute("select flywheel._test_drift()")
    assert value(connection, "select sum(n) from flywheel._length_days where (project, node) = ('shop', 'shop')") == 1
    assert value(connection, "select sum(n) from flywheel._length_days") == 4


def test_the_last_day_of_the_calendar_can_be_counted_anew(connection: Connection) -> None:
    connection.execute("insert into flywheel.spans (started_at) values ('294276-12-31 23:59:59.999999Z')")
    assert value(connection, "select flywheel.rebuild_rollups()") == 1
    assert value(connection, "select flywheel._rebuild_asked()") == 1
    assert rows(connection, "select * from flywheel.verify_rollups()") == []


def test_names_too_long_for_an_index_keep_no_vector_out(connection: Connection) -> None:
    connection.execute("update flywheel.embedders set span_permille = 1000")
    for project in ("shop", LONG):
        embedded(connection, cloud(1, 40, [1.0]), days_ago(1), project=project, node=project)
    connection.execute("select flywheel._test_drift()")
    connection.execute("select flywheel._refresh_novelty()")
    connection.execute("select flywheel._assign_clusters()")
    assert value(connection, "select sum(n) from flywheel._embedding_days where part = 'input'") == 80
    assert rows(connection, "select n from flywheel._novelty_references") == [(40,), (40,)]
    vector = "(select embedding::public.vector::real[] from flywheel.span_embeddings limit 1)"
    assert value(connection, f"select compared_with from flywheel.novelty(%s, {vector})", [LONG]) == 40
    assert value(connection, "select count(*) from flywheel._cluster_members") == 80


def test_a_long_span_that_went_elsewhere_leaves_no_difference(connection: Connection) -> None:
    lasting = """insert into flywheel.spans (started_at, ended_at)
                 select %s, %s + n * interval '7 hours 123.457 milliseconds' from generate_series(1000, 1003) as n"""
    connection.execute(lasting, [days_ago(1), days_ago(1)])
    moved = """update flywheel.spans set node = node || 'a'
                where ended_at < (select max(ended_at) from flywheel.spans)"""
    for _ in range(3):
        connection.execute("select flywheel._fold()")
        connection.execute(moved)
        assert rows(connection, "select * from flywheel.verify_rollups()") == []
    connection.execute("delete from flywheel.spans")
    assert rows(connection, "select * from flywheel.verify_rollups()") == []
    connection.execute("select flywheel._fold()")
    assert value(connection, "select count(*) from flywheel._span_rollups") == 0


@pytest.mark.parametrize("days", ["30.0", "1e400", "-1", '"30"'])
def test_days_of_a_metric_that_are_no_whole_number_are_refused_in_words(connection: Connection, days: str) -> None:
    said = refused(connection, "select flywheel.define_metric('m', %s)", [f'{{"measure": "requests", "days": {days}}}'])
    assert "not a whole number from 1 to 3660" in str(said.message_primary)


def test_a_rule_is_refused_that_could_not_be_evaluated(connection: Connection) -> None:
    rule = '{"metric": "error_rate", "threshold": 0.1, "minimum_n": 30.0}'
    said = refused(connection, "select flywheel.set_alert_rule('errors', %s)", [rule])
    assert "minimum_n is 30.0, not a whole number" in str(said.message_primary)


def test_an_unknown_release_is_compared_with_nothing(connection: Connection) -> None:
    assert rows(connection, "select * from flywheel.compare_releases('polite', null, 'r2')") == []


def test_an_analyst_reads_all_of_the_status_of_rollups(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("set local role flywheel_analyst")
        assert len(rows(connection, "select * from flywheel.rollup_status")) == 1


def test_costs_that_cannot_be_added_up_break_no_summary_of_traces(connection: Connection) -> None:
    trace = uuid.uuid4()
    for cost in (1e308, 1e308, float("nan"), float("inf"), 0.25):
        connection.execute("insert into flywheel.spans (trace_id, cost_usd) values (%s, %s)", [trace, cost])
    assert rows(connection, "select spans, cost_usd from flywheel.trace_summary") == [(5, 0.25)]
