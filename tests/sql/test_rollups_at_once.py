"""Rollups under transactions that do not see each other, kills, folds and purges at once."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest

from tests.sql.blocking import meanwhile
from tests.sql.counting import CELLS, FOLD, LABEL, PASSES, SCORE, differences, short
from tests.sql.paying import judge, provider
from tests.sql.support import (
    Connection,
    activate,
    insert,
    insert_many,
    value,
)

__all__ = ["short"]


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


@pytest.mark.parametrize("emptied", ["spans", "scores", "labels"])
def test_a_table_emptied_while_a_fold_begins_is_empty_after_it(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID, emptied: str
) -> None:
    span = insert(connection, "yes")
    connection.execute(LABEL, [span, True, "ada"])
    other, folder, emptying = connect(), connect(), connect()
    other.execute("begin")
    other.execute("lock table flywheel._early_scores in access exclusive mode")  # a fold that has its turn stops there
    truncate = f"truncate flywheel.{emptied} cascade"
    with meanwhile(connection, folder, FOLD) as folded, meanwhile(connection, emptying, truncate):
        other.execute("commit")
    assert folded.exception() is None
    assert value(connection, f"select count(*) from flywheel.{emptied}") == 0
    assert differences(connection) == []
