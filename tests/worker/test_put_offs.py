"""Claims that are put off one by one are written many at a time."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from pgflywheel.db.connect import open_database
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.put_offs import PutOffs
from pgflywheel.worker.refusals import Fault
from tests.sql.support import Connection, activate, insert_many, rows, value, worker

CALLED = {"kind": "python", "callable": "shop.checks:polite", "lane": "judge"}


@pytest.fixture
def claimed(connection: Connection) -> tuple[uuid.UUID, list[uuid.UUID]]:
    """A worker and its claims of five calls."""
    activate(connection, "called", **CALLED)
    insert_many(connection, 5)
    worker_id = worker(connection)
    query = "select fence from flywheel._claim_calls(1::smallint, %s, 10) order by fence"
    return worker_id, [fence for (fence,) in rows(connection, query, [worker_id])]


def put_off(dsn: str, worker_id: uuid.UUID, wanted: list[tuple[uuid.UUID, float, Fault, bool]]) -> list[Any]:
    async def act() -> list[Any]:
        async with open_database(dsn) as database:
            put_offs = PutOffs(database)
            acts = [
                put_offs.add(worker_id, fence, seconds, fault, costs=costs) for fence, seconds, fault, costs in wanted
            ]
            return await asyncio.gather(*acts, return_exceptions=True)

    return asyncio.run(act())


def test_each_claim_waits_for_its_own_time_and_reason_and_all_are_one_statement(
    dsn: str, connection: Connection, claimed: tuple[uuid.UUID, list[uuid.UUID]]
) -> None:
    worker_id, fences = claimed
    wanted = [(fence, 100.0 * n, Fault(f"reason {n}", f"it is {n}"), n % 2 == 0) for n, fence in enumerate(fences)]
    assert put_off(dsn, worker_id, wanted) == [None] * 5
    found = """select reason, detail, attempt, round(extract(epoch from run_at - statement_timestamp()) / 100)::integer
                 from flywheel._later order by 1"""
    assert rows(connection, found) == [(f"reason {n}", f"it is {n}", 1 - n % 2, n) for n in range(5)]
    assert value(connection, "select count(distinct xmin::text) from flywheel._later") == 1
    assert value(connection, "select count(*) from flywheel._running") == 0


def test_a_lost_claim_is_not_put_off_and_its_last_attempt_ends_it(
    dsn: str, connection: Connection, claimed: tuple[uuid.UUID, list[uuid.UUID]]
) -> None:
    worker_id, (lost, last, *_) = claimed
    connection.execute("update flywheel._running set worker_id = %s where fence = %s", [worker(connection), lost])
    connection.execute("update flywheel._running set attempt = 1000 where fence = %s", [last])
    fault = Fault("busy", "it is")
    assert put_off(dsn, worker_id, [(lost, 1, fault, True), (last, 1, fault, True)]) == [None, None]
    assert rows(connection, "select reason, attempt from flywheel._dead") == [("busy", 1000)]
    assert value(connection, "select count(*) from flywheel._running where fence = %s", [lost]) == 1


def test_what_cannot_be_written_keeps_no_other_claim_waiting(
    dsn: str, connection: Connection, claimed: tuple[uuid.UUID, list[uuid.UUID]]
) -> None:
    worker_id, (first, second, *_) = claimed
    wrong = Fault("busy", "a text with no place \x00 in a database")
    told = put_off(dsn, worker_id, [(first, 1, wrong, True), (second, 1, Fault("busy", "it is"), True)])
    assert isinstance(told[0], FlywheelError)
    assert told[1] is None
    assert rows(connection, "select detail from flywheel._later") == [("it is",)]
