"""The hashing embedder: no model, no download, the same vector for the same text everywhere and for ever.

Each distinct word of a text, and each group of three to five letters in it, adds or subtracts its weight at a place of
the vector that a hash chooses. Words everybody uses weigh less, groups of letters less than words. How often a word
occurs does not matter: counts were worse on all four labelled sets they were tried on, their logarithms on three.
Source of signed hashing: Weinberger et al. (2009), doi:10.1145/1553374.1553516.
"""

from __future__ import annotations

import asyncio
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

MOST_CHARACTERS = 32_768
_AT_ONCE = 64
_CACHED_LETTERS = 40
_GRAMS = (3, 4, 5)
_GRAMS_WEIGHT, _COMMON_WEIGHT, _MARK_WEIGHT = 0.7, 0.4, 0.2
_TOKEN = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
_COMMON = frozenset(
    """
    a about am an and are as at be been but by can could did do does for from had has have he her his how i if in
    into is it its just me my no not of on or our out she should so some than that the their them then there these
    they this to up us was we were what when where which who why will with would you your
    """.split()  # noqa: SIM905
)
# weight of the word, weight of a gram, places: the word's, then the grams'
Feature: TypeAlias = "tuple[float, float, array[int]]"


@dataclass(frozen=True, slots=True)
class Hashing:
    """Embed by hashing words and their letters."""

    name: str = "hashing"
    dimensions: int = 384

    async def embed(self, texts: Sequence[str]) -> list[array[float]]:
        """Return a unit vector for each text, letting others work in between."""
        vectors: list[array[float]] = []
        for start in range(0, len(texts), _AT_ONCE):
            vectors += map(self.vector, texts[start : start + _AT_ONCE])
            await asyncio.sleep(0)
        return vectors

    def vector(self, text: str) -> array[float]:
        """Return the unit vector of a text; of a long one, its first and last 16,384 characters count."""
        total = [0.0] * self.dimensions
        for word in dict.fromkeys(_words(text)):  # in this order: sums of floats depend on it
            for_word, for_gram, places = _feature(word, self.dimensions)
            weight = for_word
            for place in places:
                if place > 0:
                    total[place - 1] += weight
                else:
                    total[-place - 1] -= weight
                weight = for_gram
        length = math.sqrt(math.fsum(value * value for value in total))
        return array("f", [value / length for value in total] if length else _fallback(self.dimensions))


def _words(text: str) -> list[str]:
    """Return the words of a text in small letters; a text without any has one empty word."""
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: MOST_CHARACTERS // 2]} {text[-MOST_CHARACTERS // 2 :]}"
    return _TOKEN.findall(text.lower().replace("\u2019", "'")) or [""]


def _feature(word: str, dimensions: int) -> Feature:
    return (_cached if len(word) <= _CACHED_LETTERS else _made)(word, dimensions)


def _made(word: str, dimensions: int) -> Feature:
    is_mark = word != "" and not (word[0].isalnum() or word[0] == "_")
    weight = _MARK_WEIGHT if is_mark else _COMMON_WEIGHT if word in _COMMON else 1.0
    grams = [] if is_mark else list(_grams(f"<{word}>"))
    places = array("h", [_place(f"w{word}", dimensions), *(_place(f"c{gram}", dimensions) for gram in grams)])
    return weight, weight * _GRAMS_WEIGHT / math.sqrt(len(grams) or 1), places


_cached = lru_cache(maxsize=50_000)(_made)


def _grams(word: str) -> Iterator[str]:
    for size in _GRAMS:
        for start in range(len(word) - size + 1):
            yield word[start : start + size]


def _place(feature: str, dimensions: int) -> int:
    """Return a place from 1 on, negative where the feature subtracts."""
    hashed = int.from_bytes(blake2b(feature.encode(errors="surrogatepass"), digest_size=8).digest())
    place = (hashed >> 1) % dimensions + 1
    return place if hashed & 1 else -place


def _fallback(dimensions: int) -> list[float]:
    """Return a unit vector for the text whose features cancel out."""
    return [1.0] + [0.0] * (dimensions - 1)
