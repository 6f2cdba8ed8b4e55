"""Errors in OpenAI's JSON form, and the ones a fake can be told to answer with."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate

from tests.fakes.wire import Reply, as_json


class Fault(Exception):
    """An error answered instead of a completion."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        kind: str = "invalid_request_error",
        param: str | None = None,
        **headers: str,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.kind, self.param = status, message, code, kind, param
        self.headers = headers

    def reply(self) -> Reply:
        """Return the error as OpenAI words it."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        reply = as_json({"error": error}, self.status)
        reply.headers = {name.replace("_", "-"): value for name, value in self.headers.items()}
        return reply


class BareReply(Fault):
    """An error that is no JSON: what a proxy in between answers."""

    def reply(self) -> Reply:
        """Return a page of HTML."""
        page = f"<html><head><title>{self.message}</title></head><body><h1>{self.message}</h1></body></html>"
        return Reply(self.status, page.encode(), "text/html")


def rate_limited(**headers: str) -> Fault:
    """Return a 429 that ends by itself."""
    message = "Rate limit reached for requests. Please try again later."
    return Fault(429, message, "rate_limit_exceeded", "requests", **headers)


def http_date(seconds: float) -> str:
    """Return the HTTP date so many seconds from now, never earlier (its unit is the second)."""
    return formatdate(int(time.time() + seconds) + 1, usegmt=True)


FAULTS: dict[str, Callable[[float], Fault]] = {  # of the seconds a client is told to wait
    "rate_limited": lambda wait: rate_limited(retry_after=f"{wait:g}"),
    "rate_limited_ms": lambda wait: rate_limited(retry_after_ms=f"{wait * 1000:g}"),
    "rate_limited_date": lambda wait: rate_limited(retry_after=http_date(wait)),
    "rate_limited_bare": lambda _: rate_limited(),
    "insufficient_quota": lambda _: Fault(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    "server_error": lambda _: Fault(
        500, "The server had an error while processing your request.", None, "server_error"
    ),
    "overloaded": lambda _: Fault(503, "That model is currently overloaded.", None, "server_error"),
    "bad_gateway": lambda _: BareReply(502, "502 Bad Gateway"),
    "bad_request": lambda _: Fault(400, "Invalid value for 'messages'.", "invalid_value", param="messages"),
    "unauthorized": lambda _: Fault(401, "Incorrect API key provided.", "invalid_api_key"),
    "forbidden": lambda _: Fault(403, "This country is not supported.", "unsupported_country_region_territory"),
    "not_found": lambda _: Fault(404, "The model does not exist or you do not have access to it.", "model_not_found"),
    "too_long": lambda _: Fault(
        400,
        "This model's maximum context length is 8192 tokens. Please reduce the length of the messages.",
        "context_length_exceeded",
        param="messages",
    ),
    "content_filter_error": lambda _: Fault(
        400, "The prompt was filtered by the content management policy.", "content_filter", param="prompt"
    ),
}
