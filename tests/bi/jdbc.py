"""What JDBC shows of the flat views: names, columns and comments, as the analyst.

    python -m tests.bi.jdbc

Needs a JDK of 11 or later and Postgres's driver (Debian: libpostgresql-jdbc-java; PGFLYWHEEL_JDBC names another jar).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bi.server import LOGIN, PASSWORD, filled_server

DRIVER = os.environ.get("PGFLYWHEEL_JDBC", "/usr/share/java/postgresql.jar")


def main() -> int:
    """Return 0 when every view and column has its comment, and a row can be read."""
    program = Path(__file__).with_name("Metadata.java")
    with filled_server() as server:
        address = f"jdbc:postgresql://127.0.0.1:{server.port}/shop"
        command = ["java", "--class-path", DRIVER, str(program), address, LOGIN, PASSWORD]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
