"""Run the blocks of a page, one after the other, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from tests.docs.blocks import Block

NUMBERS = (20, 21, 23, 26, 700, 701, 1700)  # type oids psql aligns to the right
COMMAND = re.compile(r"^\$ (.*(?:\\\n.*)*)\n?", re.MULTILINE)
INSTALL = re.compile(r"^python -m pip install \S.* && ")
RUN_MINUTES = 3


@dataclass
class Reader:
    """Somebody with a database, a folder and a shell, who types what a page shows."""

    dsn: str
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def output(self, block: Block) -> str | None:
        """Return what comes out of a block; None for one that is not run."""
        if not block.runs:
            return None
        if block.file_name:
            self._save(block.file_name, block.text)
            return None
        runners = {"sql": self._sql, "python": self._python, "sh": self._sh, "console": self._console}
        runner = runners.get(block.language)
        return runner(block.text) if runner else None

    def _save(self, name: str, text: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text if name.endswith((".py", ".toml")) else text.partition("\n")[2], encoding="utf-8")

    def _sql(self, text: str) -> str:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("set timezone = 'UTC'")
            return "\n".join(output for statement in statements(text) if (output := _psql(connection, statement)))

    def _python(self, text: str) -> str:
        return self._run([sys.executable, "-c", text])

    def _sh(self, text: str) -> str:
        return self._run(["bash", "-euo", "pipefail", "-c", text])

    def _console(self, text: str) -> str:
        said = []
        for found in COMMAND.finditer(text):
            command = found[1].rstrip("\n")
            said.append(f"$ {command}\n" + self._run(["bash", "-c", _after_install(command)], check=False))
        return "".join(said)

    def _run(self, command: Sequence[str], check: bool = True) -> str:
        paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(self.folder)}
        plain = {"COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
        named = {"PGFLYWHEEL_DSN": self.dsn, "DATABASE_URL": _uri(self.dsn)}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | paths | plain | named | self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=RUN_MINUTES * 60,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout
        return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines()) + "\n" if done.stdout else ""


def _uri(dsn: str) -> str:
    given: dict[str, Any] = conninfo_to_dict(dsn)
    return f"postgresql:///{given.pop('dbname')}?{urlencode(given)}"


def statements(text: str) -> Iterator[str]:
    """Cut a script at the semicolons that end a line outside of dollar quotes."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if re.search(r";\s*(--.*)?$", line) and statement.count("$$") % 2 == 0:
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def _after_install(command: str) -> str:
    """Return what follows the installation: the tests run in an environment that has it already."""
    return INSTALL.sub("", command).replace("python -m pytest", "python -m pytest --collect-only -q >/dev/null")


def _psql(connection: psycopg.Connection[tuple[object, ...]], statement: str) -> str:
    """Return what psql --quiet prints of a statement."""
    try:
        cursor = connection.execute(statement.encode())
    except psycopg.Error as error:
        named = (("ERROR", error.diag.message_primary), ("DETAIL", error.diag.message_detail))
        said = (*named, ("HINT", error.diag.message_hint))
        return "".join(f"{name}:  {text}\n" for name, text in said if text)
    result = cursor.pgresult
    return _table(result) if result and result.status == ExecStatus.TUPLES_OK else ""


def _table(result: PGresult) -> str:
    columns = range(result.nfields)
    names = [(result.fname(column) or b"").decode() for column in columns]
    rows = [[(result.get_value(row, column) or b"").decode() for column in columns] for row in range(result.ntuples)]
    widths = [max(len(line[column]) for line in [names, *rows]) for column in columns]
    right = [result.ftype(column) in NUMBERS for column in columns]
    lines = ["|".join(f" {name:^{width}} " for name, width in zip(names, widths, strict=True))]
    lines.append("+".join("-" * (width + 2) for width in widths))
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        lines.append("|".join(f" {text:{'>' if number else '<'}{width}} " for text, width, number in cells))
    lines.append(f"({len(rows)} row{'s' * (len(rows) != 1)})")
    return "\n".join(line.rstrip() for line in lines) + "\n"
