"""Embeddings of an endpoint that speaks the OpenAI API."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pgflywheel.errors import UsageError
from pgflywheel.judge.client import Client
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.records import Embeddings
from pgflywheel.records import Provider

MOST_TEXTS, MOST_CHARACTERS = 256, 400_000  # of one request
_FEWEST_CHARACTERS = 500
_WORTH_SPLITTING = ("dead", "too_long", "step_down")


class _Row(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...


class Caller(Protocol):
    """Whoever makes the calls."""

    async def embed(self, texts: Sequence[str], model: str, dimensions: int | None = None) -> Embeddings:
        """Return a vector for each text, all of one length."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Embed by calls; ``asks_dimensions`` False for a model that has one length only and refuses to be asked."""

    name: str
    model: str
    dimensions: int
    client: Caller
    asks_dimensions: bool = True

    @classmethod
    def of(cls, row: _Row, provider: Provider, client: Caller | None = None) -> Endpoint:
        """Make the embedder of a row."""
        asks = bool(row.parameters.get("ask_dimensions", True))
        return cls(row.name, row.model or "", row.dimensions, client or Client(provider), asks)

    async def embed(self, texts: Sequence[str]) -> list[array[float]]:
        """Return a unit vector for each text, in as few calls as its limits allow; raises CallFailed."""
        vectors: list[array[float]] = []
        for batch in batches(texts):
            vectors += await self._embed(batch)
        return vectors

    async def _embed(self, texts: list[str]) -> list[array[float]]:
        """Embed what fits one request; a text the endpoint finds too long is cut in half until it does not."""
        try:
            found = await self.client.embed(texts, self.model, self.dimensions if self.asks_dimensions else None)
        except CallFailed as failure:
            if failure.treatment not in _WORTH_SPLITTING or failure.http_status == 404:
                raise
            if len(texts) > 1:
                middle = len(texts) // 2
                return await self._embed(texts[:middle]) + await self._embed(texts[middle:])
            if failure.treatment != "too_long" or len(texts[0]) < _FEWEST_CHARACTERS:
                raise
            return await self._embed([texts[0][: len(texts[0]) // 2]])
        return [self._unit(vector) for vector in found.vectors]

    def _unit(self, vector: Sequence[float]) -> array[float]:
        if len(vector) != self.dimensions:
            raise UsageError(
                f"embedder {self.name} got vectors of {len(vector)} numbers, not {self.dimensions}",
                f"That is how long those of {self.model} are.",
                f"Add it anew with {len(vector)} dimensions.",
            )
        return unit(vector)


def unit(vector: Sequence[float]) -> array[float]:
    """Return a vector of length one in the same direction; one without a direction becomes the first axis."""
    length = math.sqrt(math.fsum(value * value for value in vector))
    if not (0 < length < math.inf):
        return array("f", [1.0] + [0.0] * (len(vector) - 1))
    return array("f", [value / length for value in vector])


def batches(texts: Sequence[str]) -> list[list[str]]:
    """Cut texts into requests; no text is empty, which endpoints refuse."""
    cut: list[list[str]] = []
    characters = 0
    for text in texts:
        if not cut or characters + len(text) > MOST_CHARACTERS or len(cut[-1]) >= MOST_TEXTS:
            cut.append([])
            characters = 0
        cut[-1].append(text if text.strip() else "(empty)")
        characters += len(text)
    return cut
