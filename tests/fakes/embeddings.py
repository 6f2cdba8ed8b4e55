"""Embeddings: each word a fixed random direction, a text the sum of its words, so that alike texts are near."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.fakes import tokens
from tests.fakes.faults import Fault

MOST_INPUTS = 2048
Vector = npt.NDArray[np.float32]


@lru_cache(maxsize=50_000)
def direction(word: str, dimensions: int) -> Vector:
    """Return the direction of a word."""
    seed = zlib.crc32(word.encode(errors="replace"))
    return np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)


def embedding(text: str, dimensions: int) -> Vector:
    """Return a text's embedding, of length one."""
    total = np.zeros(dimensions, np.float32)
    for word in text.lower().split() or [text]:
        total += direction(word, dimensions)
    return np.asarray(total / np.linalg.norm(total), np.float32)


def inputs_of(body: Mapping[str, Any]) -> list[str]:
    """Return the texts to embed; a list of token numbers is one text."""
    given: Any = body.get("input")
    inputs: list[Any] = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    if given in (None, "", []) or "" in inputs:
        raise Fault(400, "Invalid 'input': it may not be empty.", "invalid_value", param="input")
    if len(inputs) > MOST_INPUTS:
        raise Fault(400, f"Invalid 'input': maximum array length {MOST_INPUTS}.", "invalid_value", param="input")
    return [each if isinstance(each, str) else " ".join(map(str, each)) for each in inputs]


def embeddings(body: Mapping[str, Any], dimensions: int) -> dict[str, Any]:
    """Return the answer to a request for embeddings."""
    texts = inputs_of(body)
    dimensions = body.get("dimensions") or dimensions
    in_base64 = body.get("encoding_format") == "base64"
    used = sum(map(tokens.count, texts))
    data = [
        {"object": "embedding", "index": index, "embedding": encoded(embedding(text, dimensions), in_base64)}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def encoded(vector: Vector, in_base64: bool) -> str | list[float]:
    """Return a vector as little-endian floats in base64, or as a list."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if in_base64 else vector.tolist()
