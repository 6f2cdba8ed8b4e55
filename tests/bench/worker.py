"""A worker process beside a benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import LiteralString

from tests.bench.server import Session, connected, value

START_SECONDS = 30.0
DRAIN_SECONDS = 600.0
LOOK_SECONDS = 0.01
_WORK_LEFT: LiteralString = "select exists (select from flywheel._ready) or exists (select from flywheel._running)"


@contextmanager
def running_worker(dsn: str, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Start a worker, wait until it listens, and end it with SIGTERM."""
    command = [sys.executable, "-m", "pgflywheel", "worker", "run", "--dsn", dsn, *options]
    process = subprocess.Popen(command, env=os.environ | dict(environment or {}), stderr=subprocess.DEVNULL)
    try:
        _await_listening(dsn, process)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _await_listening(dsn: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    with connected(dsn) as session:
        while not value(session, "select bool_or(listening) from flywheel._workers"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the worker did not start")
            time.sleep(0.05)


def drain(session: Session) -> float:
    """Wait until no job is ready or running; return the seconds."""
    began = time.perf_counter()
    while value(session, _WORK_LEFT):
        if time.perf_counter() - began > DRAIN_SECONDS:
            raise RuntimeError("the queue did not drain")
        time.sleep(LOOK_SECONDS)
    return time.perf_counter() - began


def drain_from_pause(session: Session, lane: str) -> float:
    """Let a paused lane run and return the seconds until its queue is empty."""
    session.execute("select flywheel.resume_lane(%s)", [lane])
    return drain(session)
