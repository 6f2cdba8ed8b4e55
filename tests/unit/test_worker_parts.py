"""Parts of the worker that need no database."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflywheel.db import wire
from pgflywheel.errors import Unreachable
from pgflywheel.records import Claimed, Span, Verdict
from pgflywheel.worker import buffer
from pgflywheel.worker.batch import FULL_SPANS, apart, sliced
from pgflywheel.worker.buffer import Buffer
from pgflywheel.worker.bulk import MOST_JOBS, TARGET_SPANS, Size
from pgflywheel.worker.callables import Check, MissingCallable, load, span
from pgflywheel.worker.floors import MARGIN_MS, Floor, uuid7_floor, uuid7_ms
from pgflywheel.worker.ledger import Ending
from pgflywheel.worker.logs import JsonLines, KeyValue
from pgflywheel.worker.refusals import Fault
from pgflywheel.worker.verdicts import Answer, Answers, columns, judged, stored, unscored
from tests.unit.wire_text import strings

uuid7 = st.builds(
    lambda ms, rest: UUID(int=ms << 80 | 0x7 << 76 | rest & ~(0xF << 76)),
    st.integers(0, 2**48 - 1),
    st.integers(0, 2**80 - 1),
)


NIL = UUID(int=0)


def claimed(spans: int, job_id: UUID = NIL) -> Claimed:
    return Claimed(UUID(int=1), job_id, "bulk", 1, [], spans, 1, "live")


@given(value=uuid7)
def test_the_floor_of_a_millisecond_is_below_every_id_of_it(value: UUID) -> None:
    floor = uuid7_floor(uuid7_ms(value))
    assert floor <= value
    assert uuid7_ms(floor) == uuid7_ms(value)


@given(earlier=uuid7, later=uuid7)
def test_ids_sort_by_their_time(earlier: UUID, later: UUID) -> None:
    if uuid7_ms(earlier) < uuid7_ms(later):
        assert earlier < uuid7_floor(uuid7_ms(later))


def test_a_floor_is_used_between_claims_from_the_start() -> None:
    now = [100.0]
    floor = Floor(clock=lambda: now[0])
    assert floor.after() is None
    highest = uuid7_floor(50_000)
    floor.saw([claimed(1, highest)], None, 0.01)
    assert floor.after() == uuid7_floor(50_000 - MARGIN_MS)
    now[0] += 0.1
    assert floor.after() is not None
    now[0] += 0.2  # twenty times as long as the claim took
    assert floor.after() is None


def test_a_floor_never_goes_down() -> None:
    floor = Floor(clock=lambda: 0.0)
    floor.saw([claimed(1, uuid7_floor(90_000))], None, 1)
    floor.saw([claimed(1, uuid7_floor(50_000))], None, 1)
    assert floor.after() == uuid7_floor(90_000 - MARGIN_MS)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (True, Answer(True)),
        (False, Answer(False)),
        (Verdict(False, 0, "no"), Answer(False, 0.0, "no")),
        (Verdict(True, 1), Answer(True, 1.0)),
    ],
)
def test_a_verdict_becomes_a_score(said: object, answer: Answer) -> None:
    assert judged(said) == answer


@pytest.mark.parametrize(
    "said",
    [1, 0, "true", [], (True,), Verdict(True, -0.1), Verdict(True, math.inf), Verdict(1)],  # type: ignore[arg-type]
)
def test_anything_else_is_no_verdict(said: object) -> None:
    assert judged(said).reason == "wrong_type"
    assert judged(said).passed is None


@given(text=st.text(st.characters(exclude_categories=[])))
def test_what_is_stored_can_be_encoded(text: str) -> None:
    assert b"\0" not in stored(text).encode()
    assert len(stored(text)) == len(text)


def test_answers_of_neighbouring_stretches_are_put_together() -> None:
    plain, full = [Answer(True), Answer(False)], [Answer(True, 0.5, "good"), unscored("raised", "oh")]
    whole = columns([Answers.of(plain), Answers.of(full)])
    assert wire.count(whole.passed) == 4
    assert strings(whole.critiques) == [None, None, "good", None]
    assert strings(whole.reasons) == [None, None, None, "raised"]
    assert columns([Answers.of(plain)]).reasons is None


def test_faults_are_counted_and_no_verdict_is_none() -> None:
    answers = Answers.of(
        [Answer(True), Answer(None, reason="no_verdict"), unscored("raised", "first"), unscored("raised", "second")]
    )
    assert (answers.faults, answers.first_fault, answers.detail) == (2, 2, "first")


def test_a_span_has_what_its_columns_say_and_nothing_else() -> None:
    made = span(UUID(int=7), ["latency_ms", "attributes", "input_tokens", "error"], ["1.5", '{"a": [1]}', "12", None])
    assert made == Span(span_id=UUID(int=7), latency_ms=1.5, attributes={"a": [1]}, input_tokens=12)


def test_json_nested_too_deeply_is_an_error_of_its_span_only() -> None:
    with pytest.raises(RecursionError):
        span(UUID(int=7), ["attributes"], ["[" * 100_000])


@pytest.mark.parametrize(
    "path", ["os:system", "subprocess:run", "nowhere:check", "pgflywheel.records:nothing", "json.decoder:JSONDecoder"]
)
def test_what_is_not_an_installed_check_is_not_loaded(path: str) -> None:
    with pytest.raises(MissingCallable, match=path.partition(":")[0]):
        load(path)


def test_a_judge_has_more_time_than_a_bulk_check() -> None:
    definition = {"callable": "a:b", "target": "output"}
    assert (
        Check.of(definition | {"lane": "judge"}).time_limit_ms > Check.of(definition | {"lane": "bulk"}).time_limit_ms
    )
    assert Check.of(definition | {"lane": "judge", "time_limit_ms": 5}).time_limit_ms == 5


@given(sizes=st.lists(st.integers(1, 3000)), spans=st.integers(1, 5000))
def test_slices_keep_every_job_in_order(sizes: list[int], spans: int) -> None:
    jobs = [claimed(size) for size in sizes]
    slices = sliced(jobs, spans)
    assert [job for each in slices for job in each] == jobs
    assert all(len(each) == 1 or sum(job.span_count for job in each) <= spans for each in slices)


@given(count=st.integers(2, 100), reason=st.sampled_from(["raised", "timed_out"]))
def test_failing_jobs_are_taken_apart_without_losing_one(count: int, reason: str) -> None:
    jobs = [claimed(1, UUID(int=number)) for number in range(count)]
    parts = apart(jobs, Fault(reason, ""))
    assert [job for part in parts for job in part] == jobs
    assert all(len(part) < count for part in parts)


def test_batches_grow_to_their_target_and_shrink_when_slow() -> None:
    size = Size()
    for _ in range(50):
        size.saw(10, 10)
    assert size.jobs == MOST_JOBS
    for _ in range(50):
        size.saw(1, 1000)
        size.took(0.1)
    assert size.jobs == TARGET_SPANS // 1000 <= FULL_SPANS
    for _ in range(50):
        size.took(10)
    assert size.jobs == 1


def test_a_log_line_has_the_fields() -> None:
    record = logging.makeLogRecord(
        {"msg": "a check failed", "levelname": "WARNING", "validator": "pii", "detail": 'said "no"'}
    )
    assert KeyValue().format(record).endswith('warning a check failed validator=pii detail="said \\"no\\""')
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["validator"], line["level"]) == ("a check failed", "pii", "warning")


class Flaky(Buffer[Ending]):
    """Writes into a list; each second write finds the database away."""

    def __init__(self) -> None:
        site: Any = SimpleNamespace(put_down=lambda fences: None)
        super().__init__(site)
        self.tries = 0
        self.written: list[UUID | None] = []

    async def write(self, worker_id: UUID, items: list[Ending]) -> None:
        """Write all items of a worker, or none."""
        self.tries += 1
        if self.tries % 2 == 0:
            raise Unreachable("the database is away")
        self.written += [item.fence for item in items]

    def instead(self, item: Ending, why: str) -> Ending | None:
        """Nothing here is unwritable."""
        return item


def test_what_one_worker_left_is_not_written_again_when_the_next_write_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "AGAIN_SECONDS", 0.0)
    flaky, fences = Flaky(), [UUID(int=number) for number in range(1, 7)]
    for number, fence in enumerate(fences):
        flaky.add(Ending(UUID(int=number % 3), fence=fence))
    flaky.close()
    asyncio.run(flaky.run())
    assert flaky.tries > 3
    assert sorted(map(str, flaky.written)) == sorted(map(str, fences))
