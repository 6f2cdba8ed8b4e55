"""What one UPDATE of a version's status does, and the functions that are that UPDATE."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from tests.sql.support import (
    Connection,
    activate,
    define,
    inline,
    insert,
    refused,
    rows,
    scores,
    status_of,
    value,
    version_id,
)

SET = "update flywheel.validator_versions set status = %s where version_id = %s"
STATUSES = ("draft", "approved", "active", "shadow", "paused", "retired")
WAYS = {
    "draft": {"approved", "active", "shadow", "retired"},
    "approved": {"active", "shadow", "retired"},
    "active": {"shadow", "paused", "retired"},
    "shadow": {"active", "approved", "retired"},
    "paused": {"active", "shadow", "retired"},
    "retired": {"active", "shadow"},
}
ROUTES = {
    "draft": (),
    "approved": ("approved",),
    "active": ("active",),
    "shadow": ("shadow",),
    "paused": ("active", "paused"),
    "retired": ("retired",),
}


@pytest.mark.parametrize("start", STATUSES)
def test_a_status_moves_only_along_the_known_ways(connection: Connection, start: str) -> None:
    for end in STATUSES:
        name = f"{start}_{end}"
        define(connection, name)
        chosen = version_id(connection, name)
        for step in ROUTES[start]:
            connection.execute(SET, [step, chosen])
        if end in WAYS[start] | {start}:
            connection.execute(SET, [end, chosen])
            assert status_of(connection, name) == end
        else:
            said = refused(connection, SET, [end, chosen])
            assert said.sqlstate == "WF004"
            assert said.message_primary == f"version 1 of validator {name} is {start} and cannot become {end}"
            assert status_of(connection, name) == start


def test_a_status_nobody_knows_is_refused(connection: Connection) -> None:
    define(connection, "short")
    assert refused(connection, "update flywheel.validator_versions set status = 'on'").sqlstate in ("WF004", "23514")


def test_the_functions_say_what_became_of_the_version(connection: Connection) -> None:
    define(connection, "short")
    acts = [
        ("approve_validator('short')", "approved"),
        ("activate_validator('short')", "active"),
        ("pause_validator('short', 'too strict')", "paused"),
        ("activate_validator('short')", "active"),
        ("shadow_validator('short')", "shadow"),
        ("retire_validator('short')", "retired"),
        ("activate_validator('short', 1)", "active"),
    ]
    for call, status in acts:
        assert rows(connection, f"select * from flywheel.{call}") == [("short", 1, status)]
        assert status_of(connection, "short") == status


def test_activating_a_draft_approves_it_in_the_name_of_who_does(connection: Connection) -> None:
    define(connection, "short")
    query = "select approved_by, approved_at is not null from flywheel.validator_versions"
    assert rows(connection, query) == [(None, False)]
    connection.execute("select flywheel.activate_validator('short')")
    assert rows(connection, query) == [(value(connection, "select session_user::text"), True)]


def test_a_pause_keeps_its_reason_until_it_ends(connection: Connection) -> None:
    activate(connection, "short")
    connection.execute("select flywheel.pause_validator('short', 'too strict')")
    query = "select paused_reason, paused_detail from flywheel.validator_status"
    assert rows(connection, query) == [("manual", "too strict")]
    connection.execute("select flywheel.activate_validator('short')")
    assert rows(connection, query) == [(None, None)]


@pytest.mark.parametrize(
    ("call", "state", "words"),
    [
        ("activate_validator('no_such')", "WF002", "there is no validator no_such"),
        ("activate_validator('short', 7)", "WF002", "there is no validator short version 7"),
        ("approve_validator('no_such')", "WF002", "there is no validator no_such"),
        ("shadow_validator('no_such')", "WF002", "there is no validator no_such"),
        ("pause_validator('no_such', 'x')", "WF002", "there is no validator no_such"),
        ("retire_validator('no_such')", "WF002", "there is no validator no_such"),
        ("pause_validator('short', 'x')", "WF004", "validator short is not active"),
    ],
)
def test_an_act_on_nothing_says_so(connection: Connection, call: str, state: str, words: str) -> None:
    define(connection, "short")
    said = refused(connection, f"select flywheel.{call}")
    assert (said.sqlstate, said.message_primary) == (state, words)
    assert said.message_hint


def test_an_active_version_cannot_be_approved_again(connection: Connection) -> None:
    activate(connection, "short")
    said = refused(connection, "select flywheel.approve_validator('short')")
    assert said.sqlstate == "WF004"
    assert said.message_primary == "version 1 of validator short is active and cannot be approved"


def test_a_retired_validator_is_known_and_comes_back(connection: Connection) -> None:
    activate(connection, "short")
    connection.execute("select flywheel.retire_validator('short')")
    assert refused(connection, "select flywheel.pause_validator('short', 'x')").sqlstate == "WF004"
    assert rows(connection, "select status from flywheel.activate_validator('short')") == [("active",)]


@pytest.mark.parametrize("by", ["function", "update"])
def test_activating_a_version_retires_the_one_before_it(connection: Connection, by: str) -> None:
    inline(connection, "short", expression="true")
    define(connection, "short", lane="inline", expression="false")
    if by == "function":
        connection.execute("select flywheel.activate_validator('short')")
    else:
        connection.execute(SET, ["active", version_id(connection, "short", 2)])
    assert [status_of(connection, "short", version) for version in (1, 2)] == ["retired", "active"]
    insert(connection)
    assert scores(connection) == [("short", False, None)]


@pytest.mark.parametrize("by", ["function", "update"])
def test_a_paused_version_gives_way_too(connection: Connection, by: str) -> None:
    activate(connection, "short", severity="low")
    connection.execute("select flywheel.pause_validator('short', 'x')")
    define(connection, "short", severity="high")
    if by == "function":
        connection.execute("select flywheel.activate_validator('short')")
    else:
        connection.execute(SET, ["active", version_id(connection, "short", 2)])
    assert [status_of(connection, "short", version) for version in (1, 2)] == ["retired", "active"]


def test_rolling_back_to_an_older_version_is_one_call(connection: Connection) -> None:
    inline(connection, "short", expression="true")
    inline(connection, "short", expression="false")
    assert rows(connection, "select * from flywheel.activate_validator('short', 1)") == [("short", 1, "active")]
    assert status_of(connection, "short", 2) == "retired"
    insert(connection)
    assert scores(connection) == [("short", True, None)]


def test_a_shadow_runs_beside_the_active_version(connection: Connection) -> None:
    inline(connection, "short", expression="true")
    define(connection, "short", lane="inline", expression="false")
    connection.execute("select flywheel.shadow_validator('short', 2)")
    assert [status_of(connection, "short", version) for version in (1, 2)] == ["active", "shadow"]
    insert(connection)
    assert scores(connection) == [("short", True, None)]
    query = "select version, passed, version_status from flywheel.score_history order by 1"
    assert rows(connection, query) == [(1, True, "active"), (2, False, "shadow")]


def test_an_update_reaches_the_next_statement_of_an_open_connection(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    define(connection, "short", lane="inline", action="block", expression="span.output <> 'bad'")
    chosen = version_id(connection, "short")
    writer = connect()
    statement = "insert into flywheel.spans (output) values ('bad')"
    for _ in range(7):
        writer.execute(statement, prepare=True)
    for _ in range(2):
        connection.execute(SET, ["active", chosen])
        assert refused(writer, statement).sqlstate == "WF001"
        connection.execute(SET, ["paused", chosen])
        writer.execute(statement, prepare=True)
    assert value(connection, "select count(*) from flywheel.spans") == 9


def test_an_update_reaches_the_next_statement_of_a_transaction_that_is_open(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    define(connection, "short", lane="inline")
    writer = connect()
    with writer.transaction():
        insert(writer)
        connection.execute(SET, ["active", version_id(connection, "short")])
        insert(writer)
    assert len(scores(connection)) == 1


def test_an_activation_that_is_rolled_back_leaves_the_dispatch_as_it_was(connection: Connection) -> None:
    define(connection, "short", lane="inline")
    with connection.transaction(force_rollback=True):
        connection.execute("select flywheel.activate_validator('short')")
        insert(connection)
        assert len(scores(connection)) == 1
    insert(connection)
    assert scores(connection) == []


def test_an_old_snapshot_cannot_undo_another_activation(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    """Code generated from a stale view of the validators would silently leave one out."""
    for name in ("first", "second"):
        define(connection, name, lane="inline")
    late = connect()
    late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with late.transaction(force_rollback=True):
        late.execute("select from flywheel.spans limit 1")
        connection.execute("select flywheel.activate_validator('first')")
        assert refused(late, "select flywheel.activate_validator('second')").sqlstate == "40001"
    with late.transaction():
        late.execute("select flywheel.activate_validator('second')")
    insert(connection)
    assert [name for name, *_ in scores(connection)] == ["first", "second"]


def test_two_validators_activated_at_once_are_both_live(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    names = [f"check_{place}" for place in range(4)]
    for name in names:
        define(connection, name, lane="inline")
    calls = [
        threading.Thread(target=connect().execute, args=(f"select flywheel.activate_validator('{name}')".encode(),))
        for name in names
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    insert(connection)
    assert [name for name, *_ in scores(connection)] == names


def test_admins_who_act_on_one_validator_at_once_wait_for_one_another(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    activate(connection, "short", severity="low")
    define(connection, "short", severity="high")
    failed: list[str] = []

    def act(session: Connection, place: int) -> None:
        for turn in range(6):
            call = ("activate_validator('short', 1)", "activate_validator('short', 2)", "retire_validator('short')")
            try:
                session.execute(f"select flywheel.{call[(place + turn) % 3]}".encode())
            except psycopg.Error as error:
                failed.append(str(error))

    admins = [threading.Thread(target=act, args=(connect(), place)) for place in range(3)]
    for admin in admins:
        admin.start()
    for admin in admins:
        admin.join()
    assert failed == []
    assert value(connection, "select count(*) from flywheel.validator_status where status = 'active'") <= 1


def test_a_setting_takes_effect_by_one_update(connection: Connection) -> None:
    activate(connection, "short")
    connection.execute("update flywheel.settings set value = '3' where name = 'chunk_spans'")
    connection.execute("insert into flywheel.spans (output) select 'x' from generate_series(1, 7)")
    assert rows(connection, "select cardinality(span_ids) from flywheel._ready order by 1") == [(1,), (3,), (3,)]


def test_who_reports_a_fault_of_a_version_paused_meanwhile_is_told_to_stop(connection: Connection) -> None:
    """A worker is in the middle of a long batch when another one pauses the version."""
    record = "select flywheel._record_fault(%s, 'raised', 'it raised', 1)"
    paused, shadow = activate(connection, "failing"), activate(connection, "other")
    connection.execute("select flywheel.pause_validator('failing', 'by another')")
    connection.execute("select flywheel.shadow_validator('other')")
    assert [value(connection, record, [paused]) for _ in range(3)] == [False, False, True]
    assert [value(connection, record, [shadow]) for _ in range(4)] == [False, False, True, False]
    assert (status_of(connection, "failing"), status_of(connection, "other")) == ("paused", "retired")


@pytest.mark.parametrize("said", ["0", "-5", '"many"', "null", "{}", "1e10"])
def test_a_setting_that_would_end_every_insert_is_refused(connection: Connection, said: str) -> None:
    activate(connection, "short")
    for name in ("chunk_spans", "inline_limit_ms"):
        error = refused(connection, "update flywheel.settings set value = %s where name = %s", [said, name])
        assert (error.sqlstate, str(error.message_primary).split(" is ")[0]) == ("WF009", f"setting {name}")
    insert(connection)
