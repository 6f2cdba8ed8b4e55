"""Lane batch, while workers end at the worst of times."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from pgflywheel.db import batches
from pgflywheel.judge.client import Client
from pgflywheel.worker import batch_polls
from tests.fakes.openai import Fake
from tests.worker.batching import calls, have_no_patience, prepare, require_all_judged, require_balanced, run_until
from tests.worker.support import Connection, process, set_setting, started, until, value, work


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    have_no_patience(monkeypatch)


@pytest.mark.parametrize("ends", ["before the upload", "after the upload", "after the batch was made"])
def test_a_worker_that_ends_while_it_hands_in_loses_no_span_and_scores_none_twice(
    dsn: str, connection: Connection, fake: Fake, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    prepare(connection, fake)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 5.0)")
    upload, create = Client.upload, Client.create_batch
    ended: list[str] = []

    def end_here() -> None:
        ended.append(ends)
        raise RuntimeError(ends)

    async def uploading(client: Client, name: str, content: bytes) -> str:
        if ends == "before the upload" and not ended:
            end_here()
        file_id = await upload(client, name, content)
        if ends == "after the upload" and not ended:
            end_here()
        return file_id

    async def creating(client: Client, file_id: str, metadata: Any = None) -> dict[str, Any]:
        told = await create(client, file_id, metadata)
        if ends == "after the batch was made" and not ended:
            end_here()
        return told

    monkeypatch.setattr(Client, "upload", uploading)
    monkeypatch.setattr(Client, "create_batch", creating)
    polls = batch_polls.Polls.look
    monkeypatch.setattr(batch_polls.Polls, "look", lambda self: asyncio.sleep(0))
    run_until(dsn, lambda: bool(ended))
    assert value(connection, "select status from flywheel.batch_status") == "submitting"
    assert value(connection, "select running from flywheel.accounts") == 300
    require_balanced(connection)
    monkeypatch.setattr(batch_polls.Polls, "look", polls)
    work(dsn)
    require_all_judged(connection)
    made = sum(request.path.endswith("/batches") and request.method == "POST" for request in fake.requests)
    assert made == 1
    assert calls(connection) == {("batch", "answered"): 300}


def test_a_batch_is_read_once_though_its_reader_ends_in_the_middle(
    dsn: str, connection: Connection, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_polls, "PAGE", 50)
    prepare(connection, fake)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 5.0)")
    real_answer, real_end = batches.answer, batches.end
    broken = {"answer": 3, "end": 2}

    async def answer(*arguments: Any) -> Any:
        broken["answer"] -= 1
        if broken["answer"] == 0:
            raise RuntimeError("ended while answers were entered")
        return await real_answer(*arguments)

    async def end(*arguments: Any) -> Any:
        broken["end"] -= 1
        if broken["end"] == 0:
            raise RuntimeError("ended while scores were written")
        return await real_end(*arguments)

    monkeypatch.setattr(batches, "answer", answer)
    monkeypatch.setattr(batches, "end", end)
    work(dsn)
    require_all_judged(connection)
    assert calls(connection) == {("batch", "answered"): 300}


@pytest.mark.parametrize("seed", range(2))
def test_workers_killed_at_any_time_lose_no_span_and_pay_for_none_twice(
    dsn: str, connection: Connection, fake: Fake, seed: int
) -> None:
    fake.set(batch_expires_after=200)
    prepare(connection, fake, spans=600)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 5.0)")
    set_setting(connection, "max_attempts", 100)
    chance = random.Random(seed)
    for _ in range(5):
        with process(dsn, "--lanes", "batch") as running:
            until(started(connection))
            time.sleep(chance.uniform(0, 2))
            running.kill()
            running.wait()
        require_balanced(connection)
        connection.execute("select flywheel._leave(worker_id) from flywheel._workers")  # as if its lease were over
        connection.execute("update flywheel._batches set next_poll_at = now() where closed_at is null")
    work(dsn)
    require_all_judged(connection, 600)
    assert sum(count for (_, outcome), count in calls(connection).items() if outcome == "answered") == 600
