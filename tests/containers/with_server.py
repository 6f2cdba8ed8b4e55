"""Run a command with PGFLYWHEEL_TEST_DSN naming a fresh server of docker/Dockerfile.

Example: python -m tests.containers.with_server python -m pytest tests/sql
"""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import quote

from tests.conftest import SERVER_SETTINGS, memory_has_room
from tests.containers import engine


def main(*command: str) -> int:
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in SERVER_SETTINGS.items()]
    image = engine.build_database_image()
    with engine.database_server(image, *settings, in_memory=memory_has_room()) as server:
        dsn = f"postgresql://postgres:{quote(engine.PASSWORD, safe='')}@{server.host}:{server.port}/postgres"
        return subprocess.run(command, env={**os.environ, "PGFLYWHEEL_TEST_DSN": dsn}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
