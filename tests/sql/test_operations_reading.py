"""What the terminal and the report read of operations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import pytest

from pgflywheel import errors
from pgflywheel.db import operations
from pgflywheel.db.connect import Database, open_database
from tests.sql import paying
from tests.sql.days import noon, today
from tests.sql.support import Connection, activate, inline, insert, version_id

Found = TypeVar("Found")


def read(dsn: str, ask: Callable[[Database], Awaitable[Found]]) -> Found:
    async def asked() -> Found:
        async with open_database(dsn) as database:
            return await ask(database)

    return asyncio.run(asked())


@pytest.fixture
def shop(connection: Connection) -> Connection:
    inline(connection, "good", expression="span.output = 'good'")
    activate(connection, "later")
    for project in ("shop", "shop", "bank"):
        insert(
            connection,
            "good",
            project=project,
            started_at=noon(),
            ended_at=noon() + timedelta(seconds=1),
            cost_usd=0.5,
        )
    return connection


def test_latency_is_read_by_dimensions_of_one_project_or_all(shop: Connection, dsn: str) -> None:
    window = (noon() - timedelta(hours=1), noon() + timedelta(hours=1))
    by_project = read(dsn, lambda database: operations.latency(database, *window, by=["project"]))
    assert [(row.project, row.n, row.node) for row in by_project] == [("shop", 2, None), ("bank", 1, None)]
    (bank,) = read(dsn, lambda database: operations.latency(database, *window, step="hour", project="bank"))
    assert (bank.time, bank.n, bank.cost_usd) == (noon(), 1, 0.5)
    assert bank.p95_ms == pytest.approx(1000, rel=0.045)
    (whole,) = read(dsn, lambda database: operations.latency(database, *window))
    assert (whole.project, whole.n, whole.error_rate) == (None, 3, 0)
    with pytest.raises(errors.InvalidArgument, match="user_id"):
        read(dsn, lambda database: operations.latency(database, *window, by=["user_id"]))


def test_costs_feedback_and_backlog_are_read(shop: Connection, dsn: str) -> None:
    costs = read(dsn, lambda database: operations.cost(database, noon() - timedelta(days=1), "shop"))
    assert [(row.validator, row.requests, row.cost_per_request, row.cost_per_pass) for row in costs] == [
        (None, 2, 0.5, None),
        ("good", 2, 0.5, 0.5),
    ]
    assert [row.queued for row in read(dsn, operations.backlog)] == [3, 0]
    shop.execute(
        """insert into flywheel.feedback (feedback_id, span_id, kind, value)
           values (gen_random_uuid(), gen_random_uuid(), 'thumb', 1)"""
    )
    (said,) = read(dsn, lambda database: operations.feedback(database, today()))
    assert (said.thumbs, said.thumb_rate, said.mean_rating) == (1, 1, None)
    assert read(dsn, lambda database: operations.feedback(database, today(), "nowhere")) == []


def test_what_judging_cost_is_read(connection: Connection, dsn: str) -> None:
    paying.provider(connection)
    paying.judge(connection)
    asked = [paying.call(version_id(connection, "polite"), span_id=insert(connection))]
    paying.begin(connection, asked)
    paying.end(connection, asked)
    (paid,) = read(dsn, lambda database: operations.validation_cost(database, today()))
    assert (paid.validator, paid.calls, paid.judged, paid.priced_share) == ("polite", 1, 1, 1)
    assert paid.cost_per_judged == pytest.approx(paying.COST)
