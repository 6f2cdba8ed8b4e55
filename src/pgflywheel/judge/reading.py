"""From the JSON of a chat completion to a Reply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pgflywheel.judge.failures import CallFailed, failure_of
from pgflywheel.judge.parse import pass_probability
from pgflywheel.judge.records import Reply, Usage

_MOST_TOKENS = 2_000_000_000
_LIMITED = re.compile(r"quota|rate.?limit", re.IGNORECASE)


def reply_of(payload: Any, http_status: int, latency_ms: float, headers: Mapping[str, str] | None = None) -> Reply:
    """Return what a model said; CallFailed when the JSON is an error, or no completion at all."""
    choices = payload.get("choices") if isinstance(payload, Mapping) else None
    if not isinstance(choices, list):
        raise error_in(payload, headers or {}) or failure_of(http_status, "the reply is no chat completion", {})
    first = choices[0] if choices and isinstance(choices[0], Mapping) else {}
    message, logprobs = _part(first, "message"), _part(first, "logprobs")
    return Reply(
        text=_text(message.get("content")),
        refusal=_text(message.get("refusal")),
        finish_reason=_text(first.get("finish_reason")),
        pass_probability=pass_probability(logprobs.get("content")),
        model=_text(payload.get("model")),
        usage=usage_of(payload.get("usage")),
        http_status=http_status,
        latency_ms=latency_ms,
        choices=len(choices),
    )


def usage_of(usage: Any) -> Usage:
    """Return the tokens a reply says it took; None for each it does not say."""
    if not isinstance(usage, Mapping) or not usage.get("prompt_tokens"):  # no prompt has no tokens: some proxies say 0
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else usage.get("prompt_cache_hit_tokens")
    return Usage(_tokens(usage.get("prompt_tokens")), _tokens(cached), _tokens(usage.get("completion_tokens")))


def error_in(payload: Any, headers: Mapping[str, str]) -> CallFailed | None:
    """Return the error under a good status, where some proxies put it with its status or its name; None without one."""
    error = payload.get("error") if isinstance(payload, Mapping) else None
    if error is None:
        return None
    return failure_of(_status_of(error) if isinstance(error, Mapping) else 500, payload, headers)


def _status_of(error: Mapping[str, Any]) -> int:
    """Return the status an error would have come with."""
    code = error.get("code")
    if isinstance(code, str) and re.fullmatch("[45][0-9]{2}", code, re.ASCII):
        return int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    named = " ".join(word for word in (code, error.get("type")) if isinstance(word, str))
    return 429 if _LIMITED.search(named) else 500


def _part(whole: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = whole.get(key)
    return part if isinstance(part, Mapping) else {}


def _text(content: Any) -> str | None:
    """Return a text, also one that comes in parts."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else None


def _tokens(count: Any) -> int | None:
    return count if isinstance(count, int) and 0 <= count <= _MOST_TOKENS else None
