"""Single scores of one hot metric from 16 clients with rollups on and a folder at work, against rollups off."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench import rollups
from tests.bench.figures import Options, Result, interleaved, medians
from tests.bench.server import Session, connected, installed_database, program, value

BAR = 0.75
CLIENTS = 16
SECONDS = 10
SPANS_PER_CLIENT = 8_000
MOMENT = "date_trunc('day', now(), 'UTC') + interval '1 hour'"

# The id of a span follows from who writes its score and how many they wrote before: no client meets another.
SPANS = f"""
insert into flywheel.spans (span_id, trace_id, node, started_at, output)
select md5(client || '-' || n)::uuid, md5(client || '-' || n)::uuid, 'node_' || n % 5, {MOMENT}, 'answer'
  from generate_series(0, {CLIENTS - 1}) as client cross join generate_series(1, {SPANS_PER_CLIENT}) as n
"""
SCRIPT = """\\set n :n + 1
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, cost_usd)
values (md5(:client_id || '-' || :n)::uuid, 1, :version, :moment, md5(:client_id || '-' || :n)::uuid,
        'default', true, 0.0003);
"""


def measure(options: Options) -> Result:
    """Return the rate of inserts with rollups on over the rate with them off."""
    sides = {side: partial(_inserts, options, side) for side in ("off", "on")}
    figures = interleaved(options.runs, sides)
    middle = medians(figures)
    ratio = middle["on"] / middle["off"]
    return Result(
        "writers",
        ratio,
        f">= {BAR} of the rate with rollups off",
        ratio >= BAR,
        {"clients": CLIENTS, "inserts_per_second": figures},
        middle,
        [f"{SECONDS} s each side; off: the triggers of scores disabled; on: a fold every second beside the writers"],
    )


def _inserts(options: Options, side: str) -> float:
    with installed_database(options.server_dsn) as dsn:
        with connected(dsn) as session:
            rollups.activate(session, 1)
            session.execute(SPANS.encode())
            session.execute("select flywheel._fold(1000)")
            session.execute("vacuum analyze flywheel.spans")
            if side == "off":
                session.execute("alter table flywheel.scores disable trigger user")
            script = _script(session)
        with _folding(dsn, side == "on"):
            return _per_second(dsn, options.postgres, script, max(2, round(SECONDS * options.scale)))


def _script(session: Session) -> str:
    version = value(session, "select format('%L', version_id) from flywheel.validator_versions")
    moment = value(session, f"select format('%L', {MOMENT})")
    return SCRIPT.replace(":version", f"{version}::uuid").replace(":moment", f"{moment}::timestamptz")


@contextmanager
def _folding(dsn: str, wanted: bool) -> Iterator[None]:
    """Fold every second, and vacuum as workers do."""
    ended = threading.Event()

    def fold() -> None:
        with connected(dsn) as session:
            while wanted and not ended.wait(1.0):
                session.execute("select flywheel._fold()")

    folder = threading.Thread(target=fold)
    folder.start()
    yield
    ended.set()
    folder.join()


def _per_second(dsn: str, version: int, script: str, seconds: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "insert.sql"
        path.write_text(script)
        command = [program(version, "pgbench"), "--no-vacuum", f"--client={CLIENTS}", "--jobs=2", "--protocol=prepared"]
        command += [f"--time={seconds}", f"--file={path}", "--define=n=0", dsn]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench said no rate: {done.stdout} {done.stderr}")
    return float(found[1])
