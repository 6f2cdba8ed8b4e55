"""What a judge is shown, what is asked, and what comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

Rung = Literal["json_schema", "json_object", "text"]
RUNGS: tuple[Rung, ...] = ("json_schema", "json_object", "text")
Outcome = Literal[
    "answered", "refused", "length_stop", "content_filter", "empty_reply", "unreadable",
    "rate_limited", "quota_exhausted", "server_error", "connection_lost", "timed_out", "rejected",
]  # fmt: skip
MOST_CHARACTERS_KEPT = 65_536
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Step:
    """A span above the item in its call graph."""

    node: str | None
    input: str | None
    output: str | None


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier exchange of the item's conversation."""

    input: str | None
    output: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """What is judged, with what stands around it; parents from the root down, turns from the oldest on."""

    input: str | None
    output: str | None
    span_id: UUID | None = None
    revision: int = 1
    trace_id: UUID | None = None
    project: str | None = None
    node: str | None = None
    documents: Any = None
    messages: Any = None
    parents: tuple[Step, ...] = ()
    session: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Shot:
    """An example to show; a fix has a corrected output and no verdict. Numbers say why it was chosen."""

    example_id: UUID
    input: str | None
    output: str | None
    corrected_output: str | None = None
    passed: bool | None = None
    critique: str | None = None
    similarity: float | None = None
    recency: float | None = None
    disagreement: float | None = None
    trust: float | None = None
    relevance: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """How a provider's model is asked: the rung of the ladder, and the parameters it does not refuse."""

    rung: Rung = "json_schema"
    logprobs: bool = False
    seed: bool = False
    prompt_cache_key: bool = False
    most_tokens_key: str = "max_tokens"
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request, ready to send: ``body`` is the exact JSON, whose first ``static_bytes`` a version never changes.

    ``input_tokens`` is an estimate meant to be high, ``output_tokens`` the most the endpoint may write.
    """

    provider: str
    model: str
    body: bytes
    request_hash: str
    static_bytes: int
    rung: Rung
    vote: int
    shots: tuple[UUID, ...]
    input_tokens: int
    output_tokens: int
    most_reply_bytes: int
    repair: bool = False

    @property
    def request(self) -> dict[str, Any]:
        """Return the request as an object."""
        request: dict[str, Any] = json.loads(self.body)
        return request

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return its messages: role and content of each."""
        messages: list[dict[str, str]] = self.request["messages"]
        return messages


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call as the endpoint counts them; None = not said. Cached tokens are part of the input."""

    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of some texts, all of one length, and what they took."""

    vectors: Sequence[Sequence[float]]
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said; ``pass_probability`` is read from logprobs, None without them."""

    text: str | None
    refusal: str | None = None
    finish_reason: str | None = None
    pass_probability: float | None = None
    model: str | None = None
    usage: Usage = Usage()
    http_status: int | None = 200
    latency_ms: float = 0.0
    choices: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return what is kept of it in flywheel.calls: no NUL and no half of a surrogate pair, cut at 64 KiB."""
        return {
            "text": _kept(self.text),
            "refusal": _kept(self.refusal),
            "finish_reason": _kept(self.finish_reason),
            "pass_probability": self.pass_probability,
            "choices": self.choices,
        }

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> Reply:
        """Return the reply a call kept: it cost nothing now."""
        texts = (kept.get("text"), kept.get("refusal"), kept.get("finish_reason"))
        return cls(*texts, kept.get("pass_probability"), usage=Usage(0, 0, 0), choices=kept.get("choices", 1))


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reason in words, or why there is none: then ``passed`` is None and ``reason`` is set.

    ``value`` is the estimated probability of a pass, ``confidence`` that of the verdict; None = not known.
    """

    passed: bool | None
    value: float | None = None
    critique: str | None = None
    confidence: float | None = None
    reason: str | None = None
    detail: str | None = None


def storable(text: str) -> str:
    """Return text a database can hold: NUL and halves of surrogate pairs become the replacement character."""
    return _NOT_STORABLE.sub("\ufffd", text)


def _kept(text: str | None) -> str | None:
    return None if text is None else storable(text[:MOST_CHARACTERS_KEPT])
