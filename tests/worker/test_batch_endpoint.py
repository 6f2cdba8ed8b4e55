"""Lane batch: files of requests go to an endpoint and come back whole, in part, or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from pgflywheel.db import batches
from pgflywheel.judge.client import Client
from pgflywheel.worker import batch_endpoint, batch_polls
from tests.fakes.openai import Fake, serving
from tests.worker.support import Connection, activate, insert, scores, set_setting, value, work

QUESTION = {
    "kind": "judge",
    "question": "Is the answer polite?",
    "pass_when": "it is polite",
    "fail_when": "it is rude",
    "provider": "fake",
    "model": "small",
    "shots": {"strategy": "none"},
}
PRICES = {"small": {"input_usd": 1.0, "cached_input_usd": 0.1, "output_usd": 2.0, "batch_share": 0.5}}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in these tests is worth waiting a minute for."""
    monkeypatch.setattr(batch_endpoint, "RECHECK_SECONDS", 0.5)
    monkeypatch.setattr(batch_polls, "FIND_SECONDS", 0.0)
    monkeypatch.setattr(batch_polls, "FAILED_SECONDS", 0.5)
    monkeypatch.setattr(batch_polls, "LOOK_SECONDS", 0.05)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as served:
        yield served


def prepare(
    connection: Connection, fake: Fake, spans: int = 300, lane: str | None = "batch", **definition: Any
) -> None:
    """Have spans, every tenth of them bad, and a judge that came after them and is to judge them in a lane."""
    quick = "create or replace function flywheel._poll_seconds(submitted_at timestamptz) returns double precision"
    connection.execute(f"{quick} language sql volatile return 0.1")
    whole = {"base_url": fake.url, "abilities": {"batch": True}, "models": PRICES}
    connection.execute("select flywheel.set_provider('fake', %s)", [Jsonb(whole)])
    insert(connection, [f"answer {n}" + (" zzfail" if n % 10 == 0 else "") for n in range(spans)])
    activate(connection, "polite", **QUESTION | definition)
    backfill(connection, lane)


def backfill(connection: Connection, lane: str | None = "batch") -> None:
    """Queue the spans there are."""
    began = "select flywheel.start_backfill('polite', now() - interval '1 day', now() + interval '1 day', %s)"
    connection.execute("select flywheel.advance_backfill(%s)", [value(connection, began, lane)])


def require_all_judged(connection: Connection, spans: int = 300) -> None:
    """Every span has one score, which is right; nothing is left over and nothing is paid or reserved twice."""
    found = scores(connection, "polite")
    assert len(found) == spans
    assert {output for output, said in found.items() if said[0] is not True} == {
        output for output in found if "zzfail" in output
    }
    require_settled(connection)


def require_settled(connection: Connection) -> None:
    """Nothing waits, runs, or is reserved; the books balance and budgets have paid what calls cost."""
    tables = ("_ready", "_running", "_later", "_batch_lines", "_reservations")
    assert {table: value(connection, f"select count(*) from flywheel.{table}") for table in tables} == dict.fromkeys(
        tables, 0
    )
    assert value(connection, "select count(*) from flywheel._batches where closed_at is null") == 0
    require_balanced(connection)
    spent = "select spent_usd - (select sum(cost_usd) from flywheel.calls) from flywheel._budget_periods limit 1"
    assert value(connection, spent) in (None, pytest.approx(0, abs=1e-9))


def require_balanced(connection: Connection) -> None:
    """Every eligible pair is somewhere, once."""
    query = "select eligible - (scored + unscored + queued + running + later + dead), missing from flywheel.accounts"
    assert connection.execute(query).fetchall() == [(0, 0)]


def calls(connection: Connection) -> Counter[tuple[str, str]]:
    """Count calls by purpose and outcome."""
    rows = connection.execute("select purpose, outcome from flywheel.calls").fetchall()
    return Counter((purpose, outcome) for purpose, outcome in rows)


def chats(fake: Fake) -> int:
    """Return how many calls were made one by one."""
    return sum(request.path.endswith("/chat/completions") for request in fake.requests)


def statuses(connection: Connection) -> list[str]:
    return [row[0] for row in connection.execute("select status from flywheel.batch_status order by submitted_at")]


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
    polling = "update flywheel._batches set next_poll_at = now() + interval '1 hour'"

    async def hand_in() -> None:
        from pgflywheel.worker.loop import run_worker
        from pgflywheel.worker.site import Options

        worker = asyncio.create_task(run_worker(dsn, "flywheel", Options(until_idle=True)))
        while not value(connection, "select count(*) from flywheel._batches where remote_id is not null"):
            await asyncio.sleep(0.05)
        connection.execute(polling)
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


def run_until(dsn: str, condition: Any) -> None:
    """Run a worker until something holds, then stop it at once."""
    from pgflywheel.worker.loop import run_worker
    from pgflywheel.worker.site import Options

    async def run() -> None:
        worker = asyncio.create_task(run_worker(dsn, "flywheel", Options()))
        while not condition():
            assert not worker.done(), worker.exception()
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    asyncio.run(run())
