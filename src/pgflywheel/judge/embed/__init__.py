"""Embedders: texts become unit vectors that lie near one another where the texts are alike."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pgflywheel.judge.embed.hashing import Hashing
from pgflywheel.records import Provider

if TYPE_CHECKING:
    from pgflywheel.judge.embed.endpoint import Caller

__all__ = ["Described", "Embedder", "Hashing", "make"]


class Embedder(Protocol):
    """A model that embeds."""

    @property
    def name(self) -> str:
        """Return its name in flywheel.embedders."""

    @property
    def dimensions(self) -> int:
        """Return the length of its vectors."""

    async def embed(self, texts: Sequence[str]) -> list[array[float]]:
        """Return a unit vector of 4-byte floats for each text; CallFailed when an endpoint gives none."""


class Described(Protocol):
    """A row of flywheel.embedders."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...


def make(row: Described, provider: Provider | None = None, client: Caller | None = None) -> Embedder:
    """Return the embedder a row describes; kind openai needs its provider, and has a client of its own unless given.

    Nothing is loaded or called before the first text; a package that is missing then raises UsageError.
    """
    if row.kind == "openai" and provider is not None:
        from pgflywheel.judge.embed.endpoint import Endpoint

        return Endpoint.of(row, provider, client)
    if row.kind == "sentence_transformers":
        from pgflywheel.judge.embed.sentences import Sentences

        return Sentences(row.name, row.model or "", row.dimensions, row.parameters)
    if row.kind == "hashing":
        return Hashing(row.name, row.dimensions)
    raise ValueError(f"embedder {row.name} of kind {row.kind} cannot be made without its provider")
