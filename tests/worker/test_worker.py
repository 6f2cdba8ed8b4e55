"""The worker as a process: lease, signals, wake-up, reconnecting."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import urllib.request
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgflywheel.db import queue
from pgflywheel.db.connect import open_database
from pgflywheel.errors import SchemaMissing
from pgflywheel.worker.loop import Worker, run_worker
from pgflywheel.worker.site import Options, Site
from tests.ports import free_port
from tests.worker.support import (
    Connection,
    activate,
    insert,
    process,
    scores,
    set_setting,
    started,
    until,
    value,
    waiting,
)


def test_sigterm_finishes_what_is_in_hand_and_gives_back_the_rest(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="waits_a_second", lane="judge")
    with process(dsn, "--concurrency", "2") as worker:
        until(started(connection))
        insert(connection, list(map(str, range(10))))
        for _ in range(4):  # the second two are called when the first are over
            until(lambda: "waiting for a second" in _line(worker))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 0
    judged = value(connection, "select count(*) from flywheel.scores")
    assert 4 <= judged < 10
    assert value(connection, "select sum(cardinality(span_ids)) from flywheel._ready") == 10 - judged
    assert value(connection, "select count(*) from flywheel._running") == 0
    assert value(connection, "select count(*) from flywheel._workers") == 0


def test_the_grace_period_ends_calls_that_do_not(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="waits_for_ever", lane="judge")
    with process(dsn, "--grace-seconds", "0.2") as worker:
        until(started(connection))
        insert(connection, ["a"])
        until(lambda: "waiting for ever" in _line(worker))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 0
    assert value(connection, "select count(*) from flywheel._ready") == 1


def test_ctrl_c_twice_waits_for_nothing(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="waits_for_ever", lane="judge")
    with process(dsn, "--grace-seconds", "3000") as worker:
        until(started(connection))
        insert(connection, ["a"])
        until(lambda: "waiting for ever" in _line(worker))
        worker.send_signal(signal.SIGINT)
        until(lambda: "stopping" in _line(worker))
        worker.send_signal(signal.SIGINT)
        assert worker.wait(120) == 130
    assert value(connection, "select count(*) from flywheel._ready") == 1


def test_a_stopped_worker_writes_nothing_after_its_lease(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="waits_a_second", lane="judge")
    with process(dsn, "--lease-seconds", "3") as stopped:
        until(started(connection))
        insert(connection, ["a", "b", "c"])
        until(lambda: value(connection, "select count(*) from flywheel._running") == 3)
        stopped.send_signal(signal.SIGSTOP)
        with process(dsn, "--until-idle", "--lease-seconds", "3") as other:
            assert other.wait(60) == 0
        assert set(scores(connection, "judge")) == {"a", "b", "c"}
        stopped.send_signal(signal.SIGCONT)
        insert(connection, ["d"])
        until(lambda: "d" in scores(connection, "judge"))
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(120) == 0
        assert "lease" in (stopped.stderr.read() if stopped.stderr else "")
    assert value(connection, "select sum(scores) from flywheel.run_log") == 4
    assert waiting(connection) == 0


def test_a_killed_workers_jobs_are_judged_by_the_next(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="waits_for_ever", lane="judge")
    activate(connection, "bulk", kind="sql", expression="true")
    with process(dsn, "--lease-seconds", "3") as killed:
        until(started(connection))
        insert(connection, ["a"])
        until(lambda: value(connection, "select count(*) from flywheel._running where lane = 'judge'") == 1)
        killed.kill()
    assert value(connection, "select count(*) from flywheel._running where lane = 'judge'") == 1
    with process(dsn, "--lanes", "bulk"):
        until(lambda: value(connection, "select attempt from flywheel._ready where lane = 'judge'") == 1)
        until(lambda: set(scores(connection, "bulk")) == {"a"})


def test_a_stale_fence_writes_nothing(dsn: str, connection: Connection) -> None:
    activate(connection, "once", kind="sql", expression="true")
    insert(connection, ["a"])

    async def claim_twice() -> tuple[int, int, int]:
        first, second = uuid4(), uuid4()
        async with open_database(dsn) as db:
            (job,) = await queue.claim(db, 1, first, 10, None)
            await queue.leave(db, first)
            stale = len(await queue.lock_fences(db, first, [job.fence]))
            (again,) = await queue.claim(db, 1, second, 10, None)
            foreign = len(await queue.lock_fences(db, first, [again.fence]))
            return stale, foreign, len(await queue.lock_fences(db, second, [again.fence]))

    assert asyncio.run(claim_twice()) == (0, 0, 1)


def test_an_idle_worker_is_woken_by_an_insert(dsn: str, connection: Connection) -> None:
    activate(connection, "bulk", kind="sql", expression="true")

    async def judged_without_polling() -> None:
        async with open_database(dsn) as db, asyncio.timeout(120):
            options = Options(lanes=("bulk",), poll_seconds=3600)
            working = asyncio.create_task(run_worker(dsn, "flywheel", options))
            idle = "select exists (select from pg_locks where locktype = 'advisory' and objid = 1)"
            while not await db.value(idle):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # past the short polls; the next would be in an hour
            await db.execute("insert into flywheel.spans (output) values ('a')")
            while not await db.value("select count(*) from flywheel.scores"):
                await asyncio.sleep(0.01)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    asyncio.run(judged_without_polling())


def test_a_worker_that_listen_does_not_reach_polls_and_says_so(
    dsn: str, empty_dsn: str, connection: Connection
) -> None:
    activate(connection, "bulk", kind="sql", expression="true")

    async def run() -> None:
        async with open_database(dsn, max_connections=2) as db:
            worker = Worker(
                Site.of(db, Options(lanes=("bulk",), poll_seconds=0.1)), empty_dsn
            )  # as far off as a pooler
            working = asyncio.create_task(worker.run())
            while not worker.bell.pooled:
                await asyncio.sleep(0.01)
            await db.execute("insert into flywheel.spans (output) values ('a')")
            while not await db.value("select count(*) from flywheel.scores"):
                await asyncio.sleep(0.01)
            assert not await db.value("select listening from flywheel._workers")
            worker.stop()
            await working

    asyncio.run(run())


def test_a_worker_goes_on_when_its_connections_are_cut(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="waits_a_second", lane="judge")
    activate(connection, "bulk", kind="sql", expression="true")
    with process(dsn) as worker:
        until(started(connection))
        for round_number in range(3):
            insert(connection, [f"{round_number} {number}" for number in range(20)])
            until(lambda: value(connection, "select count(*) from flywheel._running"))
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        until(lambda: value(connection, "select count(*) from flywheel.scores") == 120)
        until(lambda: waiting(connection) == 0)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 0
    assert value(connection, "select sum(scores) from flywheel.run_log") == 120


def test_metrics_and_health_are_served_on_loopback(dsn: str, connection: Connection) -> None:
    activate(connection, "bulk", kind="sql", expression="true")
    insert(connection, ["a", "b"])
    port = free_port()
    with process(dsn, "--metrics-port", str(port), "--log-format", "json") as worker:
        until(lambda: len(scores(connection, "bulk")) == 2)
        until(lambda: value(connection, "select listening from flywheel._workers"))
        health = json.loads(_get(port, "/health"))
        assert health["healthy"] is True
        assert health["listening"] is True
        assert 'pgflywheel_scores_total{lane="bulk"} 2.0' in _get(port, "/metrics")
        worker.send_signal(signal.SIGTERM)
        worker.wait(120)
        assert worker.stderr is not None
        lines = [json.loads(line) for line in worker.stderr]
    assert {"started", "stopping", "left"} <= {line["message"] for line in lines}


def test_a_port_that_is_taken_is_wrong_use(dsn: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with process(dsn, "--metrics-port", str(taken.getsockname()[1])) as worker:
            assert worker.wait(120) == 2
            assert "cannot be served" in (worker.stderr.read() if worker.stderr else "")


def test_a_worker_without_its_schema_says_so(empty_dsn: str) -> None:
    with pytest.raises(SchemaMissing):
        asyncio.run(run_worker(empty_dsn, "flywheel", Options(until_idle=True)))
    with process(empty_dsn) as worker:
        assert worker.wait(120) == 4
        assert "db upgrade" in (worker.stderr.read() if worker.stderr else "")


def test_a_worker_whose_role_may_not_work_ends(dsn: str, connection: Connection) -> None:
    name = f"nobody_{uuid4().hex[:12]}"
    connection.execute(f"create role {name} login password 'its own'".encode())
    connection.execute(f"grant usage on schema flywheel to {name}".encode())
    connection.execute(f"grant select on all tables in schema flywheel to {name}".encode())
    try:
        with process(make_conninfo(dsn, user=name, password="its own"), "--until-idle") as worker:
            assert worker.wait(120) == 1
            assert "permission denied" in (worker.stderr.read() if worker.stderr else "")
    finally:
        connection.execute(f"drop owned by {name}".encode())
        connection.execute(f"drop role {name}".encode())


def test_a_held_transaction_does_not_hide_jobs_that_commit_late(dsn: str, connection: Connection) -> None:
    activate(connection, "bulk", kind="sql", expression="true")
    with process(dsn) as _, psycopg.connect(dsn) as late:
        until(started(connection))
        late.execute("insert into flywheel.spans (output) values ('late')")
        for number in range(50):
            insert(connection, [str(number)])
        until(lambda: len(scores(connection, "bulk")) == 50)
        late.commit()
        until(lambda: "late" in scores(connection, "bulk"))


def test_backfill_and_live_jobs_are_all_judged(dsn: str, connection: Connection) -> None:
    insert(connection, list(map(str, range(100))))
    activate(connection, "bulk", kind="sql", expression="true")
    set_setting(connection, "chunk_spans", 10)
    backfill = value(connection, "select flywheel.start_backfill('bulk', now() - interval '1 hour')")
    connection.execute("select flywheel.advance_backfill(%s)", [backfill])
    insert(connection, ["live"])
    asyncio.run(run_worker(dsn, "flywheel", Options(until_idle=True)))
    assert len(scores(connection, "bulk")) == 101


def _line(worker: subprocess.Popen[str]) -> str:
    return worker.stderr.readline() if worker.stderr else ""


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
        return str(reply.read().decode())
