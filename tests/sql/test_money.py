"""Calls from their announcement to their entry in calls: cached, the same at once, lost, ended twice, in a batch."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import pytest

from tests.sql.paying import (
    COST,
    begin,
    books,
    budget,
    call,
    calls,
    decisions,
    end,
    judge,
    provider,
    running,
)
from tests.sql.support import Connection, insert, rows, value, worker

SETTLE = "select flywheel._settle_lost()"
AGE = "update flywheel._reservations set reserved_at = reserved_at - interval '5 minutes'"


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A judge of a provider whose prices are known, with a budget."""
    provider(connection, max_in_flight=1000)
    version_id = judge(connection)
    budget(connection, "validator", "polite", 1)
    return version_id


def test_a_call_is_recorded_with_what_was_announced_and_what_was_said(
    connection: Connection, polite: uuid.UUID
) -> None:
    span_id, shot = insert(connection), uuid.uuid4()
    asked = [
        call(polite, span_id=span_id, revision=1, shots=[str(shot)], rung="json_schema", request_hash="abc", vote=2)
    ]
    begin(connection, asked)
    assert end(connection, asked, cached_tokens=10, latency_ms=12.5, answered_by="small-2026", http_status=200) == 1
    query = """select version_id, span_id, revision, project, vote, attempt, provider, model, answered_by, rung,
                      request_hash, shots, outcome, http_status, reply, input_tokens, cached_tokens, output_tokens,
                      latency_ms, purpose
                 from flywheel.calls"""
    assert rows(connection, query) == [
        (
            *(polite, span_id, 1, "shop", 2, 1, "fake", "small", "small-2026", "json_schema", "abc", [shot]),
            *("answered", 200, {"text": "yes"}, 1000, 10, 100, 12.5, "score"),
        )
    ]


def test_a_call_ended_twice_counts_once(connection: Connection, polite: uuid.UUID) -> None:
    asked = calls(2, polite)
    begin(connection, asked)
    assert [end(connection, asked), end(connection, asked)] == [2, 0]
    assert value(connection, "select count(*) from flywheel.calls") == 2
    assert books(connection, "validator", "polite")[:2] == (round(2 * COST, 9), 0)


def test_a_call_whose_reservation_is_gone_is_recorded_all_the_same(connection: Connection, polite: uuid.UUID) -> None:
    asked = call(polite)
    assert end(connection, [asked], **{key: asked[key] for key in ("provider", "model", "request_hash")}) == 1


def test_the_same_request_is_answered_by_what_was_said_before(connection: Connection, polite: uuid.UUID) -> None:
    first = call(polite, request_hash="same")
    begin(connection, [first])
    end(connection, [first])
    begun = begin(connection, [call(polite, request_hash="same"), call(polite, request_hash="other")])
    assert decisions(begun) == ["cached", "go"]
    assert begun[0][4] == {"text": "yes"}
    assert books(connection, "validator", "polite")[:2] == (COST, COST), "a reply of before costs nothing"


def test_a_test_another_vote_and_another_version_are_asked_anew(connection: Connection, polite: uuid.UUID) -> None:
    first = call(polite, request_hash="same")
    begin(connection, [first])
    end(connection, [first])
    other = judge(connection, "kind")
    asked = [
        call(polite, request_hash="same", purpose="test"),
        call(polite, request_hash="same", vote=2),
        call(other, request_hash="same"),
        call(None, request_hash="same"),
    ]
    assert decisions(begin(connection, asked)) == ["go"] * 4


def test_replies_that_could_not_be_used_or_are_old_are_not_used_again(
    connection: Connection, polite: uuid.UUID
) -> None:
    asked = [call(polite, request_hash="unreadable"), call(polite, request_hash="old")]
    begin(connection, asked)
    end(connection, asked[:1], outcome="unreadable")
    end(connection, asked[1:])
    connection.execute(
        "update flywheel.calls set started_at = started_at - interval '8 days' where request_hash = 'old'"
    )
    again = [call(polite, request_hash="unreadable"), call(polite, request_hash="old")]
    assert decisions(begin(connection, again)) == ["go", "go"]


def test_the_same_request_on_its_way_is_waited_for(connection: Connection, polite: uuid.UUID) -> None:
    asked = [
        call(polite, request_hash="same"),
        call(polite, request_hash="same"),
        call(polite, request_hash="same", vote=2),
    ]
    assert decisions(begin(connection, asked)) == ["go", "wait", "go"]
    begun = begin(connection, asked[1:2])
    assert [begun[0][0], begun[0][2]] == ["wait", "the same request is on its way"]
    assert 0 < begun[0][1] < 1
    end(connection, asked[:1])
    assert decisions(begin(connection, asked[1:2])) == ["cached"]


def test_a_failed_call_lets_the_same_request_go(connection: Connection, polite: uuid.UUID) -> None:
    asked = [call(polite, request_hash="same"), call(polite, request_hash="same")]
    begin(connection, asked)
    end(connection, asked[:1], outcome="server_error")
    assert decisions(begin(connection, asked[1:])) == ["go"]


def test_eight_workers_pay_once_for_the_same_request(connect: Callable[..., Connection]) -> None:
    provider(connect(), max_in_flight=1000)
    polite = judge(connect())
    verdicts, gate = list[str](), threading.Barrier(8)

    def work(connection: Connection) -> None:
        gate.wait()
        for number in range(30):
            asked = [call(polite, request_hash=f"question {number}")]
            verdicts.extend(found := decisions(begin(connection, asked, uuid.uuid4())))
            if found == ["go"]:
                end(connection, asked)

    threads = [threading.Thread(target=work, args=(connect(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts.count("go") == 30
    assert len(verdicts) == 240


def test_calls_of_a_lost_worker_are_settled_at_what_was_reserved(connection: Connection, polite: uuid.UUID) -> None:
    worker_id = worker(connection)
    fence = running(connection, worker_id)
    kept, lost, from_terminal = call(polite, fence=fence), call(polite), call(polite, purpose="test")
    begin(connection, [kept, lost, from_terminal], worker_id)
    assert value(connection, SETTLE) == 0, "they may still be on their way"
    connection.execute(AGE.encode())
    assert value(connection, SETTLE) == 2
    query = "select call_id::text, outcome, cost_usd, purpose from flywheel.calls order by purpose"
    assert rows(connection, query) == [
        (lost["call_id"], "lost", None, "score"),
        (from_terminal["call_id"], "lost", None, "test"),
    ]
    assert books(connection, "validator", "polite")[:2] == (round(2 * COST, 9), COST)
    assert end(connection, [lost]) == 0, "it was paid"
    connection.execute("delete from flywheel._running")
    assert value(connection, SETTLE) == 1
    assert books(connection, "validator", "polite")[:2] == (round(3 * COST, 9), 0)


def test_a_lost_call_does_not_stay_in_flight(connection: Connection, polite: uuid.UUID) -> None:
    provider(connection, max_in_flight=1)
    begin(connection, calls(1, polite))
    assert decisions(begin(connection, calls(1, polite))) == ["wait"]
    connection.execute(AGE.encode())
    assert decisions(begin(connection, calls(1, polite))) == ["go"]


def test_lines_of_a_batch_take_no_place_in_flight_and_cost_their_share(
    connection: Connection, polite: uuid.UUID
) -> None:
    provider(connection, max_in_flight=1, requests_per_minute=10)
    lines = calls(5, polite, purpose="batch")
    assert decisions(begin(connection, lines)) == ["go"] * 5
    assert books(connection, "validator", "polite")[:2] == (0, round(2.5 * COST, 9))
    assert decisions(begin(connection, calls(1, polite))) == ["go"]
    batch_id = uuid.uuid4()
    connection.execute(
        "insert into flywheel._batches (batch_id, provider, model, lines) values (%s, 'fake', 'small', 1)", [batch_id]
    )
    connection.execute(
        """insert into flywheel._batch_lines
             (call_id, batch_id, version_id, span_id, revision, started_at, attempt, origin, request_hash, rung, model)
           values (%s, %s, %s, %s, 1, now(), 1, 'backfill', 'hash', 'text', 'small')""",
        [lines[0]["call_id"], batch_id, polite, uuid.uuid4()],
    )
    connection.execute("update flywheel._reservations set reserved_at = reserved_at - interval '11 minutes'")
    assert value(connection, SETTLE) == 5, "all but the line that is in its batch"
    end(connection, lines[:1])
    assert value(connection, "select cost_usd from flywheel.calls where outcome = 'answered'") == (
        pytest.approx(COST / 2)
    )


def test_no_row_is_locked_for_money_where_there_is_no_budget(connect: Callable[..., Connection]) -> None:
    """Two workers on two providers pass each other, also in open transactions."""
    one, other = connect(), connect()
    provider(one)
    provider(one, "other")
    with one.transaction():
        assert decisions(begin(one, calls(1))) == ["go"]
        other.execute("set lock_timeout = '2s'")
        assert decisions(begin(other, calls(1, provider="other"))) == ["go"]
    assert value(one, "select count(*) from flywheel._budget_periods") == 0


def test_a_price_that_is_unknown_costs_null(connection: Connection) -> None:
    provider(connection, models={})
    asked = calls(1)
    begin(connection, asked)
    end(connection, asked)
    assert rows(connection, "select cost_usd, input_tokens from flywheel.calls") == [(None, 1000)]
