"""What is read once, however many ask for it."""

from __future__ import annotations

from tests.plans.test_plans import days, reads
from tests.sql.support import Connection, accounts, activate, insert_many, rows, value, work_off
from tests.sql.test_alignment import cells, judge


def _read(connection: Connection, query: str, table: str) -> int:
    found = reads(connection, query)
    return sum(found[name].rows for name in days(found, table) | {table} & found.keys())


def test_the_books_of_many_versions_read_each_span_no_oftener_than_those_of_two(connection: Connection) -> None:
    for name in ("one", "two"):
        activate(connection, name)
    insert_many(connection, 200)
    work_off(connection)
    connection.execute("vacuum analyze flywheel.spans, flywheel.scores")
    books = "select * from flywheel.accounts"
    few = _read(connection, books, "spans")
    for place in range(10):
        activate(connection, f"more_{place}", where="span.output <> ''")
    insert_many(connection, 200)
    work_off(connection)
    connection.execute("vacuum analyze flywheel.spans, flywheel.scores")
    assert _read(connection, books, "spans") <= 2 * few
    assert {accounts(connection, f"more_{place}")["scored"] for place in range(10)} == {200}


def test_a_where_that_raises_changes_the_books_of_no_other_version(connection: Connection) -> None:
    activate(connection, "steady", where="span.output <> 'x'")
    activate(connection, "moody", where="1 / (length(span.output) - 3) > -9")
    activate(connection, "plain")
    insert_many(connection, 10, "case n when 5 then 'abc' else 'answer' end")
    assert {name: accounts(connection, name) for name in ("steady", "plain")} == {
        name: {"eligible": 10, "queued": 10} for name in ("steady", "plain")
    }
    assert accounts(connection, "moody") == {"eligible": 10, "queued": 10}


def test_the_gate_of_judges_reads_each_label_once_for_all_versions(connection: Connection) -> None:
    first, *_ = [judge(connection, question=f"Is it polite? {place}") for place in range(3)]
    cells(connection, first, 20, 5, 5, 20)
    connection.execute("vacuum analyze flywheel.labels")
    labels = value(connection, "select count(*) from flywheel.labels")
    read = _read(connection, "select * from flywheel._measured", "labels")
    assert read <= 2 * labels  # once, and once to see which were replaced
    gate = "select version_id, n_pass, n_fail from flywheel._measured"
    assert rows(connection, gate) == [(first, 25, 25)]
