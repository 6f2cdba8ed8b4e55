"""The peers: other queues, installed from PyPI and npm, on a database of their own in the same server."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.bench.server import empty_database

GRAPHILE = "graphile-worker@0.18"
INSTALL_SECONDS = 120.0
MOST_SECONDS = 300.0


def missing(*modules: str) -> list[str]:
    """Return a note for each Python module that is not installed."""
    return [f"{name} is not installed: left out" for name in modules if importlib.util.find_spec(name) is None]


def pgqueuer_seconds(server_dsn: str, mode: str, jobs: int) -> float:
    """Return how long a pgqueuer worker takes for jobs of a mode (drain or sleep)."""
    with empty_database(server_dsn) as dsn:
        return _seconds([sys.executable, "-m", "tests.bench.peer_pgqueuer", mode, dsn, str(jobs)])


def procrastinate_seconds(server_dsn: str, jobs: int) -> float:
    """Return how long a procrastinate worker takes for no-op jobs."""
    with empty_database(server_dsn) as dsn:
        return _seconds([sys.executable, "-m", "tests.bench.peer_procrastinate", dsn, str(jobs)])


def graphile_seconds(server_dsn: str, jobs: int) -> float:
    """Return how long a graphile-worker takes for no-op jobs."""
    with empty_database(server_dsn) as dsn:
        given = conninfo_to_dict(dsn)
        where = [str(given["host"]), str(given["user"]), str(given["dbname"])]
        script = str(Path(__file__).with_name("peer_graphile.mjs"))
        return _seconds(["node", script, str(graphile()), *where, str(jobs)])


@functools.lru_cache(maxsize=1)
def graphile() -> Path | None:
    """Install graphile-worker once for this user and return its folder; None without Node or npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    folder = Path(tempfile.gettempdir()) / "pgflywheel-bench-node"
    if not (folder / "node_modules" / "graphile-worker").exists():
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_text("{}")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", GRAPHILE]
        if subprocess.run(command, cwd=folder, timeout=INSTALL_SECONDS, capture_output=True).returncode:
            return None
    return folder


def _seconds(command: list[str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    if done.returncode:
        raise RuntimeError(f"a peer failed: {' '.join(command[:3])}\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])
