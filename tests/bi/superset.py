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
from pathlib import Path

from platformdirs import user_cache_path

from tests.bi.server import filled_server

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "superset_requirements.txt"
CONFIG = """
SECRET_KEY = "no secret: it lives as long as this run"
SQLALCHEMY_DATABASE_URI = "sqlite:///{folder}/superset.db"
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
RATELIMIT_ENABLED = False
"""
SET_UP = (
    ("superset", "db", "upgrade"),
    ("superset", "fab", "create-admin", *("--username", "admin", "--password", "admin"),
     *("--firstname", "a", "--lastname", "b", "--email", "admin@example.org")),
    ("superset", "init"),
)  # fmt: skip


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
    print(f"environment   {time.monotonic() - begun:6.1f} s", flush=True)
    with filled_server() as server, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "superset_config.py"
        config.write_text(CONFIG.format(folder=folder))
        environ = {
            **os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "FLASK_APP": "superset",
            "SUPERSET_CONFIG_PATH": str(config), "PYTHONWARNINGS": "ignore",
            "PGFLYWHEEL_BI_URI": server.uri("postgresql+psycopg2"),
        }  # fmt: skip
        load = ("python", str(HERE.parents[1] / "docker" / "superset" / "load.py"))
        for command in (*SET_UP, load, load, ("python", "-P", str(HERE / "superset_inside.py"))):
            quiet = command[0] == "superset" or command is load
            ran = subprocess.run(command, env=environ, text=True, capture_output=quiet, check=False, cwd=folder)
            print(f"{' '.join(command[:2])[-30:]:30} {time.monotonic() - begun:6.1f} s", flush=True)
            if ran.returncode:
                print((ran.stdout or "") + (ran.stderr or "")[-4000:])
                return ran.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
