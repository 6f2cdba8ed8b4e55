"""A process of the pool: run checks on stretches of spans, and nothing else.

It reads requests from its standard input and writes replies to what was its standard output, each a length and
a pickle. A check that prints writes to the worker's log. Before each span it puts the span's place into memory
shared with the worker, which so knows on which span a process hung or died.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pgflywheel.worker.callables import Check, MissingCallable, arguments, load
from pgflywheel.worker.verdicts import Answer, Answers, TimedOut, failed, judged, unscored

LENGTH = struct.Struct("!Q")
STRETCH_SECONDS = 5.0  # reply at least this often, so that a failing check is noticed
IMPORTING, WAITING = -2, -1
_PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


@dataclass(frozen=True, slots=True)
class Request:
    """Spans from ``start`` up to ``stop`` of what _read_spans returned."""

    check: Check
    keys: bytes
    texts: bytes | None
    start: int
    stop: int


def answer(request: Request, progress: Callable[[int], None]) -> Answers:
    """Return the answers for the spans, or for as many as STRETCH_SECONDS allow."""
    check = request.check
    progress(IMPORTING)
    try:
        call = partial(load(check.path), **check.parameters)
    except MissingCallable as error:
        return Answers.of([unscored("missing_callable", str(error))] * (request.stop - request.start))
    answers: list[Answer] = []
    end = time.monotonic() + STRETCH_SECONDS
    with _memory_limit(check.memory_limit_mb), _alarms() as ask:
        given = arguments(check, request.keys, request.texts, request.start, request.stop)
        for place, argument in enumerate(given, request.start):
            progress(place)
            readable = not isinstance(argument, Exception)
            answers.append(ask(call, argument, check.time_limit_ms / 1000) if readable else failed(argument))
            if time.monotonic() > end:
                break
    return Answers.of(answers)


@contextmanager
def _alarms() -> Iterator[Callable[[Callable[[Any], Any], Any, float], Answer]]:
    """Give a function that asks a check under a time limit."""
    running = False

    def ring(signum: int, frame: object) -> None:
        if running:
            raise TimedOut

    def ask(call: Callable[[Any], Any], argument: Any, seconds: float) -> Answer:
        nonlocal running
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            running = True
            said = call(argument)
            running = False
            return judged(said)
        except TimedOut:
            return unscored("timed_out", f"the check took longer than {seconds * 1000:g} ms")
        except BaseException as error:  # SystemExit, too: it ends the check, not the process
            return failed(error)
        finally:
            running = False

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield ask
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory_limit(megabytes: float) -> Iterator[None]:
    """Let the process grow by so much, where the system can hold it to that."""
    try:
        import resource  # not everywhere

        pages = int(Path("/proc/self/statm").read_text().split()[5])
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = pages * resource.getpagesize() + int(megabytes * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    except (ImportError, OSError, ValueError, OverflowError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def serve(requests: BinaryIO, replies: BinaryIO, progress: Callable[[int], None]) -> None:
    """Answer requests until the worker closes the pipe; what a check forked off is not to answer, too."""
    us = os.getpid()
    while header := requests.read(LENGTH.size):
        request = pickle.loads(requests.read(*LENGTH.unpack(header)))
        reply = pickle.dumps(answer(request, progress), pickle.HIGHEST_PROTOCOL)
        if os.getpid() != us:
            os._exit(0)
        progress(WAITING)
        replies.write(LENGTH.pack(len(reply)) + reply)
        replies.flush()


def main() -> None:
    """Take the pipes and the shared memory the worker made, leave its signals to it, and serve."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    shared = memoryview(mmap.mmap(int(sys.argv[1]), mmap.PAGESIZE)).cast("q")
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    serve(requests, replies, partial(shared.__setitem__, 0))


if __name__ == "__main__":
    main()
