"""The pages of a worker, and those who ask for them badly."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from pgflywheel.worker import health
from pgflywheel.worker.health import ADDRESS, Pages, serving
from tests.ports import free_port

PAGE = b"x" * 20_000_000


def test_who_does_not_read_a_page_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    answering: list[asyncio.Task[Any]] = []

    def page() -> bytes:
        task = asyncio.current_task()
        assert task is not None
        answering.append(task)
        return PAGE

    async def look() -> int:
        port, read = free_port(), 0
        async with serving(Pages(page, dict), port), asyncio.timeout(60):
            reader, writer = await asyncio.open_connection(ADDRESS, port, limit=1000)
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            while not (answering and answering[0].done()):
                await asyncio.sleep(0.02)
            with suppress(ConnectionError):
                while part := await reader.read(65536):
                    read += len(part)
            writer.transport.abort()
        return read

    monkeypatch.setattr(health, "READ_SECONDS", 0.2)
    assert asyncio.run(look()) < len(PAGE)
