"""Maintenance: done by whichever worker gets a lock, so that nobody needs a scheduler.

The lock is one of a transaction, which works behind a transaction pooler, too. A chore that fails is logged and
tried again at its next turn; it never ends the worker.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from time import monotonic

from pgflywheel.db import queue
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
TICK_SECONDS = 1.0
HOT_TABLES = (
    *("_ready", "_running", "_later", "_workers", "_reservations", "_provider_states", "_budget_periods"),
    *("_score_changes", "_early_scores", "_span_changes", "_span_deltas", "_label_changes", "_fold_state"),
)


@dataclass
class Chore:
    """A function to call every so many seconds."""

    name: str
    call: str
    seconds: float
    done_at: float = float("-inf")

    @property
    def due(self) -> bool:
        return monotonic() - self.done_at >= self.seconds


def chores(lease_seconds: float) -> list[Chore]:
    """Return what is to be done, the urgent first; each returns how much it touched."""
    return [
        Chore("promote", "flywheel._promote_later()", TICK_SECONDS),
        Chore("reap", "flywheel._reap()", min(lease_seconds / 3, 10)),
        Chore("fold", "flywheel._fold()", TICK_SECONDS),
        Chore("rebuild", "flywheel._rebuild_asked()", TICK_SECONDS),
        Chore("metrics", "flywheel._refresh_metrics()", TICK_SECONDS),
        Chore("calls", "flywheel._settle_lost()", 10),
        Chore("embeddings", "flywheel._queue_embeddings()", 5),
        Chore("examples", "flywheel._advance_examples()", 5),
        Chore("clusters", "flywheel._assign_clusters()", 5),
        Chore("alerts", "flywheel._evaluate_alerts()", 15),
        Chore("standings", "flywheel._refresh_standings()", 60),
        Chore("labels", "flywheel._release_labels()", 60),
        Chore("partitions", "flywheel._maintain_partitions()", 60),
        Chore("reconcile", "flywheel._reconcile_recent()", 60),
        Chore("drift", "flywheel._advance_drift()", 60),
        Chore("windows", "flywheel._test_drift()", 1800),
        Chore("novelty", "flywheel._refresh_novelty()", 300),
    ]


@dataclass
class Maintenance:
    """Do the chores while this worker has the lock."""

    site: Site
    chores: list[Chore] = field(default_factory=list)
    vacuum: Chore = field(default_factory=lambda: Chore("vacuum", "", 30, monotonic()))

    def __post_init__(self) -> None:
        self.chores = self.chores or chores(self.site.lease.seconds)

    async def run(self) -> None:
        """Do the chores until cancelled."""
        while True:
            for chore in self.chores:
                if chore.due:
                    await self._safely(chore)
            if self.vacuum.due:
                await self._vacuum()
            await asyncio.sleep(TICK_SECONDS)

    async def _safely(self, chore: Chore) -> None:
        try:
            await self._do(chore)
        except FlywheelError as error:
            self.site.doubt(chore.name, error)
            chore.done_at = monotonic()

    async def _do(self, chore: Chore) -> None:
        """Do one chore, unless another worker is at it."""
        touched = await queue.do_chore(self.site.database, chore.call)
        if touched is None:
            return
        chore.done_at = monotonic()
        if touched:
            log.info("maintenance", extra={"chore": chore.name, "touched": touched})

    async def _vacuum(self) -> None:
        """Keep the queue's tables small; autovacuum comes once a minute at most."""
        self.vacuum.done_at = monotonic()
        try:
            for table in HOT_TABLES:
                await self.site.database.execute(f"vacuum (skip_locked, truncate off) flywheel.{table}")
        except FlywheelError as error:
            self.site.doubt("vacuum", error)
