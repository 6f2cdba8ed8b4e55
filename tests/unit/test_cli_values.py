"""Values that no command can use are said to be so at once, with the spellings that are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pgflywheel.cli.judge_name import JudgeName
from pgflywheel.cli.main import cli
from pgflywheel.cli.times import DURATION, TIME

WRONG = [
    ("judges align polite@²", "is not NAME or NAME@VERSION"),
    ("judges align polite@0", "is not NAME or NAME@VERSION"),
    ("judges align polite@99999999999", "is not NAME or NAME@VERSION"),
    ("judges prompt polite@two --output x", "is not NAME or NAME@VERSION"),
    ("traces list --since 0001-01-01T00:00:00+10:00", "is not a time"),
    ("traces list --since 999999999w", "is not a time"),
    ("traces purge --before yesterday --yes", "is not a time"),
    ("alerts snooze 3d1f52ac --for soon", "is not a duration"),
    ("alerts snooze 3d1f52ac --for 0h", "is not a duration"),
    ("alerts snooze 3d1f52ac --for 999999999w", "is not a duration"),
    ("db upgrade --lock-timeout nan", "nan is not a number"),
    ("db upgrade --lock-timeout 1e300", "is not in the range"),
    ("budgets set project:shop day inf", "not in the range"),
    ("worker run --lease-seconds nan", "nan is not a number"),
    ("metrics watch --every nan", "nan is not a number"),
    ("judges calibrate polite --alpha nan", "nan is not a number"),
    ("sentinels list --limit 99999999999999999999", "is not in the range"),
    ("labels draw polite -n 99999999999999999999", "is not in the range"),
    ("validators show polite --version 99999999999", "is not in the range"),
    ("metrics show --since 2d --until 3d", "nothing lies in the time from"),
    ("metrics compare polite v1 v2 --until 3d --since 2d", "nothing lies in the time from"),
    ("metrics top-failures --since 2d --before 3d", "nothing lies in the time from"),
    ("report --since 2d --until 3d", "nothing lies in the time from"),
    ("scores rates --since 2d --before 3d", "nothing lies in the time from"),
    ("traces list --until 3d --since 2d", "nothing lies in the time from"),
    ("rollups verify --since 2d --until 3d", "nothing lies in the time from"),
    ("backfill polite --since 2d --until 3d", "nothing lies in the time from"),
    ("labels draw polite --since 2d --until 3d", "nothing lies in the time from"),
    ("alerts snooze 3d1f52ac --until 2h", "is over; a while from now is --for 2h"),
    ("queue pause bulk --reason=", "it is blank"),
    ("validators pause polite --reason=", "it is blank"),
    ("examples revoke 01a1fb90-085a-7214-aa45-80f790772ab3 --reason=", "it is blank"),
    ("examples release 01a1fb90-085a-7214-aa45-80f790772ab3 --note=", "it is blank"),
    ("worker run --lanes bulk,fast", "is no list of lanes, as bulk,judge,embed,batch"),
    ("validators test polite --version 2 --file README.md --output x", "--version is of stored validators"),
    ("validators test file.toml#polite --version 2 --output x", "--version is of stored validators"),
    ("validators diff README.md --from 1", "--from and --to are of stored versions"),
    ("quickstart --stop", "--dsn is of a server of your own"),
    ("quickstart --data-dir somewhere", "--dsn is of a server of your own"),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[line for line, _ in WRONG])
def test_a_value_that_cannot_be_used_is_wrong_use_before_any_database_is_asked(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    result = CliRunner().invoke(cli, [*line.split(), "--dsn", "postgresql://nobody@127.0.0.1:1/none"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


def test_a_judge_is_named_with_or_without_its_version() -> None:
    assert JudgeName().convert("polite", None, None) == ("polite", None)
    assert JudgeName().convert("polite@12", None, None) == ("polite", 12)


def test_a_time_is_in_utc_whatever_its_zone() -> None:
    assert TIME.convert("2026-03-01T12:00+02:00", None, None) == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert TIME.convert("2026-03-01", None, None).tzinfo is UTC
    assert TIME.convert("2h ago", None, None) <= datetime.now(UTC) - timedelta(hours=2)


def test_a_duration_is_a_number_and_its_unit() -> None:
    assert DURATION.convert("90m", None, None) == timedelta(minutes=90)
    assert DURATION.convert("1w", None, None) == timedelta(weeks=1)


def test_the_end_of_a_time_has_the_same_names_everywhere() -> None:
    def ends(group: click.Group) -> list[list[str]]:
        context, found = click.Context(group), []
        for command in filter(None, (group.get_command(context, name) for name in group.list_commands(context))):
            found += ends(command) if isinstance(command, click.Group) else []
            names = [each.opts for each in command.params if "--since" in each.opts or "--until" in each.opts]
            found += [opts for opts in names if "--since" not in opts]
        return found

    assert {tuple(opts) for opts in ends(cli)} == {("--until", "--before"), ("--until",)}  # snooze --until is no end
