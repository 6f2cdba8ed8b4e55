"""Two sessions at once, in an order that is always the same: one waits for a lock of the other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.sql.support import Connection, value
from tests.worker.support import until

Rows = list[tuple[Any, ...]]
STOPPED = "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"


def _rows(session: Connection, query: str, parameters: Any) -> Rows:
    cursor = session.execute(query.encode(), parameters)
    return cursor.fetchall() if cursor.description else []


@contextmanager
def meanwhile(watcher: Connection, session: Connection, query: str, parameters: Any = None) -> Iterator[Future[Rows]]:
    """Run a query in another session; go on when it waits for a lock or has ended, and leave when it has ended."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_rows, session, query, parameters)
        until(lambda: asked.done() or value(watcher, STOPPED, [session.info.backend_pid]) == 1)
        yield asked
