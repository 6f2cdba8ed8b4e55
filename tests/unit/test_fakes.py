"""The fake OpenAI server, asked by the real client."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch
from openai.types.chat import ChatCompletion

from tests.fakes import misbehaviours
from tests.fakes.mind import Asked, Judgement, recorded
from tests.fakes.misbehaviours import Chooser, even_mix
from tests.fakes.openai import Fake, serving
from tests.fakes.process import running

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"critique": {"type": "string"}, "verdict": {"type": "string", "enum": ["pass", "fail"]}},
            "required": ["critique", "verdict"],
            "additionalProperties": False,
        },
    },
}
T = TypeVar("T")
GOOD, BAD = "an item", "an item with zzfail in it"


@pytest.fixture(scope="module")
def served() -> Iterator[Fake]:
    with serving() as fake:
        yield fake


@pytest.fixture
def fake(served: Fake) -> Fake:
    served.reset()
    return served


def call(url: str, use: Callable[[AsyncOpenAI], Awaitable[T]], **options: Any) -> T:
    """Use a client, and close it."""

    async def run() -> T:
        async with AsyncOpenAI(
            **{"base_url": url, "api_key": "key", "max_retries": 0, "timeout": 20, **options}
        ) as client:
            return await use(client)

    return asyncio.run(run())


def chat(url: str, text: str = GOOD, **more: Any) -> ChatCompletion:
    """Ask for one completion."""
    timeout = more.pop("timeout", 20)
    return call(url, lambda client: ask(client, text, **more), timeout=timeout)


async def ask(client: AsyncOpenAI, text: str, **more: Any) -> ChatCompletion:
    """Ask for one completion with a client at hand."""
    messages = [{"role": "system", "content": "Answer in json."}, {"role": "user", "content": text}]
    completion: ChatCompletion = await client.chat.completions.create(
        **{"model": "judge", "messages": messages, **more}
    )
    return completion


def content(completion: ChatCompletion) -> str:
    """Return the first choice's text."""
    text = completion.choices[0].message.content
    assert text is not None
    return text


def refused(fake: Fake, misbehaviour: str, **more: Any) -> openai.APIStatusError:
    """Return the error the client raises."""
    fake.set(first=[misbehaviour])
    with pytest.raises(openai.APIStatusError) as caught:
        chat(fake.url, **more)
    return caught.value


# completions


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


# embeddings


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


# misbehaviours


@pytest.mark.parametrize(
    ("name", "expected", "code"),
    [
        ("rate_limited", openai.RateLimitError, "rate_limit_exceeded"),
        ("rate_limited_ms", openai.RateLimitError, "rate_limit_exceeded"),
        ("rate_limited_date", openai.RateLimitError, "rate_limit_exceeded"),
        ("rate_limited_bare", openai.RateLimitError, "rate_limit_exceeded"),
        ("insufficient_quota", openai.RateLimitError, "insufficient_quota"),
        ("server_error", openai.InternalServerError, None),
        ("overloaded", openai.InternalServerError, None),
        ("bad_gateway", openai.InternalServerError, None),
        ("bad_request", openai.BadRequestError, "invalid_value"),
        ("unauthorized", openai.AuthenticationError, "invalid_api_key"),
        ("forbidden", openai.PermissionDeniedError, "unsupported_country_region_territory"),
        ("not_found", openai.NotFoundError, "model_not_found"),
        ("too_long", openai.BadRequestError, "context_length_exceeded"),
        ("content_filter_error", openai.BadRequestError, "content_filter"),
    ],
)
def test_an_error_is_raised_as_its_class_with_its_code(
    fake: Fake, name: str, expected: type[Exception], code: str | None
) -> None:
    error = refused(fake, name)
    assert type(error) is expected
    assert error.code == code
    assert chat(fake.url).choices  # and only the first was to misbehave


def test_a_rate_limit_tells_when_to_come_back_in_three_ways_or_not(fake: Fake) -> None:
    fake.set(retry_after=7)
    named = ("rate_limited", "rate_limited_ms", "rate_limited_date", "rate_limited_bare")
    told = [refused(fake, name).response.headers for name in named]
    assert [each.get("retry-after") for each in told[:2]] == ["7", None]
    assert told[1]["retry-after-ms"] == "7000"
    assert told[2]["retry-after"].endswith(" GMT")
    assert not [header for header in told[3] if header.startswith("retry-after")]


def test_a_bad_gateway_is_a_page_of_html(fake: Fake) -> None:
    assert "<html>" in refused(fake, "bad_gateway").response.text


@pytest.mark.parametrize(
    ("name", "more", "param"),
    [
        ("unsupported_schema", {"response_format": SCHEMA}, "response_format"),
        ("unsupported_json", {"response_format": {"type": "json_object"}}, "response_format"),
        ("unsupported_parameter", {"max_completion_tokens": 99}, "max_completion_tokens"),
        ("unsupported_parameter", {"prompt_cache_key": "a"}, "prompt_cache_key"),
        ("unsupported_parameter", {"logprobs": True}, "logprobs"),
    ],
)
def test_what_is_unsupported_is_refused_only_when_asked_for(
    fake: Fake, name: str, more: dict[str, Any], param: str
) -> None:
    error = refused(fake, name, **more)
    assert (error.status_code, error.param) == (400, param)
    fake.set(first=[name])
    assert chat(fake.url).choices


@pytest.mark.parametrize("name", ["reset", "reset_midway"])
def test_a_reset_is_a_connection_error(fake: Fake, name: str) -> None:
    fake.set(first=[name])
    with pytest.raises(openai.APIConnectionError) as caught:
        chat(fake.url)
    assert isinstance(caught.value.__cause__, httpx2.ReadError)


@pytest.mark.parametrize("name", ["hang", "slow_first_byte", "drip"])
def test_who_does_not_wait_sees_a_timeout(fake: Fake, name: str) -> None:
    fake.set(first=[name], slow_seconds=30, drip_seconds=600)
    with pytest.raises(openai.APITimeoutError):
        chat(fake.url, timeout=0.2)


@pytest.mark.parametrize("name", ["slow_first_byte", "drip"])
def test_who_waits_gets_the_whole(fake: Fake, name: str) -> None:
    fake.set(first=[name], slow_seconds=0.1, drip_seconds=0.1)
    assert content(chat(fake.url)).endswith("verdict: pass")


def test_half_a_body_is_no_json(fake: Fake) -> None:
    fake.set(first=["half_json"])
    with pytest.raises(json.JSONDecodeError):
        chat(fake.url)


@pytest.mark.parametrize("name", ["prose", "fenced", "half_content", "endless", "length", "content_filter"])
def test_content_that_is_no_json_fails_to_parse(fake: Fake, name: str) -> None:
    fake.set(first=[name])
    completion = chat(fake.url, response_format=SCHEMA)
    with pytest.raises(json.JSONDecodeError):
        json.loads(content(completion))
    finish = {"length": "length", "content_filter": "content_filter"}.get(name, "stop")
    assert completion.choices[0].finish_reason == finish
    assert (len(content(completion)) >= 4_000_000) is (name == "endless")


def test_json_may_say_something_else(fake: Fake) -> None:
    fake.set(first=["wrong_fields", "wrong_verdict"])
    fields, verdict = (json.loads(content(chat(fake.url, response_format=SCHEMA))) for _ in range(2))
    assert "verdict" not in fields
    assert verdict["verdict"] == "maybe"


def test_a_completion_may_lack_what_others_have(fake: Fake) -> None:
    fake.set(first=["empty_choices", "null_content", "refusal", "wrong_model", "no_usage"])
    empty, null, refusal, other, unpriced = (chat(fake.url) for _ in range(5))
    assert empty.choices == []
    assert (null.choices[0].message.content, null.choices[0].message.refusal) == (None, None)
    assert refusal.choices[0].message.refusal
    assert not other.model.startswith("judge")
    assert unpriced.usage is None


def test_a_request_may_misbehave_by_its_text(fake: Fake) -> None:
    fake.set(when={"second": "overloaded"})
    assert chat(fake.url, "first").choices
    with pytest.raises(openai.InternalServerError):
        chat(fake.url, "second")
    fake.set(when=lambda asked: "bad_request" if len(asked.text) > 5 else None)
    assert chat(fake.url, "short").choices
    with pytest.raises(openai.BadRequestError):
        chat(fake.url, "longer")


def test_every_misbehaviour_is_tested_here() -> None:
    text = Path(__file__).read_text()
    assert [name for name in misbehaviours.NAMES if f'"{name}"' not in text] == []


def test_a_misbehaviour_nobody_knows_is_refused(fake: Fake) -> None:
    for wrong in ({"mix": {"sulk": 0.1}}, {"first": ["sulk"]}, {"when": {"a": "sulk"}}, {"mix": {"reset": 1.1}}):
        with pytest.raises(ValueError, match=r"sulk|more than 1"):
            fake.set(**wrong)


def chosen(texts: list[str], **plan: Any) -> dict[str, list[str | None]]:
    """Return what each text meets at each of its attempts."""
    chooser = Chooser(**{"mix": even_mix(0.5, ["reset", "prose"]), "first": (), "when": {}, **plan})
    met: dict[str, list[str | None]] = {text: [] for text in texts}
    for text in texts:
        met[text].append(chooser.choose(Asked({"messages": [{"role": "user", "content": text}]})))
    return met


def test_what_a_prompt_meets_does_not_depend_on_the_order_of_requests() -> None:
    texts = [f"item {number}" for number in range(400)] * 2
    assert chosen(texts) == chosen(texts[::-1])
    assert chosen(texts) != chosen(texts, seed=1)


def test_shares_are_kept_and_prompts_spared() -> None:
    texts = [f"item {number}" for number in range(4000)]
    met = [name for names in chosen(texts).values() for name in names]
    assert met.count("reset") == pytest.approx(1000, abs=120)
    assert met.count("prose") == pytest.approx(1000, abs=120)
    again = chosen(texts * 2, at_most=1)
    assert {name for names in again.values() for name in names[1:]} == {None}


# counting


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
            await ask(client.with_options(timeout=0.1), "hang")
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
    fake.set(delay=0.1)

    async def use(client: AsyncOpenAI) -> None:
        await asyncio.gather(*(ask(client, "w" * 100) for _ in range(3)))

    call(fake.url, use)
    assert fake.violations == {"in_flight": 2, "tokens": 2}


# batches


def lines_of(texts: list[str]) -> bytes:
    """Return an input file."""
    bodies = [{"model": "judge", "messages": [{"role": "user", "content": text}]} for text in texts]
    return b"".join(
        json.dumps(
            {"custom_id": f"line {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        ).encode()
        + b"\n"
        for number, body in enumerate(bodies)
    )


async def begin(client: AsyncOpenAI, content: bytes) -> Batch:
    """Upload a file and begin a batch."""
    file = await client.files.create(file=("input.jsonl", content), purpose="batch")
    assert (file.bytes, file.purpose) == (len(content), "batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )


async def finished(client: AsyncOpenAI, batch: Batch) -> tuple[list[str], Batch]:
    """Poll a batch to its end; return the states it went through, and the batch."""
    states = [batch.status]
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        batch = await client.batches.retrieve(batch.id)
        states.append(batch.status)
    return list(states), batch


async def results(client: AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    """Return the lines of an output or error file by custom_id."""
    if file_id is None:
        return {}
    text = (await client.files.content(file_id)).text
    return {line["custom_id"]: line for line in map(json.loads, text.splitlines())}


Outcome = tuple[list[str], Batch, dict[str, Any], dict[str, Any]]


def run_batch(fake: Fake, content: bytes, cancel: bool = False) -> Outcome:
    """Run a batch to its end; return its states, itself, its output and its errors."""

    async def use(client: AsyncOpenAI) -> Outcome:
        batch = await begin(client, content)
        if cancel:
            await client.batches.retrieve(batch.id)
            batch = await client.batches.cancel(batch.id)
        states, batch = await finished(client, batch)
        return states, batch, await results(client, batch.output_file_id), await results(client, batch.error_file_id)

    return call(fake.url, use)


def test_a_batch_goes_from_file_to_output(fake: Fake) -> None:
    fake.set(when={"item 2": "server_error"})
    states, batch, output, errors = run_batch(fake, lines_of([f"item {number}" for number in range(4)]))
    assert states == ["validating", "in_progress", "finalizing", "completed"]
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (3, 1)
    assert set(output) == {"line 0", "line 1", "line 3"}
    assert output["line 0"]["response"]["body"]["choices"][0]["message"]["content"].endswith("verdict: pass")
    assert errors["line 2"]["response"]["status_code"] == 500


def test_a_batch_expires_with_part_of_its_output(fake: Fake) -> None:
    fake.set(batch_expires_after=3)
    states, _, output, errors = run_batch(fake, lines_of([f"item {number}" for number in range(5)]))
    assert states[-1] == "expired"
    assert set(output) == {"line 0", "line 1", "line 2"}
    assert {line["error"]["code"] for line in errors.values()} == {"batch_expired"}


def test_a_cancelled_batch_keeps_what_was_done(fake: Fake) -> None:
    states, _, output, errors = run_batch(fake, lines_of(["a", "b", "c", "d"]), cancel=True)
    assert states == ["cancelling", "cancelled"]
    assert (set(output), set(errors)) == ({"line 0", "line 1"}, {"line 2", "line 3"})


def test_a_batch_of_wrong_lines_fails(fake: Fake) -> None:
    twice = lines_of(["a"]) * 2
    for content, code in [(twice, "duplicate_custom_id"), (b"{", "invalid_json_line"), (b"", "empty_file")]:
        states, batch, _, _ = run_batch(fake, content)
        assert states == ["validating", "failed"]
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [error.code for error in batch.errors.data] == [code]
    fake.set(batch_fails="too many tokens are enqueued")
    assert run_batch(fake, lines_of(["a"]))[0][-1] == "failed"


# the process


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
