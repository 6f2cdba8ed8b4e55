"""The commands that filter current scores by time read only the days asked for, of spans and of scores."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from pgflywheel.db import explain
from pgflywheel.db.connect import open_database
from pgflywheel.db.explain import PassRate, ScoreFilter
from tests.sql.support import Connection, activate, rows, work_off

SINCE, BEFORE = datetime(2024, 5, 4, tzinfo=UTC), datetime(2024, 5, 5, tzinfo=UTC)
MEANT = ScoreFilter(since=SINCE, before=BEFORE)
READ = """
select relname from pg_stat_user_tables
 where schemaname = 'flywheel' and relname ~ '^(spans|scores)_2' and seq_scan + coalesce(idx_scan, 0) > 0 order by 1"""


@pytest.fixture
def judged(connection: Connection) -> Connection:
    """Ten days of judged spans; nothing read of them is on record."""
    connection.execute("select flywheel.ensure_partitions('2024-05-01', '2024-05-10')")
    activate(connection, "short")
    connection.execute(
        """insert into flywheel.spans (output, started_at)
           select 'answer ' || n, '2024-05-01 12:00+00'::timestamptz + n / 50 * interval '1 day'
             from generate_series(0, 499) as n"""
    )
    work_off(connection)
    connection.execute("vacuum analyze flywheel.spans, flywheel.scores")
    connection.execute("select pg_stat_force_next_flush()")
    connection.execute("select pg_stat_reset()")
    return connection


def test_pass_rates_of_a_day_read_that_day(dsn: str, judged: Connection) -> None:
    async def ask() -> list[PassRate]:
        async with open_database(dsn) as database:
            return await explain.pass_rates(database, MEANT)

    (rate,) = asyncio.run(ask())
    assert rate.judged == 50
    _wait_until_alone(judged)
    assert rows(judged, READ) == [("scores_20240504",), ("spans_20240504",)]


def _wait_until_alone(connection: Connection) -> None:
    """What a connection read is on record once it has ended."""
    others = """select count(*) from pg_stat_activity
                 where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"""
    for _ in range(600):
        if rows(connection, others) == [(0,)]:
            return
        time.sleep(0.05)
    raise AssertionError("the connection did not end")
