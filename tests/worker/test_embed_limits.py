"""Calls for vectors: recorded and paid like a judge's, within the same limits; none costs an attempt that waits."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.fakes.openai import Fake
from tests.sql.exampling import POLITE, group_of, label
from tests.sql.support import insert as insert_span
from tests.sql.test_embeddings import example, state
from tests.worker.judging import judge, outcomes, provide
from tests.worker.support import Connection, activate, insert, scores, set_setting, value, waiting, work


@pytest.fixture
def question(connection: Connection) -> UUID:
    """A validator that examples are about."""
    activate(connection, "kind", kind="sql", expression="true")
    found: UUID = value(connection, "select validator_id from flywheel.validators")
    return found


def embed(connection: Connection, model: str = "small") -> None:
    """Add an embedder of the fake."""
    connection.execute("select flywheel.add_embedder('wordy', 'openai', %s, 'fake', 64)", [model])


def test_each_request_is_a_call_with_its_tokens_and_cost(
    dsn: str, connection: Connection, question: UUID, fake: Fake
) -> None:
    provide(connection, fake, models={"small": {"input_usd": 1}})
    embed(connection)
    for number in range(5):
        example(connection, question, f"answer {number}")
    work(dsn)
    assert state(connection, "wordy") == ("filling", 5, 0)
    recorded = """select count(*), bool_and(purpose = 'embed' and outcome = 'answered' and output_tokens = 0
                         and num_nulls(version_id, span_id, reply) = 3 and cost_usd between 1e-6 and 1e-3
                         and abs(cost_usd - input_tokens / 1e6) < 1e-12) from flywheel.calls"""
    assert connection.execute(recorded.encode()).fetchone() == (len(fake.requests), True)
    assert value(connection, "select count(*) from flywheel._reservations") == 0


def test_the_hashing_embedder_makes_no_call(dsn: str, connection: Connection, question: UUID) -> None:
    example(connection, question)
    work(dsn)
    assert state(connection, "hashing") == ("serving", 1, 0)
    assert value(connection, "select count(*) from flywheel.calls") == 0


@pytest.mark.parametrize(("cap", "says"), [(0, "0 USD are spent"), (10, "needs the price")])
def test_a_budget_of_the_provider_stops_embedding_until_it_is_raised_or_knows_the_price(
    dsn: str, connection: Connection, question: UUID, fake: Fake, cap: float, says: str
) -> None:
    set_setting(connection, "max_attempts", 1)
    provide(connection, fake, models={"small": {"input_usd": 1}} if cap == 0 else {})
    connection.execute("select flywheel.set_budget('provider', 'fake', 'day', %s)", [cap])
    embed(connection)
    example(connection, question)
    work(dsn)
    assert state(connection, "wordy") == ("filling", 0, 1)
    assert len(fake.requests) == 0
    reason, detail, attempt = connection.execute("select reason, detail, attempt from flywheel._later").fetchall()[0]
    assert (reason, attempt, says in detail) == ("over_budget", 0, True)
    provide(connection, fake, models={"small": {"input_usd": 1}})
    connection.execute("select flywheel.set_budget('provider', 'fake', 'day', 20)")
    work(dsn)
    assert state(connection, "wordy") == ("filling", 1, 0)
    spent = value(connection, "select spent_usd from flywheel.budget_status")
    assert 0 < spent == pytest.approx(value(connection, "select sum(cost_usd) from flywheel.calls"))


def test_a_refusal_to_an_embedder_keeps_judges_from_the_provider_too(
    dsn: str, connection: Connection, question: UUID, fake: Fake
) -> None:
    set_setting(connection, "max_attempts", 1)
    fake.set(first=["insufficient_quota"])
    provide(connection, fake)
    embed(connection)
    example(connection, question)
    work(dsn, lanes=("embed",))
    assert value(connection, "select blocked_reason from flywheel.provider_status") == "quota_exhausted"
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert len(fake.requests) == 1
    connection.execute("select flywheel.release_provider('fake')")
    work(dsn)
    assert scores(connection, "polite")["a"][0] is True
    assert state(connection, "wordy") == ("filling", 1, 0)
    assert outcomes(connection) == {"quota_exhausted": 1, "answered": 2}
    assert value(connection, "select count(*) from flywheel._dead") == 0


def test_a_refusal_to_a_judge_keeps_embedders_from_the_provider_too(
    dsn: str, connection: Connection, question: UUID, fake: Fake
) -> None:
    fake.set(first=["insufficient_quota"])
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    embed(connection)
    example(connection, question)
    work(dsn)
    assert len(fake.requests) == 1
    assert value(connection, "select attempt from flywheel._later where lane = 'embed'") == 0


def test_embedders_and_judges_together_never_have_more_calls_on_their_way_than_the_provider_takes(
    dsn: str, connection: Connection, question: UUID, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflywheel.worker.embed.MOST_SUBJECTS", 1)
    fake.set(delay=0.02)
    provide(connection, fake, max_in_flight=3)
    judge(connection)
    embed(connection)
    insert(connection, list(map(str, range(30))))
    for number in range(30):
        example(connection, question, f"answer {number}")

    async def two() -> None:
        await asyncio.gather(*(run_worker(dsn, "flywheel", Options(until_idle=True)) for _ in range(2)))

    asyncio.run(two())
    assert state(connection, "wordy") == ("filling", 30, 0)
    assert len(scores(connection, "polite")) == 30
    assert fake.most_in_flight == 3


@pytest.mark.parametrize("kind", ["judge", "neighbours"])
def test_spans_that_wait_for_vectors_over_budget_say_so_and_go_on(
    dsn: str, connection: Connection, fake: Fake, kind: str
) -> None:
    provide(connection, fake)
    if kind == "judge":
        judge(connection, shots={"strategy": "similar"})
    else:
        activate(connection, "polite", **POLITE)
    for number in range(6):
        span_id = insert_span(connection, f"answer {number}", session_id=group_of(connection, "train", number))
        label(connection, span_id, number % 2 == 0)
    embed(connection)
    work(dsn)
    connection.execute("select flywheel.serve_embedder('wordy')")
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 0)")
    connection.execute("update flywheel.budgets set cap_usd = 1e-7")  # not used up, but too small for any call
    connection.execute("update flywheel._budget_periods set spent_usd = 0")
    asked = len(fake.requests)
    insert(connection, ["another"])
    work(dsn)
    assert len(fake.requests) == asked
    why = "select (flywheel.why(span_id)).* from flywheel.spans where output = 'another'"
    assert value(connection, f"select state from ({why}) as why where validator = 'polite'") == "over_budget"
    connection.execute("select flywheel.set_budget('validator', 'polite', 'day', 10)")
    work(dsn)
    assert "another" in scores(connection, "polite")
    by_version = "select count(*) from flywheel.calls where purpose = 'embed' and version_id is not null"
    assert value(connection, by_version) > 0
    assert waiting(connection) == 0


def test_what_is_put_off_half_done_is_not_paid_for_twice(
    dsn: str, connection: Connection, question: UUID, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflywheel.judge.embed.endpoint.MOST_TEXTS", 2)
    set_setting(connection, "max_attempts", 1)
    fake.set(first=[None, "rate_limited", None, "rate_limited"], retry_after=0.1)
    provide(connection, fake)
    for number in range(9):
        example(connection, question, f"answer {number}")
    embed(connection)
    work(dsn)
    assert state(connection, "wordy") == ("filling", 9, 0)
    assert outcomes(connection)["rate_limited"] > 0
    once = "select count(distinct request_hash) = count(*) from flywheel.calls where outcome = 'answered'"
    assert value(connection, once) is True


@pytest.mark.parametrize("kind", ["judge", "neighbours"])
def test_a_worker_that_cannot_load_an_embedder_leaves_spans_to_one_that_can(
    dsn: str, connection: Connection, fake: Fake, kind: str
) -> None:
    set_setting(connection, "max_attempts", 1)
    set_setting(connection, "faults_before_pause", 1)
    provide(connection, fake)
    if kind == "judge":
        judge(connection, shots={"strategy": "similar"})
    else:
        activate(connection, "polite", **POLITE)
    for number in range(6):
        span_id = insert_span(connection, f"answer {number}", session_id=group_of(connection, "train", number))
        label(connection, span_id, number % 2 == 0)
    work(dsn, lanes=("embed",))
    connection.execute("select flywheel.add_embedder('local', 'sentence_transformers', '/nowhere/a-model')")
    connection.execute("select flywheel.serve_embedder('local', true)")
    connection.execute("truncate flywheel._ready")
    insert(connection, ["another"])
    work(dsn, lanes=("bulk", "judge"))
    assert "another" not in scores(connection, "polite")
    assert value(connection, "select status from flywheel.validator_versions") == "active"
    later = connection.execute("select reason, attempt, detail from flywheel._later where lane <> 'embed'").fetchall()
    assert [(reason, attempt, "embedder local" in detail) for reason, attempt, detail in later] == [("raised", 0, True)]
    connection.execute("select flywheel.serve_embedder('hashing')")
    connection.execute("update flywheel._later set run_at = now()")
    work(dsn, lanes=("bulk", "judge"))
    assert scores(connection, "polite")["another"][3] in (None, "no_examples")
