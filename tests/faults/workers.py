"""A worker as a process of its own, to be killed, stopped and read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.faults.books import wait_until
from tests.sql.support import Connection, rows, value

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 3  # the shortest a worker takes


@dataclass
class WorkerProcess:
    """``pgflywheel worker run``, with its log in a file."""

    process: subprocess.Popen[bytes]
    log_file: Path
    name: str

    @classmethod
    def start(cls, dsn: str, log_file: Path, *options: str) -> WorkerProcess:
        """Start a worker; checks are imported from the repository's root."""
        command = [sys.executable, "-m", "pgflywheel", "worker", "run", "--dsn", dsn, "--name", log_file.stem]
        with log_file.open("wb") as log:
            process = subprocess.Popen([*command, *options], stdin=subprocess.DEVNULL, stderr=log, cwd=ROOT)
        return cls(process, log_file, log_file.stem)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> list[int]:
        """SIGKILL; return the ids of the processes it had for its checks."""
        children = children_of(self.process.pid)
        self.process.kill()
        self.process.wait()
        return children

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def end(self, seconds: float = 60) -> int:
        """SIGTERM; return the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def finish(self, seconds: float = 120) -> None:
        """Wait until a worker with --until-idle is done."""
        code = self.process.wait(seconds)
        assert code == 0, f"exit code {code}\n{self.log[-4000:]}"


def stop_past_the_lease(connection: Connection, worker: WorkerProcess) -> int:
    """Stop a worker until its jobs were taken from it, then let it go on; return how many jobs it held."""
    worker.freeze()
    names = "select worker_id from flywheel._workers where name = %s"
    ids = [found for (found,) in rows(connection, names, [worker.name])]
    query = "select count(*) from flywheel._running where worker_id = any (%s)"
    held = int(value(connection, query, [ids]))
    wait_until("its jobs are taken from it", lambda: value(connection, query, [ids]) == 0)
    row = "select count(*) from flywheel._workers where worker_id = any (%s)"
    wait_until("its lease is over, also if it held none", lambda: value(connection, row, [ids]) == 0)
    worker.thaw()
    entered = "select count(*) from flywheel._workers where name = %s and worker_id <> all (%s)"
    wait_until("it goes on under a new id", lambda: value(connection, entered, [worker.name, ids]))
    return held


def children_of(pid: int) -> list[int]:
    """Return the ids of a process' children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def runs(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> None:
    """SIGKILL a process that may have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def metric(port: int, name: str) -> float:
    """Return the sum over a metric's labels, as a worker serves it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page.read().decode(), re.MULTILINE)
    return sum(map(float, lines))


def command(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``pgflywheel`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pgflywheel", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
    )
