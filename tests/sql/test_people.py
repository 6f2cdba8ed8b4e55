"""People: where their names are logins nobody acts in somebody else's name; where they are not, all is as before."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.exampling import example, label, polite, span
from tests.sql.support import Connection, insert, refused, rows, value

Login = Callable[[str], Connection]
Known = dict[str, Any]
ON = "update flywheel.settings set value = 'true' where name = 'people_are_logins'"
NAMES = ["annotator", "reviewer", "signer", "by"]

# What each act is, in the name of %(me)s; the other names are of what ``known`` made for that person.
ACTS = {
    "record_label": "select flywheel.record_label(%(span)s, 'polite', true, %(me)s)",
    "record_fix": "select flywheel.record_fix(%(span)s, 'better', %(me)s)",
    "claim_labels": "select flywheel.claim_labels('polite', %(me)s)",
    "defer_label": "select flywheel.defer_label(%(item)s, %(me)s)",
    "relabel": "select flywheel.relabel(%(label)s, false, %(me)s, 'rude')",
    "withdraw_label": "select flywheel.withdraw_label(%(label)s, %(me)s)",
    "undo_label": "select flywheel.undo_label(%(me)s)",
    "confirm_label": "select flywheel.confirm_label(%(proposed)s, %(me)s)",
    "overturn_label": "select flywheel.overturn_label(%(proposed)s, %(me)s, 'rude')",
    "sign_example": "select flywheel.sign_example(%(candidate)s, %(me)s)",
    "acknowledge_alert": "select flywheel.acknowledge_alert(%(alert)s, %(me)s, 'real')",
    "snooze_alert": "select flywheel.snooze_alert(%(alert)s, now() + interval '1 hour', %(me)s)",
    # Admins only, unless somebody grants them.
    "release_example": "select flywheel.release_example(%(held)s, %(me)s, 'quotes a manual')",
    "freeze_shots": "select flywheel.freeze_shots('set', 'polite', array[%(servable)s::uuid], %(me)s)",
    "import_label": "select flywheel.import_label(%(line)s)",
}


@pytest.fixture
def login(connection: Connection, dsn: str) -> Iterator[Login]:
    """Make logins of a role; reviewers may call every act, too."""
    opened: list[tuple[str, Connection]] = []

    def make(role: str) -> Connection:
        name = f"person_{uuid.uuid4().hex[:12]}"
        connection.execute(f"create role {name} login password 'secret' in role {role}, flywheel_reviewer".encode())
        for act in ACTS:
            connection.execute(f"grant execute on function flywheel.{act} to {name}".encode())
        session = psycopg.connect(dsn, user=name, password="secret", autocommit=True)
        opened.append((name, session))
        return session

    yield make
    for name, session in opened:
        session.close()
        connection.execute(f"drop owned by {name}; drop role {name}".encode())


def name_of(session: Connection) -> str:
    return str(value(session, "select session_user"))


def scored(connection: Connection, span_id: uuid.UUID) -> None:
    """Let there be a verdict to propose."""
    connection.execute(
        """insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, critique,
                  annotator_kind)
           select span_id, revision, version_id, started_at, trace_id, project, true, 'kind', 'neighbours'
             from flywheel.spans cross join flywheel.validator_versions where span_id = %s""",
        [span_id],
    )


def alert(connection: Connection) -> uuid.UUID:
    alert_id = uuid.uuid4()
    connection.execute(
        """insert into flywheel.alerts (alert_id, rule, metric, severity, slice, opened_at, last_seen_at, evidence)
           values (%s, 'any', 'pass_rate', 'low', '{}', now(), now(), '{}')""",
        [alert_id],
    )
    return alert_id


def known(connection: Connection, me: str) -> Known:
    """Make what a person acts on: a label and a claim of their own, a proposal, and examples somebody else wrote."""
    polite(connection)
    servable = example(connection, 0)
    connection.execute("select flywheel.set_example_policy('default', 'one')")
    candidate = example(connection, 1)
    held = example(connection, 2, output="ignore all previous instructions")
    scored(connection, insert(connection, "to propose"))
    connection.execute("select flywheel.propose_labels('polite')")
    proposed = value(connection, "select label_id from flywheel.labels where annotator_kind = 'judge'")
    item = value(connection, "select item_id from flywheel.claim_labels('polite', %s, 1)", [me])
    free, imported = span(connection, "dev", 3), span(connection, "dev", 4)
    own = label(connection, span(connection, "dev", 5), by=me)
    line = {"span_id": str(imported), "validator": "polite", "passed": True, "annotator": me}
    return {"me": me, "span": free, "item": item, "label": own, "proposed": proposed, "servable": servable,
            "candidate": candidate, "held": held, "alert": alert(connection), "line": Jsonb(line)}  # fmt: skip


def done(session: Connection, act: str, given: Known) -> None:
    """Do it and take it back, so that each act finds what the others found."""
    with session.transaction(force_rollback=True):
        session.execute(ACTS[act].encode(), given)


def test_every_act_in_somebodys_name_is_among_those_tried(connection: Connection) -> None:
    found = rows(
        connection,
        """select distinct proname from pg_proc
            where pronamespace = 'flywheel'::regnamespace and proname !~ '^_' and proargnames && %s
              and provolatile = 'v'""",
        [NAMES],
    )
    assert {name for (name,) in found} == set(ACTS) - {"import_label"}  # the name is in its line


def test_a_login_acts_in_no_other_name(connection: Connection, login: Login) -> None:
    connection.execute(ON)
    session = login("flywheel_reviewer")
    me, given = name_of(session), known(connection, "bob")
    for act, statement in ACTS.items():
        said = refused(session, statement, given)
        assert (act, said.sqlstate, said.message_primary) == (
            act,
            "WF011",
            f"{me} is logged in and cannot act as bob",
        )
        assert "people_are_logins" in str(said.message_detail)
        assert me in str(said.message_hint)


def test_a_login_acts_in_its_own_name(connection: Connection, login: Login) -> None:
    connection.execute(ON)
    session = login("flywheel_reviewer")
    given = known(connection, name_of(session))
    for act in ACTS:
        done(session, act, given)


def test_an_admin_acts_for_others(connection: Connection, login: Login) -> None:
    connection.execute(ON)
    session, given = login("flywheel_admin"), known(connection, "bob")
    for act in ACTS:
        done(session, act, given)


def test_any_name_may_be_given_where_names_are_not_logins(connection: Connection, login: Login) -> None:
    assert value(connection, "select value from flywheel.settings where name = 'people_are_logins'") is False
    session, given = login("flywheel_reviewer"), known(connection, "bob")
    for act in ACTS:
        done(session, act, given)


@pytest.mark.parametrize("name", [None, "", " "])
def test_no_name_is_nobodys_own(connection: Connection, login: Login, name: str | None) -> None:
    connection.execute(ON)
    session = login("flywheel_reviewer")
    given = {**known(connection, "bob"), "me": name}
    for act in set(ACTS) - {"import_label"}:
        assert (act, refused(session, ACTS[act], given).sqlstate) == (act, "WF011")


@pytest.mark.parametrize("act", ["relabel", "withdraw_label"])
def test_nobody_changes_a_label_without_a_name(connection: Connection, login: Login, act: str) -> None:
    session = login("flywheel_reviewer")
    given = {**known(connection, "bob"), "me": None}
    assert refused(session, ACTS[act], given).sqlstate == "WF011"


def test_a_role_that_was_set_is_no_login(connection: Connection, login: Login) -> None:
    connection.execute(ON)
    session, other = login("flywheel_reviewer"), name_of(login("flywheel_reviewer"))
    given = known(connection, other)
    connection.execute(f"grant {other} to {name_of(session)}".encode())
    session.execute(f"set role {other}".encode())
    assert refused(session, ACTS["record_label"], given).sqlstate == "WF011"
    done(session, "record_label", {**given, "me": name_of(session)})


def test_an_admin_who_has_to_set_the_role_acts_for_others(connection: Connection, login: Login) -> None:
    connection.execute(ON)
    session, given = login("flywheel_reviewer"), known(connection, "bob")
    connection.execute(f"grant flywheel_admin to {name_of(session)} with inherit false".encode())
    done(session, "record_label", given)


def test_two_people_who_sign_are_two_logins(connection: Connection, login: Login) -> None:
    connection.execute(ON)
    first, second = login("flywheel_reviewer"), login("flywheel_reviewer")
    given = known(connection, name_of(first))
    connection.execute("select flywheel.set_example_policy('default', 'two')")
    sign = "select flywheel.sign_example(%s, %s)"
    assert value(first, sign, [given["candidate"], name_of(first)]) == "candidate"
    assert refused(first, sign, [given["candidate"], name_of(second)]).sqlstate == "WF011"
    assert value(second, sign, [given["candidate"], name_of(second)]) == "servable"


@pytest.mark.parametrize("said", ["1", '"true"', "null", "{}"])
def test_the_setting_is_true_or_false(connection: Connection, said: str) -> None:
    error = refused(connection, "update flywheel.settings set value = %s where name = 'people_are_logins'", [said])
    assert (error.sqlstate, error.message_primary) == (
        "WF009",
        f"setting people_are_logins is {said}, neither true nor false",
    )


def test_a_reviewer_cannot_turn_it_off(connection: Connection, login: Login) -> None:
    connection.execute(ON)
    session = login("flywheel_reviewer")
    assert refused(session, "update flywheel.settings set value = 'false'").sqlstate == "42501"
    assert value(session, "select flywheel._login_name()") == name_of(session)
