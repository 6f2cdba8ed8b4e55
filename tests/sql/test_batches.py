"""Batches: spans leave the queue for a file with their money, and come back from it once."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.paying import PRICES, books, budget, call, judge, provider
from tests.sql.support import Connection, accounts, activate, insert, refused, rows, state, value, worker

RESERVED = 0.0006  # of 1,000 tokens in and 100 out, in a batch
CLAIM = "select fence from flywheel._claim_lines(%s::smallint, %s, %s)"


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A judge whose provider has a batch endpoint."""
    provider(connection, abilities={"batch": True})
    return judge(connection)


def queued(connection: Connection, count: int) -> list[uuid.UUID]:
    """Insert spans and move their jobs to lane batch."""
    spans = [insert(connection) for _ in range(count)]
    connection.execute("update flywheel._ready set lane = 'batch', priority = 2")
    return spans


def claimed(connection: Connection, worker_id: uuid.UUID, max_spans: int = 100) -> list[uuid.UUID]:
    return [row[0] for row in rows(connection, CLAIM, [2, worker_id, max_spans])]


def line(connection: Connection, fence: uuid.UUID, **given: Any) -> dict[str, Any]:
    """Return a call for a claimed span, as a worker announces a line."""
    query = """select version_ids[1], span.span_id, span.revision, span.started_at::text, span.trace_id, span.project
                 from flywheel._running join flywheel.spans as span on span.span_id = span_ids[1] where fence = %s"""
    names = ("version_id", "span_id", "revision", "started_at", "trace_id", "project")
    subject = dict(zip(names, rows(connection, query, [fence])[0], strict=True))
    return call(**subject, purpose="batch", fence=fence, rung="json_schema", shots=None, degraded=None, **given)


def begin(
    connection: Connection, worker_id: uuid.UUID, batch_id: uuid.UUID, asked: list[dict[str, Any]]
) -> list[tuple[str, str | None]]:
    """Begin lines and return decision and detail of each, in their order."""
    query = "select call_id::text, decision, detail from flywheel._begin_lines(%s, %s, 'fake', 'small', %s)"
    found = {row[0]: row[1:] for row in rows(connection, query, [worker_id, batch_id, Jsonb(asked)])}
    return [found[each["call_id"]] for each in asked]


def handed_in(connection: Connection, count: int) -> tuple[uuid.UUID, uuid.UUID, list[dict[str, Any]]]:
    """Return a worker, a batch of so many spans that is at the endpoint, and its calls."""
    worker_id, batch_id = worker(connection), uuid.uuid4()
    queued(connection, count)
    asked = [line(connection, fence) for fence in claimed(connection, worker_id)]
    assert {told[0] for told in begin(connection, worker_id, batch_id, asked)} == {"line"}
    assert value(connection, "select flywheel._seal_batch(%s)", [batch_id]) == count
    assert value(connection, "select flywheel._batch_submitted(%s, 'batch_1')", [batch_id])
    return worker_id, batch_id, asked


def answers(asked: list[dict[str, Any]], **said: Any) -> Jsonb:
    usual = {"outcome": "answered", "http_status": 200, "input_tokens": 1000, "output_tokens": 100, "reply": {}, **said}
    return Jsonb([{"call_id": each["call_id"], **usual} for each in asked])


def ends(asked: list[dict[str, Any]], **said: Any) -> Jsonb:
    keys = ("version_id", "span_id", "revision")
    scored = (*keys, "started_at", "trace_id", "project")
    return Jsonb(
        [
            {key: each[key] for key in keys}
            | (said or {"score": {key: each[key] for key in scored} | {"passed": True, "votes": 1}})
            for each in asked
        ]
    )


def test_every_span_of_a_claimed_job_has_a_fence_of_its_own(connection: Connection, polite: uuid.UUID) -> None:
    spans = queued(connection, 3)
    merged = (
        "update flywheel._ready set span_ids = %s where job_id = (select min(job_id::text)::uuid from flywheel._ready)"
    )
    connection.execute(merged, [spans])
    connection.execute("delete from flywheel._ready where cardinality(span_ids) = 1")
    fences = claimed(connection, worker(connection))
    assert len(set(fences)) == 3
    assert {row[0] for row in rows(connection, "select span_ids[1] from flywheel._running")} == set(spans)


def test_whole_jobs_are_claimed_until_there_are_enough_spans(connection: Connection, polite: uuid.UUID) -> None:
    spans = queued(connection, 9)
    connection.execute("update flywheel._ready set span_ids = %s where span_ids = %s", [spans[:5], spans[:1]])
    worker_id = worker(connection)
    assert len(claimed(connection, worker_id, 3)) == 5
    assert len(claimed(connection, worker_id, 3)) == 3
    assert len(claimed(connection, worker_id, 100)) == 5


def test_what_a_provider_or_budget_holds_is_not_claimed(connection: Connection, polite: uuid.UUID) -> None:
    queued(connection, 2)
    connection.execute("select flywheel._block_provider('fake', 60, 'rate_limited', null)")
    assert claimed(connection, worker(connection)) == []
    connection.execute("select flywheel.release_provider('fake')")
    assert len(claimed(connection, worker(connection))) == 2


def test_money_of_lines_is_reserved_at_the_price_of_batches_and_spent_when_they_come_back(
    connection: Connection, polite: uuid.UUID
) -> None:
    budget(connection, "validator", "polite", 1.0)
    _, batch_id, asked = handed_in(connection, 10)
    assert books(connection, "validator", "polite")[:2] == pytest.approx((0, 10 * RESERVED))
    assert value(connection, "select reserved_usd from flywheel.batch_status") == pytest.approx(10 * RESERVED)
    assert accounts(connection, "polite")["running"] == 10
    assert value(connection, "select flywheel._answer_lines(%s, %s)", [batch_id, answers(asked[:6])]) == 6
    assert value(connection, "select flywheel._answer_lines(%s, %s)", [batch_id, answers(asked[:7])]) == 1
    assert value(connection, "select flywheel._miss_lines(%s, 'gone')", [batch_id]) == 3
    assert books(connection, "validator", "polite")[:2] == pytest.approx((7 * RESERVED, 0), abs=1e-12)
    assert value(connection, "select answered from flywheel.batch_status") == 7
    assert value(connection, "select count(*) from flywheel._reservations") == 0


def test_lines_take_no_place_in_flight_and_no_tokens_a_minute(connection: Connection) -> None:
    provider(connection, abilities={"batch": True}, max_in_flight=1, requests_per_minute=1, tokens_per_minute=1000)
    judge(connection)
    handed_in(connection, 20)
    assert rows(connection, "select decision from flywheel._begin_calls(%s, %s)", [uuid.uuid4(), Jsonb([call()])]) == [
        ("go",)
    ]


def test_scores_of_lines_are_written_once(connection: Connection, polite: uuid.UUID) -> None:
    worker_id, batch_id, asked = handed_in(connection, 4)
    connection.execute("select flywheel._answer_lines(%s, %s)", [batch_id, answers(asked)])
    end = "select spans, scores from flywheel._end_lines(%s, %s, %s, now())"
    assert rows(connection, end, [worker_id, batch_id, ends(asked)]) == [(4, 4)]
    assert rows(connection, end, [worker_id, batch_id, ends(asked)]) == [(0, 0)]
    assert value(connection, "select flywheel._close_batch(%s, 'completed', null)", [batch_id])
    assert accounts(connection, "polite")["scored"] == 4


def test_a_batch_with_lines_is_not_closed(connection: Connection, polite: uuid.UUID) -> None:
    _, batch_id, _ = handed_in(connection, 1)
    assert not value(connection, "select flywheel._close_batch(%s, 'completed', null)", [batch_id])


@pytest.mark.parametrize(
    ("attempt", "lane", "found"),
    [(1, "batch", "batch"), (2, "batch", "judge"), (1, "judge", "judge"), (4, "batch", "judge")],
)
def test_spans_go_back_to_lane_batch_twice_and_then_to_lane_judge(
    connection: Connection, polite: uuid.UUID, attempt: int, lane: str, found: str
) -> None:
    worker_id, batch_id, asked = handed_in(connection, 3)
    connection.execute("update flywheel._batch_lines set attempt = %s", [attempt])
    told = ends(asked, lane=lane, reason="expired", detail="late")
    connection.execute("select flywheel._end_lines(%s, %s, %s, now())", [worker_id, batch_id, told])
    assert rows(connection, "select lane, priority, attempt, cardinality(span_ids) from flywheel._ready") == [
        (found, 2, attempt, 3)
    ]
    assert accounts(connection, "polite")["queued"] == 3


def test_spans_that_had_all_their_attempts_are_dead(connection: Connection, polite: uuid.UUID) -> None:
    worker_id, batch_id, asked = handed_in(connection, 2)
    connection.execute("update flywheel._batch_lines set attempt = 5")
    told = ends(asked, lane="batch", reason="expired", detail="late")
    connection.execute("select flywheel._end_lines(%s, %s, %s, now())", [worker_id, batch_id, told])
    assert rows(connection, "select reason, detail, cardinality(span_ids) from flywheel._dead") == [
        ("expired", "late", 2)
    ]
    assert accounts(connection, "polite")["dead"] == 2


def test_a_span_whose_votes_are_not_all_paid_for_stays_claimed_and_reserves_nothing(
    connection: Connection, polite: uuid.UUID
) -> None:
    budget(connection, "validator", "polite", 3.5 * RESERVED)
    worker_id = worker(connection)
    queued(connection, 2)
    first, second = claimed(connection, worker_id)
    asked = [line(connection, fence, vote=vote) for fence in (first, second) for vote in (1, 2)]
    told = begin(connection, worker_id, uuid.uuid4(), asked)
    assert [decision for decision, _ in told] == ["line", "line", "released", "wait"]
    assert rows(connection, "select fence from flywheel._running") == [(second,)]
    assert books(connection, "validator", "polite")[1] == pytest.approx(2 * RESERVED)
    assert value(connection, "select count(*) from flywheel._reservations") == 2


def test_a_claim_that_was_lost_makes_no_line(connection: Connection, polite: uuid.UUID) -> None:
    worker_id = worker(connection)
    queued(connection, 1)
    asked = [line(connection, fence) for fence in claimed(connection, worker_id)]
    connection.execute("select flywheel._leave(%s)", [worker_id])
    assert begin(connection, worker_id, uuid.uuid4(), asked)[0][0] == "void"
    assert value(connection, "select count(*) from flywheel._batch_lines") == 0
    assert value(connection, "select count(*) from flywheel._batches") == 0


def test_a_vote_that_is_known_is_kept_beside_those_that_are_asked(connection: Connection, polite: uuid.UUID) -> None:
    worker_id, batch_id, asked = handed_in(connection, 1)
    connection.execute("select flywheel._answer_lines(%s, %s)", [batch_id, answers(asked, reply={"text": "said"})])
    told = ends(asked, lane="batch", reason="expired", detail="its other vote is missing")
    connection.execute("select flywheel._end_lines(%s, %s, %s, now())", [worker_id, batch_id, told])
    (fence,) = claimed(connection, worker_id)
    again = [line(connection, fence, request_hash=asked[0]["request_hash"]), line(connection, fence, vote=2)]
    assert [decision for decision, _ in begin(connection, worker_id, uuid.uuid4(), again)] == ["kept", "line"]
    kept = "select answer #>> '{reply,text}' from flywheel._batch_lines where vote = 1"
    assert value(connection, kept) == "said"


def test_a_batch_is_its_workers_until_that_one_is_gone(connection: Connection, polite: uuid.UUID) -> None:
    first, other = worker(connection), worker(connection)
    queued(connection, 1)
    batch_id = uuid.uuid4()
    begin(connection, first, batch_id, [line(connection, fence) for fence in claimed(connection, first)])
    take = "select batch_id, remote_id from flywheel._take_batches(%s, %s)"
    assert rows(connection, take, [other, []]) == []
    assert rows(connection, take, [first, [batch_id]]) == []
    connection.execute("select flywheel._leave(%s)", [first])
    assert rows(connection, take, [other, []]) == [(batch_id, None)]


def test_what_was_given_up_is_not_handed_in(connection: Connection, polite: uuid.UUID) -> None:
    budget(connection, "validator", "polite", 1.0)
    _, batch_id, _ = handed_in(connection, 3)
    back = "select flywheel._return_batch(%s, 'batch', 0, 'not_handed_in', 'why')"
    assert value(connection, back, [batch_id]) == 3
    assert value(connection, back, [batch_id]) == 0
    assert not value(connection, "select flywheel._batch_submitted(%s, 'batch_1')", [batch_id])
    assert value(connection, "select flywheel._seal_batch(%s)", [batch_id]) is None
    assert books(connection, "validator", "polite")[:2] == pytest.approx((0, 0), abs=1e-12)
    assert value(connection, "select count(*) from flywheel.calls") == 0
    assert accounts(connection, "polite")["queued"] == 3


def test_a_batch_is_asked_for_ever_more_rarely(connection: Connection) -> None:
    waits = "select flywheel._poll_seconds(clock_timestamp() - make_interval(secs => %s))"
    assert [round(value(connection, waits, [age])) for age in (0, 60, 1200, 36_000)] == [1, 6, 120, 300]


def test_a_span_says_that_it_is_in_a_batch(connection: Connection, polite: uuid.UUID) -> None:
    _, _, asked = handed_in(connection, 1)
    assert state(connection, uuid.UUID(asked[0]["span_id"]), "polite") == ("running", "in a batch at provider fake")


def test_a_purged_span_leaves_no_score(connection: Connection, polite: uuid.UUID) -> None:
    worker_id, batch_id, asked = handed_in(connection, 1)
    connection.execute("select flywheel._answer_lines(%s, %s)", [batch_id, answers(asked)])
    connection.execute("delete from flywheel.spans")
    assert rows(connection, "select trace_id from flywheel._answered_spans(%s, 10)", [batch_id]) == [(None,)]
    end = "select spans, scores from flywheel._end_lines(%s, %s, %s, now())"
    assert rows(connection, end, [worker_id, batch_id, ends(asked)]) == [(1, 0)]


def test_only_judges_of_providers_with_batches_can_be_backfilled_so(connection: Connection) -> None:
    begin_it = "select flywheel.start_backfill(%s, now() - interval '1 hour', now(), %s)"
    activate(connection, "short")
    assert "is of kind sql" in (refused(connection, begin_it, ["short", "batch"]).message_primary or "")
    assert "lane is inline" in (refused(connection, begin_it, ["short", "inline"]).message_primary or "")
    provider(connection)
    judge(connection)
    assert "has no batch endpoint" in (refused(connection, begin_it, ["polite", "batch"]).message_primary or "")
    provider(connection, abilities={"batch": True}, models=PRICES)
    assert value(connection, begin_it, ["polite", "batch"])


def test_backfills_of_two_lanes_are_two(connection: Connection, polite: uuid.UUID) -> None:
    begin_it = "select flywheel.start_backfill('polite', '2026-03-01', '2026-03-02', %s)"
    at_once, in_batch = value(connection, begin_it, [None]), value(connection, begin_it, ["batch"])
    assert at_once != in_batch
    assert value(connection, begin_it, ["batch"]) == in_batch
