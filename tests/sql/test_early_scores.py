"""Scores that are folded before their span is there for all to see."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import pytest

from tests.sql.counting import FOLD, PASSES, differences, short
from tests.sql.support import Connection, rows, value
from tests.worker.support import until

__all__ = ["short"]
SPAN = "insert into flywheel.spans (span_id, started_at, input, output) values (%s, '2026-01-02 03:04+00', 'q', 'yes')"
SPAN_OF_DAY = "insert into flywheel.spans (span_id, started_at, input, output) values (%s, %s, 'q', 'yes')"
SCORE_OF_DAY = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
values (%s, 1, %s, %s, gen_random_uuid(), 'default', true)"""
SCORE_OF_IT = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
values (%s, 1, %s, '2026-01-02 03:04+00', gen_random_uuid(), 'default', true)"""
STOPPED = "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
WAITING = "select count(*) from flywheel._early_scores"


def forgotten(connection: Connection) -> bool:
    """Fold, and tell whether no score waits any longer."""
    connection.execute(FOLD)
    return bool(value(connection, WAITING) == 0)


@pytest.fixture
def span() -> uuid.UUID:
    return uuid.uuid4()


@pytest.fixture(autouse=True)
def unjudged(connection: Connection, short: uuid.UUID) -> None:
    """Spans are judged by nobody: scores are written by hand."""
    connection.execute("select flywheel.retire_validator('short')")


def test_a_score_folded_while_its_span_is_being_inserted_is_counted(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID, span: uuid.UUID
) -> None:
    inserting = connect()
    with inserting.transaction():
        inserting.execute(SPAN, [span])
        connection.execute(SCORE_OF_IT, [span, short])
        for _ in range(3):
            connection.execute(FOLD)
            assert value(connection, WAITING) == 1
    for _ in range(3):
        assert value(connection, PASSES) == 1
        assert differences(connection) == []
        connection.execute(FOLD)
    assert value(connection, WAITING) == 0


def test_a_score_whose_span_comes_later_is_counted_once_however_much_later(
    connection: Connection, short: uuid.UUID
) -> None:
    for folds in range(4):
        span = uuid.uuid4()
        connection.execute(SCORE_OF_IT, [span, short])
        for _ in range(folds):
            connection.execute(FOLD)
        connection.execute(SPAN, [span])
        for _ in range(3):
            assert value(connection, PASSES) == folds + 1
            assert differences(connection) == []
            connection.execute(FOLD)
    assert value(connection, WAITING) == 0


def test_a_score_whose_span_never_comes_waits_for_nobody_but_who_was_at_work(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID, span: uuid.UUID
) -> None:
    other = connect()
    with other.transaction():
        other.execute("select pg_current_xact_id()")
        connection.execute(SCORE_OF_IT, [span, short])
        for _ in range(3):
            connection.execute(FOLD)
        assert value(connection, WAITING) == 1
    until(lambda: forgotten(connection))  # transactions of other databases may be at work, too
    assert rows(connection, "select span_id from flywheel._lost_spans") == [(span,)]


def test_a_span_that_came_unnoticed_can_change_be_labelled_and_go(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    acts = (
        ("update flywheel.spans set node = 'other' where span_id = %s", 1),
        ("update flywheel.spans set output = 'oh' where span_id = %s", 0),
        ("delete from flywheel.scores where span_id = %s", 0),
        ("delete from flywheel.spans where span_id = %s", 0),
        ("select flywheel.record_label(%s, 'short', true, 'ada')", 1),
    )
    for act, left in acts:
        span = uuid.uuid4()
        before = value(connection, PASSES) or 0
        inserting = connect()
        with inserting.transaction():
            inserting.execute(SPAN, [span])
            connection.execute(SCORE_OF_IT, [span, short])
            connection.execute(FOLD)
        connection.execute(act.encode(), [span])
        for _ in range(3):
            assert (value(connection, PASSES) or 0) == before + left, act
            assert differences(connection) == [], act
            connection.execute(FOLD)


def test_a_day_counted_anew_while_a_span_is_being_inserted_misses_none_of_its_scores(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID, span: uuid.UUID
) -> None:
    inserting = connect()
    with inserting.transaction():
        inserting.execute(SPAN, [span])
        connection.execute(SCORE_OF_IT, [span, short])
        connection.execute("select flywheel._rebuild_rollups('2026-01-02')")
    for _ in range(3):
        assert value(connection, PASSES) == 1
        assert differences(connection) == []
        connection.execute(FOLD)


def test_scores_that_wait_for_their_span_go_with_their_day(
    connection: Connection, short: uuid.UUID, span: uuid.UUID
) -> None:
    connection.execute(SCORE_OF_IT, [span, short])
    connection.execute(FOLD)
    assert value(connection, WAITING) == 1
    connection.execute("select flywheel.purge('2026-01-03')")
    assert value(connection, WAITING) == 0
    connection.execute(SCORE_OF_IT, [uuid.uuid4(), short])
    connection.execute(FOLD)
    connection.execute("truncate flywheel.scores")
    assert value(connection, WAITING) == 0
    assert differences(connection) == []


def test_a_score_that_comes_while_a_fold_is_at_work_is_counted_once(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    blocker, late, folder = connect(), connect(), connect()
    late.execute("begin")
    for session, day in ((connection, "2026-01-02"), (late, "2026-01-04"), (connection, "2026-01-03")):
        span = uuid.uuid4()
        session.execute(SPAN_OF_DAY, [span, day])
        session.execute(SCORE_OF_DAY, [span, short, day])
    with blocker.transaction():
        blocker.execute("lock table flywheel._span_rollups in share mode")  # a fold stops there, its part chosen
        folding = threading.Thread(target=folder.execute, args=[FOLD])
        folding.start()
        until(lambda: value(connection, STOPPED, [folder.info.backend_pid]))
        late.execute("commit")
    folding.join()
    for _ in range(3):
        assert value(connection, PASSES) == 3
        assert differences(connection) == []
        connection.execute(FOLD)
    assert value(connection, "select count(*) from flywheel._lost_spans") == 0
