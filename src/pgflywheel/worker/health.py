"""/metrics and /health over HTTP, on this machine only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

ADDRESS = "127.0.0.1"
READ_SECONDS = 5.0
Answer = tuple[int, str, bytes]
_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Pages:
    """What the two paths say."""

    metrics: Callable[[], bytes]
    health: Callable[[], dict[str, object]]

    def answer(self, path: str) -> Answer:
        """Return status, content type and body of a path."""
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics()
        if path == "/health":
            state = self.health()
            return (200 if state["healthy"] else 503), "application/json", json.dumps(state).encode()
        return 404, "text/plain; charset=utf-8", b"/metrics or /health\n"


@asynccontextmanager
async def serving(pages: Pages, port: int | None) -> AsyncIterator[None]:
    """Serve the pages; no port, no server."""
    if port is None:
        yield
        return

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(READ_SECONDS):
                await _respond(pages, reader, writer)
                writer.close()
                await writer.wait_closed()
        writer.transport.abort()  # whoever does not read keeps no worker from its end

    async with await asyncio.start_server(handle, ADDRESS, port):
        yield


async def _respond(pages: Pages, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = (await reader.readline()).decode("latin-1").split()
    while (await reader.readline()).strip():
        pass
    status, content_type, body = pages.answer(line[1].partition("?")[0] if len(line) > 1 else "")
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
    await writer.drain()
