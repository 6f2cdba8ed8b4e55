"""Who acts when no name is given: the login of the database where names are logins, else that of the machine."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from tests.sql.exampling import example, polite

from .conftest import CommandLine, Connection

POLITE = """
[[validator]]
name = "polite"
kind = "sql"
expression = "span.output !~ 'idiot'"
"""
ON = "update flywheel.settings set value = 'true' where name = 'people_are_logins'"


@pytest.fixture
def reviewer(
    pgflywheel: CommandLine, connection: Connection, dsn: str, definitions: Callable[[str], Path]
) -> Iterator[tuple[str, CommandLine]]:
    """A login that only reviews, with the command line it uses; a span waits for it."""
    pgflywheel("validators", "apply", definitions(POLITE), "--activate")
    connection.execute("insert into flywheel.spans (input, output) values ('a question', 'an answer')")
    name = f"person_{uuid.uuid4().hex[:12]}"
    connection.execute(f"create role {name} login password 'secret' in role flywheel_reviewer".encode())
    yield name, CommandLine(make_conninfo(dsn, user=name, password="secret"))
    connection.execute(f"drop role {name}".encode())


def annotators(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute("select annotator from flywheel.labels").fetchall()]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be carol on this machine."""
    monkeypatch.setenv("LOGNAME", "carol")
    monkeypatch.delenv("PGFLYWHEEL_REVIEWER", raising=False)


def test_where_names_are_logins_the_login_labels(reviewer: tuple[str, CommandLine], connection: Connection) -> None:
    connection.execute(ON)
    name, review = reviewer
    assert review("labels", "next", "polite", input="p\n").stdout.endswith("1 saved\n")
    assert annotators(connection) == [name]


def test_where_they_are_not_whoever_uses_the_machine_labels(
    reviewer: tuple[str, CommandLine], connection: Connection
) -> None:
    reviewer[1]("labels", "next", "polite", input="p\n")
    assert annotators(connection) == ["carol"]


def test_another_name_is_refused_with_what_to_do(reviewer: tuple[str, CommandLine], connection: Connection) -> None:
    connection.execute(ON)
    name, review = reviewer
    said = review("labels", "next", "polite", "--reviewer", "ada", input="p\n", exit_code=1).stderr
    assert f"error: {name} is logged in and cannot act as ada\n" in said
    assert f"hint: Give the name {name}" in said
    assert annotators(connection) == []


def test_the_environment_names_who_labels_before_the_login_does(
    reviewer: tuple[str, CommandLine], connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLYWHEEL_REVIEWER", "ada")
    reviewer[1]("labels", "next", "polite", input="p\n")
    assert annotators(connection) == ["ada"]
    connection.execute(ON)
    assert "cannot act as ada" in reviewer[1]("labels", "next", "polite", exit_code=1).stderr


def test_an_alert_is_acknowledged_by_the_login(reviewer: tuple[str, CommandLine], connection: Connection) -> None:
    connection.execute(ON)
    name, review = reviewer
    alert_id = uuid.uuid4()
    connection.execute(
        """insert into flywheel.alerts (alert_id, rule, metric, severity, slice, opened_at, last_seen_at, evidence)
           values (%s, 'any', 'pass_rate', 'low', '{}', now(), now(), '{}')""",
        [alert_id],
    )
    assert f"was noise, says {name}." in review("alerts", "ack", alert_id, "noise").stdout


def test_an_example_is_signed_by_whoever_uses_the_machine(pgflywheel: CommandLine, connection: Connection) -> None:
    polite(connection)
    shown = example(connection, 0, output="you are welcome")
    pgflywheel("examples", "sign", shown)
    assert "carol" in pgflywheel("examples", "show", shown).stdout


def test_a_machine_without_a_name_for_its_user_says_how_to_give_one(
    pgflywheel: CommandLine, definitions: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pgflywheel("validators", "apply", definitions(POLITE), "--activate")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    said = pgflywheel("labels", "next", "polite", input="p\n", exit_code=2).stderr
    assert "error: nobody says who acts" in said
    assert "PGFLYWHEEL_REVIEWER" in said
