"""A headless Chromium over its debugging pipe: what a page is once it is open, and what it asked the network for."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--force-color-profile=srgb",
    "--window-size=1200,900",
    "--remote-debugging-pipe",
)


@dataclass
class Tab:
    """One page of a running browser."""

    asks: BinaryIO
    answers: BinaryIO
    session: str | None = None
    last: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are kept."""
        self.last += 1
        message: dict[str, Any] = {"id": self.last, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        self.asks.write(json.dumps(message).encode() + b"\0")
        self.asks.flush()
        while (answer := self._read()).get("id") != self.last:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str) -> None:
        """Open an address and wait until everything in it is loaded."""
        self.session = self.call("Target.attachToTarget", targetId=self._new(), flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def requested(self) -> list[str]:
        """Return every address the page asked for, itself first."""
        sent = [each["params"] for each in self.events if each.get("method") == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def screenshot(self) -> bytes:
        """Return a picture of what is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _new(self) -> str:
        made: str = self.call("Target.createTarget", url="about:blank")["targetId"]
        return made

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser has gone"
            text += byte
        message: dict[str, Any] = json.loads(text)
        return message


def program() -> str:
    """Return the browser that is installed here."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("chromium is not installed (Debian: apt install chromium)")
    return found


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Run a browser of its own, which keeps what it keeps in a folder."""
    asks_there, asks_here = os.pipe()
    answers_here, answers_there = os.pipe()
    pipes = f'exec "$@" 3<&{asks_there} 4>&{answers_there}'  # it reads from 3 and writes to 4
    command = ["bash", "-c", pipes, "bash", program(), *FLAGS]
    command.append(f"--user-data-dir={folder}")
    kept = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "HOME": str(folder)}}
    with subprocess.Popen(command, pass_fds=(asks_there, answers_there), **kept) as running:  # type: ignore[call-overload]
        os.close(asks_there)
        os.close(answers_there)
        with open(asks_here, "wb") as asks, open(answers_here, "rb") as answers:
            tab = Tab(asks, answers)
            try:
                yield tab
            finally:
                tab.session = None
                tab.call("Browser.close")
        running.wait(30)
