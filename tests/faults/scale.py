"""How much of each fault: short for every change, in full with PGFLYWHEEL_FAULT_ROUNDS=full."""

from __future__ import annotations

import os

FULL = os.environ.get("PGFLYWHEEL_FAULT_ROUNDS") == "full"
FULL_SECONDS = 1800  # pytest's limit for a test in full


def scaled(short: int, full: int) -> int:
    """Return a count of rounds, or seconds, for this run."""
    return full if FULL else short
