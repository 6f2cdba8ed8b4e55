"""Judges: whatever a model says, every span gets a verdict or the reason why it has none."""

from __future__ import annotations

import pytest

from tests.fakes.openai import Asked, Fake, Judgement
from tests.worker.judging import judge, outcomes, provide
from tests.worker.support import Connection, insert, scores, set_setting, value, waiting, work


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
