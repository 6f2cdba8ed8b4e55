"""Rows that no trigger saw."""

from __future__ import annotations

from tests.conftest import Connection
from tests.faults.books import Books, assert_settled, wait_until
from tests.faults.conftest import Started, Tell
from tests.faults.load import PATIENT_MS, python
from tests.sql.support import activate, insert_many, insert_past_triggers, rows, value

RECONCILED_AFTER_SECONDS = 10  # younger rows may still be on their way


def test_a_worker_finds_and_judges_rows_no_trigger_saw(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    activate(connection, "inline_length", lane="inline", expression="length(span.output) < 9")
    activate(connection, "bulk_length", expression="length(span.output) < 9")
    activate(connection, "python_fine", **python("fine", time_limit_ms=PATIENT_MS))
    activate(connection, "judge", **python("call", lane="judge", sample=0.5))
    insert_many(connection, 50)
    (partition,) = rows(connection, "select 'flywheel.spans_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')")[0]
    direct = "(input, output) select 'question', 'direct ' || n from generate_series(1, 300) as n"
    connection.execute(f"insert into {partition} {direct}".encode())
    insert_past_triggers(connection, 200)
    connection.execute("alter table flywheel.spans disable trigger user")
    insert_many(connection, 100)
    connection.execute("alter table flywheel.spans enable trigger user")
    missing = Books.of(connection).missing
    assert missing > 600 * 3
    old_enough = f"select max(ingested_at) < now() - interval '{RECONCILED_AFTER_SECONDS} seconds' from flywheel.spans"
    wait_until("the rows are old enough", lambda: value(connection, old_enough), 30)
    start_worker()
    wait_until("nothing is missing or waits", lambda: _is_settled(Books.of(connection)), 90)
    assert_settled(connection, [])
    tell(f"past the triggers: 300 rows put into a partition, 300 with triggers off, {missing} scores missing, then 0")


def _is_settled(books: Books) -> bool:
    return books.missing == 0 and books.waiting == 0
