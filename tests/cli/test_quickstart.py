"""pgflywheel quickstart: one command from nothing to scores, and a second run that changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg

from .conftest import CommandLine


def rows(dsn: str) -> list[tuple[object, ...]]:
    """What a second run could change."""
    with psycopg.connect(dsn) as session:
        return session.execute("""
            select 'spans', count(*), max(ingested_at)::text from flywheel.spans
            union all select 'scores', count(*), max(scored_at)::text from flywheel.scores
            union all select 'versions', count(*), max(changed_at)::text from flywheel.validator_versions
            union all select 'runs', count(*), max(started_at)::text from flywheel.run_log order by 1
        """).fetchall()


def test_quickstart_judges_the_sample_and_a_second_run_changes_nothing(empty_dsn: str) -> None:
    command = CommandLine(empty_dsn)
    first = command.json("quickstart", "--dsn", empty_dsn)
    before = rows(empty_dsn)
    second = command.json("quickstart", "--dsn", empty_dsn)
    assert rows(empty_dsn) == before
    assert (first["changed"], second["changed"]) == (True, False)
    assert (second["spans_loaded"], second["spans_already_there"]) == (0, first["spans_loaded"])
    assert first["pass_rates"] == second["pass_rates"]
    assert len({failure["validator"] for failure in first["failures"]}) == 3
    accounts = command.json("scores", "accounts")
    assert all(
        account["balanced"] and account["eligible"] == account["scored"] + account["unscored"] for account in accounts
    )
    assert all(account["eligible"] > 0 for account in accounts)
    assert {rate["validator"] for rate in first["pass_rates"]} == {account["validator"] for account in accounts}


def test_people_see_rates_three_failures_with_the_reason_and_what_to_do_next(dsn: str) -> None:
    first = CommandLine(dsn)("quickstart", "--dsn", dsn)
    assert "pass rate" in first.stdout
    assert first.stdout.count("  why: ") == 3
    assert "current_scores where not passed" in first.stdout
    assert "export PGFLYWHEEL_DSN=" in first.stdout
    second = CommandLine(dsn)("quickstart", "--dsn", dsn)
    assert second.stdout.startswith("Nothing changed")
    assert second.stdout.split("\n\n", 1)[1] == first.stdout


def test_a_validator_paused_since_stays_paused(dsn: str) -> None:
    command = CommandLine(dsn)
    command("quickstart", "--dsn", dsn)
    command("validators", "pause", "short_answers", "--reason", "for now")
    command("quickstart", "--dsn", dsn)
    paused = {row["validator"]: row["status"] for row in command.json("validators", "list")}
    assert paused["short_answers"] == "paused"


def test_quickstart_works_in_a_schema_of_another_name(empty_dsn: str) -> None:
    command = CommandLine(empty_dsn)
    done = command.json("quickstart", "--dsn", empty_dsn, "--schema", "acme")
    assert done["spans_loaded"] > 0
    assert {failure["validator"] for failure in done["failures"]}
    assert all(row["balanced"] for row in command.json("scores", "accounts", "--schema", "acme"))


def test_quickstart_brings_its_own_server_and_stops_it(run_dir: Path) -> None:
    folder = run_dir / "quickstart"
    environment = {name: value for name, value in os.environ.items() if name != "PGFLYWHEEL_DSN"}
    command = [sys.executable, "-m", "pgflywheel", "quickstart", "--data-dir", str(folder)]
    try:
        done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
        outcome = json.loads(done.stdout)
        assert str(folder) in outcome["dsn"]
        with psycopg.connect(outcome["dsn"]) as session:
            assert session.execute("select count(*) from flywheel.spans").fetchone() == (outcome["spans_loaded"],)
    finally:
        stopped = subprocess.run([*command, "--stop"], env=environment, capture_output=True, text=True, check=True)
        again = subprocess.run([*command, "--stop", "--json"], env=environment, capture_output=True, check=True)
    assert "is stopped" in stopped.stdout
    assert json.loads(again.stdout)["stopped"] is False
    assert not (folder / "postmaster.pid").exists()
