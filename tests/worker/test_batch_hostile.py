"""Lane batch: what an endpoint may say of a batch, or in its files, without keeping the other spans from a verdict."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.fakes.batches import Batch
from tests.fakes.openai import Fake
from tests.worker.batching import have_no_patience, prepare, require_all_judged, statuses
from tests.worker.support import Connection, value

SPANS = 20
DEEP: list[Any] = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    have_no_patience(monkeypatch)


def judged(dsn: str, *lanes: str) -> None:
    """Run a worker until it is idle, which it soon is."""

    async def run() -> None:
        async with asyncio.timeout(240):
            await run_worker(dsn, "flywheel", Options(until_idle=True, lanes=lanes))

    asyncio.run(run())


HOSTILE: list[dict[str, Any]] = [
    {"response__status_code": 99_999_999_999},
    {"response__status_code": -70_000},
    {"response__status_code": True},
    {"response__status_code": 1.5},
    {"response__status_code": "200"},
    {"response__status_code": DEEP},
    {"response__body": DEEP},
    {"response__body": "\ud800\x00"},
    {"response__body__choices": DEEP},
    {"response__body__model": "\x00" * 5000},
    {"response__body__usage": {"prompt_tokens": 10**30, "completion_tokens": -(10**30)}},
    {"response__body__choices__0__logprobs": {"content": [{"token": DEEP}]}},
    {"response__body__choices__0__message__content": '{"critique": "\\u0000\\ud800", "verdict": "pass"}'},
    {"response": DEEP, "error": {"code": DEEP, "message": DEEP}},
    {"response": None, "error": {"message": "\x00\ud800"}},
    {"response": None, "error": DEEP},
    {"custom_id": DEEP},
    {"custom_id": 5},
    {"custom_id": "00000000-0000-0000-0000-000000000000"},
]


def spoil(fake: Fake, changes: list[dict[str, Any]]) -> None:
    """Let as many lines of the first batch's output say something else."""
    finish = fake.office.finish

    def spoiled(batch: Batch, state: str, reason: tuple[str, str]) -> None:
        if len(fake.office.batches) == 1 and batch.output:
            good = [line for line in batch.output if re.search("verdict.{1,5}pass", str(line))]
            for line, change in zip(good, changes, strict=False):
                for path, said in change.items():
                    put(line, path.split("__"), said)
        finish(batch, state, reason)

    fake.office.finish = spoiled  # type: ignore[method-assign]


def put(part: Any, names: list[str], said: Any) -> None:
    """Replace a part of a line."""
    for name in names[:-1]:
        part = part[int(name) if name.isdigit() else name]
    part[names[-1]] = said


def test_no_line_of_a_file_keeps_another_from_being_read(dsn: str, connection: Connection, fake: Fake) -> None:
    spoil(fake, HOSTILE)
    prepare(connection, fake, 50)
    judged(dsn, "batch", "judge")
    require_all_judged(connection, 50)
    unread = "select count(*) from flywheel.calls where purpose = 'batch' and outcome <> 'answered'"
    assert value(connection, unread) >= 10


@pytest.mark.parametrize("errors", [5, True, DEEP, {"data": 5}, {"data": True}, {"data": {"a": 1}}, {"data": [DEEP]}])
def test_errors_of_a_batch_that_are_none_keep_it_from_nothing(
    dsn: str, connection: Connection, fake: Fake, errors: Any
) -> None:
    finish = fake.office.finish

    def said(batch: Batch, state: str, reason: tuple[str, str]) -> None:
        batch.told["errors"] = errors
        finish(batch, state, reason)

    fake.office.finish = said  # type: ignore[method-assign]
    prepare(connection, fake, SPANS)
    judged(dsn, "batch")
    require_all_judged(connection, SPANS)
    assert statuses(connection) == ["completed"]


@pytest.mark.parametrize("told", [{"id": None}, {"id": 5}, {"id": "\x00"}, {"id": ""}, {"id": DEEP}])
def test_a_batch_without_an_id_is_looked_for_by_ours(
    dsn: str, connection: Connection, fake: Fake, told: dict[str, Any]
) -> None:
    create = fake.office.create
    fake.office.create = lambda *asked: create(*asked) | told  # type: ignore[method-assign]
    prepare(connection, fake, SPANS)
    judged(dsn, "batch")
    require_all_judged(connection, SPANS)
    assert len(fake.office.batches) == 1


@pytest.mark.parametrize("metadata", [5, True, ["a"], "a", {"pgflywheel_batch": DEEP}])
def test_batches_of_others_at_the_endpoint_may_be_as_they_like(
    dsn: str, connection: Connection, fake: Fake, metadata: Any
) -> None:
    theirs = {"id": "batch_of_others", "metadata": metadata, "status": "completed"}
    create = fake.office.create

    def lost(*asked: Any) -> dict[str, Any]:
        fake.office.batches = {"batch_of_others": Batch(theirs, [], []), **fake.office.batches}
        create(*asked)
        return {}

    fake.office.create = lost  # type: ignore[method-assign, assignment]
    prepare(connection, fake, SPANS)
    judged(dsn, "batch")
    require_all_judged(connection, SPANS)
