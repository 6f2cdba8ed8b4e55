"""Sentinels in a worker: asked through the provider, within budgets, and written whole or not at all."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from pgflywheel.db import calls
from pgflywheel.db.connect import open_database
from pgflywheel.worker.sentinels import Sentinels
from pgflywheel.worker.site import Options, Site
from pgflywheel.worker.tasks import ended
from tests.fakes.faults import Fault
from tests.fakes.openai import Asked, Fake
from tests.sql.exampling import label, span
from tests.worker.judging import judge, outcomes, provide
from tests.worker.support import Connection, value


@pytest.fixture(autouse=True)
def chosen(connection: Connection, fake: Fake) -> None:
    """Let a judge have six sentinels, two of which the fake fails."""
    provide(connection, fake)
    judge(connection)
    for number in range(6):
        span_id = span(connection, "dev", number, output="zzfail" if number < 2 else f"fine {number}")
        label(connection, span_id, number >= 2)
    assert value(connection, "select flywheel.choose_sentinels('polite', 8)") == 6


async def _ask(dsn: str, workers: int) -> list[int]:
    async with open_database(dsn, max_connections=4) as database:
        sites = [Site.of(database, Options()) for _ in range(workers)]
        try:
            return list(await asyncio.gather(*[Sentinels(site).ask_due() for site in sites]))
        finally:
            for site in sites:
                await site.endpoints.close()


def ask(dsn: str, workers: int = 1) -> int:
    """Let so many workers look at once; return how many runs they wrote."""
    return sum(asyncio.run(_ask(dsn, workers)))


def runs(connection: Connection) -> list[tuple[Any, ...]]:
    query = """
      select runs.passed, sentinels.passed, runs.unscored_reason, runs.answered_by is not null, runs.cost_usd > 0
        from flywheel.sentinel_runs as runs join flywheel.sentinels using (sentinel_id) order by 1, 2"""
    return connection.execute(query.encode()).fetchall()


def test_a_judge_is_asked_once_whoever_looks_and_no_score_is_written(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    connection.execute("delete from flywheel.scores")
    assert ask(dsn, workers=3) == 1
    assert ask(dsn) == 0
    assert runs(connection) == [(False, False, None, True, True)] * 2 + [(True, True, None, True, True)] * 4
    assert len(fake.requests) == 6
    assert value(connection, "select array_agg(distinct purpose) from flywheel.calls") == ["test"]
    assert value(connection, "select count(*) from flywheel.scores") == 0
    assert value(connection, "select count(*) from flywheel._reservations") == 0
    assert value(connection, "select n from flywheel.judge_drift") == 0


def test_what_holds_no_verdict_is_unscored(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(mix={"prose": 1.0})
    assert ask(dsn) == 1
    assert [row[2] for row in runs(connection)] == ["unreadable"] * 6
    assert outcomes(connection) == {"unreadable": 12}


def test_a_budget_that_is_used_up_leaves_no_half_run(dsn: str, connection: Connection, fake: Fake) -> None:
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 0)")
    assert ask(dsn) == 0
    assert runs(connection) == []
    assert len(fake.requests) == 0
    connection.execute("delete from flywheel._budget_periods")
    connection.execute("delete from flywheel.budgets")
    connection.execute("update flywheel._drift_turns set taken_until = now()")
    assert ask(dsn) == 1


def test_a_provider_that_does_not_answer_leaves_no_half_run(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(mix={"server_error": 1.0})
    assert ask(dsn) == 0
    assert runs(connection) == []
    assert value(connection, "select count(*) from flywheel._reservations") == 0


def test_what_is_asked_stays_the_same_when_its_span_is_gone(dsn: str, connection: Connection, fake: Fake) -> None:
    connection.execute("delete from flywheel.spans")
    assert ask(dsn) == 1
    assert [row[:2] for row in runs(connection)] == [(False, False)] * 2 + [(True, True)] * 4


def test_what_waits_for_a_limit_keeps_no_place_from_others(dsn: str, connection: Connection, fake: Fake) -> None:
    provide(connection, fake, requests_per_minute=1)  # so the second call is to wait for most of a minute

    async def look() -> bool:
        async with open_database(dsn, max_connections=4) as database:
            site = Site.of(database, Options())
            endpoint = await site.endpoints.of("fake")
            assert endpoint
            endpoint.gate = asyncio.Semaphore(1)
            asking = asyncio.create_task(Sentinels(site).ask_due())
            while not fake.requests:
                await asyncio.sleep(0.01)
            free = await endpoint.pass_gate(monotonic() + 20)
            assert not asking.done()
            await ended([asking])
            await site.endpoints.close()
            return free

    assert asyncio.run(look())


def test_a_model_whose_name_cannot_be_stored_is_recorded(dsn: str, connection: Connection) -> None:
    call_id = uuid4()

    async def end() -> int:
        async with open_database(dsn) as database:
            ended = {"call_id": call_id, "purpose": "test", "provider": "fake", "model": "m", "request_hash": "h"}
            return await calls.end_calls(database, [{**ended, "outcome": "answered", "answered_by": "a\0b\ud800"}])

    assert asyncio.run(end()) == 1
    found = value(connection, "select answered_by from flywheel.calls where call_id = %s", call_id)
    assert found == "a\ufffdb\ufffd"


def test_a_repair_that_is_refused_leaves_the_first_reply_as_it_is(dsn: str, connection: Connection, fake: Fake) -> None:
    answer = fake.answer

    def refusing(path: str, asked: Asked, misbehaviour: str | None) -> dict[str, Any]:
        if "cannot be used" in str(asked.body["messages"][-1]):
            raise Fault(400, "max_tokens is too large: 2048.", "invalid_value", param="max_tokens")
        return answer(path, asked, misbehaviour)

    fake.answer = refusing  # type: ignore[method-assign]
    fake.set(mix={"length": 1.0})
    assert ask(dsn) == 1
    assert value(connection, "select array_agg(distinct unscored_reason) from flywheel.sentinel_runs") == [
        "length_stop"
    ]
