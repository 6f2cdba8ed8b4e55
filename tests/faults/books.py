"""The books after a fault: nothing lost, nothing twice, every eligible pair accounted for."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from uuid import UUID

import psycopg

from tests.faults.scale import scaled
from tests.sql.support import Connection, rows, value

IN_QUEUE = """
    select (select count(*) from flywheel._ready) + (select count(*) from flywheel._running)
         + (select count(*) from flywheel._later where run_at < 'infinity')
"""
WRITTEN_TWICE = """
    select count(*) - count(distinct (span_id, revision, version_id)) from flywheel.scores
"""
# What workers said they wrote, in the transactions that wrote it, against what is there. They write scores of inline
# versions, too, for spans that the reconciler found.
QUEUED_SCORES = """
    select count(*) from flywheel.scores join flywheel.validator_versions using (version_id) where lane <> 'inline'
"""
ALL_SCORES = "select count(*) from flywheel.scores"
LOGGED_SCORES = "select coalesce(sum(scores), 0) from flywheel.run_log where outcome = 'completed'"
RECONCILED = "select exists (select from flywheel.run_log where outcome = 'reconciled')"


@dataclass(frozen=True)
class Books:
    """What the accounts of all versions say together."""

    eligible: int
    scored: int
    unscored: int
    waiting: int
    dead: int
    missing: int

    @classmethod
    def of(cls, connection: Connection) -> Books:
        """Add up the accounts."""
        query = """select coalesce(sum(eligible), 0)::bigint, coalesce(sum(scored), 0)::bigint,
                          coalesce(sum(unscored), 0)::bigint, coalesce(sum(queued + running + later), 0)::bigint,
                          coalesce(sum(dead), 0)::bigint, coalesce(sum(missing), 0)::bigint from flywheel.accounts"""
        return cls(*rows(connection, query)[0])


def wait_until(what: str, happened: Callable[[], object], seconds: float = 120) -> None:
    """Wait for something to happen; fail when it does not."""
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


def wait_until_empty(connection: Connection, seconds: float = scaled(180, 1500)) -> None:
    """Wait until nothing is ready, running or put off."""
    wait_until("the queue is empty", lambda: value(connection, IN_QUEUE) == 0, seconds)


def lost(connection: Connection, acknowledged: Collection[UUID]) -> int:
    """Count the spans whose insert was acknowledged and that are not there."""
    query = """select count(*) from unnest(%s::uuid[]) as sent(id)
                where not exists (select from flywheel.spans where span_id = id)"""
    return int(value(connection, query, [list(acknowledged)]))


def assert_settled(connection: Connection, acknowledged: Collection[UUID]) -> Books:
    """Check the books of a queue that has been worked off; return them."""
    books = Books.of(connection)
    assert lost(connection, acknowledged) == 0
    assert value(connection, WRITTEN_TWICE) == 0
    assert (books.missing, books.waiting, books.dead) == (0, 0, 0), books
    assert books.eligible == books.scored + books.unscored, books
    assert books.eligible > 0
    unbalanced = rows(connection, "select * from flywheel.accounts where not balanced")
    assert unbalanced == []
    most = ALL_SCORES if value(connection, RECONCILED) else QUEUED_SCORES
    assert value(connection, QUEUED_SCORES) <= value(connection, LOGGED_SCORES) <= value(connection, most)
    return books


def answers(dsn: str) -> bool:
    """Tell whether a server takes connections."""
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
