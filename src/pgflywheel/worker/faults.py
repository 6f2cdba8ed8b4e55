"""Whose fault an error is: the check's, or the world's around it."""

from __future__ import annotations

import logging
from uuid import UUID

from pgflywheel.db import queue
from pgflywheel.db.queue import Version
from pgflywheel.errors import FlywheelError, SchemaMismatch, Unreachable
from pgflywheel.worker.refusals import Fault
from pgflywheel.worker.site import Site

log = logging.getLogger(__name__)
_PASSING = ("40001", "40P01", "55P03", "25006", "25P03", "53000", "53100", "53300", "53400", "58000", "58030")
_MISSING = ("42883", "3F000")
_WRONG_TYPE = ("42804", "42846")


def fault_of(error: FlywheelError) -> Fault | None:
    """Return the check's fault behind an error of the database; None when no check is to blame."""
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    if isinstance(error, Unreachable) or sqlstate in _PASSING:
        return None
    if isinstance(error, SchemaMismatch) and sqlstate not in _MISSING:
        return None
    return Fault(_reason(sqlstate, error.message), error.message)


def hopeless(error: FlywheelError) -> bool:
    """Tell whether going on is of no use: the schema is not the right one, or this role may not work."""
    return isinstance(error, SchemaMismatch) or getattr(error.__cause__, "sqlstate", None) == "42501"


def _reason(sqlstate: str | None, message: str) -> str:
    if sqlstate == "57014":
        return "timed_out"
    if sqlstate in ("53200", "54000") or "memory alloc request" in message:
        return "out_of_memory"
    if sqlstate in _MISSING:
        return "missing_callable"
    return "wrong_type" if sqlstate in _WRONG_TYPE else "raised"


async def blame(site: Site, version: Version, fault: Fault, *, spans: int, span: UUID | None, job: UUID) -> bool:
    """Log and count a fault; tell whether the version is paused by it."""
    site.metrics.faults.labels(version.validator, fault.reason).inc(spans)
    log.warning(
        "a check failed",
        extra={
            "validator": version.validator,
            "version": version.version,
            "reason": fault.reason,
            "detail": fault.detail,
            "spans": spans,
            "span": span and str(span),
            "job": str(job),
        },
    )
    paused = await queue.record_fault(site.database, version.version_id, fault.reason, fault.detail, spans)
    if paused:
        site.versions.forget()
        log.error("the validator is paused", extra={"validator": version.validator, "version": version.version})
    return paused
