"""Single-row commits of 16 clients with 3 bulk checks and one worker at work, against the triggers disabled."""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench import spans
from tests.bench.figures import Options, Result, interleaved, medians
from tests.bench.server import Session, connected, installed_database, program
from tests.bench.worker import running_worker

BAR = 0.75
CLIENTS = 16
SECONDS = 4
SLICES = 3  # short stretches of each side, so that what else the machine does falls on all of them
INSERT = "insert into flywheel.spans (input, output) values (:input, :output);\n"


def measure(options: Options) -> Result:
    """Return the rate of commits with validators over the rate with the triggers disabled."""
    sides = {side: partial(_commits, options, side) for side in ("no_triggers", "listening", "validators")}
    figures = interleaved(options.runs * SLICES, sides)
    middle = medians(figures)
    ratio = middle["validators"] / middle["no_triggers"]
    return Result(
        "commit_overhead",
        ratio,
        f">= {BAR} of the rate without triggers",
        ratio >= BAR,
        {"clients": CLIENTS, "commits_per_second": figures},
        middle | {"ratio_while_worker_only_listens": middle["listening"] / middle["no_triggers"]},
        [
            "validators: the worker scores what comes, on the same cores; listening: idle, it hears and claims nothing",
            "pgbench makes the load, statements are prepared; without triggers the worker runs, too",
        ],
    )


def _commits(options: Options, side: str) -> float:
    with installed_database(options.server_dsn) as dsn:
        with connected(dsn) as session:
            spans.activate_sql(session, 3, "bulk")
            if side == "no_triggers":
                session.execute("alter table flywheel.spans disable trigger user")
        with _listening(dsn) if side == "listening" else running_worker(dsn, "--lanes", "bulk"):
            return commits_per_second(dsn, options.postgres, max(2, round(SECONDS * options.scale)))


@contextmanager
def _listening(dsn: str) -> Iterator[None]:
    """Stand where an idle worker stands, and hear every notification, but claim nothing."""
    ended = threading.Event()

    def hear(session: Session) -> None:
        while not ended.is_set():
            list(session.notifies(timeout=0.2))

    with connected(dsn) as session:
        session.execute("listen flywheel_wake")
        session.execute("select pg_advisory_lock('flywheel'::regnamespace::oid::integer, 1)")
        listener = threading.Thread(target=hear, args=[session])
        listener.start()
        yield
        ended.set()
        listener.join()


def commits_per_second(dsn: str, version: int, seconds: int) -> float:
    """Return what pgbench reports: CLIENTS connections, each inserting one span a transaction."""
    choose = random.Random(5)
    with _script() as script:
        command = [program(version, "pgbench"), "--no-vacuum", f"--client={CLIENTS}", "--jobs=2", "--protocol=prepared"]
        command += [f"--time={seconds}", f"--file={script}", f"--define=input={spans.text(choose)}"]
        command += [f"--define=output={spans.text(choose)}", dsn]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench said no rate: {done.stdout} {done.stderr}")
    return float(found[1])


@contextmanager
def _script() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "insert.sql"
        script.write_text(INSERT)
        yield script
