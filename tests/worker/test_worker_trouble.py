"""What a worker keeps right while the world around it does not: outages, leases that end, races between its parts."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any
from uuid import UUID

import pytest

from pgflywheel.db import drift, queue
from pgflywheel.db.connect import Database, open_database
from pgflywheel.errors import Unreachable
from pgflywheel.worker import listen, loop, sentinels, tasks
from pgflywheel.worker.judge import Judge
from pgflywheel.worker.lease import Lease
from pgflywheel.worker.listen import Doorbell, _watching
from pgflywheel.worker.loop import Worker, run_worker
from pgflywheel.worker.site import Options, Site
from pgflywheel.worker.tasks import ended
from pgflywheel.worker.versions import Versions
from tests.worker.support import Connection, activate, value


def with_site(dsn: str, act: Callable[[Site], Awaitable[Any]], **options: Any) -> Any:
    """Return what comes of acting on a site."""

    async def run() -> Any:
        async with open_database(dsn, max_connections=4) as database:
            return await act(Site.of(database, Options(**options)))

    return asyncio.run(run())


def coroutine(task: asyncio.Task[Any]) -> Any:
    """Return what a task runs."""
    return task.get_coro()


def test_versions_read_together_are_all_there_when_the_cache_ends_meanwhile(dsn: str, connection: Connection) -> None:
    for name in ("first", "second"):
        activate(connection, name, kind="sql", expression="true", target="output", lane="bulk")
    first, second = (
        value(
            connection,
            "select version_id from flywheel.validator_versions join flywheel.validators using (validator_id)"
            " where name = %s",
            name,
        )
        for name in ("first", "second")
    )

    async def look(site: Site) -> list[UUID]:
        versions: Versions = site.versions
        await versions.of([first])
        both = asyncio.create_task(versions.of([first, second]))
        await asyncio.sleep(0)  # it waits for the second, and has the first
        assert not both.done()
        versions.read_at = float("-inf")
        other = asyncio.create_task(versions.of([first]))
        await other
        return [version.version_id for version in await both]

    assert with_site(dsn, look) == sorted([first, second])


def test_a_claim_is_made_under_an_id_the_database_knows(dsn: str, connection: Connection) -> None:
    async def look(site: Site) -> UUID:
        lease: Lease = site.lease
        await lease.held()
        renewing = asyncio.create_task(lease.renew(0))
        await asyncio.sleep(0)  # the heartbeat is on its way
        lease.ends = float("-inf")
        held = await lease.held()
        await renewing
        assert not lease.over
        return held

    held = with_site(dsn, look)
    assert value(connection, "select count(*) from flywheel._workers where worker_id = %s", held) == 1


def test_a_worker_that_was_entered_without_hearing_of_it_enters_anew(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat, beats = queue.heartbeat, 0

    async def cut_off(*args: Any, **named: Any) -> Any:
        nonlocal beats
        beats += 1
        until = await heartbeat(*args, **named)
        if beats == 1:
            raise Unreachable("the connection broke before the answer came")
        return until

    async def look(site: Site) -> UUID:
        with pytest.raises(Unreachable):
            await site.lease.held()
        return await site.lease.held()

    monkeypatch.setattr(queue, "heartbeat", cut_off)
    held = with_site(dsn, look)
    assert value(connection, "select count(*) from flywheel._workers where worker_id = %s", held) == 1


def test_an_error_of_any_kind_beside_the_lanes_does_not_end_the_worker(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def raises(database: Database) -> list[UUID]:
        raise ValueError("nobody thought of this")

    async def look(site: Site) -> bool:
        errors = site.metrics.errors.labels("sentinels")
        worker = asyncio.create_task(Worker(site, dsn).run())
        while not errors._value.get() and not worker.done():
            await asyncio.sleep(0.01)
        ended_by_it = worker.done()
        await ended([worker])
        return ended_by_it

    monkeypatch.setattr(sentinels, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(drift, "due_sentinels", raises)
    assert not with_site(dsn, look, lanes=("judge",))


def test_a_worker_that_is_cancelled_leaves_no_task_behind(dsn: str, connection: Connection) -> None:
    async def look(site: Site) -> list[str]:
        before = asyncio.all_tasks()
        worker = asyncio.create_task(Worker(site, dsn).run())
        while not site.lease.entered:
            await asyncio.sleep(0.01)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        left = asyncio.all_tasks() - before
        return [coro.cr_code.co_qualname for coro in map(coroutine, left) if "worker" in coro.cr_code.co_filename]

    assert with_site(dsn, look) == []
    assert value(connection, "select count(*) from flywheel._workers") == 0


def test_a_task_that_forgets_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgets() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def look() -> bool:
        task = asyncio.create_task(forgets())
        await asyncio.sleep(0)
        await ended([task])
        return task.cancelled()

    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    assert asyncio.run(look())


def test_a_broken_connection_is_no_longer_read_when_its_number_is_anothers(dsn: str) -> None:
    async def look(site: Site) -> bool:
        loop = asyncio.get_running_loop()
        broke = asyncio.Event()
        async with site.database.connection() as connection:
            with _watching(connection, broke):
                number = connection.pgconn.socket
                with socket.socket(fileno=os.dup(number)) as same:
                    same.shutdown(socket.SHUT_RDWR)
                await broke.wait()
                theirs = socket.socket()  # gets the lowest number that is free
                assert theirs.fileno() == number
                loop.add_reader(theirs, broke.set)
            with theirs:
                return loop.remove_reader(theirs)

    assert with_site(dsn, look)


def test_work_that_takes_every_connection_keeps_no_heartbeat_waiting(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Worker] = []

    class Seen(Worker):
        def __init__(self, site: Site, dsn: str) -> None:
            super().__init__(site, dsn)
            made.append(self)

    async def look() -> None:
        worker = asyncio.create_task(run_worker(dsn, "flywheel", Options(lease_seconds=3)))
        while not (made and made[0].site.lease.entered):
            await asyncio.sleep(0.01)
        lease = made[0].site.lease
        async with AsyncExitStack() as taken, asyncio.timeout(240):
            for _ in range(loop.MAX_CONNECTIONS):
                await taken.enter_async_context(made[0].site.database.connection())
            begun = lease.ends
            made[0].site.doubt("a test", None)  # strays are looked for, too
            while lease.ends <= begun:
                await asyncio.sleep(0.05)
        await ended([worker])

    monkeypatch.setattr(loop, "Worker", Seen)
    asyncio.run(look())


def test_a_connection_that_breaks_while_it_is_tried_is_no_pooler(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify = queue.notify
    broken: list[str] = []

    async def broken_off(database: Database, payload: str) -> None:
        if broken:
            await notify(database, payload)
        broken.append(payload)
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgflywheel listen'"
            " and datname = current_database() and %s",
            [len(broken) == 1],
        )

    async def look(site: Site) -> None:
        worker = asyncio.create_task(Worker(site, dsn).run())
        async with asyncio.timeout(240):  # a pooler is looked for again after minutes
            while not site.lease.listening:
                await asyncio.sleep(0.05)
        await ended([worker])

    monkeypatch.setattr(queue, "notify", broken_off)
    monkeypatch.setattr(listen, "PROBE_SECONDS", 5.0)
    with_site(dsn, look, lanes=("bulk",))
    assert len(broken) == 2


def test_a_lane_that_was_full_looks_again_by_itself(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may ring: what it waits for, such as room in a buffer, is not always somebody's end."""
    activate(connection, "fine", check="says_true", lane="judge")
    connection.execute("insert into flywheel.spans (input, output) values ('in', 'out')")
    room, looked = Judge.room, []

    def full_at_first(judge: Judge) -> int:
        looked.append(judge)
        return 0 if len(looked) == 1 else room(judge)

    async def look(site: Site) -> None:
        async with asyncio.timeout(240):
            await Worker(site, dsn).run()

    monkeypatch.setattr(Judge, "room", full_at_first)
    monkeypatch.setattr(Doorbell, "ring", lambda _: None)
    monkeypatch.setattr(loop, "IDLE_LOOK_SECONDS", 0.1)
    with_site(dsn, look, lanes=("judge",), until_idle=True, poll_seconds=0.1)
    assert value(connection, "select count(*) from flywheel.scores") == 1
