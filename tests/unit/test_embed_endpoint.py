"""The endpoint's embedder: as few calls as its limits allow, and one refused text holds up no other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence

import pytest

from pgflywheel.errors import UsageError
from pgflywheel.judge.client import Client
from pgflywheel.judge.embed.endpoint import MOST_TEXTS, Endpoint
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.records import Embeddings
from pgflywheel.records import Provider
from tests.fakes.embeddings import embedding
from tests.fakes.openai import Fake, serving


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as running:
        yield running


def embedded(fake: Fake, texts: Sequence[str], *, dimensions: int = 32, asks: bool = True) -> list[list[float]]:
    """Embed texts by the fake."""
    base_url = fake.url if fake.url.endswith("/v1") else f"{fake.url}/v1"

    async def embed() -> list[list[float]]:
        async with Client(Provider("fake", base_url)) as client:
            endpoint = Endpoint("small", "text-embedding-3-small", dimensions, client, asks)
            return [list(vector) for vector in await endpoint.embed(texts)]

    return asyncio.run(embed())


def test_texts_come_back_in_order_as_unit_vectors(fake: Fake) -> None:
    texts = [f"text {number}" for number in range(MOST_TEXTS + 10)]
    vectors = embedded(fake, texts)
    assert len(fake.requests) == 2
    assert vectors[7] == pytest.approx(list(embedding("text 7", 32)), abs=1e-6)
    assert all(math.fsum(value * value for value in vector) == pytest.approx(1, abs=1e-5) for vector in vectors)


def test_an_empty_text_is_never_sent(fake: Fake) -> None:
    assert len(embedded(fake, ["", "  ", "text"])) == 3


def test_a_model_of_another_length_is_told(fake: Fake) -> None:
    fake.set(dimensions=48)
    with pytest.raises(UsageError, match="got vectors of 48 numbers, not 32") as caught:
        embedded(fake, ["text"], asks=False)
    assert caught.value.hint == "Add it anew with 48 dimensions."


def test_a_limit_is_raised_with_its_wait(fake: Fake) -> None:
    fake.set(first=["rate_limited"])
    with pytest.raises(CallFailed) as caught:
        embedded(fake, ["text"])
    assert caught.value.treatment == "wait"


class Picky(Client):
    """Refuse texts with the word bad, and find those over 1,000 characters too long."""

    async def embed(self, texts: Sequence[str], model: str, dimensions: int | None = None) -> Embeddings:
        if any(len(text) > 1000 for text in texts):
            raise CallFailed("rejected", "too_long", "too many tokens", 400)
        if any("bad" in text for text in texts):
            raise CallFailed("rejected", "dead", "bad text", 400)
        return Embeddings([[1.0, 0.0] for _ in texts])


def test_a_text_that_is_too_long_is_cut_until_it_fits() -> None:
    endpoint = Endpoint("e", "m", 2, Picky(Provider("p", "http://nowhere/v1")))
    assert len(asyncio.run(endpoint.embed(["short", "x" * 7000, "short too"]))) == 3


def test_a_refused_text_is_raised() -> None:
    endpoint = Endpoint("e", "m", 2, Picky(Provider("p", "http://nowhere/v1")))
    with pytest.raises(CallFailed, match="bad text"):
        asyncio.run(endpoint.embed(["fine", "bad", "fine"]))
