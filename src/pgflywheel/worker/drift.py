"""The weekly classifier: are the inputs of the last week told from those of the four weeks before, and by which?

It needs scikit-learn (extra ``analysis``). A worker without it leaves the work to one that has it, and says so once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pgflywheel.db import drift
from pgflywheel.db.connect import Database
from pgflywheel.db.drift import DueDomain, Vector
from pgflywheel.worker.site import Site

if TYPE_CHECKING:
    from pgflywheel.analysis.domain import Domain

log = logging.getLogger(__name__)
LOOK_SECONDS = 1800.0
TURN_SECONDS = 900.0
MOST_VECTORS = 1000
MISSING = "scikit-learn is not installed where workers run: pip install 'pgflywheel[analysis]'"


def installed() -> bool:
    """Tell whether vectors can be compared here."""
    return find_spec("sklearn") is not None


@cache
def say_missing() -> None:
    """Say in the log, once, that weeks are to be compared and cannot be."""
    log.warning("weeks are not compared", extra={"problem": MISSING})


async def compare_weeks(database: Database) -> int:
    """Compare what is due and not in another worker's hands; return how many were compared."""
    compared = 0
    for due in await drift.due_domains(database):
        if not installed():
            say_missing()
            await drift.note_domain(database, None, None, None, None, {"note": MISSING})
            return compared
        if await drift.take_turn(database, f"domain {due.project!r} {due.node!r}", TURN_SECONDS):
            await _compare_week(database, due)
            compared += 1
    return compared


async def _compare_week(database: Database, due: DueDomain) -> None:
    vectors = await drift.domain_sample(database, due, MOST_VECTORS)
    reference = [each.embedding for each in vectors if not each.current]
    current = [each for each in vectors if each.current]
    if min(len(reference), len(current)) < 30:  # vectors were purged since they were counted
        return
    found = await asyncio.to_thread(_compared, reference, [each.embedding for each in current])
    await drift.note_domain(database, due, found.auc, max(found.chance, 0.55), found.drifted, _evidence(found, current))


def _compared(reference: list[list[float]], current: list[list[float]]) -> Domain:
    from pgflywheel.analysis.domain import compare

    return compare(reference, current)


def _evidence(found: Domain, current: list[Vector]) -> dict[str, Any]:
    return {
        "chance": round(found.chance, 4),
        "mmd": found.mmd,
        "mmd_p": found.mmd_p,
        "spans": [str(current[place].span_id) for place in found.telling],
    }


@dataclass
class DomainTests:
    """Look for what is due twice an hour; not all workers at the same moment."""

    site: Site

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))
            with self.site.going_on("domain tests"):
                await compare_weeks(self.site.database)
