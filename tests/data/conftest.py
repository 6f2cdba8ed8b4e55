"""The command line on a database of the test's own, and the folder of recorded data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pgflywheel.cli.main import cli

DATA = Path(__file__).parents[3] / "shared" / "data"
VALIDATORS = Path(__file__).parent / "validators"
Run = Callable[..., Any]


@pytest.fixture
def pgflywheel(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the test's database and return what it printed as JSON; None for the worker."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Any:
        as_json = [] if words[0] == "worker" else ["--json"]
        arguments = [*(str(word) for word in words), *as_json]
        result = CliRunner(env={"PGFLYWHEEL_DSN": dsn}).invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout) if as_json else None

    return run
