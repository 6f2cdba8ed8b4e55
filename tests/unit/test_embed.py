"""Embedders: unit vectors, alike for alike texts, the same everywhere."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import subprocess
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflywheel.errors import UsageError
from pgflywheel.judge.embed import Hashing, make
from pgflywheel.judge.embed.endpoint import MOST_CHARACTERS, MOST_TEXTS, batches, unit

HASHING = Hashing()
PINNED = ["421c13bb3487e871", "2d38e9fc25a33cde", "757e49a67497cd49"]


@dataclass(frozen=True)
class Row:
    name: str = "it"
    kind: str = "hashing"
    model: str | None = None
    dimensions: int = 384
    parameters: Mapping[str, Any] = field(default_factory=dict)


def cosine(one: array[float], other: array[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def digest(vector: array[float]) -> str:
    return hashlib.sha256(array("i", [round(value * 1e5) for value in vector]).tobytes()).hexdigest()[:16]


@given(st.text(max_size=200), st.sampled_from([8, 384, 512]))
def test_every_text_has_a_unit_vector(text: str, dimensions: int) -> None:
    vector = Hashing("h", dimensions).vector(text)
    assert len(vector) == dimensions
    assert cosine(vector, vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "text", ["", " \n", "\ud800", "!!!", "\u4f60\u597d" * 30_000, "word " * 400_000, "x" * 2_000_000]
)
def test_strange_and_long_texts_have_one_too(text: str) -> None:
    assert cosine(HASHING.vector(text), HASHING.vector(text)) == pytest.approx(1, abs=1e-5)


def test_alike_texts_are_near() -> None:
    lost = HASHING.vector("I lost my card, can you send a new one?")
    again = HASHING.vector("My card is lost. Please send me a new card!")
    other = HASHING.vector("What is the exchange rate of the euro today?")
    assert cosine(lost, again) > 0.5 > 0.2 > cosine(lost, other)


def test_letters_bring_words_of_one_stem_together() -> None:
    pair = HASHING.vector("refunding payments"), HASHING.vector("refunded payment")
    assert cosine(*pair) > 0.2


def test_case_and_spaces_change_nothing() -> None:
    assert HASHING.vector("Can't   PAY\nthe bill") == HASHING.vector("can\u2019t pay the bill")


def test_vectors_are_those_of_earlier_releases() -> None:
    texts = ["I lost my card, can you send a new one?", "", "Gr\u00fc\u00dfe aus K\u00f6ln \u2013 12,50 \u20ac"]
    assert [digest(HASHING.vector(text)) for text in texts] == PINNED


def test_vectors_are_the_same_in_every_process() -> None:
    program = (
        "from pgflywheel.judge.embed import Hashing; print(Hashing().vector('a b c d e f g lost card').tobytes().hex())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {HASHING.vector("a b c d e f g lost card").tobytes().hex() + "\n"}


def test_embed_keeps_the_order_of_the_texts() -> None:
    texts = [f"text number {number}" for number in range(200)]
    assert asyncio.run(make(Row()).embed(texts)) == [HASHING.vector(text) for text in texts]


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UsageError, match="needs the package sentence-transformers") as caught:
        asyncio.run(make(Row(kind="sentence_transformers", model="/nowhere")).embed(["text"]))
    assert caught.value.hint is not None
    assert "pgflywheel[embed]" in caught.value.hint


def test_requests_hold_so_many_texts_and_characters_and_no_empty_one() -> None:
    cut = batches(["a"] * (MOST_TEXTS + 1) + ["", "b" * MOST_CHARACTERS, "c"])
    assert [len(batch) for batch in cut] == [MOST_TEXTS, 2, 1, 1]
    assert "" not in cut[1]
    assert batches([]) == []


def test_a_vector_without_direction_gets_one() -> None:
    assert unit([0.0, 0.0]) == array("f", [1, 0])
    assert unit([3.0, 4.0]) == array("f", [0.6, 0.8])
