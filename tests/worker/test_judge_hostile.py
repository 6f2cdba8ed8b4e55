"""Judges whose endpoint or definition is odd: each keeps its own spans from a verdict, and no other's."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from pgflywheel.db.connect import open_database
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.ledger import Beginner
from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options, Site
from tests.fakes.faults import Fault
from tests.fakes.openai import Asked, Fake
from tests.worker.judging import judge, provide
from tests.worker.support import Connection, insert, scores, set_setting, value, waiting


def judged(dsn: str, seconds: float = 240, **options: Any) -> None:
    """Run a worker until it is idle, which it soon is."""

    async def run() -> None:
        async with asyncio.timeout(seconds):
            await run_worker(dsn, "flywheel", Options(until_idle=True, lanes=("judge",), **options))

    asyncio.run(run())


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 2048. This model supports at most 1024 completion tokens.",
        "Unsupported value: 'max_tokens' of 2048 is not supported with this model.",
        "This model's maximum context length is 8192 tokens.",
    ],
)
def test_a_repair_that_is_refused_leaves_the_first_reply_as_it_is(
    dsn: str, connection: Connection, fake: Fake, message: str
) -> None:
    answer = fake.answer

    def refusing(path: str, asked: Asked, misbehaviour: str | None) -> dict[str, Any]:
        if "cannot be used" in json.dumps(asked.body["messages"][-1]):
            raise Fault(400, message, "invalid_value", param="max_tokens")
        return answer(path, asked, misbehaviour)

    fake.answer = refusing  # type: ignore[method-assign]
    fake.set(mix={"length": 1.0})
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a", "b"])
    judged(dsn, concurrency=1)
    assert {text: said[3] for text, said in scores(connection, "polite").items()} == dict.fromkeys("ab", "length_stop")
    assert waiting(connection) == 0
    assert value(connection, "select count(*) from flywheel._reservations") == 0
    first = [each for each in fake.requests if not _repairs(each.body)]
    assert [each.body.get("max_tokens") for each in first] == [1024, 1024]


def _repairs(body: Any) -> bool:
    return "cannot be used" in json.dumps(body["messages"][-1])


@pytest.mark.parametrize("most", [3_000_000_000, 10**18])
def test_a_judge_whose_calls_cannot_be_entered_keeps_no_other_from_its_verdicts(
    dsn: str, connection: Connection, fake: Fake, most: int
) -> None:
    set_setting(connection, "max_attempts", 2)
    provide(connection, fake)
    judge(connection, "polite")
    judge(connection, "endless", model_parameters={"max_tokens": most})
    insert(connection, [str(number) for number in range(20)])
    judged(dsn)
    assert len(scores(connection, "polite")) == 20
    assert all(said[0] for said in scores(connection, "polite").values())
    assert value(connection, "select max(attempt) from flywheel.calls") == 1
    assert value(connection, "select count(*) from flywheel._reservations") == 0


def test_a_call_that_cannot_be_entered_keeps_none_beside_it_from_being_made(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    provide(connection, fake)
    judge(connection)
    version_id = value(connection, "select version_id from flywheel.validator_versions")

    def call(**odd: Any) -> dict[str, Any]:
        known = {"call_id": uuid4(), "version_id": version_id, "attempt": 1, "purpose": "test", "rung": "text"}
        sizes = {"input_tokens": 10, "output_tokens": 10, "vote": 1, "request_hash": str(uuid4())}
        return {**known, **sizes, "provider": "fake", "model": "small", **odd}

    async def begin() -> list[Any]:
        async with open_database(dsn, max_connections=2) as database:
            site = Site.of(database, Options())
            worker_id, beginner = await site.lease.held(), Beginner(site)
            asked = [beginner.begin(worker_id, each) for each in (call(), call(output_tokens=10**18), call())]
            return await asyncio.gather(*asked, return_exceptions=True)

    first, refused, last = asyncio.run(begin())
    assert (first.decision, last.decision) == ("go", "go")
    assert isinstance(refused, FlywheelError)
