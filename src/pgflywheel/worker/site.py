"""What all parts of one worker share."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

from pgflywheel.db.connect import Database
from pgflywheel.errors import FlywheelError
from pgflywheel.worker.embedders import Embedders
from pgflywheel.worker.endpoints import Endpoints
from pgflywheel.worker.lease import Lease
from pgflywheel.worker.metrics import Metrics
from pgflywheel.worker.pool import Pool
from pgflywheel.worker.put_offs import PutOffs
from pgflywheel.worker.versions import Versions

log = logging.getLogger(__name__)
TELL_SECONDS = 60.0
DOUBT_SECONDS = 7.0  # strays are looked for until any claim still on its way is old enough


def default_name() -> str:
    """Return host:pid."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True)
class Options:
    """How a worker runs; the defaults suit production."""

    lanes: tuple[str, ...] = ("bulk", "judge", "embed", "batch")
    concurrency: int = 16
    until_idle: bool = False
    metrics_port: int | None = None
    name: str = field(default_factory=default_name)
    lease_seconds: float = 30.0
    poll_seconds: float = 1.0
    grace_seconds: float = 30.0
    batch_seconds: float = 30.0
    span_seconds: float = 5.0


@dataclass
class Site:
    """The database, the lease, the caches and counters of one worker, and the wish to stop."""

    database: Database
    options: Options
    lease: Lease
    versions: Versions
    metrics: Metrics
    endpoints: Endpoints
    pool: Pool = field(default_factory=Pool)
    in_hand: set[UUID] = field(default_factory=set)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    doubted_at: float = float("-inf")
    told_at: dict[tuple[str, str], float] = field(default_factory=dict)
    embedders: Embedders = field(init=False)
    put_offs: PutOffs = field(init=False)

    def __post_init__(self) -> None:
        self.embedders = Embedders(self.database, self.endpoints, self.metrics, self.stopping)
        self.put_offs = PutOffs(self.database)

    @property
    def doubtful(self) -> bool:
        """Tell whether the database may hold jobs for this worker that it does not know of."""
        return monotonic() - self.doubted_at < DOUBT_SECONDS

    def doubt(self, part: str, error: FlywheelError | None) -> None:
        """Log an error the worker goes on after, and look for strays for a while."""
        self.doubted_at = monotonic()
        self.metrics.errors.labels(part).inc()
        if error:
            log.warning("%s failed; going on", part, extra={"error": error.message, "detail": error.detail})

    @contextmanager
    def going_on(self, part: str, **about: object) -> Iterator[None]:
        """Log and count what goes wrong in one part of the worker; it ends neither the worker nor another part."""
        try:
            yield
        except FlywheelError as error:
            self.doubt(part, error)
        except Exception:
            log.exception("%s failed in the worker itself; going on", part, extra=about)
            self.doubt(part, None)

    def tell(self, validator: str, reason: str) -> bool:
        """Tell whether to log that spans of a validator wait for a reason: once a minute, not for each span."""
        due = monotonic() - self.told_at.get((validator, reason), float("-inf")) >= TELL_SECONDS
        if due:
            self.told_at[validator, reason] = monotonic()
        return due

    def put_down(self, fences: Iterable[UUID]) -> None:
        """Forget jobs that ended or were left."""
        self.in_hand.difference_update(fences)

    @classmethod
    def of(cls, database: Database, options: Options, beats: Database | None = None) -> Site:
        """Make what a worker needs around a database; the heartbeat has connections of its own where they are given."""
        lease = Lease(beats or database, options.name, options.lanes, options.lease_seconds)
        site = cls(database, options, lease, Versions(database), Metrics(), Endpoints(database))
        site.metrics.in_hand.set_function(lambda: len(site.in_hand))
        site.metrics.listening.set_function(lambda: lease.listening)
        return site
