"""The fake as a process of its own, steered and read over HTTP: same names as in a thread."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.books import CHAT, most_in_window

ROOT = Path(__file__).parents[2]


class Remote:
    """A fake in another process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.desk = url.removesuffix("/v1") + "/_fake/"

    def set(self, **changes: Any) -> None:
        """Change settings of Behaviour by name; only those JSON can say."""
        self.post("plan", changes)

    def limits(self, **limits: Any) -> None:
        """Set limits (fields of Limits) and begin to count violations of them."""
        self.post("plan", {"limits": limits})

    def reset(self) -> None:
        """Behave as at first and forget all requests."""
        self.post("reset", {})

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Return every request since the last reset, as Request.as_json gives it."""
        requests: list[dict[str, Any]] = self.get("requests")
        return requests

    @property
    def most_in_flight(self) -> int:
        """Return how many calls were in flight at once, at most."""
        return int(self.stats()["most_in_flight"])

    @property
    def violations(self) -> dict[str, int]:
        """Return how many requests were beyond each limit."""
        return dict(self.stats()["violations"])

    def most_in_window(self, seconds: float, path: str = CHAT) -> int:
        """Return the most requests that began within any window of so many seconds."""
        return most_in_window([each["began"] for each in self.requests if each["path"] == path], seconds)

    def stats(self) -> dict[str, Any]:
        """Return counts by path, status and misbehaviour."""
        stats: dict[str, Any] = self.get("stats")
        return stats

    def get(self, page: str) -> Any:
        """Read a page of the fake."""
        with urllib.request.urlopen(self.desk + page, timeout=60) as reply:
            return json.load(reply)

    def post(self, page: str, told: dict[str, Any]) -> None:
        """Tell the fake something."""
        request = urllib.request.Request(self.desk + page, json.dumps(told, default=str).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60):
                pass
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None


@contextmanager
def running(*options: str, **plan: Any) -> Iterator[Remote]:
    """Run the fake as a process; options are those of the command line, plan is settings and limits."""
    command = [sys.executable, "-m", "tests.fakes.openai", "--plan", json.dumps(plan, default=str), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the fake did not start"
            yield Remote(url)
        finally:
            process.terminate()
