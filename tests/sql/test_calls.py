"""Calls of the judge lane, and what workers read and write for the jobs they hold."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.sql.support import (
    Connection,
    accounts,
    activate,
    claim,
    insert,
    insert_many,
    refused,
    rows,
    value,
    work_off,
    worker,
)

PYTHON = {"kind": "python", "callable": "shop.checks:polite"}


def fences(claimed: list[tuple[Any, ...]]) -> list[uuid.UUID]:
    return [row[0] for row in claimed]


def claim_calls(
    connection: Connection, worker_id: uuid.UUID, max_calls: int, after: object = None
) -> list[tuple[Any, ...]]:
    query = "select * from flywheel._claim_calls(1::smallint, %s, %s, %s)"
    return rows(connection, query, [worker_id, max_calls, after])


def test_a_paused_judge_lane_gives_no_calls(connection: Connection) -> None:
    activate(connection, "polite", **PYTHON, lane="judge")
    insert(connection)
    connection.execute("select flywheel.pause_lane('judge', 'too dear')")
    assert claim_calls(connection, worker(connection), 5) == []
    connection.execute("select flywheel.resume_lane('judge')")
    assert len(claim_calls(connection, worker(connection), 5)) == 1


def test_calls_are_cut_from_a_job_and_the_rest_keeps_its_place(connection: Connection) -> None:
    activate(connection, "polite", **PYTHON, lane="judge")
    insert_many(connection, 5)
    insert_many(connection, 4)
    first, second = [job_id for (job_id,) in rows(connection, "select job_id from flywheel._ready order by 1")]
    worker_id = worker(connection)
    assert [row[3] for row in claim_calls(connection, worker_id, 2)] == [1, 1]
    query = "select job_id, cardinality(span_ids) from flywheel._ready order by 1"
    assert rows(connection, query) == [(first, 3), (second, 4)]
    assert len(claim_calls(connection, worker_id, 5)) == 5
    assert rows(connection, query) == [(second, 2)]
    assert len(claim_calls(connection, worker_id, 100)) == 2
    assert claim_calls(connection, worker_id, 100) == []
    held = (
        "select count(distinct span_ids[1]), count(distinct fence), max(cardinality(span_ids)) from flywheel._running"
    )
    assert rows(connection, held) == [(9, 9, 1)]
    assert accounts(connection, "polite") == {"eligible": 9, "running": 9}


def test_calls_carry_the_id_of_the_job_they_were_cut_from(connection: Connection) -> None:
    """A worker's floor follows the ids it saw: ids made by the cut would hide the rest of the job."""
    activate(connection, "polite", **PYTHON, lane="judge")
    insert_many(connection, 5)
    calls = claim_calls(connection, worker(connection), 2)
    assert {row[1] for row in calls} == {value(connection, "select job_id from flywheel._ready")}


def test_two_workers_share_the_calls_of_one_job(connection: Connection, connect: Callable[[], Connection]) -> None:
    activate(connection, "polite", **PYTHON, lane="judge")
    insert_many(connection, 5)
    other = connect()
    workers = worker(connection), worker(connection)
    with connection.transaction():
        assert len(claim_calls(connection, workers[0], 2)) == 2
        assert claim_calls(other, workers[1], 2) == []  # skipped, not waited for
    assert len(claim_calls(other, workers[1], 5)) == 3


def test_spans_are_read_column_by_column_for_the_version_that_wants_them(connection: Connection) -> None:
    chosen = activate(
        connection, "polite", **PYTHON, filter={"node": "writer"}, columns=["output", "cost_usd", "attributes"]
    )
    activate(connection, "other", **PYTHON)
    wanted = [
        insert(connection, f"answer {place}", node="writer", cost_usd=place, attributes='{"a": 1}') for place in (1, 2)
    ]
    insert(connection, node="app")
    claimed = claim(connection, worker(connection))
    query = """select (select array_agg((key).span_id) from unnest(keys) as key), texts
                 from flywheel._read_spans(%s, %s, '{output,cost_usd,attributes}')"""
    span_ids, texts = rows(connection, query, [fences(claimed), chosen])[0]
    assert sorted(span_ids) == sorted(wanted)
    by_span = {span_id: [texts[place], texts[2 + place], texts[4 + place]] for place, span_id in enumerate(span_ids)}
    assert by_span == {wanted[0]: ["answer 1", "1", '{"a": 1}'], wanted[1]: ["answer 2", "2", '{"a": 1}']}


def test_verdicts_of_a_worker_are_written_once(connection: Connection) -> None:
    chosen = activate(connection, "polite", **PYTHON)
    insert_many(connection, 3)
    claimed = claim(connection, worker(connection))
    query = """select flywheel._write_scores(%s, keys, '{true,false,null}', '{0.5,null,null}', '{a,b,c}',
                    '{null,null,timed_out}',
                 '{null,null,"1000 ms"}') from flywheel._read_spans(%s, %s, '{output}')"""
    assert value(connection, query, [chosen, fences(claimed), chosen]) == 3
    assert value(connection, query, [chosen, fences(claimed), chosen]) == 0
    found = (
        "select passed, value, critique, unscored_reason, "
        "unscored_detail from flywheel.current_scores order by critique"
    )
    assert rows(connection, found) == [
        (True, 0.5, "a", None, None),
        (False, None, "b", None, None),
        (None, None, "c", "timed_out", "1000 ms"),
    ]


def test_spans_marked_unscored_are_on_the_books(connection: Connection) -> None:
    chosen = activate(connection, "short", where="1 / (length(span.output) - 3) > -9", filter={"node": "writer"})
    insert(connection, "abc", node="writer")
    insert(connection, "abc", node="app")
    worker_id = worker(connection)
    claimed = claim(connection, worker_id)
    assert (
        refused(connection, "select flywheel._run_sql_checks(%s, %s)", [fences(claimed), [chosen]]).sqlstate == "22012"
    )
    call = "select flywheel._mark_unscored(%s, %s, 'raised', 'division by zero')"
    assert value(connection, call, [fences(claimed), chosen]) == 1
    connection.execute("select flywheel._finish(%s, %s)", [worker_id, fences(claimed)])
    assert accounts(connection, "short") == {"eligible": 1, "unscored": 1}


def test_one_run_scores_many_versions_of_both_answers(connection: Connection) -> None:
    activate(connection, "a", expression="span.output like '%1'")
    activate(connection, "b", expression="row(true, 0.5, span.output)::flywheel.verdict", target="span")
    activate(connection, "c", expression="false", target="input", filter={"node": "writer"})
    activate(connection, "d", expression="null::boolean", where="span.output <> 'answer 2'")
    insert_many(connection, 3)
    assert work_off(connection) == 8
    query = (
        "select validator, passed, value, unscored_reason, count(*) "
        "from flywheel.current_scores group by 1, 2, 3, 4 order by 1, 2"
    )
    assert rows(connection, query) == [
        ("a", False, None, None, 2),
        ("a", True, None, None, 1),
        ("b", True, 0.5, None, 3),
        ("d", None, None, "no_verdict", 2),
    ]
