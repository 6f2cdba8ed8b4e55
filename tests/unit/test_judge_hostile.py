"""Answers over HTTP that no endpoint should give: each is a failed call with a name, and no other exception."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pgflywheel.judge.client import Client
from pgflywheel.judge.definition import JudgeDefinition
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.prompt import build
from pgflywheel.judge.records import Item, Reply
from pgflywheel.records import Provider
from tests.fakes import wire
from tests.fakes.openai import Fake

POLITE = JudgeDefinition.of(
    "polite",
    {"question": "Polite?", "pass_when": "It is.", "fail_when": "It is not.", "provider": "here", "model": "small"},
)
PROMPT = build(POLITE, Item("hello", "Good morning."))
CHARSETS = ["undefined", "hex", "rot13", "base64", "idna", "punycode", "nonsense", "utf-7"]
VECTOR = [0.6, 0.8]


def answering(fake: Fake, body: bytes, status: int = 200, kind: str = wire.JSON, wait: str = "") -> None:
    """Let the fake answer every request so."""
    fake.route = lambda request: wire.Reply(status, body, kind, {"retry-after": wait} if wait else {})  # type: ignore[method-assign]


def failure(fake: Fake, work: Callable[[Client], Awaitable[Any]]) -> CallFailed:
    """Return how a call fails."""

    async def run() -> None:
        async with Client(Provider("here", fake.url, time_limit_ms=5_000)) as client:
            await work(client)

    with pytest.raises(CallFailed) as caught:
        asyncio.run(run())
    return caught.value


def complete(client: Client) -> Awaitable[Reply]:
    return client.complete(PROMPT)


@pytest.fixture
def fake(served: Fake) -> Any:
    """The fake, as it was before the test."""
    served.reset()
    yield served
    vars(served).pop("route", None)


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize(("status", "outcome"), [(200, "unreadable"), (503, "server_error"), (429, "rate_limited")])
def test_a_character_set_that_is_none_changes_no_treatment(fake: Fake, charset: str, status: int, outcome: str) -> None:
    answering(fake, b"\xff\x00 <h1>busy</h1> \xc3", status, f"text/html; charset={charset}")
    assert failure(fake, complete).outcome == outcome


@pytest.mark.parametrize("depth", [900, 930, 960, 975, 980, 985, 988, 990, 992, 994])
def test_tokens_nested_about_as_deep_as_can_be_read_fail_the_call_or_nothing(fake: Fake, depth: int) -> None:
    token = "[" * depth + "]" * depth
    said = r'"{\"critique\": \"good\", \"verdict\": \"pass\"}"'
    body = f'{{"choices": [{{"message": {{"content": {said}}}, "logprobs": {{"content": [{{"token": {token}}}]}}}}]}}'
    answering(fake, body.encode())

    async def either(client: Client) -> None:
        await complete(client)
        raise CallFailed("unreadable", "retry", "it was read")

    assert failure(fake, either).outcome == "unreadable"


@pytest.mark.parametrize(
    "data",
    [
        [{"embedding": ["a", "b"]}, {"embedding": VECTOR}],
        [{"embedding": [None, 1]}, {"embedding": VECTOR}],
        [{"embedding": [[1], {}]}, {"embedding": VECTOR}],
        [{"embedding": [10**400, 1]}, {"embedding": VECTOR}],
        [{"embedding": [float("nan"), 1]}, {"embedding": VECTOR}],
        [{"embedding": [float("inf"), 1]}, {"embedding": VECTOR}],
        [{"embedding": "AACAPwAAgD8="}, {"embedding": VECTOR}],
        [{"embedding": VECTOR}],
        {"0": VECTOR},
    ],
)
def test_vectors_that_are_none_are_unreadable(fake: Fake, data: Any) -> None:
    answering(fake, json.dumps({"data": data, "usage": {"prompt_tokens": 3}}).encode())
    assert failure(fake, lambda client: client.embed(["a", "b"], "small")).outcome == "unreadable"


@pytest.mark.parametrize("index", [None, "a", [], {}, 1.5])
def test_vectors_whose_places_are_none_are_in_the_order_they_came(fake: Fake, index: Any) -> None:
    data = [{"index": 0, "embedding": VECTOR}, {"index": index, "embedding": VECTOR[::-1]}]
    answering(fake, json.dumps({"data": data}).encode())

    async def run() -> list[Any]:
        async with Client(Provider("here", fake.url)) as client:
            return list((await client.embed(["a", "b"], "small")).vectors)

    assert asyncio.run(run()) == [VECTOR, VECTOR[::-1]]


@pytest.mark.parametrize(
    ("error", "treatment"),
    [
        ({"code": 429, "message": "slow down"}, "wait"),
        ({"code": "429", "message": "slow down"}, "wait"),
        ({"code": "rate_limit_exceeded"}, "wait"),
        ({"type": "rate limited"}, "wait"),
        ({"code": "insufficient_quota"}, "quota"),
        ({"code": 401}, "unauthorized"),
        ({"code": 200}, "retry"),
        ({"code": 10**30}, "retry"),
        ({"code": "\u0664\u0662\u0669"}, "retry"),
        ({"message": ["\ud800", "\x00"]}, "retry"),
        ("overloaded", "retry"),
    ],
)
def test_an_error_under_a_good_status_is_treated_as_what_it_says(fake: Fake, error: Any, treatment: str) -> None:
    answering(fake, json.dumps({"error": error}).encode(), wait="7")
    for work in (complete, lambda client: client.embed(["a"], "small"), lambda client: client.batch("b")):
        caught = failure(fake, work)
        assert caught.treatment == treatment
        assert caught.retry_after_seconds == 7
