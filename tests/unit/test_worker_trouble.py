"""What replies, texts and long outages may not do to a worker; no database is needed."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from pgflywheel.db import queue
from pgflywheel.errors import DatabaseError, Unreachable
from pgflywheel.judge import parse
from pgflywheel.judge.failures import failure_of
from pgflywheel.judge.judgement import read
from pgflywheel.judge.reading import reply_of
from pgflywheel.judge.records import Reply
from pgflywheel.report.model import Line, Plot, Point
from pgflywheel.report.svg import draw
from pgflywheel.worker.batch_answers import answer_of
from pgflywheel.worker.buffer import Buffer
from pgflywheel.worker.ledger import Ending
from pgflywheel.worker.logs import KeyValue
from pgflywheel.worker.refusals import backoff_seconds, delay_seconds

DEPTHS = range(850, 1000, 3)  # about as deep as JSON is read, and what is done with it no longer is


@pytest.mark.parametrize("failures", [1, 1_000, 1_100, 10**6])
def test_an_outage_of_days_has_a_longest_wait(failures: int) -> None:
    assert 0 < backoff_seconds(failures) <= 5.0
    assert 0 < delay_seconds(failures) <= 300.0


@pytest.mark.parametrize("logprob", [10**400, -(10**400), float("inf"), float("-inf"), float("nan"), True, None, "0"])
def test_a_logprob_that_is_none_is_no_error(logprob: object) -> None:
    rivals = [{"token": "pass", "logprob": logprob}, {"token": "fail", "logprob": -0.5}]
    assert read(reply_of(completion(rivals), 200, 1.0)).scored


@pytest.mark.parametrize("rivals", [5, "x", {"a": 1}, [1], ["x"], [None], [[]]])
def test_rivals_that_are_none_are_no_error(rivals: object) -> None:
    reading = read(reply_of(completion(rivals), 200, 1.0))
    assert reading.judgement.passed is True
    line = json.dumps({"custom_id": str(uuid4()), "response": {"status_code": 200, "body": completion(rivals)}})
    assert (answer_of(line.encode(), None) or {})["outcome"] == "answered"


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_is_nested_too_deeply_is_unreadable(depth: int) -> None:
    assert read(Reply('{"verdict": ' + "[" * depth + "]" * depth + "}")).outcome == "unreadable"


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_message_nested_too_deeply_is_classified(depth: int) -> None:
    deep: list[object] = []
    for _ in range(depth):
        deep = [deep]
    assert failure_of(400, {"error": {"message": deep}}, {}).outcome == "rejected"
    assert reply_of({"choices": [{"message": {"content": [{"text": deep}]}}]}, 200, 1.0).text == ""


def completion(rivals: object) -> dict[str, Any]:
    """Return a chat completion that says pass, with these alternatives to its verdict."""
    said = '{"critique": "good", "verdict": "pass"}'
    tokens = [{"token": said[:-6]}, {"token": "pass", "top_logprobs": rivals}, {"token": '"}'}]
    return {"choices": [{"message": {"content": said}, "logprobs": {"content": tokens}}]}


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b2J", "a\u202eb", "\x7f", "\x07"])
def test_no_text_in_a_log_line_steers_a_terminal(hostile: str) -> None:
    record = logging.makeLogRecord({"msg": f"said {hostile}", "levelname": "WARNING", "detail": hostile})
    try:
        raise ValueError(hostile)
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    shown = KeyValue().format(record)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert "Traceback" in shown.splitlines()[1]


class Unwritable(Buffer[Ending]):
    """A database that takes nothing."""

    def __init__(self) -> None:
        self.doubts: list[str] = []
        self.left: list[UUID] = []
        site: Any = SimpleNamespace(
            put_down=self.left.extend, doubt=lambda part, error: self.doubts.append(part), database=None
        )
        super().__init__(site)

    async def write(self, worker_id: UUID, items: list[Ending]) -> None:
        """Refuse."""
        raise DatabaseError("this cannot be stored")

    def instead(self, item: Ending, why: str) -> Ending | None:
        """There is nothing simpler."""
        return None


def test_an_answer_that_can_be_neither_written_nor_put_off_ends_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*args: object) -> int:
        raise Unreachable("the database is away")

    monkeypatch.setattr(queue, "retry", away)
    unwritable, fence = Unwritable(), UUID(int=1)
    unwritable.add(Ending(UUID(int=2), fence=fence))
    unwritable.close()
    asyncio.run(unwritable.run())
    assert unwritable.doubts == ["answers"]
    assert unwritable.left == [fence]


@pytest.mark.parametrize("space", ["\n", " \n", "\r\n"])
def test_a_verdict_on_a_line_is_looked_for_within_that_line(space: str) -> None:
    assert parse._LINE.match(f"{space}verdict: pass") is None  # or blank lines take hours
    assert read(Reply(f"It is good.{space}\t**Verdict:** pass{space}")).judgement.critique == "It is good."


@pytest.mark.parametrize(
    "time", ["Thu, 01 Jan 99999999999 00:00:00 GMT", "Thu, 01 Jan 2026 99999999999999999999:00:00 GMT"]
)
def test_a_date_to_come_back_at_that_no_clock_shows_is_none(time: str) -> None:
    assert failure_of(429, None, {"retry-after": time}).retry_after_seconds is None


def test_an_interval_without_an_end_is_not_drawn() -> None:
    point = Point(datetime(2026, 1, 1, tzinfo=UTC), 0.5, 0.1, float("inf"))
    drawn = draw(Plot("rate", [Line("rate", [point])]))
    assert "band" not in drawn
    assert "dot" in drawn
