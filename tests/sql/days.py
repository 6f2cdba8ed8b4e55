"""Days as they are while a test runs: a run may begin on one day and end on the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def today() -> datetime:
    """Return the beginning of the UTC day."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def noon() -> datetime:
    """Return noon of yesterday, a day that is over."""
    return today() - timedelta(hours=12)
