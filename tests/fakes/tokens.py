"""Tokens: how many, where a text is cut into them, how likely each was, and which the cache had."""

from __future__ import annotations

import math
import re
import zlib
from typing import Any

TOKEN = re.compile(r" ?[^\W_]+|[^\w\s]+|_+|\s+")
VERDICT = re.compile(r"verdict\W+(pass|fail)", re.IGNORECASE)
FILLERS = (
    "The",
    " the",
    "It",
    "A",
    "\n",
    "1",
    "I",
    "We",
    "{",
    "-",
    "This",
    "So",
    "In",
    "No",
    "An",
    "As",
    "To",
    "Is",
    "Be",
)
NEVER = -9999.0
CACHE_FROM, CACHE_STEP = 1024, 128  # tokens: a shared prefix counts from the first, in steps of the second
OTHER = {"pass": "fail", "fail": "pass"}


def count(text: str) -> int:
    """Return about how many tokens a text has."""
    return (len(text) + 3) // 4


def cut(content: str, manner: str = "whole") -> tuple[list[str], int | None]:
    """Return tokens that join to the content, and which of them begins the verdict.

    The verdict is one token (whole), two (split: its first letter apart), or one with the quote before it (glued).
    """
    tokens = TOKEN.findall(content)
    places = list(VERDICT.finditer(content))
    if not places:
        return tokens, None
    start, place, index = places[-1].start(1), 0, 0
    while place + len(tokens[index]) <= start:
        place += len(tokens[index])
        index += 1
    if manner == "split":
        head = start - place + 1
        tokens[index : index + 1] = [tokens[index][:head], tokens[index][head:]]
    elif manner == "glued" and tokens[index - 1].endswith('"'):
        tokens[index - 1 : index + 1] = [tokens[index - 1][:-1], '"' + tokens[index]]
    return tokens, index


def logprobs(content: str, probability: float, top: int, manner: str = "whole") -> dict[str, Any]:
    """Return logprobs of a content; its verdict's token carries the probability, the other verdict the rest."""
    tokens, verdict = cut(content, manner)
    return {
        "content": [
            token_logprobs(token, probability if place == verdict else None, top) for place, token in enumerate(tokens)
        ],
        "refusal": None,
    }


def token_logprobs(token: str, probability: float | None, top: int) -> dict[str, Any]:
    """Return one token's entry; probability is given for the verdict's token only."""
    if probability is None:
        rivals = [(token, -0.01)]
    else:
        rivals = [(token, log(probability)), (opposite(token), log(1 - probability))]
    chosen = rivals[0][1]
    rivals += [(filler, -25.0 - rank) for rank, filler in enumerate(FILLERS) if filler != token]
    shown = sorted(rivals[:top], key=lambda each: -each[1])
    return {**entry(token, chosen), "top_logprobs": [entry(*each) for each in shown]}


def opposite(token: str) -> str:
    """Return the token of the other verdict, cut and dressed alike."""
    bare = token.strip(' "')
    whole = next((OTHER[verdict] for verdict in OTHER if verdict.startswith(bare.lower())), "fail")
    other = whole[: len(bare)]
    if bare[:1].isupper():
        other = other.capitalize()
    return token.replace(bare, other) if bare else other


def entry(token: str, logprob: float) -> dict[str, Any]:
    """Return a token with its logprob and bytes."""
    return {"token": token, "logprob": logprob, "bytes": list(token.encode(errors="replace"))}


def log(probability: float) -> float:
    """Return the logarithm as the API gives it: a very unlikely token has -9999."""
    return math.log(probability) if probability > 0 else NEVER


class PrefixCache:
    """Remember prompts' beginnings, as a provider's prompt cache does."""

    def __init__(self) -> None:
        self.known: set[tuple[int, int]] = set()

    def cached(self, model: str, prompt: str) -> int:
        """Return how many tokens of the prompt an earlier one began with, and remember this one."""
        mark, hits, unbroken = zlib.crc32(model.encode()), 0, True
        for tokens in range(CACHE_STEP, count(prompt) + 1, CACHE_STEP):
            mark = zlib.crc32(prompt[(tokens - CACHE_STEP) * 4 : tokens * 4].encode(errors="replace"), mark)
            unbroken = unbroken and (tokens, mark) in self.known
            hits = tokens if unbroken else hits
            self.known.add((tokens, mark))
        return hits if hits >= CACHE_FROM else 0
