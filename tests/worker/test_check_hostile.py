"""Checks that do what no check should: each costs its own span a verdict, and no other."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.worker import sample_checks
from tests.worker.support import (
    Connection,
    activate,
    insert,
    process,
    scores,
    set_setting,
    until,
    value,
    waiting,
)


def judged(dsn: str, lane: str, seconds: float = 240) -> None:
    """Run a worker until it is idle, which it soon is."""

    async def run() -> None:
        async with asyncio.timeout(seconds):
            await run_worker(dsn, "flywheel", Options(until_idle=True, lanes=(lane,)))

    asyncio.run(run())


def test_whatever_a_coroutine_raises_is_its_answer(dsn: str, connection: Connection) -> None:
    set_setting(connection, "faults_before_pause", 1000)
    activate(connection, "odd", check="raises_anything", lane="judge")
    insert(connection, ["bad", "cancelled", "exit", "interrupt", "fine"])
    judged(dsn, "judge")
    found = scores(connection, "odd")
    assert {text: said[3] for text, said in found.items()} == dict.fromkeys(
        ["bad", "cancelled", "exit", "interrupt"], "raised"
    ) | {"fine": None}
    assert found["bad"][4] == "NobodysError: no Exception"
    assert waiting(connection) == 0


def test_a_coroutine_that_asks_oddly_to_wait_is_asked_again(dsn: str, connection: Connection) -> None:
    sample_checks.calls.clear()
    set_setting(connection, "faults_before_pause", 1000)
    activate(connection, "odd", check="asks_to_wait_oddly_once", lane="judge")
    insert(connection, ["nan", "infinite", "huge", "negative", "text", "none", "nul", "number", "fine"])
    judged(dsn, "judge")
    assert {text for text, said in scores(connection, "odd").items() if said[0]} >= {
        "nul",
        "number",
        "negative",
        "fine",
    }
    wrong = {text: said[4] for text, said in scores(connection, "odd").items() if said[0] is None}
    assert wrong.keys() == {"nan", "infinite", "text", "none"}
    assert wrong["text"] == "Later: text"
    assert value(connection, "select max(run_at) < now() + interval '2 days' from flywheel._later")


@pytest.mark.parametrize("check", ["forks_on_bad", "closes_files_on_bad", "writes_to_files_on_bad"])
def test_what_a_check_does_to_its_process_costs_no_other_span(dsn: str, connection: Connection, check: str) -> None:
    set_setting(connection, "faults_before_pause", 1000)
    activate(connection, "odd", check=check, lane="bulk")
    insert(connection, ["a", "bad", "b"])
    judged(dsn, "bulk")
    insert(connection, ["c", "d"])
    judged(dsn, "bulk")
    found = scores(connection, "odd")
    assert {text: said[0] for text, said in found.items() if text != "bad"} == dict.fromkeys("abcd", True)
    assert waiting(connection) == 0


def test_a_coroutine_that_cannot_be_stopped_is_given_up(dsn: str, connection: Connection) -> None:
    set_setting(connection, "max_attempts", 1)
    activate(connection, "odd", check="cannot_be_stopped", lane="judge", time_limit_ms=100)
    insert(connection, ["bad", "fine"])
    with process(dsn, "--lanes", "judge", "--until-idle") as running:
        said = running.communicate(timeout=240)[1]
    assert running.returncode == 0, said
    assert scores(connection, "odd")["fine"][0] is True
    assert value(connection, "select reason from flywheel._dead") == "timed_out"
    assert "Task was destroyed" not in said


def test_a_coroutine_that_cannot_be_stopped_keeps_no_worker_from_leaving(dsn: str, connection: Connection) -> None:
    activate(connection, "odd", check="cannot_be_stopped", lane="judge")
    insert(connection, ["bad"])
    with process(dsn, "--lanes", "judge", "--grace-seconds", "0") as running:
        until(lambda: value(connection, "select count(*) from flywheel._running") == 1)
        running.send_signal(signal.SIGTERM)
        said = running.communicate(timeout=240)[1]
    assert running.returncode == 0, said
    assert value(connection, "select count(*) from flywheel._ready") == 1
    assert value(connection, "select count(*) from flywheel._workers") == 0


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("raise KeyboardInterrupt", 130), ("raise ValueError", 1)])
def test_a_thread_keeps_no_process_from_ending(end: str, code: int) -> None:
    script = f"""
import asyncio, threading, time
from pgflywheel.worker.leaving import and_leave
at_work, over = threading.Event(), threading.Event()
def work():
    at_work.set()
    over.wait({0 if code == 1 else 3600})
async def run():
    thread = asyncio.create_task(asyncio.to_thread(work))
    while not at_work.is_set():
        await asyncio.sleep(0.01)
    {end}
asyncio.run(and_leave(run))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == code, ended.stderr
