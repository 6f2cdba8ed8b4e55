"""Checks the benchmarks' workers run."""

from __future__ import annotations

import asyncio
import os
import time

from pgflywheel.records import Span

LOG = "PGFLYWHEEL_BENCH_LOG"
ID_LENGTH = 36


def nothing(span: Span) -> bool:
    """Pass."""
    return True


async def slow(text: str, seconds: float) -> bool:
    """Pass after a while, as a call of a model does."""
    await asyncio.sleep(seconds)
    return True


def started(text: str) -> bool:
    """Note when the check of a text, which begins with an id, was started."""
    note(text[:ID_LENGTH])
    return True


async def started_call(text: str) -> bool:
    """Note the same as a call of the judge lane."""
    note(text[:ID_LENGTH])
    return True


def note(name: str) -> None:
    """Append a name and the time to the log that the environment names."""
    line = f"{name} {time.time()}\n".encode()
    file = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND)
    os.write(file, line)
    os.close(file)
