"""Every way a call can fail, what it is called in flywheel.calls, and what is done about it: the one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from pgflywheel.judge.records import Outcome, storable

Treatment = Literal["wait", "quota", "retry", "unauthorized", "too_long", "content_filter", "step_down", "dead"]
MOST_WAIT_SECONDS = 3600.0
MOST_DETAIL = 500

# wait            no calls to the provider for the time it names, or a little while; costs no attempt
# quota           no calls until a probe is answered; costs no attempt
# retry           again after a growing delay; costs an attempt
# unauthorized    no calls until released or ten minutes passed; costs no attempt
# too_long        unscored, reason too_long
# content_filter  unscored, reason content_filter
# step_down       at once again without what was refused (see ladder.py); else dead
# dead            buried at once, reason rejected


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of failure: statuses, and a pattern of its code, type, parameter or message; None = any."""

    status: range
    words: str | None
    outcome: Outcome
    treatment: Treatment


NO_MONEY = (  # some say this of a minute's limit too, and when to come back
    r"insufficient_quota|insufficient (balance|credit|fund)|out of credit|exceeded your current quota(?!.*retry in)"
)
TOO_LARGE = r"request too large"  # for a minute's tokens: it would wait for ever
TOO_LONG = r"context_length|maximum context|context (length|size|window)|too many tokens|token count|prompt is too long"
FILTERED = r"content_filter|content management policy|content policy|moderation|flagged"
NOT_KNOWN = (
    r"response_format|json_schema|json_object|structured output|unsupported|not supported|unrecognized"
    r"|unknown parameter|extra inputs|extra_forbidden|not permitted"
)
_4XX = range(400, 423)
TABLE: tuple[Rule, ...] = (  # the first that fits
    Rule(range(402, 403), None, "quota_exhausted", "quota"),
    Rule(range(429, 430), NO_MONEY, "quota_exhausted", "quota"),
    Rule(range(429, 430), TOO_LARGE, "rejected", "too_long"),
    Rule(range(429, 430), None, "rate_limited", "wait"),
    Rule(range(401, 402), None, "rejected", "unauthorized"),
    Rule(_4XX, TOO_LONG, "rejected", "too_long"),
    Rule(range(413, 414), None, "rejected", "too_long"),
    Rule(_4XX, FILTERED, "content_filter", "content_filter"),
    Rule(range(403, 404), None, "rejected", "unauthorized"),
    Rule(range(404, 405), None, "rejected", "dead"),
    Rule(_4XX, NOT_KNOWN, "rejected", "step_down"),
    Rule(range(408, 409), None, "timed_out", "retry"),
    Rule(range(409, 410), None, "server_error", "retry"),
    Rule(range(425, 426), None, "rate_limited", "wait"),
    Rule(range(300, 500), None, "rejected", "dead"),
    Rule(range(500, 600), None, "server_error", "retry"),
    Rule(range(600), None, "unreadable", "retry"),  # a good status, and a body that is no reply: half of it, or HTML
)


class CallFailed(Exception):
    """A call brought no reply; ``retry_after_seconds`` is the time the endpoint named, None = it named none."""

    def __init__(
        self,
        outcome: Outcome,
        treatment: Treatment,
        detail: str,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
        code: str | None = None,
        parameter: str | None = None,
        latency_ms: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.treatment = treatment
        self.detail = detail
        self.http_status = http_status
        self.retry_after_seconds = retry_after_seconds
        self.code = code
        self.parameter = parameter
        self.latency_ms = latency_ms


def timed_out(detail: str) -> CallFailed:
    """Return the failure of a call that took longer than it may."""
    return CallFailed("timed_out", "retry", detail)


def connection_lost(detail: str) -> CallFailed:
    """Return the failure of a call whose connection was refused, reset or closed."""
    return CallFailed("connection_lost", "retry", detail)


def keyless(variable: str) -> CallFailed:
    """Return the failure of a call whose key is not in the environment."""
    return CallFailed("rejected", "unauthorized", f"environment variable {variable} is not set, or empty")


def failure_of(status: int, body: Any, headers: Mapping[str, str]) -> CallFailed:
    """Classify a response by the table; ``body`` is its JSON, or its text when it is none."""
    code, parameter, message = _said(body)
    words = " ".join(filter(None, (code, parameter, message)))
    rule = next((rule for rule in TABLE if _fits(rule, status, words)), TABLE[-1])
    return CallFailed(
        rule.outcome,
        rule.treatment,
        f"HTTP {status}: {message}" if message else f"HTTP {status}",
        status,
        retry_after_seconds(headers),
        code,
        parameter,
    )


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the endpoint asks to wait: milliseconds, seconds or an HTTP date; None = it does not say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return _bounded(seconds * unit)
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return _bounded((until - datetime.now(UTC)).total_seconds())


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MOST_WAIT_SECONDS)


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\s*\d{1,12}(\.\d*)?\s*", text, re.ASCII) else None


def _fits(rule: Rule, status: int, words: str) -> bool:
    return status in rule.status and (rule.words is None or re.search(rule.words, words, re.IGNORECASE) is not None)


def _said(body: Any) -> tuple[str | None, str | None, str]:
    """Return code, parameter and message of an error, whichever of the usual shapes it has."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return None, None, _short(_visible(error))
    code = " ".join(str(error[key]) for key in ("code", "type") if isinstance(error.get(key), str))
    message = error.get("message") or error.get("detail") or ""
    parameter = error.get("param")
    return code or None, parameter if isinstance(parameter, str) else None, _short(_visible(message))


def _visible(page: Any) -> str:
    """Return the words of what may be a page of HTML."""
    try:
        text = page if isinstance(page, str) else "" if page is None else str(page)
    except RecursionError:
        text = "(nested too deeply to be shown)"
    return re.sub(r"<[^<>]*>", " ", text[:10_000])


def _short(text: str) -> str:
    return storable(" ".join(text[:10_000].split())[:MOST_DETAIL])
