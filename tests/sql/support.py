"""What the SQL tests say often: define and activate a validator, insert, work off the queue, read the books."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[tuple[Any, ...]]

SHORT = "length(span.output) < 10"


def value(connection: Connection, query: str, parameters: Any = None) -> Any:
    """Return the first column of the first row."""
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None, query
    return row[0]


def rows(connection: Connection, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), parameters).fetchall()


def define(connection: Connection, name: str, **definition: Any) -> tuple[Any, ...]:
    """Define a sql validator (lane bulk unless said) and return validator, version, status, content_hash, changed."""
    whole: dict[str, Any] = {"kind": "sql", **definition}
    if whole["kind"] == "sql" and not {"expression", "function"} & whole.keys():
        whole["expression"] = SHORT
    query = "select validator, version, status, content_hash, changed from flywheel.define_validator(%s, %s)"
    return rows(connection, query, [name, Jsonb(whole)])[0]


def activate(connection: Connection, name: str, **definition: Any) -> uuid.UUID:
    """Define and activate a validator; return the id of the version."""
    _, version, *_ = define(connection, name, **definition)
    connection.execute("select flywheel.activate_validator(%s, %s)", [name, version])
    return version_id(connection, name, version)


def inline(connection: Connection, name: str, **definition: Any) -> uuid.UUID:
    return activate(connection, name, lane="inline", **definition)


def version_id(connection: Connection, name: str, version: int = 1) -> uuid.UUID:
    query = "select version_id from flywheel.validator_status where validator = %s and version = %s"
    found: uuid.UUID = value(connection, query, [name, version])
    return found


def status_of(connection: Connection, name: str, version: int = 1) -> str:
    query = "select status from flywheel.validator_status where validator = %s and version = %s"
    return str(value(connection, query, [name, version]))


def insert(connection: Connection, output: str | None = "fine", **columns: Any) -> uuid.UUID:
    """Insert one span and return its id."""
    given = {"span_id": uuid.uuid4(), "input": "question", "output": output, **columns}
    names, places = ", ".join(given), ", ".join(["%s"] * len(given))
    connection.execute(f"insert into flywheel.spans ({names}) values ({places})".encode(), list(given.values()))
    span_id: uuid.UUID = given["span_id"]
    return span_id


def insert_many(connection: Connection, count: int, output: str = "'answer ' || n") -> None:
    connection.execute(
        (
            f"insert into flywheel.spans (input, output) select 'question', {output} from generate_series(1, %s) as n"
        ).encode(),
        [count],
    )


def insert_past_triggers(connection: Connection, count: int = 1, output: str = "'answer'") -> None:
    """Insert as a restore does: no trigger sees the rows."""
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        insert_many(connection, count, output)


def scores(connection: Connection) -> list[tuple[Any, ...]]:
    """Return validator, passed and unscored_reason of each current score."""
    query = "select validator, passed, unscored_reason from flywheel.current_scores order by validator, span_id"
    return rows(connection, query)


def worker(connection: Connection, lease_seconds: float = 60.0) -> uuid.UUID:
    """Enter a worker and return its id."""
    worker_id = uuid.uuid4()
    beat = "select flywheel._heartbeat(%s, 'tester', '{bulk,judge}', %s, false, 0, '0', true)"
    connection.execute(beat, [worker_id, lease_seconds])
    return worker_id


def claim(connection: Connection, worker_id: uuid.UUID, max_jobs: int = 100, **options: Any) -> list[tuple[Any, ...]]:
    """Claim and return rows of fence, job_id, version_ids, span_count, attempt, origin."""
    given = [options.get("lane", "bulk"), options.get("priority", 1), worker_id, max_jobs, options.get("after")]
    query = """select fence, job_id, version_ids, span_count, attempt, origin
                 from flywheel._claim(%s, %s::smallint, %s, %s, %s) order by job_id"""
    return rows(connection, query, given)


def complete(connection: Connection, worker_id: uuid.UUID, claimed: Iterable[tuple[Any, ...]]) -> tuple[int, int]:
    """Run the sql checks of claimed jobs, each by itself, and end them; return jobs ended and scores written."""
    ended = written = 0
    for fence, _, version_ids, *_ in claimed:
        query = "select jobs, scores from flywheel._complete(%s, %s, %s, clock_timestamp())"
        jobs, new = rows(connection, query, [worker_id, [fence], version_ids])[0]
        ended, written = ended + jobs, written + new
    return ended, written


def work_off(connection: Connection, worker_id: uuid.UUID | None = None) -> int:
    """Run all ready bulk jobs, live before backfill; return the scores written."""
    worker_id = worker_id or worker(connection)
    return sum(
        complete(connection, worker_id, claim(connection, worker_id, 10_000, priority=priority))[1]
        for priority in (1, 2)
    )


def accounts(connection: Connection, name: str, version: int = 1) -> dict[str, int]:
    """Return the books of one version without the columns that are 0; they must balance."""
    names = ["eligible", "scored", "unscored", "queued", "running", "later", "dead", "missing"]
    query = f"select {', '.join(names)}, balanced from flywheel.accounts where validator = %s and version = %s"
    *counts, balanced = rows(connection, query, [name, version])[0]
    books = dict(zip(names, counts, strict=True))
    assert books["eligible"] == sum(counts[1:]), books
    assert balanced == (books["missing"] == 0), books
    return {name: count for name, count in books.items() if count}


def state(connection: Connection, span_id: uuid.UUID, name: str) -> tuple[str, str]:
    """Return what why() says of one validator: state and detail."""
    found = rows(
        connection, "select state, coalesce(detail, '') from flywheel.why(%s) where validator = %s", [span_id, name]
    )
    assert len(found) == 1, found
    return found[0][0], found[0][1]


def refused(connection: Connection, query: str, parameters: Any = None) -> psycopg.errors.Diagnostic:
    """Run a statement that must fail, and return what the server says."""
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(query.encode(), parameters)
    return caught.value.diag
