"""Claim rate while another transaction stays open for 60 s, against before it; a plain SKIP LOCKED queue beside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID, uuid4

from pgflywheel.db import queue
from pgflywheel.db.connect import Database, open_database
from pgflywheel.records import LIVE
from pgflywheel.worker.floors import Floor
from tests.bench.figures import Options, Result, interleaved, medians
from tests.bench.server import connected, installed_database

BAR = 0.8
BEFORE_SECONDS, HELD_SECONDS = 10.0, 60.0
JOBS_PER_CLAIM, STOCK = 10, 2_000
STOCK_JOBS = """
insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until)
select 'bulk', 1, flywheel.new_id(), '{}', array[flywheel.new_id()], now(), now() from generate_series(1, %s)
"""
PLAIN_TABLE = "create table public.plain (job_id bigint generated always as identity primary key, body text)"
STOCK_PLAIN = "insert into public.plain (body) select 'a span' from generate_series(1, %s)"
CLAIM_PLAIN = """
delete from public.plain where job_id = any (array(
  select job_id from public.plain order by job_id limit %s for update skip locked))
"""
Claim = Callable[[], Awaitable[int]]


def measure(options: Options) -> Result:
    """Return the rate of claims during the open transaction over the rate before."""
    sides = {
        "pgflywheel": lambda: asyncio.run(_ratio(options, plain=False)),
        "plain_skip_locked": lambda: asyncio.run(_ratio(options, plain=True)),
    }
    figures = interleaved(options.runs, sides)
    middle = medians(figures)
    ratio = middle["pgflywheel"]
    return Result(
        "held_xmin",
        ratio,
        f">= {BAR} of the rate before",
        ratio >= BAR,
        {"held_seconds": HELD_SECONDS * options.scale, "rate_during_over_before": figures},
        middle,
        [f"one claimer, {JOBS_PER_CLAIM} jobs a claim, each claimed and finished; the time to stock is not counted"],
    )


async def _ratio(options: Options, *, plain: bool) -> float:
    with installed_database(options.server_dsn) as dsn:
        async with open_database(dsn) as db:
            if plain:
                await db.execute(PLAIN_TABLE)
            work = partial(_claims_per_second, db, STOCK_PLAIN if plain else STOCK_JOBS)
            claim = partial(_claim_plain, db) if plain else Claimer(db).claim
            await work(claim, 1.0)
            before = await work(claim, BEFORE_SECONDS * options.scale)
            with connected(dsn) as session, session.transaction():
                session.execute("select count(*) from flywheel.settings, txid_current()")
                return await work(claim, HELD_SECONDS * options.scale) / before


class Claimer:
    """Claim and finish as a worker does, remembering where it was."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.floor = Floor()
        self.worker_id: UUID = uuid4()

    async def claim(self) -> int:
        after, began = self.floor.after(), time.monotonic()
        jobs = await queue.claim(self.db, LIVE, self.worker_id, JOBS_PER_CLAIM, after)
        self.floor.saw(jobs, after, time.monotonic() - began)
        await queue.finish(self.db, self.worker_id, [job.fence for job in jobs])
        return len(jobs)


async def _claim_plain(db: Database) -> int:
    return await db.execute(CLAIM_PLAIN, [JOBS_PER_CLAIM])


async def _claims_per_second(db: Database, stock: str, claim: Claim, seconds: float) -> float:
    """Claim for so long from a queue that never runs dry; return jobs a second of claiming."""
    ends = time.perf_counter() + seconds
    claimed, spent, left = 0, 0.0, 0
    while time.perf_counter() < ends:
        if left < JOBS_PER_CLAIM:
            left += await db.execute(stock, [STOCK])
        began = time.perf_counter()
        found = await claim()
        spent += time.perf_counter() - began
        claimed, left = claimed + found, left - found
    return claimed / spent
