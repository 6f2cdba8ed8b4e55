"""What a terminal, a pipe or a cron job may do to the streams of a command: none of it ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def shell(line: str, dsn: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which PROGRAM is the command line."""
    words = line.replace("PROGRAM", f'"{sys.executable}" -m pgflywheel')
    environ = {**os.environ, "PGFLYWHEEL_DSN": dsn, **environment}
    return subprocess.run(["sh", "-c", words], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_stream_is_an_empty_one(dsn: str, closed: str, tmp_path: Path) -> None:
    done = shell(f"PROGRAM traces import - --input a {closed}", dsn)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_said_without_a_traceback(dsn: str) -> None:
    done = shell("PROGRAM validators list >/dev/full", dsn)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the operating system refuses: No space left on device\nhint: ")


def test_who_has_read_enough_may_leave(dsn: str) -> None:
    done = shell("PROGRAM db sql | head -n 1", dsn)
    assert (done.stdout, done.stderr) == ("begin;\n", "")


def test_what_an_encoding_lacks_is_shown_as_an_escape(dsn: str) -> None:
    done = shell("PROGRAM queue pause bulk --reason →broken", dsn, PYTHONIOENCODING="latin-1:strict", LC_ALL="C.UTF-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2192broken" in done.stdout
