"""Checks with every fault a check can have; the worker's tests name them."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import sys
import time
from contextlib import suppress
from typing import Any

from pgflywheel.errors import Later
from pgflywheel.records import Span, Verdict

calls: dict[str, int] = {}


def is_short(text: str, limit: int = 5) -> bool:
    return len(text) <= limit


def is_even(text: str) -> bool:
    return int(text) % 2 == 0


def with_everything(text: str) -> Verdict:
    return Verdict(True, 0.25, f"saw \x00 and \ud800 in {text}")


def sees_columns(span: Span) -> Verdict:
    return Verdict(
        span.input is not None and span.output is None, None, f"{span.node} {span.attributes} {span.started_at}"
    )


def sees_nothing(span: Span) -> bool:
    return span.input is None and span.output is None


def raises_on_bad(text: str) -> bool:
    if text == "bad":
        raise ValueError("no \x00 good " + "x" * 1000)
    return True


def exits_on_bad(text: str) -> bool:
    if text == "bad":
        raise SystemExit(3)
    return True


def sleeps_on_bad(text: str) -> bool:
    if text == "bad":
        time.sleep(60)
    return True


def hangs_in_c_on_bad(text: str) -> bool:
    if text == "bad":
        ctypes.PyDLL(None).sleep(60)  # holds the interpreter: no Python signal handler runs
    return True


def dies_on_bad(text: str) -> bool:
    if text == "bad":
        os._exit(9)
    return True


def eats_memory_on_bad(text: str) -> bool:
    return len(bytearray(2**31)) > 0 if text == "bad" else True


def prints(text: str) -> bool:
    print("a check may print", text)
    return True


_WRONG: dict[str, Any] = {
    "text": "yes",
    "number": 1,
    "nan": Verdict(True, math.nan),
    "large": Verdict(True, 2),
    "none in verdict": Verdict(None),  # type: ignore[arg-type]
    "none": None,
    "coroutine": asyncio.sleep,
}


def gives_wrong_type(text: str) -> Any:
    return _WRONG[text]


async def says_true(text: str) -> bool:
    calls[text] = calls.get(text, 0) + 1
    await asyncio.sleep(0.001)
    return True


async def fails_once(text: str) -> bool:
    calls[text] = calls.get(text, 0) + 1
    if calls[text] == 1:
        raise ConnectionError("the provider hung up")
    return True


async def always_fails(text: str) -> bool:
    raise ConnectionError("the provider is away")


async def asks_to_wait_once(text: str) -> bool:
    calls[text] = calls.get(text, 0) + 1
    if calls[text] == 1:
        raise Later(0.1, "429")
    return True


async def raises_value_error(text: str) -> bool:
    raise ValueError("the reply makes no sense")


async def waits_for_ever(text: str) -> bool:
    print("waiting for ever", file=sys.stderr, flush=True)
    await asyncio.sleep(3600)
    return True


async def waits_a_second(text: str) -> bool:
    print("waiting for a second", file=sys.stderr, flush=True)
    await asyncio.sleep(1)
    return True


class NobodysError(BaseException):
    """Neither an Exception nor anything Python knows."""


async def raises_anything(text: str) -> bool:
    if text == "bad":
        raise NobodysError("no Exception")
    if text == "cancelled":
        raise asyncio.CancelledError
    if text == "exit":
        raise GeneratorExit
    if text == "interrupt":
        raise KeyboardInterrupt
    return True


async def cannot_be_stopped(text: str) -> bool:
    while text == "bad":
        try:
            await asyncio.sleep(3600)
        except BaseException:
            print("not stopped", file=sys.stderr, flush=True)
    return True


_LATER: dict[str, tuple[Any, Any]] = {
    "nan": (math.nan, "nan"),
    "infinite": (math.inf, "infinite"),
    "huge": (1e300, "huge"),
    "negative": (-5, "negative"),
    "text": ("soon", "text"),
    "none": (None, None),
    "nul": (0.1, "asked \x00 to \ud800 wait"),
    "number": (0.1, 429),
}


async def asks_to_wait_oddly_once(text: str) -> bool:
    calls[text] = calls.get(text, 0) + 1
    if calls[text] == 1 and text in _LATER:
        raise Later(*_LATER[text])
    return True


def forks_on_bad(text: str) -> bool:
    if text == "bad":
        os.fork()  # and both go on
    return True


def closes_files_on_bad(text: str) -> bool:
    if text == "bad":
        os.closerange(3, 64)
    return True


def writes_to_files_on_bad(text: str) -> bool:
    if text == "bad":
        for number in range(3, 16):
            with suppress(OSError):
                os.write(number, b"\x00\x00\x00\x00\x00\x00\x00\x04junk")
    return True
