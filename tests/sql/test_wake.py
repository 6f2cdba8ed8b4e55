"""The hint to idle workers: sent when one waits, by one writer at a time, never otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sql.support import Connection, activate, inline, insert, value

IDLE = "select pg_advisory_lock('flywheel'::regnamespace::oid::integer, 1)"
LOCKS = """
select count(*) from pg_locks
 where locktype = 'advisory' and classid = 'flywheel'::regnamespace
   and database = (select oid from pg_database where datname = current_database())"""
BUSY = "select pg_advisory_unlock('flywheel'::regnamespace::oid::integer, 1)"


@pytest.fixture
def listener(connection: Connection, connect: Callable[[], Connection]) -> Connection:
    activate(connection, "short")
    listening = connect()
    listening.execute("listen flywheel_wake")
    return listening


def hints(listening: Connection) -> int:
    return len(list(listening.notifies(timeout=0.3)))


def test_an_idle_worker_is_told_with_an_empty_message(connection: Connection, listener: Connection) -> None:
    listener.execute(IDLE)
    insert(connection)
    (hint,) = listener.notifies(timeout=10, stop_after=1)
    assert (hint.channel, hint.payload) == ("flywheel_wake", "")


def test_nobody_is_told_while_no_worker_is_idle(connection: Connection, listener: Connection) -> None:
    insert(connection)
    assert hints(listener) == 0
    listener.execute(IDLE)
    listener.execute(BUSY)
    insert(connection)
    assert hints(listener) == 0


def test_nobody_is_told_of_spans_that_made_no_job(connection: Connection, listener: Connection) -> None:
    connection.execute("select flywheel.retire_validator('short')")
    inline(connection, "at_once")
    activate(connection, "for_others", filter={"node": "other"})
    listener.execute(IDLE)
    insert(connection)
    assert hints(listener) == 0


def test_a_transaction_tells_once_when_it_commits(connection: Connection, listener: Connection) -> None:
    listener.execute(IDLE)
    with connection.transaction():
        for _ in range(20):
            insert(connection)
        assert hints(listener) == 0
    assert hints(listener) == 1


def test_a_transaction_that_rolls_back_tells_nobody(connection: Connection, listener: Connection) -> None:
    listener.execute(IDLE)
    with connection.transaction(force_rollback=True):
        insert(connection)
    assert hints(listener) == 0


def test_only_one_of_the_writers_of_a_moment_tells(
    connection: Connection, connect: Callable[[], Connection], listener: Connection
) -> None:
    listener.execute(IDLE)
    writers = [connect() for _ in range(3)]
    for writer in writers:
        writer.execute("begin")
        insert(writer)
    assert value(connection, f"{LOCKS} and objid = 2") == 1
    for writer in writers:
        writer.execute("commit")
    assert hints(listener) == 1


@pytest.mark.parametrize("call", ["flywheel.replay_dead()", "flywheel.resume_lane('bulk')"])
def test_work_that_comes_back_wakes_too(connection: Connection, listener: Connection, call: str) -> None:
    listener.execute(IDLE)
    connection.execute(f"select {call}".encode())
    assert hints(listener) == 1


def test_a_writer_keeps_no_lock_after_its_statement(connection: Connection, listener: Connection) -> None:
    listener.execute("select 1")
    with connection.transaction():
        insert(connection)
        assert value(connection, LOCKS) == 0
