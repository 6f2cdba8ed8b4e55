"""The command line on a database of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgflywheel.cli.main import cli

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class CommandLine:
    """Run pgflywheel with a DSN in its environment, as a user would."""

    dsn: str

    def __call__(self, *arguments: object, exit_code: int = 0, **options: Any) -> Result:
        """Run a command and expect its exit code."""
        words = [str(argument) for argument in arguments]
        result = CliRunner(env={"PGFLYWHEEL_DSN": self.dsn}).invoke(cli, words, **options)
        assert result.exit_code == exit_code, result.output
        return result

    def json(self, *arguments: object, exit_code: int = 0) -> Any:
        """Run a command with --json and return what it printed on stdout."""
        return json.loads(self(*arguments, "--json", exit_code=exit_code).stdout)


@pytest.fixture
def pgflywheel(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(dsn)


@pytest.fixture
def definitions(tmp_path: Path) -> Callable[[str], Path]:
    """Write a file of validators."""

    def write(text: str) -> Path:
        path = tmp_path / "validators.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
