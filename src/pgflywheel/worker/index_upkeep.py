"""Indexes of vectors: built, rebuilt and dropped beside readers and writers, which no transaction can do.

What is to be done, flywheel._index_work() says; docs/explanation/index-upkeep.md says when it pays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass

from pgflywheel.db import embedders
from pgflywheel.db.connect import Database
from pgflywheel.db.embedders import IndexWork
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
LOOK_SECONDS = 120.0
_NOT_OWNER = "42501"


async def keep_indexes(database: Database) -> list[IndexWork]:
    """Do what is to be done to the indexes now, and return it."""
    done = []
    for work in await embedders.index_work(database):
        await embedders.do_index_work(database, work)
        log.info("index upkeep", extra={"action": work.action, "index": work.index_name})
        done.append(work)
    return done


@dataclass
class IndexUpkeep:
    """Look after the indexes every other minute; not all workers at the same moment."""

    site: Site

    async def run(self) -> None:
        """Look until cancelled, or until it turns out that this role may not."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))
            try:
                await keep_indexes(self.site.database)
            except FlywheelError as error:
                if getattr(error.__cause__, "sqlstate", None) == _NOT_OWNER:
                    log.warning("indexes are not kept: this role does not own them", extra={"error": error.message})
                    return
                self.site.doubt("index upkeep", error)
