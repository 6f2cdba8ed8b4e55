"""What the tests of roles share: acting as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.sql.support import (
    Connection,
)

SPACES = "('flywheel'::regnamespace, 'flywheel_bi'::regnamespace)"


@contextmanager
def acting(connection: Connection, role: str) -> Iterator[Connection]:
    connection.execute(f"set role {role}".encode())
    yield connection
    connection.execute("reset role")
