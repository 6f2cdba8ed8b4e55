"""Single-row commits of 16 clients with 3 bulk checks and one worker at work, against the triggers disabled."""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench import spans
from tests.bench.figures import Options, Result, interleaved, medians
from tests.bench.server import connected, installed_database, program
from tests.bench.worker import running_worker

BAR = 0.75
CLIENTS = 16
SECONDS = 4
SLICES = 3  # short stretches of each side, so that what else the machine does falls on all of them
INSERT = "insert into flywheel.spans (input, output) values (:input, :output);\n"


def measure(options: Options) -> Result:
    """Return the rate of commits with validators over the rate with the triggers disabled."""
    sides = {side: partial(_commits, options, side) for side in ("no_triggers", "queued", "validators")}
    figures = interleaved(options.runs * SLICES, sides)
    middle = medians(figures)
    ratio = middle["validators"] / middle["no_triggers"]
    return Result(
        "commit_overhead",
        ratio,
        f">= {BAR} of the rate without triggers",
        ratio >= BAR,
        {"clients": CLIENTS, "commits_per_second": figures},
        middle | {"ratio_while_worker_only_listens": middle["queued"] / middle["no_triggers"]},
        [
            "validators: the worker scores what comes, on the same cores; queued: its lane is paused, it only listens",
            "pgbench makes the load, statements are prepared; the worker runs on every side",
        ],
    )


def _commits(options: Options, side: str) -> float:
    with installed_database(options.server_dsn) as dsn:
        with connected(dsn) as session:
            spans.activate_sql(session, 3, "bulk")
            if side == "no_triggers":
                session.execute("alter table flywheel.spans disable trigger user")
            if side == "queued":
                session.execute("select flywheel.pause_lane('bulk', 'only listening')")
        with running_worker(dsn, "--lanes", "bulk"):
            return commits_per_second(dsn, options.postgres, max(2, round(SECONDS * options.scale)))


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
