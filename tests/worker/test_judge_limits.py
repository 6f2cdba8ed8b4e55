"""Judges: limits, keys, quotas and budgets stop calls and lose no span."""

from __future__ import annotations

import asyncio

import pytest

from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.fakes.openai import Asked, Fake, Judgement
from tests.worker.judging import judge, outcomes, provide
from tests.worker.support import Connection, insert, scores, set_setting, value, waiting, work


@pytest.mark.parametrize("misbehaviour", ["rate_limited", "rate_limited_ms", "rate_limited_bare"])
def test_a_rate_limit_is_waited_for_and_costs_no_attempt(
    dsn: str, connection: Connection, fake: Fake, misbehaviour: str
) -> None:
    fake.set(first=[misbehaviour] * 2, retry_after=0.3)
    set_setting(connection, "max_attempts", 1)
    provide(connection, fake)
    judge(connection)
    insert(connection, list("abcdef"))
    work(dsn)
    assert len(scores(connection, "polite")) == 6
    assert outcomes(connection)["rate_limited"] in (1, 2)
    assert value(connection, "select count(*) from flywheel._dead") == 0


def test_a_quota_that_is_used_up_blocks_the_provider_until_released(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    fake.set(first=["insufficient_quota"])
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert value(connection, "select blocked_reason from flywheel.provider_status") == "quota_exhausted"
    assert scores(connection, "polite") == {}
    connection.execute("select flywheel.release_provider('fake')")
    work(dsn)
    assert scores(connection, "polite")["a"][0] is True


def test_a_missing_key_blocks_the_provider_and_names_the_variable(
    dsn: str, connection: Connection, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.set(api_key="secret")
    provide(connection, fake, key_variable="NOBODY_SET_THIS")
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert value(connection, "select blocked_reason from flywheel.provider_status") == "unauthorized"
    assert "NOBODY_SET_THIS" in value(connection, "select blocked_detail from flywheel.provider_status")
    assert len(fake.requests) == 0
    monkeypatch.setenv("NOBODY_SET_THIS", "secret")
    connection.execute("select flywheel.release_provider('fake')")
    work(dsn)
    assert scores(connection, "polite")["a"][0] is True


def test_a_budget_that_is_reached_stops_calls_until_it_is_raised(dsn: str, connection: Connection, fake: Fake) -> None:
    provide(connection, fake)
    judge(connection)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 0.008)")
    insert(connection, list(map(str, range(40))))
    work(dsn, concurrency=8)
    done = len(scores(connection, "polite"))
    assert 0 < done < 40
    spent = value(connection, "select spent_usd from flywheel.budget_status")
    assert 0 < spent <= 0.008
    assert waiting(connection) > 0
    assert value(connection, "select count(*) from flywheel._dead") == 0
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 10)")
    work(dsn, concurrency=8)
    assert len(scores(connection, "polite")) == 40
    assert value(connection, "select max(attempt) from flywheel.calls") == 1
    total = value(connection, "select sum(cost_usd) from flywheel.calls")
    assert value(connection, "select spent_usd from flywheel.budget_status") == pytest.approx(total)


def test_two_workers_never_have_more_calls_on_their_way_than_the_provider_takes(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    fake.set(delay=0.05)
    provide(connection, fake, max_in_flight=4)
    judge(connection)
    insert(connection, list(map(str, range(60))))

    async def two() -> None:
        await asyncio.gather(*(run_worker(dsn, "flywheel", Options(until_idle=True, concurrency=10)) for _ in range(2)))

    asyncio.run(two())
    assert len(scores(connection, "polite")) == 60
    assert fake.most_in_flight == 4
    assert outcomes(connection) == {"answered": 60}


def test_a_budget_that_runs_short_makes_the_judge_smaller(dsn: str, connection: Connection, fake: Fake) -> None:
    provide(connection, fake)
    judge(
        connection,
        votes=3,
        degrade={"votes_at": 0.5, "model_at": 0.5, "model": "large", "sample_at": 0.5, "sample": 0.5},
    )
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 10)")
    connection.execute("update flywheel._budget_periods set spent_usd = 6")
    insert(connection, list(map(str, range(40))))
    work(dsn)
    assert 5 < len(scores(connection, "polite")) < 35
    assert value(connection, "select array_agg(distinct degraded) from flywheel.scores") == ["both"]
    assert value(connection, "select array_agg(distinct model) from flywheel.calls") == ["large"]
    assert value(connection, "select array_agg(distinct votes) from flywheel.scores") == [1]
    assert value(connection, "select array_agg(distinct reason) from flywheel._later") == ["over_budget"]


def test_spans_that_wait_for_the_same_reason_are_logged_once(
    dsn: str, connection: Connection, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    provide(connection, fake)
    judge(connection)
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 0.000001)")
    insert(connection, [f"item {n}" for n in range(20)])
    with caplog.at_level("DEBUG", logger="pgflywheel"):
        work(dsn)
    levels = [record.levelname for record in caplog.records if record.getMessage() == "a call is put off"]
    assert len(levels) == 20
    assert levels.count("INFO") == 1


def test_a_key_that_an_endpoint_repeats_is_kept_nowhere(
    dsn: str, connection: Connection, fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def repeat(asked: Asked) -> Judgement:
        raise LookupError("nobody knows k-secret here")

    fake.set(mind=repeat, api_key="k-secret")
    monkeypatch.setenv("FAKE_KEY", "k-secret")
    provide(connection, fake, key_variable="FAKE_KEY")
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert value(connection, "select detail from flywheel._dead") == "HTTP 400: nobody knows [key] here"
    assert value(connection, "select count(*) from flywheel.calls where calls::text like '%%k-secret%%'") == 0
    assert "k-secret" not in "\n".join(str(vars(record)) for record in caplog.records)
