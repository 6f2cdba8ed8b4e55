"""What the worker's tests share: activate a validator, insert spans, run a worker, read what it left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options

ROOT = Path(__file__).parents[2]
Connection = psycopg.Connection[tuple[Any, ...]]


def activate(connection: Connection, name: str, **definition: Any) -> None:
    """Define and activate a validator; ``check`` names a function of tests.worker.sample_checks."""
    if "check" in definition:
        definition |= {"kind": "python", "callable": f"tests.worker.sample_checks:{definition.pop('check')}"}
    connection.execute("select flywheel.define_validator(%s, %s)", [name, Jsonb(definition)])
    connection.execute("select flywheel.activate_validator(%s)", [name])


def insert(connection: Connection, outputs: Sequence[str]) -> None:
    """Insert spans in one statement."""
    connection.execute("insert into flywheel.spans (input, output) select 'in', unnest(%s::text[])", [list(outputs)])


def work(dsn: str, **options: Any) -> None:
    """Run a worker until it is idle."""
    asyncio.run(run_worker(dsn, "flywheel", Options(until_idle=True, **options)))


def scores(connection: Connection, name: str) -> dict[str, tuple[Any, ...]]:
    """Return passed, value, critique, reason and detail by the span's output."""
    rows = connection.execute(
        "select spans.output, passed, value, critique, unscored_reason, unscored_detail"
        "  from flywheel.scores join flywheel.spans using (span_id)"
        "  join flywheel.validator_versions using (version_id) join flywheel.validators using (validator_id)"
        " where validators.name = %s",
        [name],
    ).fetchall()
    return {row[0]: row[1:] for row in rows}


def value(connection: Connection, query: str, *params: Any) -> Any:
    """Return the first column of the first row."""
    row = connection.execute(query.encode(), params).fetchone()
    return row[0] if row else None


def set_setting(connection: Connection, name: str, number: float) -> None:
    """Change a setting of the install."""
    connection.execute("update flywheel.settings set value = to_jsonb(%s::numeric) where name = %s", [number, name])


def waiting(connection: Connection) -> int:
    """Return how many jobs are ready, running, put off or dead."""
    tables = " + ".join(
        f"(select count(*) from flywheel.{table})" for table in ("_ready", "_running", "_later", "_dead")
    )
    return int(value(connection, f"select {tables}"))


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@contextmanager
def process(dsn: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run `pgflywheel worker run` as a process of its own; it is killed at the end, if it still runs."""
    command = [sys.executable, "-m", "pgflywheel", "worker", "run", "--dsn", dsn, *options]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def started(connection: Connection, count: int = 1) -> Callable[[], bool]:
    """Return a condition: so many workers are entered."""
    return lambda: value(connection, "select count(*) from flywheel._workers") >= count
