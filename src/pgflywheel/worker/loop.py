"""The worker: lanes in front, heartbeat, doorbell and maintenance behind them.

starting ──schema is right──> running ──SIGTERM, or idle with until_idle──> draining ──in hand is done──> left
                                 └── lease over ──> running under a new id      └──grace over──> left
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from time import monotonic, time
from typing import Any

from pgflywheel.db import queue
from pgflywheel.db.connect import open_database, open_pool
from pgflywheel.db.version import require_current
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.alerts import Deliveries
from pgflywheel.worker.asks import Kind
from pgflywheel.worker.batch_endpoint import BatchLane, Desk
from pgflywheel.worker.batch_polls import Polls
from pgflywheel.worker.buffer import AnswerBuffer, Buffer
from pgflywheel.worker.bulk import Bulk
from pgflywheel.worker.callable_calls import CallableCalls
from pgflywheel.worker.callables import Check
from pgflywheel.worker.clusters import Clusters
from pgflywheel.worker.drift import DomainTests
from pgflywheel.worker.embed import Embed
from pgflywheel.worker.faults import hopeless
from pgflywheel.worker.health import Pages, serving
from pgflywheel.worker.index_upkeep import IndexUpkeep
from pgflywheel.worker.judge import Judge
from pgflywheel.worker.judgements import Judgements
from pgflywheel.worker.lane import Lane, Work
from pgflywheel.worker.ledger import Ledger
from pgflywheel.worker.listen import Doorbell
from pgflywheel.worker.maintenance import Maintenance
from pgflywheel.worker.sentinels import Sentinels
from pgflywheel.worker.site import Options, Site
from pgflywheel.worker.tasks import ended

log = logging.getLogger(__name__)
MAX_CONNECTIONS = 4  # and one that listens, and the heartbeat's: work that takes all of them must not end the lease
IDLE_LOOK_SECONDS = 0.1
DOUBT_BEAT_SECONDS = 1.5


async def run_worker(dsn: str, schema: str, options: Options) -> None:
    """Run one worker until it is stopped, or idle where the options say so."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where an operator's checks are looked for last, as in the pool's processes
    async with (
        open_database(dsn, schema, max_connections=MAX_CONNECTIONS, application_name="pgflywheel worker") as db,
        open_pool(dsn, schema, 1, "pgflywheel heartbeat") as beats,
    ):
        await require_current(db)
        worker = Worker(Site.of(db, options, beats), dsn)
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not everywhere, and in the main thread only
            loop.add_signal_handler(signal.SIGTERM, worker.stop)
            loop.add_signal_handler(signal.SIGINT, worker.interrupt)
        await worker.run()
        if worker.interrupted:
            raise KeyboardInterrupt


class Worker:
    """Own every task of one worker."""

    def __init__(self, site: Site, dsn: str) -> None:
        self.site = site
        self.wakes = {name: asyncio.Event() for name in site.options.lanes}
        self.bell = Doorbell(dsn, site.database, self.wakes)
        self.answers, self.ledger = AnswerBuffer(site), Ledger(site)
        self.desk = Desk(site, site.endpoints)
        self.buffers: list[Buffer[Any]] = [self.answers, self.ledger]
        self.lanes = [self._lane(name) for name in site.options.lanes]
        self.interrupted = False
        self.hurry = asyncio.Event()

    def _lane(self, name: str) -> Lane:
        wake = self.wakes[name]
        return Lane(name, self.site, self.bell, wake, self._work(name, wake))

    def _work(self, name: str, wake: asyncio.Event) -> Work:
        if name == "bulk":
            return Bulk(self.site, wake.set)
        if name == "batch":
            reader = Judgements(self.site, asyncio.Semaphore(), self.ledger)
            return BatchLane(self.desk, wake.set, reader)
        return Embed(self.site, wake.set) if name == "embed" else self._judge(wake)

    def _judge(self, wake: asyncio.Event) -> Judge:
        hands = asyncio.Semaphore(self.site.options.concurrency)
        kinds: dict[str, Kind] = {
            "python": CallableCalls(self.site, hands, self.answers),
            "judge": Judgements(self.site, hands, self.ledger),
        }
        return Judge(self.site, wake.set, kinds, self.answers, self.buffers)

    def stop(self) -> None:
        """Claim nothing more, finish what is in hand, and leave."""
        if not self.site.stopping.is_set():
            log.info("stopping", extra={"in_hand": len(self.site.in_hand)})
        self.site.stopping.set()
        self.bell.ring()

    def interrupt(self) -> None:
        """Stop; at the second time, do not wait for what is in hand."""
        if self.interrupted:
            self.hurry.set()
        self.interrupted = True
        self.stop()

    async def run(self) -> None:
        """Run until stopped."""
        await self.site.lease.held()
        log.info(
            "started", extra={"worker": str(self.site.lease.worker_id), "lanes": ",".join(self.site.options.lanes)}
        )
        pages = Pages(self.site.metrics.text, self.health)
        try:
            async with serving(pages, self.site.options.metrics_port), asyncio.TaskGroup() as group:
                behind = [group.create_task(work) for work in self._behind()]
                try:
                    await self._in_front()
                finally:
                    await ended(behind)
        finally:
            await self._leave()

    def _behind(self) -> list[Coroutine[Any, Any, None]]:
        work = [self.bell.run(), self._beat(), Maintenance(self.site).run(), self._warm()]
        work += [Deliveries(self.site).run()]
        work += [IndexUpkeep(self.site).run(), DomainTests(self.site).run()] if "embed" in self.wakes else []
        work += [Clusters(self.site).run()] if "embed" in self.wakes else []
        work += [Sentinels(self.site).run()] if "judge" in self.wakes else []
        work += [Polls(self.desk).run()] if "batch" in self.wakes else []
        return [*work, self._stop_when_idle()] if self.site.options.until_idle else work

    async def _warm(self) -> None:
        """Have the processes ready before the first job, where checks will want them."""
        if "bulk" in self.wakes:
            with self.site.going_on("warming up"):
                definitions = await queue.process_definitions(self.site.database)
                await self.site.pool.warm([Check.of(definition) for definition in definitions])

    async def _in_front(self) -> None:
        """Run the lanes to their end, then write what is buffered; both only as long as the grace period."""
        writing = [asyncio.create_task(buffer.run()) for buffer in self.buffers]
        lanes = [asyncio.create_task(lane.run()) for lane in self.lanes]
        stopping = asyncio.create_task(self.site.stopping.wait())
        try:
            await asyncio.wait([stopping, *writing, *lanes], return_when=asyncio.FIRST_COMPLETED)
            self.stop()
            ends = monotonic() + self.site.options.grace_seconds
            await self._end(lanes, ends)
            for buffer in self.buffers:
                buffer.close()
            await self._end(writing, ends)
        finally:
            await ended([stopping, *writing, *lanes])

    async def _end(self, tasks: list[asyncio.Task[None]], ends: float) -> None:
        """Wait for tasks until then, or until there is a hurry; raise what one raised."""
        hurry = asyncio.create_task(self.hurry.wait())
        pending = {*tasks}
        try:
            while pending and not hurry.done() and (left := ends - monotonic()) > 0:
                done, _ = await asyncio.wait([hurry, *pending], timeout=left, return_when=asyncio.FIRST_COMPLETED)
                pending -= done
        finally:
            hurry.cancel()
        if pending:
            log.warning("not waiting any longer; what is in hand is given back")
        for task in tasks:
            if task.done():
                task.result()

    async def _leave(self) -> None:
        with self.site.going_on("closing"):
            await self.site.pool.close()
            await self.site.endpoints.close()
        try:
            await self.site.lease.leave()
        except FlywheelError as error:
            log.warning("could not sign off; the lease ends by itself", extra={"error": error.message})

    async def _beat(self) -> None:
        """Renew the lease; after an error look for strays, too."""
        site = self.site
        while True:
            site.lease.listening = self.bell.listening
            try:
                await site.lease.renew(len(site.in_hand))
                site.metrics.last_heartbeat.set(time())
                if site.doubtful:
                    await self._give_back_strays()
            except FlywheelError as error:
                site.doubt("heartbeat", error)
            await self._until_beat()

    async def _until_beat(self) -> None:
        """Wait a third of the lease; less in doubt, or when listening changed."""
        due = monotonic() + self.site.lease.seconds / 3
        while monotonic() < due and self.site.lease.listening == self.bell.listening:
            await asyncio.sleep(min(DOUBT_BEAT_SECONDS, max(0.01, due - monotonic())))
            if self.site.doubtful:
                return

    async def _give_back_strays(self) -> None:
        site = self.site
        given = await queue.give_back_strays(site.lease.database, site.lease.worker_id, site.in_hand)
        if given:
            log.info("gave back stray jobs", extra={"jobs": given})

    async def _stop_when_idle(self) -> None:
        while not self.site.stopping.is_set():
            await asyncio.sleep(IDLE_LOOK_SECONDS)
            try:
                if not self.site.in_hand and await self._is_idle():
                    self.stop()
            except FlywheelError as error:
                if hopeless(error):
                    raise
                self.site.doubt("looking for work", error)

    async def _is_idle(self) -> bool:
        """Tell whether nothing is left; vectors that wait to be queued, and a switch to them, are looked for first."""
        database, lanes = self.site.database, self.site.options.lanes
        if not await queue.is_idle(database, lanes):
            return False
        return "embed" not in lanes or await queue.do_chore(database, "flywheel._queue_embeddings()") == 0

    def health(self) -> dict[str, object]:
        """Return what /health says."""
        lease = self.site.lease
        return {
            "healthy": lease.entered and not lease.over,
            "worker": str(lease.worker_id),
            "name": lease.name,
            "listening": self.bell.listening,
            "in_hand": len(self.site.in_hand),
            "stopping": self.site.stopping.is_set(),
            "lease_seconds_left": round(max(0.0, lease.ends - monotonic()), 1),
        }
