"""The weekly classifier in a worker: what is due is compared once, and the rows that tell are named."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from pgflywheel.db.connect import open_database
from pgflywheel.worker import drift
from tests.sql.drifting import cloud, days_ago, embedded
from tests.worker.support import Connection, value


@pytest.fixture(autouse=True)
def sampled(connection: Connection) -> None:
    """Let the embedder that serves have all spans in its sample."""
    connection.execute("update flywheel.embedders set span_permille = 1000")


def weeks(connection: Connection, current: list[list[float]], node: str = "app") -> None:
    """Insert embedded spans of the weeks before, and of the last one."""
    embedded(connection, cloud(1, 110, [1.0]), days_ago(14), node=node)
    embedded(connection, current, days_ago(3), node=node)
    connection.execute("select flywheel._sum_embeddings(%s, %s)", [days_ago(20).date(), days_ago(1).date()])


async def _look(dsn: str, times: int = 1) -> list[int]:
    async with open_database(dsn, max_connections=2) as database:
        return list(await asyncio.gather(*[drift.compare_weeks(database) for _ in range(times)]))


def look(dsn: str, times: int = 1) -> int:
    """Let so many workers look at once; return how many comparisons they made."""
    return sum(asyncio.run(_look(dsn, times)))


def test_a_week_that_differs_is_found_with_the_spans_that_tell(dsn: str, connection: Connection) -> None:
    hostile = "x'; drop table flywheel.spans; --"
    weeks(connection, [*cloud(2, 75, [1.0]), *cloud(3, 35, [-1.0, 1.0, 1.0])], node=hostile)
    assert look(dsn, 2) == 1  # of two workers, one
    assert look(dsn) == 0  # until next week
    found = connection.execute(
        "select drifted, statistic > threshold, n_reference, n_current, evidence -> 'spans' from flywheel.drift_status"
        " where kind = 'domain_classifier'"
    ).fetchall()
    assert [row[:4] for row in found] == [(True, True, 110, 110)]
    told = [uuid.UUID(each) for each in found[0][4]]
    far = """select count(*) from flywheel.span_embeddings
              where span_id = any (%s) and (embedding::public.vector::real[])[1] < 0"""
    assert len(told) == 10
    assert value(connection, far, told) >= 9


def test_a_week_like_those_before_does_not_drift(dsn: str, connection: Connection) -> None:
    weeks(connection, cloud(2, 110, [1.0]))
    assert look(dsn) == 1
    assert value(connection, "select drifted from flywheel.drift_tests where kind = 'domain_classifier'") is False


def test_too_few_vectors_are_not_compared(dsn: str, connection: Connection) -> None:
    weeks(connection, cloud(2, 99, [1.0]))
    assert look(dsn) == 0


def test_without_scikit_learn_the_status_says_so(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weeks(connection, cloud(2, 110, [1.0]))
    monkeypatch.setattr(drift, "installed", lambda: False)
    drift.say_missing.cache_clear()
    assert [look(dsn), look(dsn)] == [0, 0]
    assert [record.message for record in caplog.records] == ["weeks are not compared"]
    note = "select evidence ->> 'note' from flywheel.drift_status where kind = 'domain_classifier' and drifted is null"
    assert "pip install 'pgflywheel[analysis]'" in value(connection, note)
    monkeypatch.undo()
    assert look(dsn) == 1
