"""The end of a worker's process, which nothing that does not let itself be stopped keeps from ending.

A thread cannot be stopped, and a coroutine may catch its own cancellation; asyncio.run() would wait for both.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

log = logging.getLogger(__name__)
LEAVE_SECONDS = 2.0
INTERRUPTED = 130
_THREADS = "pgflywheel worker thread"


async def and_leave(work: Callable[[], Awaitable[None]]) -> None:
    """Wait for the work of this process, then end the process with what it left running, if that does not end."""
    threads = ThreadPoolExecutor(thread_name_prefix=_THREADS)
    asyncio.get_running_loop().set_default_executor(threads)
    interrupt: KeyboardInterrupt | None = None
    try:
        await work()
    except KeyboardInterrupt as error:
        interrupt = error
    threads.shutdown(wait=False, cancel_futures=True)
    if await _stays():
        log.warning("something does not end; it ends with the process")
        logging.shutdown()
        os._exit(INTERRUPTED if interrupt else 0)
    if interrupt:
        raise interrupt


async def _stays() -> bool:
    """Tell whether a task or thread is still there after it had time to end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    ends = monotonic() + LEAVE_SECONDS
    while busy := not all(task.done() for task in tasks) or _working():
        if monotonic() >= ends:
            break
        await asyncio.sleep(0.02)
    return busy


def _working() -> bool:
    return any(thread.name.startswith(_THREADS) for thread in threading.enumerate())
