"""Messages of alerts: claimed one of each channel at a time, posted, and tried again for a day.

waiting ──claimed──> posting ── 2xx ──> sent
   └──────<── anything else, or the lease is over ──┘        one id at every attempt
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time

from pgflywheel.db import alerts
from pgflywheel.db.alerts import Delivery
from pgflywheel.worker.site import Site
from pgflywheel.worker.tasks import ended
from pgflywheel.worker.webhook import SIGNATURE, Address, NotSent, post, signature

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
POST_SECONDS = 10.0
LEASE_SECONDS = 30.0


@dataclass
class Deliveries:
    """Deliver what waits, beside the lanes; a channel that hangs keeps no other waiting."""

    site: Site
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    post_seconds: float = POST_SECONDS
    lease_seconds: float = LEASE_SECONDS
    sending: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            while True:
                with self.site.going_on("alert messages"):
                    await self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await ended(self.sending)

    async def look(self) -> int:
        """Begin to send what waits; return how many messages that are."""
        if self.site.stopping.is_set():
            return 0
        claimed = await alerts.claim_deliveries(self.site.database, self.lease_seconds)
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self.sending.add(task)
            task.add_done_callback(self.sending.discard)
        return len(claimed)

    async def _deliver(self, delivery: Delivery) -> None:
        """Send one message and note what came of it; whatever goes wrong, its lease ends."""
        with self.site.going_on("alert messages", channel=delivery.channel):
            problem = await self._problem(delivery)
            if problem:
                log.warning("an alert was not delivered", extra={"channel": delivery.channel, "problem": problem})
            await alerts.settle_delivery(self.site.database, delivery, problem)

    async def _problem(self, delivery: Delivery) -> str | None:
        """Post a message; None when it was taken."""
        try:
            address = Address.of(self._url(delivery), delivery.insecure)
            body = json.dumps(json.loads(delivery.body), ensure_ascii=True, separators=(",", ":")).encode()
            status = await post(address, body, self._headers(delivery, body), self.post_seconds)
        except NotSent as error:
            return str(error)
        if 200 <= status < 300:
            return None
        return f"answered {status}" + (": redirects are not followed" if 300 <= status < 400 else "")

    def _url(self, delivery: Delivery) -> str:
        return delivery.url if delivery.url is not None else self._variable(str(delivery.url_variable))

    def _headers(self, delivery: Delivery, body: bytes) -> dict[str, str]:
        headers = {"Idempotency-Key": str(delivery.delivery_id)}
        if delivery.secret_variable is not None:
            headers[SIGNATURE] = signature(self._variable(delivery.secret_variable), body, int(time()))
        return headers

    def _variable(self, name: str) -> str:
        """Return a variable of this environment; unsigned, or to nowhere, nothing is sent."""
        value = self.environ.get(name)
        if not value:
            raise NotSent(f"environment variable {name} is not set for this worker")
        return value
