"""The command line's manners: help without a database, exit codes, stdout for results only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType

import click
import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo

from pgflywheel.__main__ import main
from pgflywheel.cli.main import NOUNS, cli
from pgflywheel.cli.options import confirm, root_error
from pgflywheel.errors import Unreachable

NO_DSN = dict.fromkeys(("PGFLYWHEEL_DSN", "DATABASE_URL", "PGHOST", "PGDATABASE", "PGUSER", "PGPORT"))


def run(*arguments: str, **options: str) -> Result:
    return CliRunner(env=NO_DSN).invoke(cli, arguments, **options)  # type: ignore[arg-type]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


HEAVY = ("psycopg", "sqlalchemy", "alembic", "rich", "asyncio", "multiprocessing", "prometheus_client")
HELP_THEN_LOADED = f"""
import sys
from pgflywheel.cli.main import cli
try: cli(sys.argv[1:])
except SystemExit as end: assert not end.code
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [[], *([noun] for noun in NOUNS)], ids=lambda words: " ".join(words) or "root")
def test_help_loads_no_driver(arguments: list[str]) -> None:
    command = [sys.executable, "-c", HELP_THEN_LOADED, *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage:")
    assert done.stderr.split() == []


def test_help_names_every_noun() -> None:
    assert all(noun in run("--help").stdout for noun in NOUNS)


def test_every_command_has_help_with_an_example() -> None:
    for path, command in commands(cli):
        assert command.help, path
        if not isinstance(command, click.Group):
            assert "Example:" in command.help, path
            assert f"pgflywheel {' '.join(path)}" in command.help, path


def test_every_command_answers_help() -> None:
    for path, _command in commands(cli):
        assert run(*path, "--help").exit_code == 0, path


def test_what_the_root_says_of_a_noun_is_what_the_noun_says() -> None:
    for path, command in commands(cli):
        if len(path) == 1:
            assert command.help
            assert " ".join(command.help.split("\n\n")[0].split()) == NOUNS[path[0]]


def test_no_database_is_wrong_use() -> None:
    result = run("db", "status")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "hint: Pass --dsn" in result.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("db", "nonsense"), ("db", "upgrade", "--nonsense")])
def test_an_unknown_word_is_wrong_use(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_schema_name_that_needs_quotes_is_wrong_use(dsn: str) -> None:
    assert run("db", "status", "--dsn", dsn, "--schema", "No Good").exit_code == 2


def test_a_server_that_does_not_answer_is_exit_code_3(dsn: str) -> None:
    result = run("db", "status", "--dsn", make_conninfo(dsn, host="127.0.0.1", port=1))
    assert result.exit_code == 3
    assert "error: no connection to the database" in result.stderr


def test_a_missing_schema_is_exit_code_4_and_status_is_still_printed(empty_dsn: str) -> None:
    result = run("db", "status", "--dsn", empty_dsn, "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["revision"] is None
    assert "db upgrade" in result.stderr


def test_a_damaged_schema_is_exit_code_1(dsn: str, connection: psycopg.Connection) -> None:
    connection.execute("drop function flywheel.new_id() cascade")
    result = run("db", "verify", "--dsn", dsn)
    assert result.exit_code == 1
    assert "new_id() is missing" in result.stderr


def test_an_interrupt_is_exit_code_130_and_changes_nothing(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as session:
        session.execute("select pg_advisory_xact_lock(hashtext('pgflywheel'), hashtext('flywheel'))")
        waiting = subprocess.Popen(
            [sys.executable, "-m", "pgflywheel", "db", "upgrade", "--dsn", empty_dsn], stderr=subprocess.PIPE
        )
        blocked = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        while session.execute(blocked).fetchone() == (0,) and waiting.poll() is None:
            time.sleep(0.02)
        os.kill(waiting.pid, signal.SIGINT)
        _out, errors = waiting.communicate()
    assert (waiting.returncode, errors) == (130, b"interrupted\n")
    assert run("db", "status", "--dsn", empty_dsn).exit_code == 4


class Interrupted(ModuleType):
    """A module during whose import somebody presses Ctrl-C."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt if name == "cli" else AttributeError(name)


def test_ctrl_c_while_modules_are_read_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pgflywheel.cli.main", Interrupted("pgflywheel.cli.main"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_upgrade_verify_downgrade_and_drop_by_hand(empty_dsn: str) -> None:
    for arguments, said in (
        (["upgrade"], "is now at revision"),
        (["upgrade"], "is up to date"),
        (["upgrade", "--reapply"], "made anew"),
        (["verify"], "is whole"),
        (["status"], "up to date"),
        (["downgrade", "base", "--yes"], "now at revision base"),
        (["upgrade"], "was not installed"),
        (["drop", "--yes"], "is dropped"),
        (["drop", "--yes"], "was not there"),
    ):
        result = run("db", *arguments, "--dsn", empty_dsn)
        assert result.exit_code == 0, result.output
        assert said in result.stdout


def test_drop_asks_first_and_no_means_no(dsn: str) -> None:
    result = run("db", "drop", "--dsn", dsn, input="n\n")
    assert result.exit_code == 1
    assert "with all spans" in result.stderr
    assert run("db", "verify", "--dsn", dsn).exit_code == 0


def test_where_nobody_can_answer_the_question_names_the_option(dsn: str) -> None:
    result = run("db", "drop", "--dsn", dsn, input="")
    assert result.exit_code == 2
    assert "error: nobody answered" in result.stderr
    assert "hint: Pass --yes" in result.stderr


def test_ctrl_c_at_a_question_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("click.termui.visible_prompt_func", interrupted)
    with pytest.raises(KeyboardInterrupt):
        confirm(False, "Drop it?")


def test_sql_is_printed_without_a_database() -> None:
    result = run("db", "sql", "--schema", "acme")
    assert result.exit_code == 0
    assert result.stdout.startswith("begin;")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_each_shell_is_printed(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_PGFLYWHEEL_COMPLETE" in result.stdout


def test_nouns_are_completed() -> None:
    env = {**os.environ, "_PGFLYWHEEL_COMPLETE": "bash_complete", "COMP_WORDS": "pgflywheel va", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "pgflywheel"], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,validators\n"


def test_an_error_inside_a_task_group_is_still_ours() -> None:
    error = Unreachable("gone")
    assert root_error(ExceptionGroup("tasks", [ExceptionGroup("inner", [error])])) is error
    assert root_error(ExceptionGroup("tasks", [error, ValueError()])) is None
