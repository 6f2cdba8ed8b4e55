"""Python checks for the tests of faults: one that is slow, and those nobody should write."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import time
from typing import Any

from pgflywheel.records import Verdict


def slowish(text: str) -> bool:
    time.sleep(0.0005)
    return len(text) % 3 > 0


def fine(text: str) -> Verdict:
    return Verdict(len(text) % 2 > 0, 0.5, "read")


async def call(text: str) -> bool:
    await asyncio.sleep(0.05)
    return len(text) % 5 > 0


def raises(text: str) -> bool:
    raise ValueError(f"no \x00 word on \ud800 {text}")


def divides(text: str) -> bool:
    return 1 / (len(text) - len(text)) > 0


def sleeps(text: str) -> bool:
    time.sleep(600)
    return True


def spins(text: str) -> bool:
    """Hold the interpreter for hours in C, where no alarm is heard."""
    return re.match(r"(a|aa)+$", "a" * 64 + "!") is None


def returns_text(text: str) -> Any:
    return "yes"


def returns_a_wrong_value(text: str) -> Verdict:
    return Verdict(True, float("nan"))


def eats_memory(text: str) -> bool:
    hoard = [bytearray(2**20) for _ in range(2**14)]
    return len(hoard) > 0


def exits(text: str) -> bool:
    raise SystemExit(1)


def kills_itself(text: str) -> bool:
    os._exit(3)


def crashes(text: str) -> bool:
    return bool(ctypes.string_at(0))


def says_nothing(text: str) -> None:
    return None


def speaks_of_everything(text: str) -> Verdict:
    """Return what Postgres cannot store, and a great deal of it."""
    return Verdict(False, 0.0, "\x00\ud800\udfff" + text[:1_000_000])


def counts_characters(text: str) -> Verdict:
    return Verdict(True, None, str(len(text)))


async def call_raises(text: str) -> bool:
    raise ValueError("not today")


async def call_sleeps(text: str) -> bool:
    await asyncio.sleep(600)
    return True


async def call_returns_text(text: str) -> Any:
    return "yes"
