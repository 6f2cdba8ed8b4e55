"""pgqueuer as a peer, over asyncpg and uvloop: ``python -m tests.bench.peer_pgqueuer MODE DSN [JOBS]``.

MODE is drain (no-op jobs), sleep (slow jobs) or listen (until it is ended).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from tests.bench.checks import ID_LENGTH, note

SLEEP_SECONDS = 0.2
WARM_UP_JOBS = 100
BATCHES = {"drain": 1000, "sleep": 50, "listen": 10}
MOST_TASKS = {"sleep": 100}


async def connection(dsn: str) -> Any:
    """Open asyncpg's connection for a libpq DSN."""
    given = conninfo_to_dict(dsn)
    return await importlib.import_module("asyncpg").connect(
        host=given["host"], user=given["user"], database=given["dbname"]
    )


async def main(mode: str, dsn: str, jobs: int) -> None:
    """Install, then run a worker: until the jobs are done, or (listen) until it is ended."""
    from pgqueuer import Queries
    from pgqueuer.db import AsyncpgDriver

    queries = Queries(AsyncpgDriver(await connection(dsn)))
    await queries.install()
    if mode == "listen":
        await _run(dsn, mode)
        return
    await queries.enqueue([mode] * WARM_UP_JOBS, [b""] * WARM_UP_JOBS, [0] * WARM_UP_JOBS)
    await _run(dsn, mode)
    for start in range(0, jobs, 5000):
        count = min(5000, jobs - start)
        await queries.enqueue([mode] * count, [b""] * count, [0] * count)
    began = time.perf_counter()
    await _run(dsn, mode)
    print(json.dumps({"jobs": jobs, "seconds": time.perf_counter() - began}))


async def _run(dsn: str, mode: str) -> None:
    from pgqueuer import PgQueuer
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.types import QueueExecutionMode

    queue = PgQueuer(AsyncpgDriver(await connection(dsn)))
    queue.entrypoint(mode)(_handler(mode))
    execution = QueueExecutionMode.continuous if mode == "listen" else QueueExecutionMode.drain
    await queue.qm.run(
        dequeue_timeout=timedelta(seconds=30),
        batch_size=BATCHES[mode],
        mode=execution,
        max_concurrent_tasks=MOST_TASKS.get(mode),
    )


def _handler(mode: str) -> Callable[[Any], Awaitable[None]]:
    async def drain(job: Any) -> None:
        pass

    async def sleep(job: Any) -> None:
        await asyncio.sleep(SLEEP_SECONDS)

    async def listen(job: Any) -> None:
        note(job.payload[:ID_LENGTH].decode())

    return {"drain": drain, "sleep": sleep, "listen": listen}[mode]


if __name__ == "__main__":
    importlib.import_module("uvloop").run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
