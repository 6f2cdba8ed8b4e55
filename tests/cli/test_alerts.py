"""pgflywheel alerts: rules of files, what is wrong, and what people say of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from tests.sql.support import Connection, rows, value

from .conftest import CommandLine

FILE = """
[[channel]]
name = "team"
url = "https://hooks.example/T1"
secret_variable = "HOOK_SECRET"

[[rule]]
name = "budget"
metric = "budget_used"
severity = "high"
threshold = 0.9
channels = ["team"]

[[rule]]
name = "quality"
metric = "pass_rate"
by = ["node"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of two rules and a channel."""
    path = tmp_path / "alerts.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.fixture
def alert_id(pgflywheel: CommandLine, file: Path, connection: Connection) -> str:
    """An open alert on a budget with a hostile name."""
    pgflywheel("alerts", "rules", "set", file)
    connection.execute("select flywheel.set_budget('project', %s, 'day', 0)", ["shop\x1b[2J\u202e"])
    connection.execute("select flywheel._evaluate_alerts()")
    return str(value(connection, "select alert_id from flywheel.open_alerts"))


def test_rules_and_channels_of_a_file_are_set_once(pgflywheel: CommandLine, file: Path) -> None:
    done = pgflywheel.json("alerts", "rules", "set", file)
    assert [(row["kind"], row["name"], row["changed"]) for row in done] == [
        ("channel", "team", True),
        ("rule", "budget", True),
        ("rule", "quality", True),
    ]
    assert not any(row["changed"] for row in pgflywheel.json("alerts", "rules", "set", file))
    assert "quality" in pgflywheel("alerts", "rules", "list").stdout
    assert "hooks.example" in pgflywheel("alerts", "channels", "list").stdout


@pytest.mark.parametrize(
    "text", ["", "[[rule", "rule = 1", "[[rule]]\nmetric = 'drift'", "[[alert]]\nname = 'x'", "rule = [1]"]
)
def test_a_file_without_rules_is_refused(pgflywheel: CommandLine, file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    assert str(file) in pgflywheel("alerts", "rules", "set", file, exit_code=1).stderr


def test_of_a_file_with_a_wrong_rule_nothing_is_set(pgflywheel: CommandLine, file: Path) -> None:
    file.write_text(FILE + "\n[[rule]]\nname = 'odd'\nmetric = 'drift'\ncolour = 2026-01-01\n", encoding="utf-8")
    assert "alert rule odd is not valid: rule.colour" in pgflywheel("alerts", "rules", "set", file, exit_code=1).stderr
    assert pgflywheel.json("alerts", "rules", "list") == []
    assert pgflywheel.json("alerts", "channels", "list") == []


def test_rules_are_tried_before_they_are_set(pgflywheel: CommandLine, file: Path, connection: Connection) -> None:
    connection.execute("select flywheel.set_budget('project', 'shop', 'day', 0)")
    (said,) = pgflywheel.json("alerts", "rules", "test", file)
    assert (said["rule"], said["says"], said["value"]) == ("budget", "fires", 1)
    assert value(connection, "select count(*) from flywheel.alerts") == 0
    pgflywheel("alerts", "rules", "set", file)
    assert "fires" in pgflywheel("alerts", "rules", "test", "budget").stdout
    assert "there is no rule gone" in pgflywheel("alerts", "rules", "test", "gone", exit_code=1).stderr
    assert "there is no file" in pgflywheel("alerts", "rules", "test", "gone.toml", exit_code=1).stderr


def test_what_is_wrong_is_listed_without_what_a_terminal_would_obey(pgflywheel: CommandLine, alert_id: str) -> None:
    listed = pgflywheel("alerts", "list").stdout
    assert alert_id[-8:] in listed
    assert not {"\x1b", "\u202e"} & set(listed + pgflywheel("alerts", "show", alert_id).stdout)
    (alert,) = pgflywheel.json("alerts", "list")
    assert (alert["alert_id"], alert["severity"], alert["n"]) == (alert_id, "high", None)


def test_nothing_wrong_says_so(pgflywheel: CommandLine) -> None:
    assert pgflywheel("alerts", "list").stdout == "nothing is wrong\n"
    assert pgflywheel.json("alerts", "list") == []


def test_an_alert_is_acknowledged_by_the_end_of_its_id(pgflywheel: CommandLine, alert_id: str) -> None:
    said = pgflywheel("alerts", "ack", alert_id[-8:], "real", "--note", "a runaway loop", "--by", "ann").stdout
    assert "was real, says ann" in said
    shown = pgflywheel.json("alerts", "show", alert_id)
    assert (shown["verdict"], shown["note"], shown["acknowledged_by"]) == ("real", "a runaway loop", "ann")
    (rule, _) = pgflywheel.json("alerts", "rules", "list")
    assert rule["precision"] == 1


@pytest.mark.parametrize("text", ["x", "", "00000000", "%", "' or true --"])
def test_an_id_nobody_has_is_refused(pgflywheel: CommandLine, alert_id: str, text: str) -> None:
    assert "there is no alert" in pgflywheel("alerts", "ack", text, "real", exit_code=1).stderr


def test_an_alert_is_snoozed_for_a_time_or_until_one(pgflywheel: CommandLine, alert_id: str) -> None:
    before = datetime.now(UTC)
    pgflywheel("alerts", "snooze", alert_id, "--for", "2h")
    until = datetime.fromisoformat(pgflywheel.json("alerts", "show", alert_id)["snoozed_until"])
    assert 7100 < (until - before).total_seconds() < 7300
    assert "snoozed" in pgflywheel("alerts", "list").stdout
    pgflywheel("alerts", "snooze", alert_id, "--until", "2036-01-01")
    assert "2036-01-01" in pgflywheel("alerts", "show", alert_id).stdout
    assert "not a duration" in pgflywheel("alerts", "snooze", alert_id, "--for", "ever", exit_code=2).stderr
    pgflywheel("alerts", "snooze", alert_id, exit_code=2)


def test_watching_shows_what_is_open(pgflywheel: CommandLine, alert_id: str) -> None:
    (line,) = pgflywheel("alerts", "watch", "--seconds", "0").stdout.splitlines()
    assert "high budget (scope project" in line
    assert alert_id[-8:] in line


def test_a_channel_is_tested_and_dropped(pgflywheel: CommandLine, file: Path, connection: Connection) -> None:
    pgflywheel("alerts", "rules", "set", file)
    made = pgflywheel.json("alerts", "channels", "test", "team")["delivery_id"]
    assert rows(connection, "select delivery_id, kind from flywheel._deliveries") == [(UUID(made), "test")]
    assert "no channel gone" in pgflywheel("alerts", "channels", "test", "gone", exit_code=1).stderr
    assert "named by rules" in pgflywheel("alerts", "channels", "drop", "team", exit_code=1).stderr
    pgflywheel("alerts", "rules", "drop", "budget")
    assert pgflywheel.json("alerts", "channels", "drop", "team")["dropped"]
    assert not pgflywheel.json("alerts", "rules", "drop", "budget")["dropped"]
