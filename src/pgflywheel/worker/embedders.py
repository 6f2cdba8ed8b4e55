"""Embedders as a worker has them; the calls of those that make some go the way of a judge's calls.

begin ──go──> called ──> entered in flywheel.calls, settled
  ├─ wait: here for a moment, else PutOff          └──failure──> entered; PutOff or CallFailed
  └─ over_budget: PutOff
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any
from uuid import UUID, uuid4

from pgflywheel.db import calls
from pgflywheel.db.connect import Database
from pgflywheel.db.embedders import EmbedderRow
from pgflywheel.errors import UsageError
from pgflywheel.judge.embed import Embedder, make
from pgflywheel.judge.entry import failed
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.prompt import tokens_of
from pgflywheel.judge.records import Embeddings
from pgflywheel.worker.endpoints import Endpoint, Endpoints
from pgflywheel.worker.metrics import Metrics
from pgflywheel.worker.refusals import (
    PATIENCE_SECONDS,
    Fault,
    PutOff,
    blocked,
    jittered,
    no_place,
    no_provider,
)

KEPT_VECTORS = 4_000


@dataclass
class Embedders:
    """Make embedders; one that calls nothing is made anew when its row changes.

    Vectors that were paid for are kept for a while: what is put off half done does not pay for them again.
    """

    database: Database
    endpoints: Endpoints
    metrics: Metrics
    stopping: asyncio.Event
    known: dict[UUID, tuple[EmbedderRow, Embedder]] = field(default_factory=dict)
    kept: dict[bytes, array[float]] = field(default_factory=dict)

    async def of(
        self,
        row: EmbedderRow,
        worker_id: UUID,
        version_id: UUID | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> Embedder:
        """Return the embedder of a row, for calls of one version or of none."""
        if row.provider is None:
            known = self.known.get(row.embedder_id)
            if known is None or known[0] != row:
                self.known[row.embedder_id] = known = (row, make(row))
            return known[1]
        endpoint = await self.endpoints.of(row.provider)
        if endpoint is None:
            raise no_provider(row.provider)
        return make(row, endpoint.provider, Calls(self, endpoint, worker_id, version_id, patience_seconds))

    def keep(self, keys: Sequence[bytes], vectors: Sequence[Sequence[float]]) -> None:
        """Keep vectors; the oldest go."""
        self.kept.update(zip(keys, (array("f", vector) for vector in vectors), strict=True))
        for key in list(self.kept)[: max(0, len(self.kept) - KEPT_VECTORS)]:
            del self.kept[key]


@dataclass(frozen=True, slots=True)
class Calls:
    """Make the calls of one embedder, within the limits and budgets all workers share, and record each."""

    ours: Embedders
    endpoint: Endpoint
    worker_id: UUID
    version_id: UUID | None
    patience_seconds: float

    async def embed(self, texts: Sequence[str], model: str, dimensions: int | None = None) -> Embeddings:
        """Return a vector for each text, from one call at most; PutOff when it may not be made now."""
        keys = {text: _hash(self.endpoint.provider.base_url, model, dimensions, text) for text in texts}
        found = {text: self.ours.kept[key] for text, key in keys.items() if key in self.ours.kept}
        missing = [text for text in keys if text not in found]
        if missing:
            told = (await self._call(missing, model, dimensions)).vectors
            self.ours.keep([keys[text] for text in missing], told)
            found |= {text: array("f", vector) for text, vector in zip(missing, told, strict=True)}
        return Embeddings([found[text] for text in texts])

    async def _call(self, texts: Sequence[str], model: str, dimensions: int | None) -> Embeddings:
        call = self._described(texts, model, dimensions)
        patience = monotonic() + self.patience_seconds
        while True:
            if not await self.endpoint.pass_gate(patience):
                raise no_place(self.endpoint.provider.name)
            try:
                seconds = await self._begin(call, patience)
                if seconds is None:
                    return await self._make(call, texts, model, dimensions)
            finally:
                self.endpoint.gate.release()
            await asyncio.sleep(seconds)

    async def _begin(self, call: Mapping[str, Any], patience: float) -> float | None:
        """Return None when the call may be made, and else after how many seconds to ask again."""
        (begun,) = await calls.begin_calls(self.ours.database, self.worker_id, [call])
        if begun.decision == "go":
            return None
        detail, seconds = begun.detail or "", begun.wait_seconds
        if begun.decision == "over_budget":
            raise PutOff(seconds, Fault("over_budget", detail), costs=False)
        if monotonic() + seconds > patience or self.ours.stopping.is_set():
            raise PutOff(jittered(seconds), Fault("waits", detail), costs=False)
        return jittered(seconds)

    async def _make(
        self, call: Mapping[str, Any], texts: Sequence[str], model: str, dimensions: int | None
    ) -> Embeddings:
        began = perf_counter()
        try:
            found = await self.endpoint.client.embed(texts, model, dimensions)
        except CallFailed as failure:
            failure.latency_ms = (perf_counter() - began) * 1000
            await self._enter(call, failed(failure))
            later = await blocked(self.ours.database, self.endpoint.provider.name, failure)
            raise later or failure from failure
        except UsageError as error:  # a package is missing here: nothing was sent
            await self._enter(call, {"outcome": "rejected", "detail": error.message})
            raise
        latency_ms = (perf_counter() - began) * 1000
        usage = {"input_tokens": found.usage.input_tokens, "cached_tokens": found.usage.cached_tokens}
        await self._enter(call, {"outcome": "answered", "http_status": 200, "latency_ms": latency_ms, **usage})
        return found

    async def _enter(self, call: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        """Record a call and settle it; tokens nobody told stay unknown."""
        await calls.end_calls(self.ours.database, [{**call, "input_tokens": None, **said}])
        self.ours.metrics.calls.labels(self.endpoint.provider.name, said["outcome"]).inc()

    def _described(self, texts: Sequence[str], model: str, dimensions: int | None) -> dict[str, Any]:
        return {
            "call_id": uuid4(),
            "version_id": self.version_id,
            "purpose": "embed",
            "provider": self.endpoint.provider.name,
            "model": model,
            "request_hash": _hash(model, dimensions, list(texts)).hex(),
            "input_tokens": sum(map(tokens_of, texts)),
            "output_tokens": 0,
        }


def _hash(*parts: Any) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()
