"""The fake OpenAI server misbehaves as told, seen by the real client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from tests.fakes import misbehaviours
from tests.fakes.asking import SCHEMA, call, chat, content
from tests.fakes.mind import Asked
from tests.fakes.misbehaviours import Chooser, even_mix
from tests.fakes.openai import Fake

MESSAGES: Any = [{"role": "user", "content": "go on"}]


def refused(fake: Fake, misbehaviour: str, **more: Any) -> openai.APIStatusError:
    """Return the error the client raises."""
    fake.set(first=[misbehaviour])
    with pytest.raises(openai.APIStatusError) as caught:
        chat(fake.url, **more)
    return caught.value


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


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("reset", httpx2.ReadError),
        ("reset_midway", httpx2.ReadError),
        ("closed", httpx2.RemoteProtocolError),
        ("closed_midway", httpx2.RemoteProtocolError),
    ],
)
def test_a_broken_connection_is_a_connection_error(fake: Fake, name: str, cause: type[Exception]) -> None:
    fake.set(first=[name])
    with pytest.raises(openai.APIConnectionError) as caught:
        chat(fake.url)
    assert isinstance(caught.value.__cause__, cause)


@pytest.mark.parametrize("name", ["hang", "slow_first_byte", "drip"])
def test_who_does_not_wait_sees_a_timeout(fake: Fake, name: str) -> None:
    fake.set(first=[name], slow_seconds=30, drip_seconds=600)
    with pytest.raises(openai.APITimeoutError):
        chat(fake.url, timeout=0.2)


@pytest.mark.parametrize("name", ["slow_first_byte", "drip"])
def test_who_waits_gets_the_whole(fake: Fake, name: str) -> None:
    fake.set(first=[name], slow_seconds=0.1, drip_seconds=0.1)
    assert content(chat(fake.url)).endswith("verdict: pass")


def test_an_unending_reply_goes_on_until_its_reader_stops(fake: Fake) -> None:
    fake.set(first=["unending"])

    async def use(client: AsyncOpenAI) -> int:
        read = 0
        async with client.chat.completions.with_streaming_response.create(model="judge", messages=MESSAGES) as reply:
            async for piece in reply.iter_bytes():
                read += len(piece)
                if read > 2_000_000:
                    break
        return read

    assert call(fake.url, use) > 2_000_000
    assert chat(fake.url).choices


def test_an_endless_reply_is_not_cut_at_the_tokens_allowed(fake: Fake) -> None:
    fake.set(first=["endless"])
    assert len(content(chat(fake.url, max_completion_tokens=10))) >= 4_000_000


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
