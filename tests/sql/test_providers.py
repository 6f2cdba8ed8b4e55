"""Providers: their definition, blocks, and the limits all workers keep together."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.paying import begin, call, calls, decisions, end, judge, provider, running
from tests.sql.support import Connection, insert, refused, rows, state, value, worker

BLOCK = "select flywheel._block_provider(%s, %s, %s, %s)"


def block(connection: Connection, seconds: float | None, reason: str, name: str = "fake") -> float:
    """Block a provider; return how many seconds are left."""
    connection.execute(BLOCK.encode(), [name, seconds, reason, "it said so"])
    query = (
        "select extract(epoch from blocked_until - clock_timestamp())::double precision from flywheel.provider_status"
    )
    return float(value(connection, query))


def let_time_pass(connection: Connection, seconds: float) -> None:
    """Make everything providers remember older."""
    connection.execute(
        """update flywheel._provider_states set levelled_at = levelled_at - make_interval(secs => %(s)s),
             blocked_until = blocked_until - make_interval(secs => %(s)s),
             saving_until = saving_until - make_interval(secs => %(s)s)""",
        {"s": seconds},
    )


def test_a_provider_is_set_changed_and_found_unchanged(connection: Connection) -> None:
    assert provider(connection, requests_per_minute=60)
    assert not provider(connection, requests_per_minute=60)
    assert provider(connection, requests_per_minute=None)
    assert provider(connection, models={"small": {"input_usd": 3, "output_usd": 2}, "large": {}})
    query = "select model, input_usd, batch_share from flywheel.provider_models order by 1"
    assert rows(connection, query) == [("large", None, 0.5), ("small", 3.0, 0.5)]
    assert rows(connection, "select max_in_flight, requests_per_minute, models from flywheel.provider_status") == [
        (16, None, 2)
    ]


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ({"base_url": "localhost"}, "base_url is"),
        ({"base_url": ""}, "base_url is"),
        ({"base_url": "https://key:secret@example.org/v1"}, "base_url holds a user or a password"),
        ({"max_in_flight": 0}, "max_in_flight is 0"),
        ({"max_in_flight": "many"}, "max_in_flight is"),
        ({"tokens_per_minute": 1.5}, "tokens_per_minute is 1.5"),
        ({"key": "sk-123"}, "provider.key is not one of"),
        ({"key_variable": "sk-123"}, "key_variable is not the name"),
        ({"abilities": {"magic": True}}, "abilities.magic is not one of"),
        ({"abilities": {"batch": "yes"}}, "abilities.batch is"),
        ({"models": {"m": {"input_usd": -1}}}, "models.m.input_usd is -1"),
        ({"models": {"m": {"price": 1}}}, "models.m.price is not one of"),
        ({"models": ["m"]}, "models is"),
    ],
)
def test_a_wrong_provider_is_refused_with_the_key(
    connection: Connection, definition: dict[str, Any], problem: str
) -> None:
    whole = Jsonb({"base_url": "http://localhost/v1", **definition})
    said = refused(connection, "select flywheel.set_provider('fake', %s)", [whole])
    assert said.sqlstate == "WF009"
    assert problem in (said.message_primary or "")


def test_no_more_calls_are_in_flight_than_the_provider_takes(connection: Connection) -> None:
    provider(connection, max_in_flight=3)
    asked = calls(5)
    begun = begin(connection, asked)
    assert decisions(begun) == ["go", "go", "go", "wait", "wait"]
    assert begun[3][2] == "provider fake takes 3 calls at a time"
    assert 0 < begun[3][1] <= 2
    end(connection, asked[:1])
    assert decisions(begin(connection, asked[3:])) == ["go", "wait"]


def test_calls_to_one_provider_do_not_wait_for_another(connection: Connection) -> None:
    provider(connection, max_in_flight=1)
    provider(connection, "other", max_in_flight=1)
    asked = [call(), call(), call(provider="other"), call(provider="other"), call(provider="gone")]
    begun = begin(connection, asked)
    assert decisions(begun) == ["go", "wait", "go", "wait", "wait"]
    assert begun[4][2] == "there is no provider gone"


def test_a_bucket_gives_a_tenth_at_once_and_says_when_there_is_more(connection: Connection) -> None:
    provider(connection, requests_per_minute=100, max_in_flight=1000)
    begun = begin(connection, calls(12))
    assert decisions(begun) == ["go"] * 10 + ["wait"] * 2
    assert 0 < begun[10][1] < begun[11][1] < 2
    let_time_pass(connection, begun[11][1])
    assert decisions(begin(connection, calls(3))) == ["go", "go", "wait"]


def test_a_limit_of_one_request_a_minute_lets_one_pass(connection: Connection) -> None:
    provider(connection, requests_per_minute=1)
    assert decisions(begin(connection, calls(2))) == ["go", "wait"]
    let_time_pass(connection, 59)
    assert decisions(begin(connection, calls(1))) == ["wait"]
    let_time_pass(connection, 10)
    assert decisions(begin(connection, calls(1))) == ["go"]


def test_a_call_larger_than_the_bucket_saves_for_itself(connection: Connection) -> None:
    """Small calls would take for ever what it waits for."""
    provider(connection, tokens_per_minute=11_000, max_in_flight=1000)
    large = call(input_tokens=4900)
    assert decisions(begin(connection, calls(1))) == ["go"]
    begun = begin(connection, [large])
    assert decisions(begun) == ["wait"]
    let_time_pass(connection, 8)
    assert decisions(begin(connection, calls(1))) == ["wait"]
    let_time_pass(connection, begun[0][1] - 8)
    assert decisions(begin(connection, [call(), large])) == ["wait", "go"]
    assert decisions(begin(connection, calls(1))) == ["wait"], "it left the bucket below zero"


def test_a_call_larger_than_the_limit_goes_after_a_quiet_minute(connection: Connection) -> None:
    provider(connection, tokens_per_minute=1000)
    assert decisions(begin(connection, [call(input_tokens=50_000)])) == ["go"]
    assert decisions(begin(connection, [call(input_tokens=50_000)])) == ["wait"]


@pytest.mark.parametrize("seed", range(4))
def test_no_minute_sees_more_than_the_limit(connection: Connection, seed: int) -> None:
    """Time is moved by hand; calls of all sizes, one after the other and in groups."""
    draw = random.Random(seed)
    requests, tokens = draw.choice([(7, 4000), (30, 20_000), (100, 100_000), (1000, 30_000)])
    provider(connection, requests_per_minute=requests, tokens_per_minute=tokens, max_in_flight=100_000)
    now, passed = 0.0, deque[tuple[float, int]]()
    most_requests = most_tokens = 0
    for _ in range(150):
        asked = [call(input_tokens=draw.randint(1, tokens // 4)) for _ in range(draw.randint(1, 12))]
        for each, begun in zip(asked, begin(connection, asked), strict=True):
            if begun[0] == "go":
                passed.append((now, each["input_tokens"] + each["output_tokens"]))
        while passed and passed[0][0] <= now - 60:
            passed.popleft()
        most_requests, most_tokens = max(most_requests, len(passed)), max(most_tokens, sum(size for _, size in passed))
        seconds = draw.choice([0.01, 0.5, 3, 20])
        let_time_pass(connection, seconds)
        now += seconds
    assert 0 < most_requests <= requests
    assert 0 < most_tokens <= tokens


def test_eight_workers_together_keep_to_what_is_in_flight(connect: Callable[..., Connection]) -> None:
    provider(connect(), max_in_flight=6)
    lock, on_the_way, most, done = threading.Lock(), [0], [0], [0]

    def work(connection: Connection, seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(40):
            asked = calls(draw.randint(1, 4))
            begun = zip(asked, begin(connection, asked, uuid.uuid4()), strict=True)
            going = [each for each, verdict in begun if verdict[0] == "go"]
            with lock:
                on_the_way[0] += len(going)
                most[0] = max(most[0], on_the_way[0])
            time.sleep(draw.random() / 500)
            with lock:
                on_the_way[0] -= len(going)
                done[0] += len(going)
            end(connection, going)

    threads = [threading.Thread(target=work, args=(connect(), seed)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 < most[0] <= 6
    assert value(connect(), "select count(*) from flywheel.calls") == done[0]
    assert value(connect(), "select count(*) from flywheel._reservations") == 0


def test_eight_workers_together_keep_to_the_requests_of_a_minute(connect: Callable[..., Connection]) -> None:
    provider(connect(), requests_per_minute=300, max_in_flight=100_000)

    def work(connection: Connection) -> None:
        for _ in range(15):
            begin(connection, calls(3))

    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(connect(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    gone = value(connect(), "select count(*) from flywheel._reservations")
    assert 30 <= gone <= 30 + 300 * 0.88 / 60 * took


def test_a_block_lasts_as_long_as_the_longest_of_those_asked_for(connection: Connection) -> None:
    provider(connection)
    assert 20 < block(connection, 30, "rate_limited") <= 30
    assert 20 < block(connection, 1, "unauthorized") <= 30
    begun = begin(connection, calls(1))
    assert decisions(begun) == ["wait"]
    assert 20 < begun[0][1] <= 30
    assert begun[0][2] == "provider fake: rate_limited, it said so"


def test_refusals_without_a_time_double_and_an_answer_forgets_them(connection: Connection) -> None:
    provider(connection)
    for least in (1, 2, 4, 8):
        assert least * 0.9 < block(connection, None, "rate_limited") <= least * 1.25
        assert block(connection, 0, "rate_limited") <= least * 1.25, "refusals that come together are one"
        let_time_pass(connection, 20)
    asked = calls(1)
    assert decisions(begin(connection, asked)) == ["go"]
    end(connection, asked)
    assert 0.9 < block(connection, None, "rate_limited") <= 1.25


def test_after_a_used_up_quota_one_call_goes_first(connection: Connection) -> None:
    provider(connection)
    assert 590 < block(connection, None, "quota_exhausted") <= 600
    let_time_pass(connection, 601)
    probe = calls(3)
    assert decisions(begin(connection, probe)) == ["go", "wait", "wait"]
    end(connection, probe[:1], outcome="quota_exhausted", http_status=429)
    block(connection, None, "quota_exhausted")
    assert decisions(begin(connection, probe[1:])) == ["wait", "wait"]
    let_time_pass(connection, 601)
    assert decisions(begin(connection, probe[1:])) == ["go", "wait"]
    end(connection, probe[1:2], outcome="length_stop")
    assert decisions(begin(connection, calls(5))) == ["go"] * 5


def test_a_blocked_provider_is_released_by_hand(connection: Connection) -> None:
    provider(connection)
    block(connection, None, "unauthorized")
    assert value(connection, "select flywheel.release_provider('fake')")
    assert not value(connection, "select flywheel.release_provider('fake')")
    assert decisions(begin(connection, calls(1))) == ["go"]
    said = refused(connection, "select flywheel.release_provider('gone')")
    assert (said.sqlstate, said.message_primary) == ("WF013", "there is no provider gone")


def test_claims_pass_over_judges_of_a_blocked_provider_and_why_says_so(connection: Connection) -> None:
    provider(connection)
    provider(connection, "other")
    judge(connection)
    other = judge(connection, "kind", provider="other")
    span_id = insert(connection)
    block_seconds = [30, "rate_limited", "slow down"]
    connection.execute(BLOCK.encode(), ["fake", *block_seconds])
    claimed = rows(
        connection, "select version_ids from flywheel._claim_calls(1::smallint, %s, 10)", [worker(connection)]
    )
    assert claimed == [([other],)]
    said, detail = state(connection, span_id, "polite")
    assert said == "queued"
    assert "provider fake: rate_limited, slow down" in detail
    let_time_pass(connection, 31)
    fence = value(connection, "select fence from flywheel._claim_calls(1::smallint, %s, 10)", [worker(connection)])
    assert fence is not None


def test_a_call_of_a_lost_claim_is_void(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection)
    worker_id = worker(connection)
    fence = running(connection, worker_id)
    asked = [call(version_id, fence=fence), call(version_id, fence=uuid.uuid4())]
    assert decisions(begin(connection, asked, worker_id)) == ["go", "void"]
    assert decisions(begin(connection, [call(version_id, fence=fence)], uuid.uuid4())) == ["void"]
