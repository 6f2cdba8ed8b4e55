"""pgflywheel validators: from a file in Git to a version that judges, and back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import CommandLine, Connection

Write = Callable[[str], Path]

SHORT = """
[[validator]]
name = "short"
kind = "sql"
expression = "length(span.output) < {limit}"

[[validator]]
name = "no_email"
use = "no_email_address"

[[validator]]
name = "is_json"
use = "matches_json_schema"
with = {{ schema = {{ type = "object" }} }}
"""


def test_applying_twice_changes_nothing_the_second_time(pgflywheel: CommandLine, definitions: Write) -> None:
    file = definitions(SHORT.format(limit=10))
    first = pgflywheel.json("validators", "apply", file)
    second = pgflywheel.json("validators", "apply", file)
    assert [(row["validator"], row["version"], row["status"], row["changed"]) for row in first] == [
        (name, 1, "draft", True) for name in ("short", "no_email", "is_json")
    ]
    assert [row["changed"] for row in second] == [False] * 3


def test_a_dry_run_says_what_would_change_and_changes_nothing(pgflywheel: CommandLine, definitions: Write) -> None:
    file = definitions(SHORT.format(limit=10))
    assert "would change" in pgflywheel("validators", "apply", file, "--activate", "--dry-run").stdout
    assert pgflywheel.json("validators", "list") == []


def test_a_file_with_one_bad_definition_stores_none(pgflywheel: CommandLine, definitions: Write) -> None:
    file = definitions(SHORT.format(limit="'nonsense'::date"))
    result = pgflywheel("validators", "apply", file, exit_code=1)
    assert "validator short is not valid" in result.stderr
    assert pgflywheel.json("validators", "list") == []


def test_a_version_goes_through_every_status(pgflywheel: CommandLine, definitions: Write) -> None:
    pgflywheel("validators", "apply", definitions(SHORT.format(limit=10)))

    def status() -> str:
        return str({row["validator"]: row["status"] for row in pgflywheel.json("validators", "list")}["short"])

    for arguments, expected in (
        (("approve", "short"), "approved"),
        (("shadow", "short"), "shadow"),
        (("activate", "short", "--version", 1), "active"),
        (("pause", "short", "--reason", "too strict"), "paused"),
        (("activate", "short"), "active"),
        (("retire", "short"), "retired"),
    ):
        pgflywheel("validators", *arguments)
        assert status() == expected


def test_a_pause_is_listed_with_its_reason(pgflywheel: CommandLine, definitions: Write) -> None:
    pgflywheel("validators", "apply", definitions(SHORT.format(limit=10)), "--activate")
    pgflywheel("validators", "pause", "short", "--reason", "too strict")
    assert "paused (manual: too strict)" in pgflywheel("validators", "list").stdout


def test_a_changed_definition_is_a_new_version_and_the_old_one_stays_listed(
    pgflywheel: CommandLine, definitions: Write
) -> None:
    pgflywheel("validators", "apply", definitions(SHORT.format(limit=10)), "--activate")
    pgflywheel("validators", "apply", definitions(SHORT.format(limit=20)), "--activate")
    versions = [
        (row["version"], row["status"])
        for row in pgflywheel.json("validators", "list", "--all")
        if row["validator"] == "short"
    ]
    assert versions == [(1, "retired"), (2, "active")]
    assert pgflywheel.json("validators", "show", "short", "--version", 1)["status"] == "retired"


def test_diff_shows_what_changed_between_versions_and_against_a_file(
    pgflywheel: CommandLine, definitions: Write
) -> None:
    pgflywheel("validators", "apply", definitions(SHORT.format(limit=10)))
    file = definitions(SHORT.format(limit=20))
    against_file = pgflywheel("validators", "diff", file).stdout
    assert '+  "expression": "length(span.output) < 20"' in against_file
    assert "no_email" not in against_file
    assert pgflywheel.json("validators", "show", "short")["version"] == 1
    pgflywheel("validators", "apply", file)
    between = pgflywheel("validators", "diff", "short", "--from", 1, "--to", 2).stdout
    assert '-  "expression": "length(span.output) < 10"' in between
    assert pgflywheel("validators", "diff", file).stdout == "no difference\n"


def test_a_sql_check_is_tried_on_a_text_and_the_exit_code_is_its_verdict(
    pgflywheel: CommandLine, definitions: Write
) -> None:
    pgflywheel("validators", "apply", definitions(SHORT.format(limit=10)))
    assert "short: pass" in pgflywheel("validators", "test", "short", "--output", "brief").stdout
    assert "short: fail" in pgflywheel("validators", "test", "short", "--output", "long" * 9, exit_code=1).stdout


def test_a_check_is_tried_on_a_stored_span_and_nothing_is_written(
    pgflywheel: CommandLine, definitions: Write, connection: Connection
) -> None:
    pgflywheel("validators", "apply", definitions(SHORT.format(limit=10)))
    row = connection.execute(
        "insert into flywheel.spans (input, output) values ('q', '{\"a\": 1}') returning span_id"
    ).fetchone()
    assert row is not None
    for name in ("short", "no_email", "is_json"):
        assert pgflywheel.json("validators", "test", name, "--span", row[0])["passed"] is True
    assert connection.execute("select count(*) from flywheel.scores").fetchone() == (0,)


def test_a_python_check_is_tried_here_with_its_critique(pgflywheel: CommandLine, definitions: Write) -> None:
    file = definitions(SHORT.format(limit=10))
    told = pgflywheel.json("validators", "test", f"{file}#is_json", "--output", "[]", exit_code=1)
    assert told["passed"] is False
    assert "object" in told["critique"]


OWN_CHECKS = """
import asyncio

def hangs(text):
    while True:
        pass

async def judges(text):
    await asyncio.sleep(0)
    return text == "x"

async def sleeps(text):
    await asyncio.sleep(60)

async def leaves(text):
    raise SystemExit(7)

def plain(text):
    return True
"""
OWN = """
[[validator]]
name = "own"
kind = "python"
callable = "own_checks_of_this_test:{function}"
lane = "{lane}"
time_limit_ms = 50
"""


@pytest.mark.parametrize(
    ("function", "lane", "reason", "exit_code"),
    [
        ("hangs", "bulk", "timed_out", 1),
        ("sleeps", "judge", "timed_out", 1),
        ("judges", "judge", None, 0),
        ("absent", "bulk", "missing_callable", 1),
        ("absent", "judge", "missing_callable", 1),
        ("plain", "judge", "missing_callable", 1),
        ("leaves", "judge", "raised", 1),
    ],
)
def test_a_check_of_the_folder_runs_under_its_limits(
    pgflywheel: CommandLine,
    definitions: Write,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    lane: str,
    reason: str | None,
    exit_code: int,
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = definitions(OWN.format(function=function, lane=lane))
    file.with_name("own_checks_of_this_test.py").write_text(OWN_CHECKS)
    told = pgflywheel.json("validators", "test", "own", "--file", file, "--output", "x", exit_code=exit_code)
    assert told["unscored_reason"] == reason
    assert reason != "timed_out" or "took longer than 50 ms" in told["detail"]
    sys.modules.pop("own_checks_of_this_test", None)


def test_a_filter_that_leaves_the_text_out_is_said(pgflywheel: CommandLine, definitions: Write) -> None:
    file = definitions(SHORT.format(limit=10).replace('kind = "sql"', 'kind = "sql"\nfilter = { node = "other" }'))
    told = pgflywheel("validators", "test", f"{file}#short", "--output", "x").stdout
    assert "would not be judged" in told


def test_wrong_questions_are_wrong_use(pgflywheel: CommandLine, definitions: Write) -> None:
    file = definitions(SHORT.format(limit=10))
    pgflywheel("validators", "test", f"{file}#short", exit_code=2)
    assert "defines no validator" in pgflywheel("validators", "test", f"{file}#x", "--output", "y", exit_code=2).stderr


def test_an_unknown_validator_is_an_error_with_its_name(pgflywheel: CommandLine) -> None:
    for arguments in (
        ("approve", "none"),
        ("activate", "none"),
        ("shadow", "none"),
        ("pause", "none", "--reason", "x"),
        ("retire", "none"),
        ("show", "none"),
        ("diff", "none"),
        ("test", "none", "--output", "x"),
    ):
        assert "there is no validator none" in pgflywheel("validators", *arguments, exit_code=1).stderr


def test_an_entry_of_the_catalogue_can_be_copied_and_applied(pgflywheel: CommandLine, definitions: Write) -> None:
    names = [entry["name"] for entry in pgflywheel.json("validators", "catalogue")]
    assert "maximum_length" in names
    file = definitions(pgflywheel("validators", "catalogue", "maximum_length").stdout)
    assert pgflywheel.json("validators", "apply", file)[0]["validator"] == "maximum_length"


def test_install_plpython_says_what_the_server_lacks(
    pgflywheel: CommandLine, definitions: Write, connection: Connection
) -> None:
    pgflywheel("validators", "apply", definitions(SHORT.format(limit=10)))
    available = connection.execute("select count(*) from pg_available_extensions where name = 'plpython3u'").fetchone()
    if available == (0,):
        result = pgflywheel("validators", "install-plpython", "is_json", exit_code=4)
        assert "no language plpython3u" in result.stderr
    else:
        result = pgflywheel("validators", "install-plpython", "is_json")
        assert "flywheel.check_is_json" in result.stdout
    assert "kind sql" in pgflywheel("validators", "install-plpython", "short", exit_code=1).stderr
