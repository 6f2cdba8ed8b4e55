"""The fake OpenAI server, asked by the real client."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.fakes.asking import BAD, GOOD, SCHEMA, ask, call, chat, content
from tests.fakes.mind import Asked, Judgement, recorded
from tests.fakes.openai import Fake
from tests.fakes.process import running


def test_a_plain_completion_ends_in_its_verdict(fake: Fake) -> None:
    good, bad = chat(fake.url, GOOD), chat(fake.url, BAD)
    assert (content(good).splitlines()[-1], content(bad).splitlines()[-1]) == ("verdict: pass", "verdict: fail")
    assert good.model == "judge-2026-10-01"
    assert good.choices[0].finish_reason == "stop"
    assert good.usage is not None
    assert good.usage.total_tokens == good.usage.prompt_tokens + good.usage.completion_tokens


def test_a_schema_is_filled_in_its_order(fake: Fake) -> None:
    reply = json.loads(content(chat(fake.url, BAD, response_format=SCHEMA)))
    assert list(reply) == ["critique", "verdict"]
    assert reply["verdict"] == "fail"


def test_a_foreign_schema_is_filled_by_type(fake: Fake) -> None:
    schema = {
        "$defs": {"Step": {"type": "object", "properties": {"why": {"type": "string"}}}},
        "properties": {
            "score": {"type": "integer", "minimum": 0, "maximum": 5},
            "passed": {"type": "boolean"},
            "steps": {"type": "array", "items": {"$ref": "#/$defs/Step"}},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "type": "object",
    }
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    critique = "Nothing in it is wrong."
    assert json.loads(content(chat(fake.url, response_format=form))) == {
        "score": 5,
        "passed": True,
        "steps": [{"why": critique}],
        "note": critique,
    }


def test_a_strict_schema_that_leaves_fields_open_is_refused(fake: Fake) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": {"properties": {}}}}
    with pytest.raises(openai.BadRequestError, match="additionalProperties"):
        chat(fake.url, response_format=form)


def test_a_json_object_needs_the_word_json(fake: Fake) -> None:
    assert json.loads(content(chat(fake.url, response_format={"type": "json_object"})))["verdict"] == "pass"
    with pytest.raises(openai.BadRequestError, match="must contain the word 'json'"):
        chat(fake.url, messages=[{"role": "user", "content": "hello"}], response_format={"type": "json_object"})


def test_a_tool_is_called_with_the_verdict(fake: Fake) -> None:
    function = {"name": "judge", "parameters": SCHEMA["json_schema"]["schema"]}  # type: ignore[index]
    choice = chat(fake.url, BAD, tools=[{"type": "function", "function": function}]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert json.loads(choice.message.tool_calls[0].function.arguments)["verdict"] == "fail"  # type: ignore[union-attr]


@pytest.mark.parametrize("cut", ["whole", "split", "glued"])
@pytest.mark.parametrize("form", [SCHEMA, {"type": "text"}])
def test_logprobs_join_to_the_content_and_carry_the_probability(fake: Fake, cut: str, form: dict[str, Any]) -> None:
    fake.set(mind=lambda _: Judgement("fail", 'it says "verdict: pass" – wrongly', probability=0.75), verdict_token=cut)
    choice = chat(fake.url, response_format=form, logprobs=True, top_logprobs=4).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(each.token for each in choice.logprobs.content) == choice.message.content
    [verdict] = [each for each in choice.logprobs.content if each.logprob == math.log(0.75)]
    assert len(verdict.top_logprobs) == 4
    tops = {each.token.strip(' "'): math.exp(each.logprob) for each in verdict.top_logprobs[:2]}
    assert tops == pytest.approx({"f": 0.75, "p": 0.25} if cut == "split" else {"fail": 0.75, "pass": 0.25})


def test_several_choices_are_each_asked_of_the_mind(fake: Fake) -> None:
    fake.set(mind=lambda asked: Judgement("pass" if asked.choice else "fail"))
    choices = chat(fake.url, n=3, response_format=SCHEMA).choices
    assert [json.loads(each.message.content or "")["verdict"] for each in choices] == ["fail", "pass", "pass"]


def test_a_repeated_prefix_is_cached(fake: Fake) -> None:
    beginning = "the same words again and again " * 300
    usages = [chat(fake.url, beginning + end).usage for end in ("one", "two")]
    cached = [usage.prompt_tokens_details.cached_tokens for usage in usages if usage and usage.prompt_tokens_details]
    assert cached[0] == 0
    assert cached[1] is not None
    assert 2000 < cached[1] <= 2400


def test_a_recorded_verdict_is_served_for_its_key(fake: Fake) -> None:
    awkward = 'a "quoted" line\nand <another> – 😀'
    table = {"item 1": {"verdict": "fail", "critique": "a"}, "item 12": {"verdict": "pass", "critique": "b"}}
    fake.set(verdicts={**table, awkward: {"verdict": "fail", "critique": "c"}})
    assert content(chat(fake.url, "shot: item 1; now: item 12")).startswith("b")
    assert content(chat(fake.url, "shot: item 12; now: item 1.")).startswith("a")
    said = json.dumps({"item": awkward}).replace("<", "\\u003c")
    assert content(chat(fake.url, f"item 1 {said}")).startswith("c")
    with pytest.raises(openai.BadRequestError, match="no recorded verdict"):
        chat(fake.url, "another item")


def test_a_table_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text('{"k": {"verdict": "fail", "critique": "c", "probability": null}}')
    judged = recorded(tmp_path / "table.json")(Asked({"messages": [{"role": "user", "content": "a k"}]}))
    assert judged == Judgement("fail", "c")


def test_a_broken_mind_is_a_refusal_that_names_its_error(fake: Fake) -> None:
    def mind(asked: Asked) -> Judgement:
        raise RuntimeError("I am lost")

    fake.set(mind=mind)
    with pytest.raises(openai.BadRequestError, match="I am lost"):
        chat(fake.url)


def test_what_the_endpoint_does_not_know_is_refused(fake: Fake) -> None:
    fake.set(api_key="right", models=["judge"], context_tokens=100)
    with pytest.raises(openai.AuthenticationError):
        chat(fake.url)
    fake.set(api_key=None)
    with pytest.raises(openai.NotFoundError) as unknown:
        chat(fake.url, model="other")
    with pytest.raises(openai.BadRequestError) as long:
        chat(fake.url, "word " * 500)
    assert (unknown.value.code, long.value.code) == ("model_not_found", "context_length_exceeded")
    models = call(fake.url, lambda client: client.models.list()._get_page())
    assert [model.id for model in models.data] == ["judge"]


def test_embeddings_are_alike_in_base64_and_in_floats(fake: Fake) -> None:
    async def use(client: AsyncOpenAI) -> tuple[list[list[float]], list[float]]:
        texts = ["red apples are sweet", "red apples are sour", "a train to Basel"]
        many = await client.embeddings.create(model="e", input=texts, dimensions=256)
        one = await client.embeddings.create(model="e", input=texts[0], dimensions=256, encoding_format="float")
        return [each.embedding for each in many.data], one.data[0].embedding

    (first, second, third), again = call(fake.url, use)
    assert fake.requests[0].body["encoding_format"] == "base64"
    assert len(first) == 256
    assert first == pytest.approx(again)
    assert math.hypot(*first) == pytest.approx(1)
    assert dot(first, second) > 0.5 > dot(first, third)


def dot(one: list[float], other: list[float]) -> float:
    """Return the inner product."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_empty_input_is_refused(fake: Fake) -> None:
    with pytest.raises(openai.BadRequestError):
        call(fake.url, lambda client: client.embeddings.create(model="e", input=["a", ""]))


def test_calls_in_flight_are_counted(fake: Fake) -> None:
    fake.set(delay=0.2)

    async def use(client: AsyncOpenAI) -> None:
        await asyncio.gather(*(ask(client, f"item {number}") for number in range(8)))

    call(fake.url, use)
    assert fake.most_in_flight == 8
    assert fake.most_in_window(60) == 8
    assert all(each.ended and each.ended - each.began >= 0.2 for each in fake.requests)
    assert fake.stats()["in_flight"] == 0


def test_a_hung_call_is_in_flight_until_its_client_leaves(fake: Fake) -> None:
    fake.set(first=["hang"])

    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(openai.APITimeoutError):
            await ask(client.with_options(timeout=1), "hang")
        await ask(client, "then")

    call(fake.url, use)
    assert until(lambda: fake.stats()["in_flight"] == 0)
    assert [each.misbehaviour for each in fake.requests] == ["hang", None]


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Tell whether something comes to hold."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_limits_are_enforced_and_violations_counted(fake: Fake) -> None:
    fake.limits(requests_per_minute=2, tokens_per_minute=1000)
    replies = [chat(fake.url) for _ in range(2)]
    assert len(replies) == 2
    with pytest.raises(openai.RateLimitError) as caught:
        chat(fake.url)
    headers = caught.value.response.headers
    assert 0 < float(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert fake.violations == {"requests": 1}


def test_limits_may_only_be_counted(fake: Fake) -> None:
    fake.limits(max_in_flight=1, tokens_per_minute=50, enforce=False)
    fake.set(delay=1)

    async def use(client: AsyncOpenAI) -> None:
        await asyncio.gather(*(ask(client, "w" * 100) for _ in range(3)))

    call(fake.url, use)
    assert fake.violations == {"in_flight": 2, "tokens": 2}


def test_the_process_is_steered_and_read_over_http() -> None:
    with running(first=["overloaded"], limits={"requests_per_minute": 1, "enforce": False}) as remote:
        with pytest.raises(openai.InternalServerError):
            chat(remote.url)
        remote.set(verdicts={"item": {"verdict": "fail", "critique": "c"}})
        assert content(chat(remote.url)).endswith("verdict: fail")
        assert [each["status"] for each in remote.requests] == [503, 200]
        assert (remote.violations, remote.most_in_flight, remote.most_in_window(60)) == ({"requests": 1}, 1, 2)
        with pytest.raises(ValueError, match="sulk"):
            remote.set(first=["sulk"])
        remote.reset()
        assert remote.requests == []
