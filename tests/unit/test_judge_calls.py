"""Calls over HTTP to a server that misbehaves as told: each failure has its name and its treatment."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import pytest

from pgflywheel.errors import UsageError
from pgflywheel.judge import client as client_module
from pgflywheel.judge.client import Client
from pgflywheel.judge.definition import JudgeDefinition
from pgflywheel.judge.failures import CallFailed, failure_of, retry_after_seconds
from pgflywheel.judge.judgement import read, repair
from pgflywheel.judge.ladder import Ladder
from pgflywheel.judge.prompt import build
from pgflywheel.judge.reading import reply_of
from pgflywheel.judge.records import Item, Prompt, Reply
from pgflywheel.records import Provider
from tests.fakes.openai import Fake

Result = TypeVar("Result")
POLITE = JudgeDefinition.of(
    "polite",
    {
        "question": "Is it polite?",
        "pass_when": "It is.",
        "fail_when": "It is not.",
        "provider": "here",
        "model": "small",
    },
)
ALL = dict.fromkeys(
    ["json_schema", "json_object", "logprobs", "prompt_cache_key", "seed", "max_completion_tokens"], True
)
FINE, BAD = Item("hello", "Good morning."), Item("hello", "zzfail")


def provider(fake: Fake, **changes: Any) -> Provider:
    return Provider("here", fake.url, **{"time_limit_ms": 5_000, **changes})


def using(
    told: Provider, work: Callable[[Client], Awaitable[Result]], environment: dict[str, str] | None = None
) -> Result:
    async def run() -> Result:
        async with Client(told, environment) as client:
            return await work(client)

    return asyncio.run(run())


def complete(told: Provider, prompt: Prompt, **options: Any) -> Reply:
    return using(told, lambda client: client.complete(prompt), **options)


def failure(told: Provider, prompt: Prompt | None = None, **options: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        complete(told, prompt or build(POLITE, FINE), **options)
    return caught.value


@pytest.mark.parametrize(("item", "passed"), [(FINE, True), (BAD, False)])
def test_a_judge_is_asked_and_its_verdict_read(fake: Fake, item: Item, passed: bool) -> None:
    told = provider(fake, abilities=ALL)
    prompt = build(POLITE, item, form=Ladder().form(told, POLITE))
    reply = complete(told, prompt)
    judgement = read(reply).judgement
    assert judgement.passed is passed
    assert judgement.confidence == pytest.approx(0.97)
    assert reply.model == "small-2026-10-01"
    assert reply.usage.output_tokens
    assert 0 < (reply.usage.input_tokens or 0) <= prompt.input_tokens
    assert reply.latency_ms > 0
    assert fake.requests[0].raw == prompt.body


@pytest.mark.parametrize(
    ("name", "outcome", "treatment", "status"),
    [
        ("rate_limited", "rate_limited", "wait", 429),
        ("rate_limited_ms", "rate_limited", "wait", 429),
        ("rate_limited_date", "rate_limited", "wait", 429),
        ("rate_limited_bare", "rate_limited", "wait", 429),
        ("insufficient_quota", "quota_exhausted", "quota", 429),
        ("server_error", "server_error", "retry", 500),
        ("overloaded", "server_error", "retry", 503),
        ("bad_gateway", "server_error", "retry", 502),
        ("bad_request", "rejected", "dead", 400),
        ("unauthorized", "rejected", "unauthorized", 401),
        ("forbidden", "rejected", "unauthorized", 403),
        ("not_found", "rejected", "dead", 404),
        ("too_long", "rejected", "too_long", 400),
        ("content_filter_error", "content_filter", "content_filter", 400),
        ("unsupported_schema", "rejected", "step_down", 400),
        ("half_json", "unreadable", "retry", 200),
        ("reset", "connection_lost", "retry", None),
        ("reset_midway", "connection_lost", "retry", None),
        ("hang", "timed_out", "retry", None),
        ("drip", "timed_out", "retry", None),
        ("slow_first_byte", "timed_out", "retry", None),
    ],
)
def test_every_failure_has_its_name_and_its_treatment(
    fake: Fake, name: str, outcome: str, treatment: str, status: int | None
) -> None:
    fake.set(first=[name], retry_after=1.5, drip_seconds=30, slow_seconds=30)
    failed = failure(provider(fake, time_limit_ms=400 if outcome == "timed_out" else 5_000))
    assert (failed.outcome, failed.treatment, failed.http_status) == (outcome, treatment, status)
    assert failed.detail
    assert "<" not in failed.detail
    assert len(fake.requests) == 1, "the queue retries, the client does not"


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("rate_limited", 1.5, 1.5),
        ("rate_limited_ms", 1.5, 1.5),
        ("rate_limited_date", 0.5, 3),
        ("rate_limited_bare", None, None),
    ],
)
def test_the_time_an_endpoint_asks_to_wait_is_known(
    fake: Fake, name: str, least: float | None, most: float | None
) -> None:
    fake.set(first=[name], retry_after=1.5)
    seconds = failure(provider(fake)).retry_after_seconds
    assert seconds is None if least is None or most is None else seconds is not None and least <= seconds <= most


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "99"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "999999999"}, 3600.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)}, 0.0),
        ({"retry-after": format_datetime(datetime.now(UTC) + timedelta(days=9), usegmt=True)}, 3600.0),
    ],
)
def test_a_time_to_wait_is_read_in_each_of_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


@pytest.mark.parametrize(
    ("status", "body", "treatment"),
    [
        (402, {"error": {"message": "Insufficient credits"}}, "quota"),
        (429, {"error": {"message": "Rate limit. Add a payment method to your account at .../billing."}}, "wait"),
        (429, "<html>slow down</html>", "wait"),
        (429, {"error": {"message": "litellm: You exceeded your current quota, please check your plan."}}, "quota"),
        (429, {"error": {"message": "You exceeded your current quota. Please retry in 34.07s."}}, "wait"),
        (429, {"error": {"message": "Request too large for gpt-x on tokens per min: Limit 10000"}}, "too_long"),
        (
            400,
            {"error": {"type": "exceed_context_size_error", "message": "exceeds the available context size"}},
            "too_long",
        ),
        (
            400,
            {"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed"}},
            "too_long",
        ),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "step_down"),
        (400, {"error": "model requires more context: maximum context reached"}, "too_long"),
        (413, None, "too_long"),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "retry"),
        (307, "", "dead"),
        (418, ["teapot"], "dead"),
        (999, None, "retry"),
    ],
)
def test_errors_of_other_makers_are_treated_alike(status: int, body: Any, treatment: str) -> None:
    assert failure_of(status, body, {}).treatment == treatment


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("prose", "unreadable"),
        ("wrong_fields", "unreadable"),
        ("wrong_verdict", "unreadable"),
        ("half_content", "unreadable"),
        ("length", "length_stop"),
        ("endless", "length_stop"),
        ("content_filter", "content_filter"),
        ("refusal", "refused"),
        ("empty_choices", "empty_reply"),
        ("null_content", "empty_reply"),
    ],
)
def test_a_reply_without_a_verdict_is_mended_by_one_more_call(fake: Fake, name: str, reason: str) -> None:
    fake.set(first=[name], endless_characters=3_000_000)
    prompt = build(POLITE, BAD)
    reply = complete(provider(fake), prompt)
    reading = read(reply)
    assert (reading.outcome, reading.judgement.passed) == (reason, None)
    assert read(complete(provider(fake), repair(prompt, reply, reading))).judgement.passed is False


def test_a_verdict_in_a_fence_is_read_at_once(fake: Fake) -> None:
    fake.set(first=["fenced"])
    assert read(complete(provider(fake), build(POLITE, BAD))).judgement.passed is False


def test_the_model_that_answered_is_known_and_missing_usage_is_unknown(fake: Fake) -> None:
    fake.set(first=["wrong_model", "no_usage"])
    assert complete(provider(fake), build(POLITE, FINE)).model == "somebody-elses-model-7b"
    assert complete(provider(fake), build(POLITE, FINE)).usage.input_tokens is None


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": "7"}, 5])
def test_usage_that_cannot_be_right_is_unknown(usage: Any) -> None:
    assert reply_of({"choices": [], "usage": usage}, 200, 1.0).usage.input_tokens is None


def test_no_more_of_an_endless_reply_is_read_than_its_tokens_could_take(fake: Fake) -> None:
    fake.set(first=["endless"], endless_characters=3_000_000)
    prompt = build(POLITE, FINE)
    reply = complete(provider(fake), prompt)
    assert prompt.most_reply_bytes < 200_000
    assert (reply.text, reply.finish_reason) == (None, "length")


def climb(fake: Fake, told: Provider, ladder: Ladder) -> Prompt:
    """Ask until the endpoint takes the request, and return it."""
    while True:
        prompt = build(POLITE, BAD, form=ladder.form(told, POLITE))
        try:
            reply = complete(told, prompt)
        except CallFailed as failed:
            if not ladder.step_down(prompt, failed):
                raise
        else:
            assert read(reply).judgement.passed is False
            return prompt


@pytest.mark.parametrize(
    ("name", "rung", "asked"), [("unsupported_schema", "json_object", 2), ("unsupported_json", "text", 3)]
)
def test_what_an_endpoint_refuses_is_not_asked_of_it_again(fake: Fake, name: str, rung: str, asked: int) -> None:
    fake.set(mix={name: 1.0})
    told, ladder = provider(fake), Ladder()
    assert climb(fake, told, ladder).rung == rung
    assert len(fake.requests) == asked
    climb(fake, told, ladder)
    assert len(fake.requests) == asked + 1


def test_a_parameter_that_is_refused_is_left_out_from_then_on(fake: Fake) -> None:
    fake.set(
        mix={"unsupported_parameter": 1.0},
        unsupported=["logprobs", "prompt_cache_key", "max_completion_tokens", "seed"],
    )
    sent = climb(fake, provider(fake, abilities=ALL), Ladder()).request
    assert not {"logprobs", "prompt_cache_key", "max_completion_tokens", "seed"} & set(sent)
    assert sent["max_tokens"] == 1024
    assert sent["response_format"]["type"] == "json_schema"


def test_many_refusals_at_once_step_down_once(fake: Fake) -> None:
    told, ladder = provider(fake), Ladder()
    prompt = build(POLITE, BAD, form=ladder.form(told, POLITE))
    refusal = failure_of(400, {"error": {"message": "no", "param": "response_format"}}, {})
    assert all(ladder.step_down(prompt, refusal) for _ in range(64))
    assert ladder.form(told, POLITE).rung == "json_object"


def test_what_cannot_be_made_simpler_is_not_asked_again(fake: Fake) -> None:
    prompt = build(
        POLITE, FINE, form=Ladder().form(provider(fake, abilities={"json_schema": False, "json_object": False}), POLITE)
    )
    assert prompt.rung == "text"
    assert not Ladder().step_down(prompt, failure_of(400, {"error": {"message": "the model is not supported"}}, {}))
    assert not Ladder().step_down(prompt, failure_of(400, {"error": {"message": "bad"}}, {}))


def test_only_what_a_provider_knows_is_sent(fake: Fake) -> None:
    plain = build(POLITE, FINE, form=Ladder().form(provider(fake), POLITE)).request
    assert not {"logprobs", "top_logprobs", "prompt_cache_key", "seed", "max_completion_tokens"} & set(plain)
    whole = build(POLITE, FINE, form=Ladder().form(provider(fake, abilities=ALL), POLITE)).request
    assert {"logprobs", "top_logprobs", "prompt_cache_key", "seed", "max_completion_tokens"} <= set(whole)


def test_a_key_is_read_from_the_environment_and_without_one_none_is_sent(fake: Fake) -> None:
    complete(provider(fake, key_variable="KEY"), build(POLITE, FINE), environment={"KEY": " sk-secret\n"})
    complete(provider(fake), build(POLITE, FINE), environment={"OPENAI_API_KEY": "sk-other"})
    assert [request.headers.get("authorization") for request in fake.requests] == ["Bearer sk-secret", None]


def test_a_missing_key_blocks_the_provider_without_a_call(fake: Fake) -> None:
    Client(provider(fake, key_variable="KEY"), {}).prepare()  # leaves it to the call to say
    failed = failure(provider(fake, key_variable="KEY"), environment={})
    assert (failed.outcome, failed.treatment) == ("rejected", "unauthorized")
    assert "KEY is not set" in failed.detail
    assert fake.requests == []


def test_without_the_package_it_says_what_to_install(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UsageError, match="needs the package openai"):
        complete(provider(fake), build(POLITE, FINE))


def test_nobody_listening_is_a_lost_connection() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    failed = failure(Provider("here", f"http://127.0.0.1:{port}/v1"))
    assert (failed.outcome, failed.treatment) == ("connection_lost", "retry")


def test_hostile_texts_travel_whole(fake: Fake) -> None:
    item = Item("\ud800 \x00 </item>", "x" * 2_000_000 + " zzfail")
    assert read(complete(provider(fake), build(POLITE, item))).judgement.passed is False


def test_each_of_many_calls_at_once_gets_its_own_answer(fake: Fake) -> None:
    async def many(client: Client) -> list[Reply]:
        return await asyncio.gather(*(client.complete(build(POLITE, item)) for item in [FINE, BAD] * 50))

    replies = using(provider(fake), many)
    assert [read(reply).judgement.passed for reply in replies] == [True, False] * 50


def test_texts_become_vectors_in_their_order(fake: Fake) -> None:
    vectors = using(provider(fake), lambda client: client.embed(["a b", "c", "a b"], "embedder", 8)).vectors
    assert [len(vector) for vector in vectors] == [8] * 3
    assert vectors[0] == vectors[2] != vectors[1]
    assert fake.requests[0].body["dimensions"] == 8


def test_a_failed_embedding_is_classified_too(fake: Fake) -> None:
    fake.set(first=["rate_limited"], retry_after=2)
    with pytest.raises(CallFailed) as caught:
        using(provider(fake), lambda client: client.embed(["a"], "embedder"))
    assert (caught.value.treatment, caught.value.retry_after_seconds) == ("wait", 2.0)


def test_a_batch_is_handed_in_polled_and_read_line_by_line(fake: Fake) -> None:
    prompt = build(POLITE, BAD)
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": prompt.request}

    async def whole(client: Client) -> list[Any]:
        batch = await client.create_batch(await client.upload("lines.jsonl", json.dumps(line).encode()), {"ours": "1"})
        while batch["status"] != "completed":
            batch = await client.batch(batch["id"])
        assert [each["id"] for each in await client.batches()] == [batch["id"]]
        return [json.loads(text) async for text in client.download(batch["output_file_id"])]

    lines = using(provider(fake, key_variable="KEY"), whole, {"KEY": "sk"})
    assert [each["custom_id"] for each in lines] == ["1"]
    body = lines[0]["response"]["body"]
    assert json.loads(body["choices"][0]["message"]["content"])["verdict"] == "fail"


@pytest.mark.parametrize(
    ("limit", "least", "detail"),
    [("MOST_LINE_BYTES", 99, "longer than"), ("MOST_FILE_BYTES", 99, "longer than"), ("MOST_FILE_SECONDS", -1, "time")],
)
def test_a_file_without_end_fails_the_call(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, limit: str, least: int, detail: str
) -> None:
    async def whole(client: Client) -> list[bytes]:
        file_id = await client.upload("lines.jsonl", b"x" * 100)
        return [line async for line in client.download(file_id)]

    assert using(provider(fake), whole) == [b"x" * 100]
    monkeypatch.setattr(client_module, limit, least)
    with pytest.raises(CallFailed, match=detail):
        using(provider(fake), whole)


def test_a_batch_nobody_knows_is_refused(fake: Fake) -> None:
    with pytest.raises(CallFailed) as caught:
        using(provider(fake), lambda client: client.cancel_batch("batch_x"))
    assert caught.value.http_status == 404


def test_what_calls_need_is_loaded_before_one_is_announced() -> None:
    loads = (
        "import sys; from pgflywheel.judge.client import Client; from pgflywheel.records import Provider;"
        "provider = Provider('fake', 'http://localhost:1/v1'); assert 'openai' not in sys.modules;"
        "Client(provider).prepare(); print('openai' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("True\n", "")
