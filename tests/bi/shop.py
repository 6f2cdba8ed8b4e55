"""A shop's last fortnight: enough of everything that every view a dashboard shows has rows."""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg

from tests.sql.measured import judge
from tests.sql.support import Connection, inline

FORTNIGHT = Path(__file__).with_suffix(".sql")


def fill(connection: Connection) -> None:
    """Fill an empty install."""
    connection.execute("select flywheel.ensure_partitions(current_date - 16, current_date + 1)")
    inline(connection, "not_too_long", expression="length(span.output) < 100", severity="high")
    judge(connection)
    judge(connection, "surely_polite", runs="escalated")
    connection.execute(FORTNIGHT.read_bytes())
    connection.execute("select flywheel._refresh_standings()")


if __name__ == "__main__":
    with psycopg.connect(sys.argv[1], autocommit=True) as session:
        fill(session)
