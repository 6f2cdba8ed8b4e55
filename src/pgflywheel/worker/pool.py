"""The process pool: Python checks with a time limit and a memory limit that hold whatever the check does.

A library's pool can stop a task that takes too long. This one also knows on which of a thousand spans a process
hung or died, so the other 999 keep their verdicts without being run again one by one.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import pickle
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pgflywheel.worker.callables import Check
from pgflywheel.worker.child import IMPORTING, LENGTH, WAITING, Request
from pgflywheel.worker.verdicts import Answers, unscored

IMPORT_SECONDS = 60.0
GRACE_SECONDS = 1.0  # what a process gets beyond a check's own limit
LOOK_SECONDS = 0.25
PIPE_BYTES = 4 * 2**20
MOST_REPLY_BYTES = 2**31


class ChildDied(Exception):
    """A process ended, or was ended, on one span; a place of None is the answer for all of them."""

    def __init__(self, place: int | None, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.place = place
        self.reason = reason
        self.detail = detail


@dataclass
class Child:
    """One process and the memory in which it writes how far it is."""

    process: asyncio.subprocess.Process
    shared: memoryview

    @classmethod
    async def start(cls) -> Child:
        with tempfile.TemporaryFile() as file:
            file.truncate(mmap.PAGESIZE)
            shared = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("q")
            shared[0] = WAITING
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pgflywheel.worker.child",
                str(file.fileno()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=[file.fileno()],
                start_new_session=True,  # what a check starts or forks ends with it
                limit=PIPE_BYTES,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return cls(process, shared)

    @property
    def usable(self) -> bool:
        return self.process.returncode is None

    async def ask(self, request: Request) -> Answers:
        """Return the answers; raise ChildDied when the process hangs or ends."""
        replying = asyncio.ensure_future(self._reply(request))
        try:
            await self._watch(replying, request.check.time_limit_ms / 1000 + GRACE_SECONDS)
            return replying.result()
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.process.wait()
            detail = f"the process ended with {_ending(self.process.returncode)}"
            place = None if self.shared[0] == WAITING else max(self.shared[0], request.start)
            raise ChildDied(place, "crashed", detail) from None
        except (struct.error, pickle.UnpicklingError, ValueError, TypeError, LookupError, EOFError) as error:
            await self.stop()
            detail = f"the check wrote where its process answers: {type(error).__name__}"
            raise ChildDied(None, "crashed", detail) from error
        finally:
            if not replying.done():
                replying.cancel()
                await self.stop()

    async def _reply(self, request: Request) -> Answers:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        body = pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
        self.process.stdin.write(LENGTH.pack(len(body)))
        self.process.stdin.write(body)
        await self.process.stdin.drain()
        (length,) = LENGTH.unpack(await self.process.stdout.readexactly(LENGTH.size))
        if length > MOST_REPLY_BYTES:
            raise ValueError(f"a reply of {length:,} bytes")
        answers: Answers = pickle.loads(await self.process.stdout.readexactly(length))
        if not isinstance(answers, Answers):
            raise TypeError(f"a reply that is {type(answers).__name__}")
        return answers

    async def _watch(self, replying: asyncio.Future[Answers], seconds: float) -> None:
        """Wait for the reply as long as the process gets on."""
        place, since = WAITING, time.monotonic()
        while not (await asyncio.wait([replying], timeout=LOOK_SECONDS))[0]:
            if self.shared[0] != place:
                place, since = self.shared[0], time.monotonic()
            allowed = IMPORT_SECONDS if place in (IMPORTING, WAITING) else seconds
            if time.monotonic() - since > allowed:
                raise ChildDied(
                    max(place, 0), "timed_out", f"the check could not be stopped and was ended after {allowed:g} s"
                )

    async def stop(self) -> None:
        """End the process, however busy it is."""
        if self.process.returncode is None:
            # process.kill() looks for itself whether the process has ended, and so takes that end away from asyncio
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@dataclass
class Pool:
    """At most ``size`` processes, started when first needed; all of them end with the pool, whoever has them."""

    size: int = field(default_factory=lambda: os.cpu_count() or 1)
    idle: list[Child] = field(default_factory=list)
    started: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = asyncio.Semaphore(self.size)

    async def ask(self, request: Request) -> Answers:
        """Return the answers for the first spans of a stretch, one at least.

        A span on which a process hangs or dies is answered as a fault; those before it are asked again, and so is the
        first half of spans of which nobody knows which it was.
        """
        try:
            return await self._ask(request)
        except ChildDied as died:
            spans = request.stop - request.start
            stop = request.start + spans // 2 if died.place is None else died.place
            if stop > request.start:
                return await self.ask(replace(request, stop=stop))
            return Answers.of([unscored(died.reason, died.detail)])

    async def _ask(self, request: Request) -> Answers:
        async with self.places:
            child = await self._child()
            answers = await child.ask(request)
            if answers.reason == "out_of_memory":
                await child.stop()  # what the check left behind is not worth keeping
            else:
                self.idle.append(child)
            return answers

    async def _child(self) -> Child:
        while self.idle:
            child = self.idle.pop()
            if child.usable:
                return child
        return await self._start()

    async def _start(self) -> Child:
        child = await Child.start()
        self.started = [*(each for each in self.started if each.usable), child]
        return child

    async def warm(self, checks: Sequence[Check]) -> None:
        """Start the processes and import the checks ahead of the first stretch."""
        if checks:
            await asyncio.gather(*(self._warm(checks) for _ in range(self.size)))

    async def _warm(self, checks: Sequence[Check]) -> None:
        async with self.places:
            child = await self._start()
            with suppress(ChildDied):  # the first stretch tells, and whose fault it is
                for check in checks:
                    await child.ask(Request(check, b"", b"", 0, 0))
                self.idle.append(child)

    async def close(self) -> None:
        """End all processes."""
        self.idle.clear()
        while self.started:
            await self.started.pop().stop()


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
