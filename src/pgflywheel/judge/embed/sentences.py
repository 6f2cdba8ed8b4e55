"""Embeddings of a model on this machine, by the package sentence-transformers."""

from __future__ import annotations

import asyncio
import importlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from pgflywheel.errors import UsageError
from pgflywheel.judge.embed.endpoint import unit

_PARAMETERS = ("device", "revision", "truncate_dim", "local_files_only")
MOST_CHARACTERS = 32_768


class Sentences:
    """Embed with a model's directory or name; it is loaded at the first text and stays."""

    def __init__(self, name: str, model: str, dimensions: int, parameters: Mapping[str, Any]) -> None:
        self.name = name
        self.model = model
        self.dimensions = dimensions
        self.parameters = {key: parameters[key] for key in _PARAMETERS if key in parameters}
        self.loaded: Any = None
        self.one_at_a_time = asyncio.Lock()

    async def embed(self, texts: Sequence[str]) -> list[array[float]]:
        """Return a unit vector for each text, computed in a thread."""
        async with self.one_at_a_time:
            return await asyncio.to_thread(self._embed, [text[:MOST_CHARACTERS] for text in texts])

    def _embed(self, texts: list[str]) -> list[array[float]]:
        if self.loaded is None:
            self.loaded = self._load()
        if not texts:
            return []
        vectors = [unit(vector.tolist()) for vector in self.loaded.encode(texts, show_progress_bar=False)]
        if len(vectors[0]) != self.dimensions:
            raise UsageError(
                f"embedder {self.name} got vectors of {len(vectors[0])} numbers, not {self.dimensions}",
                f"That is how long those of {self.model} are.",
                f"Add it anew with {len(vectors[0])} dimensions.",
            )
        return vectors

    def _load(self) -> Any:
        try:
            package = importlib.import_module("sentence_transformers")
        except ImportError as error:
            raise UsageError(
                f"embedder {self.name} needs the package sentence-transformers",
                str(error),
                "Install it where the worker runs: pip install 'pgflywheel[embed]'.",
            ) from error
        try:
            return package.SentenceTransformer(self.model, **self.parameters)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"embedder {self.name} cannot load the model {self.model}",
                str(error)[:500],
                "Name a model directory that the worker can read, or a model it can download.",
            ) from error
