"""What is recorded of a call: what was asked and what came of it, by the columns of flywheel.calls."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import uuid4

from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.judgement import Reading
from pgflywheel.judge.records import Item, Prompt, Reply


def announced(prompt: Prompt, item: Item) -> dict[str, Any]:
    """Return what is known of a call before it is made, under a new call_id.

    Tokens are the estimate by which it is paid until its end is known.
    """
    return {
        "call_id": uuid4(),
        "span_id": item.span_id,
        "revision": item.revision if item.span_id else None,
        "trace_id": item.trace_id,
        "project": item.project,
        "vote": prompt.vote,
        "repair": prompt.repair,
        "provider": prompt.provider,
        "model": prompt.model,
        "rung": prompt.rung,
        "request_hash": prompt.request_hash,
        "shots": [str(shot) for shot in prompt.shots] or None,
        "input_tokens": prompt.input_tokens,
        "output_tokens": prompt.output_tokens,
    }


def answered(reply: Reply, reading: Reading) -> dict[str, Any]:
    """Return what a reply adds to it; tokens are None where the endpoint did not count them."""
    return {
        "outcome": reading.outcome,
        "http_status": reply.http_status,
        "detail": reading.judgement.detail,
        "reply": reply.to_json(),
        "answered_by": reply.model,
        "latency_ms": reply.latency_ms,
        **asdict(reply.usage),
    }


def failed(failure: CallFailed) -> dict[str, Any]:
    """Return what a failure adds to it; how many tokens were read and written is not known."""
    return {
        "outcome": failure.outcome,
        "http_status": failure.http_status,
        "detail": failure.detail,
        "latency_ms": failure.latency_ms,
        "input_tokens": None,
        "cached_tokens": None,
        "output_tokens": None,
    }
