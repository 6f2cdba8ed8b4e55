"""pgflywheel sentinels: chosen, listed with what the judge said, its runs, retired."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from tests.sql.exampling import label, span
from tests.sql.paying import judge, provider
from tests.sql.support import Connection, activate, rows, value

from .conftest import CommandLine


@pytest.fixture(autouse=True)
def version(connection: Connection) -> uuid.UUID:
    provider(connection)
    return judge(connection)


def labelled(connection: Connection, n: int) -> None:
    for number in range(n):
        label(connection, span(connection, "dev", number, output=f"answer {number}"), number % 2 == 0)


def asked(connection: Connection, version: uuid.UUID, days_ago: int, *, turned: int = 0, unread: int = 0) -> None:
    """Write a run in which the judge says the contrary of people on some items, and nothing of others."""
    found = rows(connection, "select sentinel_id, passed from flywheel.sentinels order by passed, sentinel_id")
    said = [
        {
            "sentinel_id": str(sentinel_id),
            "passed": None if place >= len(found) - unread else passed != (place < turned),
            "reason": "unreadable" if place >= len(found) - unread else None,
            "answered_by": "\x1b[31mmodel",
            "cost_usd": 0.01,
        }
        for place, (sentinel_id, passed) in enumerate(found)
    ]
    at = datetime.now(UTC) - timedelta(days=days_ago)
    value(connection, "select flywheel._write_sentinel_run(%s, %s, %s)", [version, at, Jsonb(said)])


def test_without_sentinels_it_says_how_to_get_some(pgflywheel: CommandLine) -> None:
    assert "sentinels choose" in pgflywheel("sentinels", "list").stdout
    assert "once a day" in pgflywheel("sentinels", "runs").stdout
    assert pgflywheel.json("sentinels", "list") == pgflywheel.json("sentinels", "runs") == []
    assert pgflywheel.json("sentinels", "choose", "polite") == {"validator": "polite", "sentinels": 0}
    assert "Label more" in pgflywheel("sentinels", "choose", "polite").stdout


def test_only_a_judge_has_sentinels(connection: Connection, pgflywheel: CommandLine) -> None:
    activate(connection, "short", kind="sql", expression="length(span.output) < 9")
    assert "there is no judge nobody" in pgflywheel("sentinels", "choose", "nobody", exit_code=1).stderr
    assert "short is not a judge that asks a model" in pgflywheel("sentinels", "choose", "short", exit_code=1).stderr
    assert "2<=x<=1000" in pgflywheel("sentinels", "choose", "polite", "--n", 1, exit_code=2).stderr


def test_sentinels_are_chosen_and_listed_with_what_the_judge_said(
    connection: Connection, pgflywheel: CommandLine, version: uuid.UUID
) -> None:
    labelled(connection, 8)
    assert pgflywheel.json("sentinels", "choose", "polite", "--n", 6) == {"validator": "polite", "sentinels": 6}
    assert {each["version"] for each in pgflywheel.json("sentinels", "list")} == {None}
    asked(connection, version, 1, turned=1, unread=1)
    listed = pgflywheel.json("sentinels", "list", "--validator", "polite")
    assert [(each["passed"], each["said"], each["agrees"]) for each in listed] == [
        (False, True, False),
        (False, False, True),
        (False, False, True),
        (True, True, True),
        (True, True, True),
        (True, None, None),
    ]
    table = pgflywheel("sentinels", "list", "--limit", 1).stdout
    assert listed[0]["span_id"] in table
    assert " NO " in table
    assert "unreadable" in pgflywheel("sentinels", "list").stdout
    for words in (("list", "--validator", "nobody"), ("runs", "--validator", "nobody"), ("retire", "nobody", "--yes")):
        assert "nobody" in pgflywheel("sentinels", *words, exit_code=1).stderr


def test_runs_tell_agreement_cost_and_change_and_nothing_hostile(
    connection: Connection, pgflywheel: CommandLine, version: uuid.UUID
) -> None:
    labelled(connection, 40)
    pgflywheel("sentinels", "choose", "polite")
    for days_ago, turned in ((3, 0), (2, 0), (1, 20)):
        asked(connection, version, days_ago, turned=turned)
    newest, middle, oldest = pgflywheel.json("sentinels", "runs")
    assert (newest["n"], newest["agreed"], newest["agreement"], newest["drifted"]) == (40, 20, 0.5, True)
    assert (middle["agreement"], middle["drifted"], middle["cost_usd"]) == (1.0, False, pytest.approx(0.4))
    assert (oldest["drifted"], oldest["p_value"]) == (None, None)
    assert pgflywheel.json("sentinels", "runs", "--limit", 1) == [newest]
    said = pgflywheel("sentinels", "runs").stdout
    assert "ALARM" in said
    assert "\x1b" not in said


def test_retired_sentinels_are_listed_only_when_asked_for(connection: Connection, pgflywheel: CommandLine) -> None:
    labelled(connection, 4)
    pgflywheel("sentinels", "choose", "polite")
    pgflywheel("sentinels", "retire", "polite", exit_code=1, input="n\n")
    assert pgflywheel.json("sentinels", "retire", "polite", "--yes") == {"validator": "polite", "retired": 4}
    assert pgflywheel.json("sentinels", "list") == []
    assert len(pgflywheel.json("sentinels", "list", "--all")) == 4
    assert "there is no sentinel" in pgflywheel("sentinels", "list").stdout


def test_analysts_read_sentinels_without_their_texts(
    connection: Connection, pgflywheel: CommandLine, version: uuid.UUID
) -> None:
    labelled(connection, 4)
    pgflywheel("sentinels", "choose", "polite")
    asked(connection, version, 1)
    connection.execute("set role flywheel_analyst")
    assert len(rows(connection, "select * from flywheel.sentinel_status")) == 4
    assert len(rows(connection, "select * from flywheel_bi.sentinel_history")) == 1
