"""What was asked, when, how much at once; and limits, counted in sliding windows."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.wire import Request

CHAT = "/v1/chat/completions"


def most_in_window(began: Iterable[float], seconds: float) -> int:
    """Return how many times at most lie in any window of so many seconds."""
    window: deque[float] = deque()
    most = 0
    for each in sorted(began):
        window.append(each)
        while each - window[0] >= seconds:
            window.popleft()
        most = max(most, len(window))
    return most


@dataclass
class Limits:
    """Limits of the endpoint; None is no limit. Without enforce a request beyond one is counted, yet answered."""

    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    enforce: bool = True
    minute_seconds: float = 60.0  # a shorter minute makes a test of limits short
    admitted: deque[tuple[float, int]] = field(default_factory=deque, repr=False)
    tokens: int = 0

    def broken(self, in_flight: int, tokens: int) -> list[str]:
        """Return which limits a request of so many tokens is beyond, and admit it if none."""
        now = time.monotonic()
        self.forget(now - self.minute_seconds)
        beyond = [
            name
            for name, used, limit in [
                ("in_flight", in_flight, self.max_in_flight),
                ("requests", len(self.admitted) + 1, self.requests_per_minute),
                ("tokens", self.tokens + tokens, self.tokens_per_minute),
            ]
            if limit is not None and used > limit
        ]
        if not (beyond and self.enforce):
            self.admitted.append((now, tokens))
            self.tokens += tokens
        return beyond

    def forget(self, before: float) -> None:
        """Drop what has left the window."""
        while self.admitted and self.admitted[0][0] <= before:
            self.tokens -= self.admitted.popleft()[1]

    def wait_seconds(self) -> float:
        """Return when the oldest request leaves the window."""
        if not self.admitted:
            return 0.0
        return max(0.0, self.admitted[0][0] + self.minute_seconds - time.monotonic())

    def headers(self) -> dict[str, str]:
        """Return the limits as OpenAI tells them; a limit that is not set is told as a large one."""
        requests, tokens = self.requests_per_minute or 10_000, self.tokens_per_minute or 2_000_000
        reset = f"{self.wait_seconds():.3f}s"
        return {
            "x-ratelimit-limit-requests": str(requests),
            "x-ratelimit-remaining-requests": str(max(0, requests - len(self.admitted))),
            "x-ratelimit-reset-requests": reset,
            "x-ratelimit-limit-tokens": str(tokens),
            "x-ratelimit-remaining-tokens": str(max(0, tokens - self.tokens)),
            "x-ratelimit-reset-tokens": reset,
        }


@dataclass
class Books:
    """Every request, and counts; in flight are the calls of models only (chat, embeddings)."""

    requests: list[Request] = field(default_factory=list)
    violations: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0

    def begin(self, request: Request, is_call: bool) -> None:
        """Enter a request."""
        self.requests.append(request)
        if is_call:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def end(self, is_call: bool) -> None:
        """Note that a request is over."""
        if is_call:
            self.in_flight -= 1

    def reset(self) -> None:
        """Forget everything but what is in flight."""
        self.requests, self.violations = [], Counter()
        self.most_in_flight = self.in_flight

    def most_in_window(self, seconds: float, path: str = CHAT) -> int:
        """Return the most requests of a path that began within any window of so many seconds."""
        return most_in_window([each.began for each in self.requests if each.path == path], seconds)

    def stats(self) -> dict[str, Any]:
        """Return counts."""
        ended = [each for each in self.requests if each.ended is not None]
        return {
            "requests": len(self.requests),
            "by_path": Counter(each.path for each in self.requests),
            "by_status": Counter(str(each.status) for each in ended),
            "by_misbehaviour": Counter(each.misbehaviour for each in self.requests if each.misbehaviour),
            "violations": self.violations,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
        }
