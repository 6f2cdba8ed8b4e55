"""The queue: claims, fences, retries, pauses. A job is in one of four tables, whatever happens."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.sql.support import (
    Connection,
    accounts,
    activate,
    claim,
    complete,
    define,
    insert,
    insert_many,
    refused,
    rows,
    scores,
    value,
    work_off,
    worker,
)

WHERE = (
    "select (select count(*) from flywheel._ready), (select count(*) from flywheel._running), "
    "(select count(*) from flywheel._later), (select count(*) from flywheel._dead)"
)
PYTHON = {"kind": "python", "callable": "shop.checks:polite"}


def where(connection: Connection) -> dict[str, int]:
    """Return how many jobs lie in each table, without the empty ones."""
    names = ("ready", "running", "later", "dead")
    return {name: count for name, count in zip(names, rows(connection, WHERE)[0], strict=True) if count}


def fences(claimed: list[tuple[Any, ...]]) -> list[uuid.UUID]:
    return [row[0] for row in claimed]


@pytest.fixture
def queued(connection: Connection) -> list[uuid.UUID]:
    """Five jobs of one span each; before Postgres 18 ids are in order only by the millisecond."""
    activate(connection, "short")
    spans = []
    for place in range(5):
        spans.append(insert(connection, f"answer {place}"))
        connection.execute("select pg_sleep(0.002)")
    return spans


def test_jobs_are_claimed_in_the_order_in_which_they_came(connection: Connection, queued: list[uuid.UUID]) -> None:
    worker_id = worker(connection)
    claimed = claim(connection, worker_id, 2) + claim(connection, worker_id, 2)
    held = dict(rows(connection, "select fence, span_ids from flywheel._running"))
    assert [held[fence] for fence in fences(claimed)] == [[span_id] for span_id in queued[:4]]
    assert [(row[3], row[4], row[5]) for row in claimed] == [(1, 1, "live")] * 4
    assert where(connection) == {"ready": 1, "running": 4}


def claim_together(connection: Connection, worker_id: uuid.UUID, max_jobs: int = 1000) -> list[tuple[Any, ...]]:
    """Claim and return rows of fence, job_id, version_ids, span_count, attempt, origin, jobs."""
    query = "select * from flywheel._claim_together('bulk', 1::smallint, %s, %s) order by job_id"
    return rows(connection, query, [worker_id, max_jobs])


def test_jobs_of_single_inserts_are_claimed_as_one(connection: Connection, queued: list[uuid.UUID]) -> None:
    ids = rows(connection, "select job_id from flywheel._ready order by 1")
    worker_id = worker(connection)
    (first,) = claim_together(connection, worker_id, 3)
    (second,) = claim_together(connection, worker_id)
    assert [(row[3], row[4], row[6]) for row in (first, second)] == [(3, 1, 3), (2, 1, 2)]
    assert [(row[1],) for row in (first, second)] == [ids[2], ids[4]]  # the last one's: a floor passes over none
    held = dict(rows(connection, "select fence, span_ids from flywheel._running"))
    assert held == {first[0]: queued[:3], second[0]: queued[3:]}
    assert complete(connection, worker_id, [first, second]) == (2, 5)
    assert where(connection) == {}


def test_a_hundred_small_jobs_go_together_and_no_more(connection: Connection) -> None:
    activate(connection, "short")
    connection.execute(
        "do $$ begin for place in 1..120 loop insert into flywheel.spans (output) values ('a'); end loop; end $$"
    )
    assert sorted(row[6] for row in claim_together(connection, worker(connection))) == [20, 100]


def test_what_is_large_or_was_tried_or_is_for_other_versions_is_claimed_alone(connection: Connection) -> None:
    activate(connection, "short")
    insert_many(connection, 11)  # more than a hundredth of chunk_spans
    insert(connection)
    first = worker(connection)
    claim(connection, first)
    connection.execute("select flywheel._leave(%s)", [first])
    insert(connection)
    insert(connection)
    activate(connection, "other")
    insert(connection)
    found = claim_together(connection, worker(connection))
    assert sorted((row[3], row[4], row[6], len(row[2])) for row in found) == [
        (1, 1, 1, 2),
        (1, 2, 1, 1),
        (2, 1, 2, 1),
        (11, 2, 1, 1),
    ]


def test_live_work_goes_before_a_backfill(connection: Connection) -> None:
    insert_many(connection, 5)
    activate(connection, "short")
    backfill = value(
        connection, "select flywheel.start_backfill('short', now() - interval '1 day', now() + interval '1 s')"
    )
    connection.execute("select flywheel.advance_backfill(%s)", [backfill])
    insert(connection)
    worker_id = worker(connection)
    assert [(row[3], row[5]) for row in claim(connection, worker_id)] == [(1, "live")]
    assert [(row[3], row[5]) for row in claim(connection, worker_id, priority=2)] == [(5, "backfill")]


@pytest.mark.usefixtures("queued")
def test_two_workers_never_claim_the_same_job(connection: Connection, connect: Callable[[], Connection]) -> None:
    first, second = connect(), connect()
    workers = worker(connection), worker(connection)
    with first.transaction(), second.transaction():
        mine = claim(first, workers[0], 3)
        theirs = claim(second, workers[1], 3)
    assert (len(mine), len(theirs)) == (3, 2)
    assert not {row[1] for row in mine} & {row[1] for row in theirs}
    assert where(connection) == {"running": 5}


@pytest.mark.usefixtures("queued")
def test_a_claim_that_is_rolled_back_gives_its_jobs_back(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        assert len(claim(connection, worker(connection))) == 5
    assert where(connection) == {"ready": 5}


@pytest.mark.usefixtures("queued")
def test_a_floor_skips_what_came_before_it(connection: Connection) -> None:
    order = [job_id for (job_id,) in rows(connection, "select job_id from flywheel._ready order by 1")]
    assert [row[1] for row in claim(connection, worker(connection), after=order[2])] == order[3:]
    assert [row[1] for row in claim(connection, worker(connection))] == order[:3]


def test_a_lane_gives_only_its_own_jobs(connection: Connection) -> None:
    activate(connection, "short")
    activate(connection, "polite", **PYTHON, lane="judge")
    activate(connection, "polite_too", **PYTHON)
    insert(connection)
    worker_id = worker(connection)
    assert [len(row[2]) for row in claim(connection, worker_id)] == [2]
    assert [len(row[2]) for row in claim(connection, worker_id, lane="judge")] == [1]


def test_a_statement_makes_one_bulk_job_and_one_for_each_judge(connection: Connection) -> None:
    for name in ("a", "b"):
        activate(connection, name)
        activate(connection, f"judge_{name}", **PYTHON, lane="judge")
    insert_many(connection, 10)
    query = "select lane, cardinality(version_ids), cardinality(span_ids) from flywheel._ready order by 1"
    assert rows(connection, query) == [("bulk", 2, 10), ("judge", 1, 10), ("judge", 1, 10)]


def test_a_large_statement_is_cut_into_chunks_that_lose_nothing(connection: Connection) -> None:
    activate(connection, "short")
    insert_many(connection, 2_500)
    assert rows(connection, "select cardinality(span_ids) from flywheel._ready order by 1 desc") == [
        (1000,),
        (1000,),
        (500,),
    ]
    assert value(connection, "select count(distinct id) from flywheel._ready, unnest(span_ids) as id") == 2_500


def test_no_job_is_made_for_spans_nobody_wants(connection: Connection) -> None:
    activate(connection, "short", filter={"node": "writer"})
    activate(connection, "tiny", filter={"node": "tool"})
    insert(connection, node="app")
    assert where(connection) == {}
    connection.execute("insert into flywheel.spans (output, node) values ('a', 'app'), ('a', 'tool'), ('a', 'writer')")
    assert rows(connection, "select cardinality(span_ids) from flywheel._ready") == [(2,)]
    work_off(connection)
    assert scores(connection) == [("short", True, None), ("tiny", True, None)]


@pytest.mark.usefixtures("queued")
def test_a_finished_job_leaves_scores_and_a_line_in_the_log(connection: Connection) -> None:
    worker_id = worker(connection)
    claimed = claim(connection, worker_id)
    query = "select jobs, scores from flywheel._complete(%s, %s, %s, clock_timestamp())"
    assert rows(connection, query, [worker_id, fences(claimed), claimed[0][2]]) == [(5, 5)]
    assert where(connection) == {}
    query = "select worker_id, lane, jobs, spans, scores, outcome from flywheel.run_log"
    assert rows(connection, query) == [(worker_id, "bulk", 5, 5, 5, "completed")]


@pytest.mark.usefixtures("queued")
def test_a_fence_is_void_once_its_worker_was_reaped(connection: Connection) -> None:
    late = worker(connection, lease_seconds=0.001)
    claimed = claim(connection, late)
    connection.execute("select pg_sleep(0.01)")
    assert value(connection, "select flywheel._reap()") == 5
    assert where(connection) == {"ready": 5}
    assert value(connection, "select flywheel._lock_fences(%s, %s)", [late, fences(claimed)]) == []
    assert complete(connection, late, claimed) == (0, 0)
    assert value(connection, "select flywheel._finish(%s, %s)", [late, fences(claimed)]) == 0
    assert value(connection, "select count(*) from flywheel.scores") == 0
    assert work_off(connection) == 5


@pytest.mark.usefixtures("queued")
def test_another_workers_fence_opens_nothing(connection: Connection) -> None:
    mine, other = worker(connection), worker(connection)
    claimed = claim(connection, mine)
    for call in (
        "_lock_fences(%s, %s)",
        "_finish(%s, %s)",
        "_hold(%s, %s)",
        "_bury(%s, %s, 'x', 'x')",
        "_retry(%s, %s, 1, 'x', 'x')",
    ):
        assert not value(connection, f"select flywheel.{call}", [other, fences(claimed)])
    assert rows(connection, "select * from flywheel._split(%s, %s)", [other, claimed[0][0]]) == []
    assert where(connection) == {"running": 5}


def test_a_job_finished_twice_scores_once(connection: Connection, queued: list[uuid.UUID]) -> None:
    """Work may be done twice; its effect happens once."""
    work_off(connection)
    short = value(connection, "select version_id from flywheel.validator_versions")
    call = (
        "select flywheel._enqueue('bulk', 1::smallint, %s, %s, now() "
        "- interval '1 day', now() + interval '1 day', 'replay')"
    )
    connection.execute(call, [[short], queued])
    assert work_off(connection) == 0
    assert len(scores(connection)) == 5
    assert where(connection) == {}


def test_a_job_of_several_versions_splits_by_version_then_by_halves(connection: Connection) -> None:
    for name in ("a", "b", "c"):
        activate(connection, name)
    insert_many(connection, 5)
    worker_id = worker(connection)
    whole = claim(connection, worker_id)
    split = "select fence, version_ids, span_count from flywheel._split(%s, %s)"
    parts = rows(connection, split, [worker_id, whole[0][0]])
    assert sorted(len(part[1]) for part in parts) == [1, 1, 1]
    assert [part[2] for part in parts] == [5, 5, 5]
    halves = rows(connection, split, [worker_id, parts[0][0]])
    assert sorted(half[2] for half in halves) == [2, 3]
    assert len(rows(connection, split, [worker_id, whole[0][0]])) == 0
    query = (
        "select count(distinct (version, span)) from flywheel._running, "
        "unnest(version_ids) version, unnest(span_ids) span"
    )
    assert value(connection, query) == 15
    assert complete(connection, worker_id, claim_again(connection, worker_id)) == (4, 15)


def claim_again(connection: Connection, worker_id: uuid.UUID) -> list[tuple[Any, ...]]:
    """Return what the worker holds, as _claim does."""
    query = "select fence, job_id, version_ids, cardinality(span_ids) from flywheel._running where worker_id = %s"
    return rows(connection, query, [worker_id])


def test_a_failing_job_is_retried_later_and_dead_at_last(connection: Connection) -> None:
    activate(connection, "short")
    insert(connection)
    worker_id = worker(connection)
    for attempt in range(1, 6):
        claimed = claim(connection, worker_id)
        assert [row[4] for row in claimed] == [attempt]
        call = "select flywheel._retry(%s, %s, 0, 'unreachable', 'no route')"
        assert value(connection, call, [worker_id, fences(claimed)]) == 1
        assert where(connection) == ({"later": 1} if attempt < 5 else {"dead": 1})
        value(connection, "select flywheel._promote_later()")
    query = "select validators, spans, attempts, reason, detail from flywheel.dead_jobs"
    assert rows(connection, query) == [("short", 1, 5, "unreachable", "no route")]
    assert accounts(connection, "short") == {"eligible": 1, "dead": 1}


def test_a_rate_limit_costs_no_attempt(connection: Connection) -> None:
    activate(connection, "short")
    insert(connection)
    worker_id = worker(connection)
    for _ in range(7):
        claimed = claim(connection, worker_id)
        assert [row[4] for row in claimed] == [1]
        connection.execute("select flywheel._retry(%s, %s, 0, 'rate', null, false)", [worker_id, fences(claimed)])
        value(connection, "select flywheel._promote_later()")
    assert where(connection) == {"ready": 1}


@pytest.mark.usefixtures("queued")
def test_only_due_jobs_are_promoted_and_under_a_new_id(connection: Connection) -> None:
    worker_id = worker(connection)
    claimed = claim(connection, worker_id)
    for place, delay in enumerate((0, 0, 0, 3600, 3600)):
        call = "select flywheel._retry(%s, %s, %s, 'x', null)"
        connection.execute(call, [worker_id, [claimed[place][0]], delay])
    assert value(connection, "select flywheel._promote_later(2)") == 2
    assert value(connection, "select flywheel._promote_later()") == 1
    assert value(connection, "select flywheel._promote_later()") == 0
    assert where(connection) == {"ready": 3, "later": 2}
    highest = max(row[1] for row in claimed)
    assert all(row[1] > highest for row in claim(connection, worker_id))


@pytest.mark.usefixtures("queued")
def test_jobs_of_a_paused_validator_wait_until_it_resumes(connection: Connection) -> None:
    worker_id = worker(connection)
    connection.execute("select flywheel.pause_validator('short', 'too strict')")
    claimed = claim(connection, worker_id)
    assert value(connection, "select flywheel._hold(%s, %s)", [worker_id, fences(claimed)]) == 5
    assert value(connection, "select flywheel._promote_later()") == 0
    assert accounts(connection, "short") == {"eligible": 5, "later": 5}
    connection.execute("select flywheel.activate_validator('short')")
    assert value(connection, "select flywheel._promote_later()") == 5
    claimed = claim(connection, worker_id)
    assert [row[4] for row in claimed] == [1] * 5
    assert complete(connection, worker_id, claimed) == (5, 5)


@pytest.mark.usefixtures("queued")
def test_a_dead_job_is_replayed_alone_or_with_all_others(connection: Connection) -> None:
    worker_id = worker(connection)
    claimed = claim(connection, worker_id)
    connection.execute("select flywheel._bury(%s, %s, 'raised', 'why')", [worker_id, fences(claimed)])
    assert where(connection) == {"dead": 5}
    assert value(connection, "select flywheel.replay_dead(%s)", [claimed[0][1]]) == 1
    assert where(connection) == {"ready": 1, "dead": 4}
    assert value(connection, "select flywheel.replay_dead()") == 4
    assert value(connection, "select flywheel.replay_dead()") == 0
    claimed = claim(connection, worker_id)
    assert [(row[4], row[5]) for row in claimed] == [(1, "replay")] * 5
    said = refused(connection, "select flywheel.replay_dead(%s)", [claimed[0][1]])
    assert said.sqlstate == "WF007"
    assert str(claimed[0][1]) in (said.message_primary or "")


@pytest.mark.usefixtures("queued")
def test_a_paused_lane_is_not_claimed_and_keeps_filling(connection: Connection) -> None:
    connection.execute("select flywheel.pause_lane('bulk', 'maintenance')")
    assert claim(connection, worker(connection)) == []
    insert(connection)
    query = "select ready_jobs, ready_spans, paused, paused_reason from flywheel.queue_status where lane = 'bulk'"
    assert rows(connection, query) == [(6, 6, True, "maintenance")]
    connection.execute("select flywheel.resume_lane('bulk')")
    assert len(claim(connection, worker(connection))) == 6


@pytest.mark.parametrize("call", ["pause_lane('inline', 'x')", "pause_lane('fast', 'x')", "resume_lane('fast')"])
def test_a_lane_nobody_has_cannot_be_paused(connection: Connection, call: str) -> None:
    said = refused(connection, f"select flywheel.{call}")
    assert said.sqlstate == "WF009"
    assert (said.message_primary or "").startswith("there is no lane ")


def test_a_validator_retired_with_jobs_in_the_queue_still_ends_them(connection: Connection) -> None:
    activate(connection, "short")
    insert_many(connection, 3)
    connection.execute("select flywheel.retire_validator('short')")
    insert_many(connection, 3)
    assert work_off(connection) == 3
    assert accounts(connection, "short") == {"eligible": 3, "scored": 3}


def test_a_new_version_leaves_the_jobs_of_the_old_one_to_it(connection: Connection) -> None:
    activate(connection, "short", expression="true")
    insert(connection)
    define(connection, "short", expression="false")
    connection.execute("select flywheel.activate_validator('short')")
    insert(connection)
    assert work_off(connection) == 2
    query = "select version, passed from flywheel.current_scores order by 1"
    assert rows(connection, query) == [(1, True), (2, False)]


def test_the_age_of_the_oldest_job_is_in_the_status(connection: Connection, queued: list[uuid.UUID]) -> None:
    age = value(connection, "select oldest_ready_seconds from flywheel.queue_status where lane = 'bulk'")
    assert 0 <= age < 600
    assert value(connection, "select oldest_ready_seconds is null from flywheel.queue_status where lane = 'judge'")
    assert len(queued) == 5
