"""Spans of the judge lane on their way to a verdict."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from pgflywheel.db.queue import Version
from pgflywheel.records import Claimed
from pgflywheel.worker.batch import Batch
from pgflywheel.worker.refusals import Fault
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """One span that waits for a free hand; ``calls`` is how many hands it takes."""

    worker_id: UUID
    job: Claimed
    version: Version
    span_id: UUID
    subject: Any
    calls: int = 1


class Kind(Protocol):
    """How versions of one kind judge in this lane."""

    ahead: int
    """How many to start beyond the free hands, because each does something else before it needs one."""

    async def read(self, batch: Batch, version: Version) -> list[Ask]:
        """Read claimed spans; those the version does not mean are left out."""

    async def answer(self, ask: Ask) -> None:
        """Judge a span: buffer its answer, or put it off."""


async def put_off(site: Site, ask: Ask, seconds: float, fault: Fault, *, costs: bool = True) -> None:
    """Let a span be claimed again after a time; what costs no attempt is logged once a minute for all its kind."""
    await site.put_offs.add(ask.worker_id, ask.job.fence, seconds, fault, costs=costs)
    site.metrics.jobs.labels("judge", "retried").inc()
    log.log(
        logging.INFO if costs or site.tell(ask.version.validator, fault.reason) else logging.DEBUG,
        "a call is put off",
        extra={
            "validator": ask.version.validator,
            "span": str(ask.span_id),
            "job": str(ask.job.job_id),
            "seconds": round(seconds, 3),
            "reason": fault.reason,
            "detail": fault.detail,
        },
    )
    site.put_down([ask.job.fence])
