"""Expand conversations.toml into support.jsonl: ``python -m pgflywheel.sample.build``.

Nothing is drawn at random, so the file is the same wherever it is built. Times are seconds before the moment of
loading, so that the sample is always of the last days.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from pgflywheel import assets

_NAMESPACE = uuid5(NAMESPACE_URL, "https://fernandkettle.example/support")
_FIRST_SESSION, _BETWEEN_SESSIONS = -216_000.0, 4_240.0  # seconds: 60 hours before loading, and 70 minutes
_MODELS = {"assistant-14": "example-small", "assistant-15": "example-large"}
_USD_PER_TOKEN = {"example-small": (0.4e-6, 1.6e-6), "example-large": (2e-6, 8e-6)}
_SYSTEM_PROMPT_TOKENS = {"classify": 180, "answer": 420}
_LATENCY_MS = {"classify": (160, 420), "lookup_order": (60, 310), "retrieve": (20, 95), "answer": (620, 2600)}
_KINDS = {
    "support": "app",
    "classify": "classifier",
    "lookup_order": "tool",
    "retrieve": "retriever",
    "answer": "writer",
    "escalate": "tool",
}
Row = dict[str, Any]


@dataclass
class _Trace:
    """One turn of a conversation, whose steps run one after another from ``offset`` on."""

    session: Row
    turn: Row
    key: str
    offset: float
    steps: list[Row] = field(default_factory=list)

    @property
    def trace_id(self) -> UUID:
        return uuid5(_NAMESPACE, self.key)

    @property
    def elapsed_ms(self) -> int:
        return sum(step["latency_ms"] for step in self.steps)

    def step(self, node: str, input: str, output: str | None, error: str | None = None, **more: Any) -> None:
        """Add the next step below the root."""
        took = self.turn.get("slow_ms", {}).get(node) or _between(
            f"{self.key} {node}", *_LATENCY_MS.get(node, (30, 80))
        )
        root = str(span_id(self.key, "support"))
        self.steps.append(self.row(node, root, input, output, error, self.elapsed_ms + 4, took) | more)

    def row(
        self, node: str, parent: str | None, input: str, output: str | None, error: str | None, after_ms: int, took: int
    ) -> Row:
        return {
            "trace_id": str(self.trace_id),
            "span_id": str(span_id(self.key, node)),
            "parent_span_id": parent,
            "project": "fern-and-kettle",
            "environment": self.session.get("environment", "production"),
            "release": self.session.get("release", "assistant-14"),
            "session_id": self.session["id"],
            "user_id": self.session["user"],
            "node": node,
            "node_kind": _KINDS[node],
            "input": input,
            "output": output,
            "status": "error" if error else "ok",
            "error": error,
            "documents": None,
            **dict.fromkeys(("model", "provider", "input_tokens", "output_tokens", "cost_usd")),
            "offset_seconds": round(self.offset + after_ms / 1000, 3),
            "latency_ms": took,
        }


def span_id(turn: str, node: str) -> UUID:
    """Return the id of a step of a turn, which is named session-001/1."""
    return uuid5(_NAMESPACE, f"{turn} {node}")


def spans() -> Iterator[Row]:
    """Yield every span of the sample, each trace's root first."""
    for number, session in enumerate(_source()["session"]):
        session["id"] = f"session-{number + 1:03}"
        offset = _FIRST_SESSION + number * _BETWEEN_SESSIONS
        for place, turn in enumerate(session["turn"]):
            yield from _spans_of(_Trace(session, turn, f"{session['id']}/{place + 1}", offset))
            offset += _between(f"{session['id']} {place} pause", 45, 200)


def main() -> None:
    """Write support.jsonl beside its source."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in spans()]
    (assets.sample_dir() / "support.jsonl").write_text("".join(lines), encoding="utf-8")


def _spans_of(trace: _Trace) -> list[Row]:
    turn = trace.turn
    trace.step("classify", turn["ask"], _classification(trace), **_usage(trace, "classify", turn["ask"]))
    if "order" in turn:
        _look_up(trace)
    _retrieve(trace)
    prompt = _prompt(trace)
    output, error = (None, turn["answer_error"]) if "answer_error" in turn else (turn["answer"], None)
    trace.step("answer", prompt, output, error, **_usage(trace, "answer", prompt))
    if "escalate" in turn:
        trace.step("escalate", turn["escalate"], _ticket(trace))
    root = trace.row("support", None, turn["ask"], output, error, 0, trace.elapsed_ms + 9)
    return [root, *trace.steps]


def _classification(trace: _Trace) -> str:
    """Return what the classifier said: a turn's own words, or the JSON it is meant to give."""
    confidence = _between(f"{trace.key} confidence", 71, 99) / 100
    expected = {"intent": trace.turn["intent"], "confidence": confidence, "needs_order": "order" in trace.turn}
    return str(trace.turn.get("classify") or json.dumps(expected))


def _look_up(trace: _Trace) -> None:
    asked = json.dumps({"order_id": trace.turn["order"]})
    error = trace.turn.get("lookup_error")
    trace.step("lookup_order", asked, None if error else _order(trace.turn), error)


def _order(turn: Row) -> str:
    found = {"order_id": turn["order"], **_source()["orders"][turn["order"]]}
    return str(turn.get("lookup") or json.dumps(found))


def _retrieve(trace: _Trace) -> None:
    passages = [
        {"id": name, "text": _source()["passages"][name], "score": round(0.91 - 0.07 * rank, 2)}
        for rank, name in enumerate(trace.turn["docs"])
    ]
    trace.step("retrieve", trace.turn["ask"], "\n".join(each["text"] for each in passages), documents=passages)


def _prompt(trace: _Trace) -> str:
    """Return what the writer was shown: the question, the order, the passages."""
    order = [f"Order: {step['output']}" for step in trace.steps if step["node"] == "lookup_order" and step["output"]]
    passages = [f"Passage: {_source()['passages'][name]}" for name in trace.turn["docs"]]
    return "\n".join([f"Customer: {trace.turn['ask']}", *order, *passages])


def _usage(trace: _Trace, node: str, prompt: str) -> Row:
    """Return model, tokens and cost; tokens of a failed call are not known, and so neither is its cost."""
    model = _MODELS[trace.session.get("release", "assistant-14")]
    if node == "answer" and "answer_error" in trace.turn:
        return {"model": model, "provider": "example"}
    said = _classification(trace) if node == "classify" else trace.turn["answer"]
    tokens = _SYSTEM_PROMPT_TOKENS[node] + len(prompt) // 4, max(1, len(said) // 4)
    dollars = sum(count * price for count, price in zip(tokens, _USD_PER_TOKEN[model], strict=True))
    cost = trace.turn.get("cost_usd", {}).get(node, round(dollars, 6))
    return {
        "model": model,
        "provider": "example",
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "cost_usd": cost,
    }


def _ticket(trace: _Trace) -> str:
    return json.dumps({"ticket": f"T-{_between(f'{trace.key} ticket', 2000, 9999)}", "queue": "support"})


@cache
def _source() -> Row:
    return tomllib.loads((assets.sample_dir() / "conversations.toml").read_text(encoding="utf-8"))


def _between(key: str, low: int, high: int) -> int:
    """Return a number from low up to high that depends on nothing but the key."""
    return low + int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % (high - low)


if __name__ == "__main__":
    main()
