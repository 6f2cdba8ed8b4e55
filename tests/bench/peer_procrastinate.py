"""procrastinate as a peer: ``python -m tests.bench.peer_procrastinate DSN JOBS`` drains no-op jobs."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

import procrastinate

CONCURRENCY = 50
WARM_UP_JOBS = 100


async def main(dsn: str, jobs: int) -> None:
    """Install, queue the jobs and run a worker until they are done."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, max_size=20))

    @app.task(queue="bench")
    async def nothing() -> None:
        pass

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        seconds = 0.0
        for count in (WARM_UP_JOBS, jobs):
            await nothing.batch_defer_async(*[{}] * count)
            began = time.perf_counter()
            await app.run_worker_async(
                queues=["bench"],
                wait=False,
                concurrency=CONCURRENCY,
                delete_jobs="always",
                install_signal_handlers=False,
            )
            seconds = time.perf_counter() - began
    print(json.dumps({"jobs": jobs, "seconds": seconds}))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
