"""What validator versions say, remembered for a second at most."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

from pgflywheel.db import queue
from pgflywheel.db.connect import Database
from pgflywheel.db.queue import Version
from pgflywheel.worker.callables import Check

FRESH_SECONDS = 1.0


@dataclass
class Versions:
    """A small cache: a version's text never changes, its status does."""

    database: Database
    known: dict[UUID, Version] = field(default_factory=dict)
    checks: dict[UUID, Check] = field(default_factory=dict)
    read_at: float = float("-inf")
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def of(self, version_ids: Iterable[UUID]) -> list[Version]:
        """Return the versions in order of their ids, leaving out any that were deleted."""
        wanted = set(version_ids)
        if monotonic() - self.read_at > FRESH_SECONDS:
            self.forget()
            self.read_at = monotonic()
        known = self.known  # what is forgotten while we wait for some stays known to us
        if wanted - known.keys():
            async with self.reading:  # who finds them missing at the same moment, waits for one answer
                if missing := wanted - known.keys():
                    known.update({found.version_id: found for found in await queue.versions(self.database, missing)})
        return [known[version_id] for version_id in sorted(wanted) if version_id in known]

    def check(self, version: Version) -> Check:
        """Return the Python check of a version."""
        if version.version_id not in self.checks:
            self.checks[version.version_id] = Check.of(version.definition)
        return self.checks[version.version_id]

    def forget(self) -> None:
        """Ask again at the next use: a status has changed."""
        self.known = {}
