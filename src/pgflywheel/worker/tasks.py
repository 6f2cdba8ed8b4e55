"""Tasks: run some together, and see them end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

AGAIN_SECONDS = 1.0
Got = TypeVar("Got")


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all of them have ended, whatever they end with.

    Once is not enough: Python 3.11's wait_for(), with which a pool waits for a connection, forgets a cancellation that
    comes at the same moment as what it waits for (bpo-37658).
    """
    given = list(tasks)
    while pending := [task for task in given if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_SECONDS)
    for task in given:
        if not task.cancelled():
            task.exception()  # looked at: asyncio complains of errors that nobody did look at


async def together(work: Iterable[Awaitable[Got]]) -> list[Got]:
    """Return all results in order; the first error ends the rest."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await ended(tasks)
