"""Turns: chores one transaction at a time may do, which no other login can hold up."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.sql.support import Connection, activate, inline, insert, refused, value, work_off

FOLD = "select flywheel._fold()"
CHORES = ("maintenance", "dispatch", "purge", "fold", "clusters", "metrics", "monitors", "windows", "novelty")


@pytest.fixture
def stranger(connection: Connection, dsn: str) -> Iterator[Connection]:
    """A login that may do no more than any other: it writes spans."""
    name = f"stranger_{uuid.uuid4().hex[:12]}"
    connection.execute(f"create role {name} login password 'secret' in role flywheel_writer".encode())
    with psycopg.connect(dsn, user=name, password="secret", autocommit=True) as session:
        yield session
    connection.execute(f"drop role {name}".encode())


def test_no_advisory_lock_of_another_login_holds_up_a_chore(connection: Connection, stranger: Connection) -> None:
    installs = "values ('flywheel'::regnamespace::oid::integer), (hashtext('flywheel'))"
    stranger.execute(
        f"select pg_advisory_lock(install, number) from ({installs}) as known(install)"
        "  cross join generate_series(3, 20) as number".encode()
    )
    stranger.execute("select pg_advisory_lock(hashtext('flywheel.metrics'))")
    stranger.execute(
        "select pg_advisory_lock(oid::integer, 0) from pg_class where relnamespace = 'flywheel'::regnamespace"
    )
    connection.execute("set lock_timeout = '5s'")
    inline(connection, "short")
    insert(connection)
    assert value(connection, FOLD) > 0
    connection.execute("select flywheel._rebuild_rollups(current_date)")
    connection.execute("select flywheel.purge('2024-06-01')")
    metric = '{"measure": "pass_rate", "validator": "short"}'
    connection.execute("select flywheel.define_metric('shortness', %s)", [metric])
    assert value(connection, "select flywheel._win_turn('maintenance', false)")


def test_no_other_role_can_lock_the_table_of_a_turn(connection: Connection, stranger: Connection) -> None:
    for role in ("writer", "reviewer", "analyst", "admin"):
        connection.execute(f"grant flywheel_{role} to {stranger.info.user}".encode())
    for chore in CHORES:
        for mode in ("access share", "share update exclusive", "exclusive"):
            held = f"do 'begin lock table flywheel._turn_{chore} in {mode} mode; end'"
            assert refused(stranger, held).sqlstate == "42501"
        assert refused(stranger, f"select flywheel._win_turn('{chore}', false)").sqlstate == "42501"


def test_a_turn_is_one_transactions_and_whoever_does_not_wait_is_told(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    other = connect()
    with connection.transaction():
        assert value(connection, "select flywheel._win_turn('fold', true)")
        assert value(connection, "select flywheel._win_turn('fold', false)")
        assert not value(other, "select flywheel._win_turn('fold', false)")
        assert value(other, "select flywheel._win_turn('purge', false)")
        other.execute("set lock_timeout = '10ms'")
        assert refused(other, "select flywheel._win_turn('fold', true)").sqlstate == "55P03"
    assert value(other, "select flywheel._win_turn('fold', false)")


def test_a_fold_that_finds_nothing_writes_nothing(connection: Connection) -> None:
    activate(connection, "short")
    insert(connection)
    work_off(connection)
    connection.execute(FOLD)
    with connection.transaction():
        assert value(connection, FOLD) == 0
        assert value(connection, "select pg_current_xact_id_if_assigned()") is None
    connection.execute("update flywheel._fold_state set folded_at = now() - interval '1 minute' where name = 'rollups'")
    connection.execute(FOLD)
    query = "select folded_at > now() - interval '10 seconds' from flywheel._fold_state where name = 'rollups'"
    assert value(connection, query)
