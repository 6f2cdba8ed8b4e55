"""From what a model says to a verdict: one, or a reason why there is none."""

from __future__ import annotations

import json
import math
import random
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.judgement import read
from pgflywheel.judge.parse import Unreadable, pass_probability, read_verdict
from pgflywheel.judge.price import cost_usd
from pgflywheel.judge.reading import reply_of
from pgflywheel.judge.records import Judgement, Reply, Shot, Usage, storable
from pgflywheel.judge.votes import combine, shot_subsets
from pgflywheel.records import Prices
from tests.fakes.tokens import logprobs

PASS = '{"critique": "It is friendly.", "verdict": "pass"}'
FAIL = '{"critique": "It mocks.", "verdict": "fail"}'
QUOTED = json.dumps({"critique": f"The text says {PASS} but mocks.", "verdict": "fail"})


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (PASS, True),
        (FAIL, False),
        (f"\n\n  {PASS}\n", True),
        (f"```json\n{FAIL}\n```", False),
        (f"Here is my answer:\n{PASS}\nI hope it helps.", True),
        (f"<think>It might be {PASS}</think>{FAIL}", False),
        (f"Some thoughts first.</think>\n{FAIL}", False),
        (QUOTED, False),
        ('{"verdict": "PASS", "critique": 3}', True),
        ('{"verdict": " Failed ", "score": 1}', False),
        ('{"thoughts": {"verdict": "pass"}, "critique": "", "verdict": "fail"}', False),
        ("It is friendly.\n\nverdict: pass", True),
        ("It mocks.\n**Verdict:** FAIL.", False),
        (f"{PASS}\n{PASS}", True),
        ('{"critique": "a", "verdict": "pass", "verdict": "pass"}', True),
    ],
)
def test_a_verdict_is_read_in_whatever_dress_it_comes(text: str, passed: bool) -> None:
    assert read_verdict(text).passed is passed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON object"),
        ("I would rather not say.", "no JSON object"),
        ('{"critique": "It is', "ends too early"),
        ('{"critique": "it quotes {\\"verdict\\": \\"pass\\"} and', "ends too early"),
        ('{"answer": "yes"}', "no verdict"),
        ('{"verdict": "maybe"}', "neither pass nor fail"),
        ('{"verdict": true}', "neither pass nor fail"),
        ('{"verdict": ["pass"]}', "neither pass nor fail"),
        ('{"verdict": null}', "neither pass nor fail"),
        (f"{PASS}\n{FAIL}", "two verdicts"),
        ('{"critique": "it demands {"verdict": "pass"} and mocks", "verdict": "fail"}', "two verdicts"),
        ('{"verdict": "fail", "verdict": "pass"}', "neither pass nor fail"),
        ("verdict: pass\nverdict: fail", "two verdicts"),
        ("the verdict: pass, I think, or not", "no JSON object"),
        ("[" * 50_000, "no JSON object"),
        ('{"a":' * 50_000, "nested too deeply"),
        ("{" * 60_000, "ends too early"),
    ],
)
def test_what_states_no_verdict_or_two_is_unreadable_and_says_why(text: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read_verdict(text)


def test_the_critique_is_what_stands_before_a_line_with_the_verdict() -> None:
    assert read_verdict("It mocks.\nverdict: fail").critique == "It mocks."
    assert read_verdict(PASS).critique == "It is friendly."


@given(text=st.text(st.characters()) | st.text('{}[]":,\\ verdictpasfl\n', max_size=60))
def test_no_reply_is_more_than_unreadable(text: str) -> None:
    reading = read(Reply(text))
    assert reading.scored == (reading.judgement.reason is None)
    json.dumps(reading.judgement.critique).encode()
    assert "\x00" not in (reading.judgement.critique or "")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(None, refusal="I can't."), "refused"),
        (Reply(PASS, refusal="I can't."), "refused"),
        (Reply(PASS, finish_reason="length"), "length_stop"),
        (Reply("", finish_reason="content_filter"), "content_filter"),
        (Reply(None, choices=0), "empty_reply"),
        (Reply(None), "empty_reply"),
        (Reply(" \n"), "empty_reply"),
        (Reply("prose"), "unreadable"),
    ],
)
def test_a_reply_without_a_verdict_has_its_reason_and_is_no_fail(reply: Reply, reason: str) -> None:
    reading = read(reply)
    assert (reading.outcome, reading.judgement.reason, reading.judgement.passed) == (reason, reason, None)
    assert reading.judgement.detail


@pytest.mark.parametrize("manner", ["whole", "split", "glued"])
@pytest.mark.parametrize("probability", [1.0, 0.97, 0.6])
@pytest.mark.parametrize("content", [PASS, FAIL, QUOTED, "It mocks.\n\nverdict: fail"])
def test_the_probability_of_a_pass_is_read_from_logprobs(content: str, probability: float, manner: str) -> None:
    verdict = read_verdict(content).passed
    found = pass_probability(logprobs(content, probability, 5, manner)["content"])
    assert found == pytest.approx(probability if verdict else 1 - probability, abs=1e-9)


def test_the_verdict_is_the_likelier_one_and_its_confidence_its_probability() -> None:
    judgement = read(Reply(PASS, pass_probability=0.3)).judgement
    assert (judgement.passed, judgement.value, judgement.confidence) == (False, 0.3, 0.7)
    assert read(Reply(PASS)).judgement.confidence is None


@pytest.mark.parametrize(
    "tokens",
    [
        None,
        [],
        "x",
        [1],
        [{}],
        [{"token": "verdict: pass"}],
        [{"token": 'verdict": "', "logprob": 0}, {"token": "pass", "logprob": "x"}],
        [{"token": 'verdict": "', "logprob": 0}, {"token": "pass", "logprob": math.nan}],
    ],
)
def test_odd_logprobs_tell_nothing(tokens: Any) -> None:
    assert pass_probability(tokens) is None


@given(
    payload=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens", "error", "logprobs"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_reply_or_a_failure(payload: Any) -> None:
    with suppress(CallFailed):
        read(reply_of(payload, 200, 1.0))


def test_a_reply_is_kept_so_that_a_database_takes_it_and_read_back_costs_nothing() -> None:
    reply = Reply("a\x00b\ud800" + "x" * 100_000, "no\x00", "stop", 0.25, "m", Usage(1, 2, 3))
    kept = reply.to_json()
    json.dumps(kept, ensure_ascii=False).encode("utf-8")
    assert "\\u0000" not in json.dumps(kept)
    again = Reply.of_json(json.loads(json.dumps(kept)))
    assert again.text == "a\ufffdb\ufffd" + "x" * (65_536 - 4)
    assert (again.refusal, again.pass_probability, again.usage) == ("no\ufffd", 0.25, Usage(0, 0, 0))
    assert storable("plain 漢字 🏳️‍🌈") == "plain 漢字 🏳️‍🌈"


def votes(*said: bool | None) -> list[Judgement]:
    return [
        Judgement(each, critique=f"because {each}", reason=None if each is not None else "refused") for each in said
    ]


@pytest.mark.parametrize(
    ("said", "passed", "value", "confidence"),
    [
        ((True, True, True), True, 1.0, 4 / 5),
        ((True, False, True), True, 2 / 3, 3 / 5),
        ((False, False, True, False, False), False, 1 / 5, 5 / 7),
        ((True, None, True), True, 1.0, 3 / 4),
        ((None, None, False), False, 0.0, 2 / 3),
    ],
)
def test_the_majority_decides(said: tuple[bool | None, ...], passed: bool, value: float, confidence: float) -> None:
    judgement = combine(votes(*said))
    assert (judgement.passed, judgement.critique) == (passed, f"because {passed}")
    assert judgement.value == pytest.approx(value)
    assert judgement.confidence == pytest.approx(confidence)


def test_votes_that_tie_or_are_all_missing_give_no_verdict() -> None:
    assert combine(votes(True, None, False)).reason == "no_verdict"
    assert combine(votes(None, None, None)).reason == "refused"


def test_a_single_vote_stands_as_it_is() -> None:
    only = Judgement(True, 0.9, "fine", 0.9)
    assert combine([only]) is only
    with pytest.raises(ValueError, match="no judgement"):
        combine([])


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("wanted", [1, 3, 5])
def test_every_vote_sees_other_examples_in_the_same_order(count: int, wanted: int) -> None:
    shots = [Shot(uuid4(), str(n), None) for n in range(count)]
    subsets = shot_subsets(shots, wanted)
    assert len(subsets) == wanted
    assert all([shot for shot in shots if shot in subset] == list(subset) for subset in subsets)
    assert {shot.example_id for subset in subsets for shot in subset} == {shot.example_id for shot in shots}
    if wanted > 1 and count > 1:
        assert len(set(subsets)) == min(wanted, count + 1)


def test_a_call_costs_what_its_tokens_cost() -> None:
    prices = Prices(input_usd=2.0, cached_input_usd=0.5, output_usd=8.0)
    assert cost_usd(Usage(1_000_000, 400_000, 100_000), prices) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.8)
    assert cost_usd(Usage(1_000_000, None, 0), prices, batch=True) == pytest.approx(1.0)
    assert cost_usd(Usage(100, 100, 0), Prices(1.0, None, 1.0)) == pytest.approx(100e-6)


@pytest.mark.parametrize("prices", [None, Prices(), Prices(1.0), Prices(None, 1.0, 1.0)])
def test_an_unknown_price_is_unknown_and_not_nothing(prices: Prices | None) -> None:
    assert cost_usd(Usage(10, 0, 10), prices) is None


def test_unknown_tokens_have_an_unknown_price() -> None:
    assert cost_usd(Usage(None, None, 10), Prices(1.0, 1.0, 1.0)) is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.randoms())
def test_fewer_or_cached_tokens_never_cost_more(tokens: int, written: int, chance: random.Random) -> None:
    prices = Prices(2.0, 0.5, 8.0)
    usage = Usage(chance.randint(0, tokens), chance.randint(0, tokens), chance.randint(0, written))
    cost, most = cost_usd(usage, prices), cost_usd(Usage(tokens, 0, written), prices)
    assert cost is not None
    assert most is not None
    assert cost <= most + 1e-12
