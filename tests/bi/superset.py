"""Superset itself, as an analyst: import the assets, list views with their descriptions, get rows for every chart.

    python -m tests.bi.superset

Superset comes from PyPI, into an environment of its own under the user's cache folder (PGFLYWHEEL_SUPERSET_ENV names
another), which is kept for the next time. Minutes, the first time; so it is no part of the test suite.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_path

from tests.bi.server import filled_server

HERE = Path(__file__).parent
DOCKER = HERE.parents[1] / "docker" / "superset"
REQUIREMENTS = DOCKER / "requirements.txt"
SECRET = "no secret, it lives as long as this run"


def environment() -> Path:
    """Return the bin folder of an environment with Superset in it, made on first use."""
    said = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    default = user_cache_path("pgflywheel") / f"superset-{said}"
    folder = Path(os.environ.get("PGFLYWHEEL_SUPERSET_ENV", default))
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
        (folder / "installed").touch()
    return folder / "bin"


def main() -> int:
    """Return 0 when Superset shows everything, else the exit code of what failed."""
    begun = time.monotonic()
    bin_folder = environment()
    print(f"environment {time.monotonic() - begun:.0f} s", flush=True)
    with filled_server() as server, tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ, **server.variables(),
            "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore",
            "SUPERSET_CONFIG_PATH": str(DOCKER / "superset_config.py"), "SUPERSET_HOME": folder,
            "SUPERSET_SECRET_KEY": SECRET, "SUPERSET_PASSWORD": "admin",
        }  # fmt: skip
        environ.pop("PYTHONPATH", None)
        for name, command in _steps():
            ran = subprocess.run(command, env=environ, text=True, capture_output=True, check=False, cwd=folder)
            print(f"{name} {time.monotonic() - begun:.0f} s\n{ran.stdout if name == 'look' else ''}", flush=True)
            if ran.returncode:
                print(ran.stderr[-4000:])
                return ran.returncode
    return 0


def _steps() -> Iterator[tuple[str, list[str]]]:
    """Yield what is run: the container's own start, which loads the assets; loading again; then the web pages' API."""
    load = ["python", str(DOCKER / "load.py")]
    yield "start and load again", [str(DOCKER / "start.sh"), *load]
    yield "look", ["python", "-P", str(HERE / "superset_inside.py")]  # -P: its folder has a superset.py


if __name__ == "__main__":
    sys.exit(main())
