"""Rollups: exact at any instant, whoever writes, folds, dies or waits meanwhile."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from tests.sql.paying import judge, provider
from tests.sql.support import (
    Connection,
    activate,
    define,
    inline,
    insert,
    insert_many,
    insert_past_triggers,
    refused,
    rows,
    value,
)

FOLD = "select flywheel._fold(1000)"
SCORE = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, cost_usd)
select span_id, revision, %s, started_at, trace_id, project, %s, 0.5 from flywheel.spans where span_id = %s"""
LABEL = "select flywheel.record_label(%s, 'short', %s, %s, 'why')"
WITHDRAW = "select flywheel.withdraw_label(label_id, 'ada') from flywheel.current_labels where annotator = 'ada'"
PASSES = "select coalesce(sum(passed), 0) from flywheel._score_counts where grain = 'day'"
CELLS = "select coalesce(sum(tp + fp + fn + tn), 0)::integer from flywheel._cell_counts where grain = 'hour'"
TRUE_AND_FALSE_PASSES = """
select coalesce(sum(tp), 0)::integer, coalesce(sum(fp), 0)::integer from flywheel._cell_counts where grain = 'day'"""
SCORE_BY_ALL = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
select span_id, revision, version_id, started_at, trace_id, project, true
  from flywheel.validator_versions cross join flywheel.spans"""
PLANS = """
insert into flywheel.spans (output, attributes)
select 'yes', jsonb_build_object('tenant', jsonb_build_object('plan', n)) from generate_series(%s::int, %s::int) as n"""
PLANS_NAMED = """
select count(distinct attribute_1), (sum(n) filter (where attribute_1 = '(other)'))::integer
  from flywheel._span_counts where grain = 'day'"""
OF_MINUTE = """
select count(*) from flywheel._span_counts
 where grain = 'minute' and bucket = date_trunc('minute', %s::timestamptz)"""
WAITING = """
select (select count(*) from flywheel._score_changes) + (select count(*) from flywheel._span_changes)
     + (select count(*) from flywheel._span_deltas) + (select count(*) from flywheel._label_changes)"""


def differences(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, "select * from flywheel.verify_rollups()")


def rebuild_all(connection: Connection) -> None:
    while value(connection, "select flywheel._rebuild_asked()"):
        pass


@pytest.fixture
def short(connection: Connection) -> uuid.UUID:
    """A version that judges each span as it comes; returns its id."""
    return inline(connection, "short")


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
    connection.execute("alter table flywheel.spans disable trigger dispatch_insert")
    for fold_between in (True, False):
        connection.execute("delete from flywheel.spans")
        assert value(connection, PASSES) == 0
        if fold_between:
            connection.execute(FOLD)
        insert(connection, "yes", span_id=span, started_at=datetime(2024, 5, 6, tzinfo=UTC))
        assert value(connection, PASSES) == 1
        assert differences(connection) == []


def test_a_score_folded_before_its_span_counts_when_the_span_comes(connection: Connection, short: uuid.UUID) -> None:
    connection.execute("alter table flywheel.spans disable trigger dispatch_insert")
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


def test_a_label_and_a_score_that_do_not_see_each_other_meet(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    provider(connection)
    late = judge(connection, "late", labels_of="short", filter={"node": "nobody"})
    span = insert(connection, "yes")
    one, two = connect(), connect()
    with one.transaction(), two.transaction():
        one.execute(LABEL, [span, True, "ada"])
        two.execute(SCORE, [late, True, span])
        connection.execute(FOLD)
    assert value(connection, CELLS) == 2
    connection.execute(FOLD)
    assert value(connection, CELLS) == 2
    assert differences(connection) == []


def test_a_revision_and_a_score_that_do_not_see_each_other_meet(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    late = activate(connection, "late", filter={"node": "nobody"})
    span = insert(connection, "yes")
    one, two = connect(), connect()
    with one.transaction(), two.transaction():
        one.execute("update flywheel.spans set output = 'no' where span_id = %s", [span])
        two.execute(SCORE, [late, True, span])
        connection.execute(FOLD)
        assert differences(connection) == []
    assert differences(connection) == []
    connection.execute(FOLD)
    assert differences(connection) == []


def test_a_reader_in_an_old_snapshot_sees_what_was_then(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    insert(connection, "yes")
    old = connect()
    with old.transaction():
        old.execute("set transaction isolation level repeatable read")
        assert value(old, PASSES) == 1
        insert(connection, "yes")
        connection.execute(FOLD)
        assert value(old, PASSES) == 1
        assert differences(old) == []
    assert value(connection, PASSES) == 2


def test_a_transaction_open_for_long_loses_nothing(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    slow = connect()
    with slow.transaction():
        insert(slow, "yes")
        for _ in range(3):
            insert(connection, "yes")
            connection.execute(FOLD)
        assert value(connection, PASSES) == 3
    assert value(connection, PASSES) == 4
    assert differences(connection) == []


def test_of_two_folds_one_leaves_it_to_the_other(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    insert(connection)
    other = connect()
    with other.transaction():
        assert value(other, FOLD) > 0
        assert value(connection, FOLD) == 0
        assert differences(connection) == []
    assert value(connection, FOLD) == 0
    assert differences(connection) == []


def test_a_backend_killed_in_the_middle_of_a_fold_leaves_nothing_half(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    insert_many(connection, 200, "'yes'")
    blocker, folder = connect(), connect()
    with blocker.transaction():
        blocker.execute("lock table flywheel._score_rollups in share mode")  # the fold stops there
        pid = folder.info.backend_pid
        folding = threading.Thread(target=_until_killed, args=[folder])
        folding.start()
        query = "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
        while not value(connection, query, [pid]):
            time.sleep(0.01)
        connection.execute("select pg_terminate_backend(%s)", [pid])
        folding.join()
    assert value(connection, "select count(*) from flywheel._span_rollups") == 0
    assert differences(connection) == []
    connection.execute(FOLD)
    assert value(connection, PASSES) == 200
    assert differences(connection) == []


def _until_killed(folder: Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        folder.execute(FOLD)


def test_many_writers_and_two_folders_at_once_are_counted_exactly(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    connection.execute("update flywheel.settings set value = '7' where name = 'fold_rows'")
    ended = threading.Event()

    def write(session: Connection) -> None:
        for _ in range(25):
            with session.transaction():
                span = insert(session, "yes")
                session.execute(LABEL, [span, True, "ada"])
                session.execute("update flywheel.spans set output = 'oh' where span_id = %s", [span])

    def fold(session: Connection) -> None:
        while not ended.is_set():
            session.execute("select flywheel._fold(2)")

    writers = [threading.Thread(target=write, args=[connect()]) for _ in range(4)]
    folders = [threading.Thread(target=fold, args=[connect()]) for _ in range(2)]
    for thread in writers + folders:
        thread.start()
    while any(thread.is_alive() for thread in writers):
        assert differences(connection) == []
    ended.set()
    for thread in writers + folders:
        thread.join()
    assert differences(connection) == []
    assert value(connection, "select sum(n)::integer from flywheel._span_counts where grain = 'day'") == 100


def test_a_purge_waits_for_a_fold_and_then_forgets_the_days(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-05', '2024-05-06')")
    for day in ("2024-05-04", "2024-05-05", "2024-05-06 01:00", "2024-05-06 23:00", "2024-05-07"):
        connection.execute(LABEL, [insert(connection, "yes", started_at=f"{day}+00"), True, "ada"])
    folder = connect()
    with folder.transaction():
        folder.execute(FOLD)
        purge = "select * from flywheel.purge('2024-05-06 12:00+00')"
        purging = threading.Thread(target=connect().execute, args=[purge])
        purging.start()
        query = "select count(*) from pg_stat_activity where wait_event = 'relation' and query like '%flywheel.purge%'"
        while not value(connection, query):
            time.sleep(0.01)
    purging.join()
    assert differences(connection) == []
    first = "select min(bucket) from flywheel._score_counts where grain = 'day'"
    assert value(connection, first) == datetime(2024, 5, 6, tzinfo=UTC)


def test_a_purge_counts_the_day_it_cuts_in_the_default_partition(connection: Connection, short: uuid.UUID) -> None:
    for hour in (1, 13):
        insert(connection, "yes", started_at=datetime(2024, 5, 6, hour, tzinfo=UTC))
    connection.execute(FOLD)
    connection.execute("select * from flywheel.purge('2024-05-06 12:00+00')")
    assert value(connection, PASSES) == 1
    assert differences(connection) == []


def test_two_hundred_versions_of_a_validator_are_counted_apart(connection: Connection) -> None:
    for number in range(200):
        define(connection, "asked", expression=f"length(span.output) < {number + 2}")
    span = insert(connection, "yes")
    connection.execute("select flywheel.record_label(%s, 'asked', true, 'ada')", [span])
    connection.execute(SCORE_BY_ALL)
    for _ in range(2):
        assert value(connection, PASSES) == 200
        assert value(connection, CELLS) == 200
        assert differences(connection) == []
        connection.execute(FOLD)


def test_of_ten_thousand_values_some_have_names_and_the_others_count_together(
    connection: Connection, short: uuid.UUID
) -> None:
    connection.execute("select flywheel.set_rollup_attributes('{tenant.plan}')")
    connection.execute("update flywheel.settings set value = '20' where name = 'rollup_attribute_values'")
    connection.execute(PLANS, [1, 15])
    connection.execute(FOLD)
    connection.execute(PLANS, [1, 10_000])
    assert differences(connection) == []
    connection.execute(FOLD)
    assert rows(connection, PLANS_NAMED) == [(21, 9980)]
    connection.execute("update flywheel.settings set value = '30' where name = 'rollup_attribute_values'")
    connection.execute(PLANS, [1, 30])
    assert differences(connection) == []
    connection.execute(FOLD)
    assert differences(connection) == []


@pytest.mark.parametrize("path", ["tenant plan", "a'b", "a.", "", "a..b", "}", 'a"', "x" * 201, "a\nb", "ä"])
def test_a_dimension_that_is_no_path_is_refused(connection: Connection, path: str) -> None:
    said = refused(connection, "select flywheel.set_rollup_attributes(%s)", [[path]])
    assert said.sqlstate == "WF009"
    assert (said.message_primary or "").startswith("own dimension")


def test_four_dimensions_are_refused_and_none_is_all_of_none(connection: Connection) -> None:
    assert refused(connection, "select flywheel.set_rollup_attributes('{a,b,c,d}')").sqlstate == "WF009"
    assert refused(connection, "select flywheel.set_rollup_attributes(array[null])").sqlstate == "WF009"
    connection.execute("select flywheel.set_rollup_attributes(null)")
    assert value(connection, "select attributes from flywheel.rollup_status") == ""


def test_who_writes_with_former_dimensions_is_let_through_first(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    writer, admin = connect(), connect()
    with writer.transaction():
        insert(writer, "yes", model="small")
        setting = threading.Thread(target=admin.execute, args=["select flywheel.set_rollup_attributes('{model}')"])
        setting.start()
        query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%set_rollup%'"
        while not value(connection, query):
            time.sleep(0.01)
    setting.join()
    rebuild_all(connection)
    insert(writer, "yes", model="large")
    assert differences(connection) == []
    found = rows(connection, "select attribute_1 from flywheel._span_counts where grain = 'day' order by 1")
    assert found == [("large",), ("small",)]


def test_own_dimensions_outlive_an_upgrade(dsn: str, connection: Connection) -> None:
    from pgflywheel.db import schema

    connection.execute("select flywheel.set_rollup_attributes('{model}')")
    schema.upgrade(dsn, reapply=True)
    insert(connection, model="small")
    assert value(connection, "select attribute_1 from flywheel._span_counts where grain = 'day'") == "small"


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
