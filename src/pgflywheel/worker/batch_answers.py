"""What the lines of a batch say, and what becomes of the spans they stand for; knows no database and no endpoint.

all votes read ──> score           refused, cut off, unreadable ──> lane judge, which asks once more
expired, missing, server error ──> lane batch (lane judge after two tries)
too long, filtered ──> unscored    the request is wrong ──> dead
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pgflywheel.db.batches import Back
from pgflywheel.judge.entry import answered
from pgflywheel.judge.failures import CallFailed, failure_of
from pgflywheel.judge.judgement import read, unscored
from pgflywheel.judge.price import cost_usd
from pgflywheel.judge.reading import reply_of
from pgflywheel.judge.records import Judgement, Reply
from pgflywheel.judge.votes import combine
from pgflywheel.records import Prices

MOST_DETAIL = 500
_NEVER_ASKED = ("batch_expired", "batch_cancelled")
_RANKS = ("batch", "judge", "unscored", "dead")  # what one vote needs decides for the span, the last first
NOTHING: Mapping[str, Any] = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "cost_usd": 0}


def request_line(call_id: UUID, body: bytes) -> bytes:
    """Return the line of a batch file that asks for a chat completion."""
    head = f'{{"custom_id": "{call_id}", "method": "POST", "url": "/v1/chat/completions", "body": '
    return b"".join((head.encode("ascii"), body, b"}\n"))


def answer_of(raw: bytes, prices: Prices | None) -> dict[str, Any] | None:
    """Read a line of an output or error file, as the end of its call; None when it is no line of ours."""
    try:
        line = json.loads(raw)
        call_id = UUID(line["custom_id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    response = line.get("response")
    try:
        said = _answered(response, prices) if isinstance(response, Mapping) else _unasked(line.get("error"))
    except CallFailed as failure:
        said = _failed(failure)
    except RecursionError:  # it could just be read
        return unreadable(call_id, "the line is nested too deeply")
    return {"call_id": call_id, **said}


def unreadable(call_id: UUID, why: str) -> dict[str, Any]:
    """Return the end of a call of whose answer nothing can be kept."""
    return {"call_id": call_id, **_failed(failure_of(200, why, {}))}


def end_of(back: Back) -> dict[str, Any]:
    """Return what becomes of a span: its score, or the lane it goes to; neither when it was purged."""
    end: dict[str, Any] = {"version_id": back.version_id, "span_id": back.span_id, "revision": back.revision}
    if back.trace_id is None:
        return end
    fate, answer = max(((_fate(each), each) for each in back.answers), key=lambda pair: _rank(pair[0]))
    reason, detail = _reason(answer), answer.get("detail") or ""
    if fate == "read":
        readings = [read(Reply.of_json(each["reply"])).judgement for each in back.answers]
        return end | {"score": score_of(back, combine(readings))}
    if fate == "unscored":
        return end | {"score": score_of(back, unscored(reason, detail))}
    return end | {"lane": fate, "reason": reason, "detail": detail}


def without_score(back: Back, why: str) -> dict[str, Any]:
    """Return the end of a span whose answer cannot be stored."""
    end = {"version_id": back.version_id, "span_id": back.span_id, "revision": back.revision}
    return end | ({"score": score_of(back, unscored("raised", why))} if back.trace_id else {})


def score_of(back: Back, judgement: Judgement) -> dict[str, Any]:
    """Return the columns of a score."""
    shown = dict.fromkeys(shot for each in back.answers for shot in each.get("shots") or ())
    return {
        "span_id": back.span_id,
        "revision": back.revision,
        "started_at": back.started_at,
        "trace_id": back.trace_id,
        "project": back.project,
        "version_id": back.version_id,
        "passed": judgement.passed,
        "value": judgement.value,
        "critique": judgement.critique,
        "reason": judgement.reason,
        "detail": judgement.detail,
        "confidence": judgement.confidence,
        **{name: _total(back.answers, name) for name in NOTHING},
        "votes": len(back.answers),
        "shots": list(shown) or None,
        "request_hash": back.request_hash,
        "degraded": back.degraded,
    }


def _answered(response: Mapping[str, Any], prices: Prices | None) -> dict[str, Any]:
    status, body = response.get("status_code"), response.get("body")
    if not isinstance(status, int) or status != 200:
        raise failure_of(status if isinstance(status, int) and 100 <= status < 600 else 500, body, {})
    reply = reply_of(body, 200, 0.0)
    reading = read(reply)
    cost = cost_usd(reply.usage, prices, batch=True)
    return answered(reply, reading) | {"latency_ms": None, "cost_usd": cost}  # a file tells nothing of the time


def _failed(failure: CallFailed) -> dict[str, Any]:
    return {
        "outcome": failure.outcome,
        "http_status": failure.http_status,
        "detail": failure.detail,
        "treatment": failure.treatment,
    }


def _unasked(error: Any) -> dict[str, Any]:
    told = error if isinstance(error, Mapping) else {}
    outcome = "expired" if told.get("code") in _NEVER_ASKED else "server_error"
    return {"outcome": outcome, "detail": str(told.get("message") or told.get("code") or "no reason")[:MOST_DETAIL]}


def _fate(answer: Mapping[str, Any]) -> str:
    """Return read, unscored, or the lane a vote needs."""
    treatment = answer.get("treatment")
    if answer["outcome"] == "answered":
        return "read"
    if answer.get("reply") is not None or treatment == "step_down":
        return "judge"
    if treatment in ("too_long", "content_filter"):
        return "unscored"
    return "dead" if treatment == "dead" else "batch"


def _rank(fate: str) -> int:
    return -1 if fate == "read" else _RANKS.index(fate)


def _reason(answer: Mapping[str, Any]) -> str:
    treatment = answer.get("treatment")
    return str(treatment if treatment in ("too_long", "content_filter") else answer["outcome"])


def _total(answers: list[dict[str, Any]], name: str) -> Any:
    """Return the sum over all votes; None when one of them does not know it."""
    values = [each.get(name) for each in answers]
    return None if None in values else sum(value for value in values if value is not None)
