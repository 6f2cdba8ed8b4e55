"""500 spans, one at a time, from commit to the start of the handler at an idle worker; pgqueuer in the same run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench import checks, peers, spans
from tests.bench.figures import Options, Result, quantile
from tests.bench.server import Session, connected, empty_database, installed_database, value
from tests.bench.worker import running_worker

P50_MS, P99_MS = 4.0, 25.0
SPANS = 500
PAUSE_SECONDS = (0.02, 0.06)
SETTLE_SECONDS = 1.0
ENQUEUE = "insert into pgqueuer (priority, entrypoint, payload, status) values (0, 'listen', %s, 'queued')"
Side = Callable[[], list[float]]


def measure(options: Options) -> Result:
    """Return our median wait over pgqueuer's, for a bulk check in the process pool and for a judge-lane call."""
    count = max(20, int(SPANS * options.scale))
    sides: dict[str, Side] = {
        "bulk": partial(_pickups, options, count, "bulk", "started"),
        "judge": partial(_pickups, options, count, "judge", "started_call"),
    }
    notes = peers.missing("pgqueuer", "asyncpg", "uvloop")
    if not options.quick and not notes:
        sides["pgqueuer"] = partial(_pgqueuer, options, count)
    waits: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.runs):
        for name, side in sides.items():
            waits[name] += side()
    return _result(waits, notes)


def _result(waits: dict[str, list[float]], notes: list[str]) -> Result:
    figures = {name: {"p50_ms": quantile(each, 0.5), "p99_ms": quantile(each, 0.99)} for name, each in waits.items()}
    ours = [figures["bulk"], figures["judge"]]
    peer = figures.get("pgqueuer")
    met = all(each["p50_ms"] <= P50_MS and each["p99_ms"] <= P99_MS for each in ours)
    if peer:
        met = met and all(each[key] < peer[key] for each in ours for key in peer)
    return Result(
        "pickup",
        figures["bulk"]["p50_ms"] / peer["p50_ms"] if peer else None,
        f"p50 <= {P50_MS:g} ms, p99 <= {P99_MS:g} ms, and both below pgqueuer's",
        met,
        figures,
        notes=[*notes, "bulk: a check in the process pool; judge: a coroutine in the worker, as pgqueuer's handler"],
    )


def _pickups(options: Options, count: int, lane: str, function: str) -> list[float]:
    with installed_database(options.server_dsn) as dsn, _log() as log, connected(dsn) as session:
        spans.activate(
            session, "started", kind="python", target="input", lane=lane, callable=f"tests.bench.checks:{function}"
        )
        with running_worker(dsn, "--lanes", lane, environment={checks.LOG: str(log)}):
            insert = "insert into flywheel.spans (input, output) values (%s, %s)"
            output = spans.text(random.Random(2))
            return _waits(session, log, count, lambda name: session.execute(insert, [f"{name} {output}", output]))


def _pgqueuer(options: Options, count: int) -> list[float]:
    with empty_database(options.server_dsn) as dsn, _log() as log, connected(dsn) as session:
        command = [sys.executable, "-m", "tests.bench.peer_pgqueuer", "listen", dsn]
        process = subprocess.Popen(command, env=os.environ | {checks.LOG: str(log)}, stderr=subprocess.DEVNULL)
        try:
            while not value(session, "select to_regclass('pgqueuer_log')"):
                time.sleep(0.05)
            return _waits(session, log, count, lambda name: session.execute(ENQUEUE, [name.encode()]))
        finally:
            process.kill()
            process.wait()


def _waits(session: Session, log: Path, count: int, insert: Callable[[str], object]) -> list[float]:
    """Commit one row at a time and return the milliseconds until each one's handler started."""
    time.sleep(SETTLE_SECONDS)
    for _ in range(10):
        _commit(insert)
    time.sleep(SETTLE_SECONDS)
    committed = dict(_commit(insert) for _ in range(count))
    time.sleep(SETTLE_SECONDS)
    handled = {name: float(at) for name, at in (line.split() for line in log.read_text().splitlines())}
    if missing := committed.keys() - handled.keys():
        raise RuntimeError(f"{len(missing)} of {count} were not picked up")
    return [max(0.0, (handled[name] - at) * 1000) for name, at in committed.items()]


def _commit(insert: Callable[[str], object]) -> tuple[str, float]:
    name = str(uuid.uuid4())
    insert(name)
    at = time.time()
    time.sleep(random.uniform(*PAUSE_SECONDS))
    return name, at


@contextmanager
def _log() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "started"
        log.touch()
        yield log
