"""Lane batch: files of requests go to an endpoint and come back whole, in part, or not at all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pgflywheel.worker import batch_endpoint
from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.fakes.openai import Fake, serving
from tests.worker.batching import (
    backfill,
    calls,
    chats,
    have_no_patience,
    poll_after,
    prepare,
    require_all_judged,
    require_balanced,
    require_settled,
    run_until,
    statuses,
)
from tests.worker.support import Connection, insert, scores, set_setting, value, work


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    have_no_patience(monkeypatch)


def test_a_backfill_is_judged_by_a_file_at_half_the_price(dsn: str, connection: Connection, fake: Fake) -> None:
    prepare(connection, fake)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 5.0)")
    work(dsn)
    require_all_judged(connection)
    assert statuses(connection) == ["completed"]
    assert chats(fake) == 0
    assert calls(connection) == {("batch", "answered"): 300}
    full = "sum((input_tokens - cached_tokens) * 1.0 + cached_tokens * 0.1 + output_tokens * 2.0) / 1e6"
    half = f"select sum(cost_usd) - 0.5 * {full}"
    assert value(connection, f"{half} from flywheel.calls") == pytest.approx(0, abs=1e-12)
    assert value(connection, f"{half} from flywheel.scores") == pytest.approx(0, abs=1e-12)
    assert value(connection, "select lines = 300 and answered = 300 and reserved_usd = 0 from flywheel.batch_status")


def test_no_other_lane_is_needed(dsn: str, connection: Connection, fake: Fake) -> None:
    prepare(connection, fake, spans=20)
    work(dsn, lanes=("batch",))
    require_all_judged(connection, 20)


def test_while_a_batch_is_open_its_spans_count_as_running(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(batch_polls=1000)
    prepare(connection, fake, spans=20)
    connection.execute("select flywheel.set_budget('provider', 'fake', 'month', 5.0)")
    poll_after(connection, 3600)

    async def hand_in() -> None:
        worker = asyncio.create_task(run_worker(dsn, "flywheel", Options(until_idle=True)))
        while not value(connection, "select count(*) from flywheel._batches where remote_id is not null"):
            await asyncio.sleep(0.05)
        await worker

    asyncio.run(hand_in())
    assert value(connection, "select running from flywheel.accounts") == 20
    require_balanced(connection)
    span = value(connection, "select span_id from flywheel.spans limit 1")
    state, detail = connection.execute("select state, detail from flywheel.why(%s)", [span]).fetchone() or ("", "")
    assert state == "running"
    assert "batch" in detail
    assert value(connection, "select reserved_usd > 0 and spent_usd = 0 from flywheel.budget_status")
    assert value(connection, "select flywheel._settle_lost()") == 0
    fake.set(batch_polls=1)
    poll_after(connection, 0.1)
    connection.execute("update flywheel._batches set next_poll_at = now()")
    work(dsn)
    require_all_judged(connection, 20)


def test_the_books_balance_at_every_moment(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(batch_expires_after=60, mix={"server_error": 0.2}, at_most=1)
    prepare(connection, fake, spans=200)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 5.0)")
    books = "select eligible, scored + unscored + queued + running + later + dead from flywheel.accounts"
    working = threading.Thread(target=work, args=(dsn,))
    working.start()
    seen = set()
    while working.is_alive():
        seen.update(connection.execute(books).fetchall())
    working.join()
    assert seen == {(200, 200)}
    require_all_judged(connection, 200)


def test_lines_that_expired_are_asked_again(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(batch_expires_after=200)
    prepare(connection, fake)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 5.0)")
    work(dsn)
    require_all_judged(connection)
    assert statuses(connection) == ["expired", "expired"]
    assert calls(connection) == {("batch", "answered"): 300, ("batch", "expired"): 100}
    assert chats(fake) == 0


def test_what_two_batches_did_not_bring_is_asked_at_once(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(batch_expires_after=10)
    prepare(connection, fake, spans=50)
    work(dsn)
    require_all_judged(connection, 50)
    assert statuses(connection) == ["expired", "expired"]
    assert chats(fake) == 30
    assert calls(connection) == {("batch", "answered"): 20, ("batch", "expired"): 70, ("score", "answered"): 30}


def test_a_batch_that_failed_costs_nothing_and_is_tried_again(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(batch_fails="Enqueued token limit reached.")
    prepare(connection, fake, spans=40)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 5.0)")
    work(dsn)
    require_all_judged(connection, 40)
    assert statuses(connection) == ["failed", "failed"]
    assert value(connection, "select detail from flywheel.batch_status limit 1") == "Enqueued token limit reached."
    assert calls(connection) == {("score", "answered"): 40}


def test_lines_with_errors_go_where_calls_with_such_errors_go(dsn: str, connection: Connection, fake: Fake) -> None:
    set_setting(connection, "max_attempts", 3)
    insert(connection, ["qqbroken", "qqprose", "qqsad", "qqlong", "qqwrong"])
    told = {
        "qqbroken": "server_error",
        "qqprose": "prose",
        "qqsad": "refusal",
        "qqlong": "too_long",
        "qqwrong": "bad_request",
    }
    fake.set(when=told)
    prepare(connection, fake, spans=9)
    work(dsn)
    found = scores(connection, "polite")
    assert {output: said[3] for output, said in found.items() if said[3]} == {
        "qqprose": "unreadable",
        "qqsad": "refused",
        "qqlong": "too_long",
    }
    assert len(found) == 12
    dead = connection.execute("select lane, reason, attempt from flywheel._dead order by lane").fetchall()
    assert dead == [("batch", "rejected", 1), ("judge", "server_error", 3)]
    assert calls(connection)[("batch", "server_error")] == 2
    require_settled(connection)


def test_a_reply_that_cannot_be_read_is_asked_for_once_more_by_the_judge_lane(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    prepare(connection, fake, spans=30)
    fake.set(first=["wrong_fields"] * 7)
    work(dsn)
    require_all_judged(connection, 30)
    assert calls(connection) == {("batch", "answered"): 23, ("batch", "unreadable"): 7, ("score", "answered"): 7}


def test_several_votes_are_several_lines_and_one_score(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(batch_expires_after=50)
    prepare(connection, fake, spans=20, votes=3)
    work(dsn)
    require_all_judged(connection, 20)
    assert calls(connection) == {("batch", "answered"): 60, ("batch", "expired"): 10}
    assert value(connection, "select array_agg(distinct votes) from flywheel.scores") == [3]


def test_a_budget_lets_so_many_lines_pass_and_no_more(dsn: str, connection: Connection, fake: Fake) -> None:
    prepare(connection, fake, spans=60, model_parameters={"max_tokens": 50})
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 0.006)")
    work(dsn)
    spent, cap, reserved = connection.execute(
        "select spent_usd, cap_usd, reserved_usd from flywheel.budget_status"
    ).fetchone() or (0, 0, 0)
    assert 0 < spent <= cap
    assert reserved == pytest.approx(0, abs=1e-9)
    judged = len(scores(connection, "polite"))
    assert 0 < judged < 60
    require_balanced(connection)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 5)")
    work(dsn)
    require_all_judged(connection, 60)


def test_what_was_answered_lately_needs_no_line(dsn: str, connection: Connection, fake: Fake) -> None:
    prepare(connection, fake, spans=30)
    work(dsn)
    connection.execute("delete from flywheel.scores where (select count(*) from flywheel.scores) = 30")
    backfill(connection)
    work(dsn)
    require_all_judged(connection, 30)
    assert statuses(connection) == ["completed"]


def test_a_second_backfill_of_the_same_time_adds_no_lines(dsn: str, connection: Connection, fake: Fake) -> None:
    prepare(connection, fake, spans=30)
    backfill(connection)
    work(dsn)
    require_all_judged(connection, 30)
    assert calls(connection) == {("batch", "answered"): 30}


def test_the_same_request_is_one_line_and_the_others_wait_for_its_answer(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    insert(connection, ["the very same"] * 40)
    prepare(connection, fake, spans=10)
    work(dsn)
    assert value(connection, "select count(*) from flywheel.scores where passed") == 49
    assert calls(connection) == {("batch", "answered"): 11}
    require_settled(connection)


def test_large_work_is_several_files(
    dsn: str, connection: Connection, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_endpoint, "MOST_LINES", 100)
    prepare(connection, fake, spans=250)
    work(dsn)
    require_all_judged(connection, 250)
    assert connection.execute("select lines from flywheel.batch_status order by lines desc").fetchall() == [
        (100,),
        (100,),
        (50,),
    ]


def test_a_provider_that_is_full_or_shut_takes_the_file_later(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(api_key="the key")
    prepare(connection, fake, spans=10)
    set_setting(connection, "max_attempts", 1)
    run_until(dsn, lambda: value(connection, "select blocked_reason from flywheel.provider_status") == "unauthorized")
    require_balanced(connection)
    assert value(connection, "select count(*) from flywheel._dead") == 0
    fake.set(api_key=None)
    connection.execute("select flywheel.release_provider('fake')")
    work(dsn)
    require_all_judged(connection, 10)


def test_an_endpoint_without_batches_leaves_the_spans_dead_with_the_reason(dsn: str, connection: Connection) -> None:
    with serving() as fake:
        prepare(connection, fake, spans=10)
        connection.execute("update flywheel.providers set base_url = base_url || '/nowhere'")
        work(dsn)
    assert value(connection, "select sum(cardinality(span_ids)) from flywheel._dead where reason = 'rejected'") == 10
    require_balanced(connection)
    assert value(connection, "select count(*) from flywheel._reservations") == 0


def test_paused_spans_of_lane_batch_wait_for_their_validator(dsn: str, connection: Connection, fake: Fake) -> None:
    prepare(connection, fake, spans=10)
    connection.execute("select flywheel.pause_validator('polite', 'manual')")
    work(dsn)
    assert statuses(connection) == []
    connection.execute("select flywheel.activate_validator('polite')")
    work(dsn)
    require_all_judged(connection, 10)
