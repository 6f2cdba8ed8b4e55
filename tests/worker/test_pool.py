"""The process pool leaves no process behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress

import pytest

from pgflywheel.worker.callables import Check
from pgflywheel.worker.pool import Child, Pool

CHECK = Check.of({"target": "output", "callable": "tests.worker.sample_checks:is_short", "parameters": {"limit": 5}})


async def close_in_the_middle(seconds: float) -> list[int | None]:
    """Begin to warm a pool, give up after some seconds, and return how its processes ended."""
    pool = Pool(size=2)
    warming = asyncio.create_task(pool.warm([CHECK]))
    await asyncio.sleep(seconds)
    warming.cancel()
    with suppress(asyncio.CancelledError):
        await warming
    started = list(pool.started)
    await pool.close()
    return [child.process.returncode for child in started]


@pytest.mark.parametrize("seconds", [0, 0.05, 0.2, 1.0])
def test_a_pool_closed_while_it_starts_ends_every_process(seconds: float) -> None:
    ended = asyncio.run(close_in_the_middle(seconds))
    assert None not in ended


def test_a_closed_pool_ends_a_process_nobody_gave_back() -> None:
    async def lose_one() -> int | None:
        pool = Pool(size=1)
        await pool.warm([CHECK])
        child = pool.idle.pop()
        await pool.close()
        return child.process.returncode

    assert asyncio.run(lose_one()) is not None


async def _stop_ended(times: int) -> list[int | None]:
    """Stop processes at the moment they end by themselves; return what is known of their ends."""
    codes = []
    for _ in range(times):
        child = await Child.start()
        os.kill(child.process.pid, signal.SIGTERM)
        time.sleep(0.001)  # the thread that waits for the end may not have run yet
        await child.stop()
        codes.append(child.process.returncode)
    return codes


def test_how_a_process_ended_is_known_though_it_is_stopped_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    assert set(asyncio.run(_stop_ended(30))) <= {-signal.SIGTERM, -signal.SIGKILL}
    assert caplog.messages == []
