"""Rollups: exact at any instant, whoever writes, folds, dies or waits meanwhile."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from tests.sql.counting import CELLS, FOLD, LABEL, PASSES, SCORE, differences, rebuild_all, short
from tests.sql.paying import judge, provider
from tests.sql.support import (
    Connection,
    insert,
    insert_past_triggers,
    refused,
    rows,
    value,
)

__all__ = ["short"]


WITHDRAW = "select flywheel.withdraw_label(label_id, 'ada') from flywheel.current_labels where annotator = 'ada'"
TRUE_AND_FALSE_PASSES = """
select coalesce(sum(tp), 0)::integer, coalesce(sum(fp), 0)::integer from flywheel._cell_counts where grain = 'day'"""
OF_MINUTE = """
select count(*) from flywheel._span_counts
 where grain = 'minute' and bucket = date_trunc('minute', %s::timestamptz)"""
WAITING = """
select (select count(*) from flywheel._score_changes) + (select count(*) from flywheel._span_changes)
     + (select count(*) from flywheel._span_deltas) + (select count(*) from flywheel._label_changes)"""


def test_counts_are_right_before_and_after_a_fold(connection: Connection, short: uuid.UUID) -> None:
    insert(connection, "yes", cost_usd=0.25, input_tokens=7)
    insert(connection, "a long answer")
    found = "select grain, n, passed, failed from flywheel._score_counts order by grain"
    expected = [(grain, 2, 1, 1) for grain in ("day", "hour", "minute")]
    assert rows(connection, found) == expected
    assert value(connection, FOLD) > 0
    assert value(connection, WAITING) == 0
    assert rows(connection, found) == expected
    spans = "select n, cost_usd, priced, input_tokens, metered from flywheel._span_counts where grain = 'day'"
    assert rows(connection, spans) == [(2, 0.25, 1, 7, 1)]
    assert differences(connection) == []


def test_verify_sees_a_difference_and_a_rebuild_mends_it(connection: Connection, short: uuid.UUID) -> None:
    insert_past_triggers(connection, 3)
    found = differences(connection)
    assert {(what, name, expected) for what, _, _, _, name, expected, _ in found} == {("spans", "n", 3.0)}
    assert value(connection, "select flywheel.rebuild_rollups()") == 1
    assert value(connection, "select waiting_days from flywheel.rollup_status") == 1
    rebuild_all(connection)
    assert differences(connection) == []
    assert value(connection, "select waiting_days from flywheel.rollup_status") == 0


def test_a_wrong_count_of_any_kind_is_seen(connection: Connection, short: uuid.UUID) -> None:
    connection.execute(LABEL, [insert(connection), True, "ada"])
    connection.execute(FOLD)
    for table, column in (("score", "passed"), ("score", "latency_ms"), ("span", "errors"), ("cell", "fp")):
        with connection.transaction(force_rollback=True):
            change = f"update flywheel._{table}_rollups set {column} = {column} + 1 where grain = 'hour'"
            connection.execute(change.encode())
            assert [(what, grain, name) for what, grain, _, _, name, *_ in differences(connection)] == [
                (f"{table}s", "hour", column)
            ]


def test_a_new_revision_takes_the_scores_of_the_one_before_away(connection: Connection, short: uuid.UUID) -> None:
    span = insert(connection, "yes")
    connection.execute(FOLD)
    connection.execute("update flywheel.spans set output = 'a longer answer' where span_id = %s", [span])
    assert value(connection, PASSES) == 0
    connection.execute(FOLD)
    assert value(connection, PASSES) == 0
    assert differences(connection) == []


def test_an_update_that_changes_no_count_writes_nothing(connection: Connection, short: uuid.UUID) -> None:
    insert(connection)
    connection.execute(FOLD)
    connection.execute("update flywheel.spans set user_id = 'somebody'")
    assert value(connection, WAITING) == 0


def test_scores_of_a_span_deleted_and_inserted_again_count_again(connection: Connection, short: uuid.UUID) -> None:
    span = insert(connection, "yes", started_at=datetime(2024, 5, 6, tzinfo=UTC))
    connection.execute(FOLD)
    connection.execute("select flywheel.pause_validator('short', 'only the counting matters here')")
    for fold_between in (True, False):
        connection.execute("delete from flywheel.spans")
        assert value(connection, PASSES) == 0
        if fold_between:
            connection.execute(FOLD)
        insert(connection, "yes", span_id=span, started_at=datetime(2024, 5, 6, tzinfo=UTC))
        assert value(connection, PASSES) == 1
        assert differences(connection) == []


def test_a_score_folded_before_its_span_counts_when_the_span_comes(connection: Connection, short: uuid.UUID) -> None:
    connection.execute("select flywheel.pause_validator('short', 'only the counting matters here')")
    early = "insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)"
    span = uuid.uuid4()
    moment = datetime(2024, 5, 6, tzinfo=UTC)
    connection.execute(f"{early} values (%s, 1, %s, %s, %s, 'default', true)".encode(), [span, short, moment, span])
    connection.execute(FOLD)
    assert value(connection, PASSES) == 0
    insert(connection, span_id=span, started_at=moment)
    assert value(connection, PASSES) == 1
    connection.execute(FOLD)
    assert differences(connection) == []


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "2024-02-29 23:59:59.999999+00", "2031-01-01 00:00+00"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_a_span_counts_in_its_own_minute_wherever_its_clock_stood(
    connection: Connection, short: uuid.UUID, moment: str, zone: str
) -> None:
    connection.execute("select set_config('timezone', %s, false)", [zone])
    insert(connection, started_at=moment)
    connection.execute("select flywheel.rebuild_rollups() from flywheel._fold()")
    assert differences(connection) == []
    rebuild_all(connection)
    assert differences(connection) == []
    assert value(connection, OF_MINUTE, [moment]) == 1


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "1e300"])
def test_an_amount_that_cannot_be_summed_counts_as_unknown(connection: Connection, short: uuid.UUID, cost: str) -> None:
    insert(connection, cost_usd=cost)
    insert(connection, cost_usd="0.5")
    for _ in range(2):
        query = "select sum(cost_usd), sum(priced)::integer from flywheel._span_counts where grain = 'day'"
        assert rows(connection, query) == [(0.5, 1)]
        assert differences(connection) == []
        connection.execute(FOLD)


def test_labels_move_cells_however_they_come(connection: Connection, short: uuid.UUID) -> None:
    span = insert(connection, "yes")
    said = value(connection, LABEL, [span, True, "ada"])
    steps = [
        ("select flywheel.relabel(%s, false, 'ada', 'why')", [said], (0, 1)),
        ("select flywheel.record_label(%s, 'short', true, 'bo')", [span], (0, 0)),  # they differ: no cell
        (WITHDRAW, [], (1, 0)),
        ("update flywheel.spans set node = 'other'", [], (1, 0)),
        ("update flywheel.scores set passed = false", [], (0, 0)),
        ("delete from flywheel.examples", [], (0, 0)),  # of a label that fell into the train split
        ("delete from flywheel.labels where supersedes is not null", [], (0, 0)),
        ("delete from flywheel.scores", [], (0, 0)),
    ]
    for fold in (False, True):
        with connection.transaction(force_rollback=True):
            for query, parameters, cells in steps:
                connection.execute(query.encode(), parameters)
                if fold:
                    connection.execute(FOLD)
                assert rows(connection, TRUE_AND_FALSE_PASSES) == [cells], query
                assert differences(connection) == []


def test_a_judge_with_labels_of_another_question_has_its_cells(connection: Connection, short: uuid.UUID) -> None:
    provider(connection)
    twin = judge(connection, "twin", labels_of="short", filter={"node": "nobody"})
    span = insert(connection, "yes")
    connection.execute(SCORE, [twin, False, span])
    connection.execute(LABEL, [span, True, "ada"])
    query = "select version_id, tp, fn from flywheel._cell_counts where grain = 'day'"
    for _ in range(2):
        assert set(rows(connection, query)) == {(short, 1, 0), (twin, 0, 1)}
        connection.execute(FOLD)
    assert differences(connection) == []


def test_an_analyst_counts_what_is_folded_and_what_is_not(connection: Connection, short: uuid.UUID) -> None:
    connection.execute(LABEL, [insert(connection, "yes"), True, "ada"])
    for _ in range(2):
        with connection.transaction():
            connection.execute("set local role flywheel_analyst")
            assert value(connection, PASSES) == 1
            assert value(connection, CELLS) == 1
            assert differences(connection) == []
            assert value(connection, "select waiting_days from flywheel.rollup_status") == 0
        connection.execute(FOLD)
    connection.execute("set role flywheel_analyst")
    for forbidden in ("_fold()", "rebuild_rollups()", "set_rollup_attributes('{}')", "_rebuild_rollups('2024-01-01')"):
        assert refused(connection, f"select flywheel.{forbidden}").sqlstate == "42501"
