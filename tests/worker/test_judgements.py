"""Judges: a model is asked, and whatever it does, every span is accounted for and paid once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.fakes.openai import Asked, Fake, Judgement, serving
from tests.worker.support import (
    Connection,
    activate,
    insert,
    process,
    scores,
    set_setting,
    started,
    until,
    value,
    waiting,
    work,
)  # fmt: skip

QUESTION = {
    "kind": "judge",
    "question": "Is the answer polite?",
    "pass_when": "it is polite",
    "fail_when": "it is rude",
    "provider": "fake",
    "model": "small",
}


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as served:
        yield served


def provide(connection: Connection, fake: Fake, **definition: Any) -> None:
    """Name the fake as a provider."""
    models = {"small": {"input_usd": 1, "output_usd": 2}, "large": {"input_usd": 10, "output_usd": 20}}
    whole = {"base_url": fake.url, "max_in_flight": 64, "time_limit_ms": 5000, "models": models, **definition}
    connection.execute("select flywheel.set_provider('fake', %s)", [Jsonb(whole)])


def judge(connection: Connection, name: str = "polite", **definition: Any) -> None:
    """Activate a judge."""
    activate(connection, name, **QUESTION | definition)


def outcomes(connection: Connection) -> Counter[str]:
    """Count the calls by outcome."""
    return Counter(row[0] for row in connection.execute("select outcome from flywheel.calls").fetchall())


def test_a_judge_scores_every_span_with_why_and_what_it_cost(dsn: str, connection: Connection, fake: Fake) -> None:
    provide(connection, fake)
    judge(connection)
    insert(connection, ["good", "zzfail is rude", *map(str, range(50))])
    work(dsn, concurrency=16)
    found = scores(connection, "polite")
    assert len(found) == 52
    assert found["good"][0] is True
    assert found["zzfail is rude"][0] is False
    assert "zzfail" in found["zzfail is rude"][2]
    paid = "select count(*) from flywheel.scores where cost_usd > 0 and annotator_kind = 'judge' and votes = 1"
    assert value(connection, paid) == 52
    assert outcomes(connection) == {"answered": 52}
    assert len(fake.requests) == 52
    assert value(connection, "select count(*) from flywheel._reservations") == 0
    assert value(connection, "select sum(scores) from flywheel.run_log") == 52
    assert waiting(connection) == 0


@pytest.mark.parametrize(
    ("misbehaviour", "reason"),
    [
        ("refusal", "refused"),
        ("length", "length_stop"),
        ("content_filter", "content_filter"),
        ("empty_choices", "empty_reply"),
        ("null_content", "empty_reply"),
        ("prose", "unreadable"),
        ("half_content", "unreadable"),
        ("wrong_fields", "unreadable"),
        ("wrong_verdict", "unreadable"),
        ("endless", "length_stop"),
    ],
)
def test_what_holds_no_verdict_is_asked_once_more_and_then_unscored(
    dsn: str, connection: Connection, fake: Fake, misbehaviour: str, reason: str
) -> None:
    fake.set(mix={misbehaviour: 1.0})
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    passed, _, _, unscored_reason, detail = scores(connection, "polite")["a"]
    assert (passed, unscored_reason) == (None, reason)
    assert detail
    assert value(connection, "select array_agg(repair order by started_at, repair) from flywheel.calls") == [
        False,
        True,
    ]
    assert outcomes(connection) == {reason: 2}
    assert value(connection, "select status from flywheel.validator_versions") == "active"


@pytest.mark.parametrize("misbehaviour", ["fenced", "wrong_model", "no_usage"])
def test_what_holds_a_verdict_is_scored_however_odd(
    dsn: str, connection: Connection, fake: Fake, misbehaviour: str
) -> None:
    fake.set(mix={misbehaviour: 1.0})
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert scores(connection, "polite")["a"][0] is True
    assert (value(connection, "select cost_usd from flywheel.scores") is None) == (misbehaviour == "no_usage")


def test_a_reply_that_is_repaired_counts(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(first=["prose"])
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert scores(connection, "polite")["a"][0] is True
    assert outcomes(connection) == {"unreadable": 1, "answered": 1}
    both = "select (select sum(cost_usd) from flywheel.calls) - (select cost_usd from flywheel.scores)"
    assert abs(value(connection, both)) < 1e-12


@pytest.mark.parametrize("misbehaviour", ["server_error", "reset", "reset_midway", "half_json", "overloaded"])
def test_what_passes_is_tried_again_and_costs_an_attempt(
    dsn: str, connection: Connection, fake: Fake, misbehaviour: str
) -> None:
    fake.set(first=[misbehaviour])
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert scores(connection, "polite")["a"][0] is True
    assert value(connection, "select array_agg(attempt order by attempt) from flywheel.calls") == [1, 2]


def test_a_call_that_never_ends_is_dead_after_its_attempts(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(mix={"hang": 1.0})
    set_setting(connection, "max_attempts", 2)
    provide(connection, fake, time_limit_ms=200)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert value(connection, "select reason from flywheel._dead") == "timed_out"
    assert outcomes(connection) == {"timed_out": 2}
    assert scores(connection, "polite") == {}


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


def test_a_model_nobody_has_is_dead_at_once(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(models=["another"])
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert value(connection, "select array[reason, attempt::text] from flywheel._dead") == ["rejected", "1"]
    assert len(fake.requests) == 1


def test_what_does_not_fit_the_model_is_unscored(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(context_tokens=5000)
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a", "word " * 20_000])
    work(dsn)
    found = scores(connection, "polite")
    assert found["a"][0] is True
    assert found["word " * 20_000][3] == "too_long"


def test_an_endpoint_that_knows_no_schema_is_asked_in_a_simpler_form(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    fake.set(mix={"unsupported_json": 1.0})
    provide(connection, fake)
    judge(connection)
    insert(connection, list("abcdef"))
    work(dsn, concurrency=1)
    assert len(scores(connection, "polite")) == 6
    rungs = "select array_agg(distinct rung) from flywheel.calls where outcome = 'answered'"
    assert value(connection, rungs) == ["text"]
    assert outcomes(connection) == {"rejected": 2, "answered": 6}


def test_the_majority_of_several_votes_decides(dsn: str, connection: Connection, fake: Fake) -> None:
    said = iter(["pass", "fail", "pass"])
    fake.set(mind=lambda asked: Judgement(next(said)))
    provide(connection, fake)
    judge(connection, votes=3)
    insert(connection, ["a"])
    work(dsn)
    passed, number, _, _, _ = scores(connection, "polite")["a"]
    assert passed is True
    assert number == pytest.approx(2 / 3)
    assert value(connection, "select confidence from flywheel.scores") == pytest.approx(3 / 5)
    assert value(connection, "select votes from flywheel.scores") == 3
    assert value(connection, "select array_agg(vote order by vote) from flywheel.calls") == [1, 2, 3]


def test_votes_that_were_given_are_not_paid_again(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(first=["server_error"])
    provide(connection, fake)
    judge(connection, votes=3)
    insert(connection, ["a"])
    work(dsn)
    assert scores(connection, "polite")["a"][0] is True
    assert outcomes(connection) == {"server_error": 1, "answered": 3}


def test_what_is_inserted_as_the_judges_own_is_not_judged(dsn: str, connection: Connection, fake: Fake) -> None:
    provide(connection, fake)
    judge(connection)
    connection.execute(
        "insert into flywheel.spans (input, output, attributes) values ('a', 'b', '{\"pgflywheel.judge\": \"polite\"}')"
    )
    work(dsn)
    assert scores(connection, "polite") == {}
    assert len(fake.requests) == 0


def test_a_template_that_asks_for_what_is_not_there_pauses_the_judge(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    set_setting(connection, "faults_before_pause", 3)
    provide(connection, fake)
    judge(connection, template="{{ span.inptu }}")
    insert(connection, list("abcdefgh"))
    work(dsn, concurrency=1)
    found = scores(connection, "polite")
    assert {row[3] for row in found.values()} == {"raised"}
    assert len(found) == 3
    assert value(connection, "select count(*) from flywheel._later where run_at = 'infinity'") == 5
    assert value(connection, "select status from flywheel.validator_versions") == "paused"
    assert len(fake.requests) == 0


def test_refusals_do_not_pause_a_judge(dsn: str, connection: Connection, fake: Fake) -> None:
    set_setting(connection, "faults_before_pause", 3)
    fake.set(mix={"refusal": 1.0})
    provide(connection, fake)
    judge(connection)
    insert(connection, list("abcdefgh"))
    work(dsn)
    assert len(scores(connection, "polite")) == 8
    assert value(connection, "select status from flywheel.validator_versions") == "active"


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


def test_examples_are_shown_and_kept_with_the_score(dsn: str, connection: Connection, fake: Fake) -> None:
    provide(connection, fake)
    judge(connection)
    insert(connection, ["shown before"])
    work(dsn)
    span_id = value(connection, "select span_id from flywheel.spans")
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    connection.execute("select flywheel.record_label(%s, 'polite', false, 'ann', 'it is not kind')", [span_id])
    insert(connection, ["something else"])
    work(dsn)
    example_id = value(connection, "select example_id from flywheel.examples where status = 'servable'")
    shots = "select shots from flywheel.scores join flywheel.spans using (span_id) where output = 'something else'"
    assert value(connection, shots) == [example_id]
    assert value(connection, "select shots from flywheel.calls where shots is not null") == [example_id]
    asked = Asked(fake.requests[-1].body).prompt
    assert "it is not kind" in asked
    assert "shown before" in asked


def test_what_a_killed_worker_was_told_is_not_asked_again(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(delay=0.1)
    provide(connection, fake)
    judge(connection, votes=3)
    insert(connection, list(map(str, range(60))))
    with process(dsn, "--lanes", "judge", "--concurrency", "12", "--lease-seconds", "3") as running:
        until(lambda: value(connection, "select count(*) from flywheel.calls") > 60)
        running.send_signal(signal.SIGKILL)
        running.wait()
    asked, told = (
        len(fake.requests),
        value(connection, "select count(*) from flywheel.calls where outcome = 'answered'"),
    )
    until(lambda: value(connection, "select count(*) from flywheel._workers where leased_until > now()") == 0)
    work(dsn, concurrency=12)
    assert len(scores(connection, "polite")) == 60
    assert len(fake.requests) - asked == 180 - told
    assert asked - told <= 14  # on their way at the kill: hands, and replies of some milliseconds
    assert waiting(connection) == 0


def test_a_lost_claim_writes_no_score_but_its_call_is_kept(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(delay=0.5)
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    working = threading.Thread(target=work, args=[dsn])
    working.start()
    until(lambda: fake.requests)
    lose = "select flywheel._give_back(array_agg(distinct worker_id)) from flywheel._running"
    assert value(connection, lose) == 1
    working.join(60)
    assert scores(connection, "polite")["a"][0] is True
    assert len(fake.requests) == 1
    assert outcomes(connection) == {"answered": 1}
    assert value(connection, "select sum(jobs) from flywheel.run_log where outcome = 'completed'") == 1


def test_a_stopped_worker_finishes_the_calls_on_their_way_and_gives_back_the_rest(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    fake.set(delay=0.5)
    provide(connection, fake)
    judge(connection)
    insert(connection, list(map(str, range(40))))
    with process(dsn, "--lanes", "judge", "--concurrency", "8") as running:
        until(started(connection))
        until(lambda: fake.requests)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    done = len(scores(connection, "polite"))
    assert 0 < done < 40
    assert outcomes(connection) == {"answered": done}
    assert len(fake.requests) == done
    assert value(connection, "select sum(cardinality(span_ids)) from flywheel._ready") == 40 - done


def test_no_text_of_a_span_and_no_key_is_logged(
    dsn: str, connection: Connection, fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake.set(mix={"server_error": 0.3, "prose": 0.3, "rate_limited_bare": 0.2}, api_key="k-secret", at_most=2)
    monkeypatch.setenv("FAKE_KEY", "k-secret")
    provide(connection, fake, key_variable="FAKE_KEY")
    judge(connection)
    insert(connection, [f"private words {number}" for number in range(20)])
    work(dsn, concurrency=4)
    logged = "\n".join(str(vars(record)) for record in caplog.records)
    assert "private words" not in logged
    assert "k-secret" not in logged
    assert len(scores(connection, "polite")) == 20


def test_a_judge_that_is_paused_meanwhile_makes_no_more_calls(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(delay=0.4)
    provide(connection, fake)
    judge(connection)
    insert(connection, list(map(str, range(20))))
    working = threading.Thread(target=work, args=[dsn], kwargs={"concurrency": 2})
    working.start()
    until(lambda: fake.requests)
    connection.execute("select flywheel.pause_validator('polite', 'manual')")
    working.join(60)
    assert len(fake.requests) < 12
    assert len(scores(connection, "polite")) == len(fake.requests)
    connection.execute("select flywheel.activate_validator('polite')")
    work(dsn)
    assert len(scores(connection, "polite")) == len(fake.requests) == 20


def test_a_worker_needs_no_more_than_its_role(dsn: str, connection: Connection, fake: Fake) -> None:
    name = f"worker_{uuid4().hex[:12]}"
    provide(connection, fake, max_in_flight=8)
    judge(connection, shots={"strategy": "similar"})
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    insert(connection, ["before"])
    span_id = value(connection, "select span_id from flywheel.spans")
    connection.execute("select flywheel.record_label(%s, 'polite', false, 'ann', 'it is not kind')", [span_id])
    insert(connection, ["a", "zzfail"])
    connection.execute(
        sql.SQL("create role {} login password 'secret' in role flywheel_worker").format(sql.Identifier(name))
    )
    try:
        work(make_conninfo(dsn, user=name, password="secret"))
    finally:
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
    assert {output: row[0] for output, row in scores(connection, "polite").items()} == {
        "before": True,
        "a": True,
        "zzfail": False,
    }
    assert value(connection, "select count(*) from flywheel.calls where shots is not null") == 2


def test_a_reply_no_database_can_hold_is_kept_without_what_it_cannot(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    fake.set(
        mind=lambda asked: Judgement("pass", content='{"critique": "a\\u0000b\\ud800c \U0001f600", "verdict": "pass"}')
    )
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    passed, _, critique, reason, _ = scores(connection, "polite")["a"]
    assert (passed, reason) == (True, None)
    assert critique == "a\ufffdb\ufffdc \U0001f600"


def test_the_judge_sees_what_led_to_a_span_and_what_was_said_before(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    provide(connection, fake)
    judge(connection, context={"parents": True, "documents": True, "session": 2}, filter={"node": "answer"})
    connection.execute(
        "create function pg_temp.id(n integer) returns uuid language sql return lpad(n::text, 32, '0')::uuid"
    )
    connection.execute(
        """
        insert into flywheel.spans
               (span_id, trace_id, parent_span_id, session_id, node, input, output, documents, started_at)
        select pg_temp.id(span), pg_temp.id(trace), pg_temp.id(parent), 's', node, input, output, documents::jsonb,
               now() - interval '10 min' + span * interval '1 min'
          from (values (1, 11, null, 'chat', 'turn one', 'reply one', null),
                       (2, 12, null, 'chat', 'turn two', 'reply two', null),
                       (3, 13, null, 'chat', 'turn three', 'reply three', null),
                       (4, 14, null, 'chat', 'root in', 'root out', null),
                       (5, 14, 4, 'plan', 'step in', 'step out', null),
                       (6, 14, 5, 'answer', 'in', 'out', '[{"text": "a document"}]'))
            as made(span, trace, parent, node, input, output, documents)
        """
    )
    work(dsn)
    assert len(fake.requests) == 1
    asked = Asked(fake.requests[0].body).prompt
    order = ["turn two", "turn three", "root in", "step in", "a document"]
    assert all(text in asked for text in order)
    assert [asked.index(text) for text in order] == sorted(asked.index(text) for text in order)
    assert "turn one" not in asked
