"""why(): one test for each state it knows."""

from __future__ import annotations

import pytest

from tests.sql.paying import judge, provider
from tests.sql.support import (
    Connection,
    accounts,
    activate,
    claim,
    define,
    inline,
    insert,
    insert_past_triggers,
    refused,
    rows,
    state,
    value,
    work_off,
    worker,
)


def test_scored(connection: Connection) -> None:
    inline(connection, "good", expression="true")
    inline(connection, "bad", expression="row(false, 0.1, 'too rude')::flywheel.verdict")
    span_id = insert(connection)
    assert state(connection, span_id, "good") == ("scored", "pass")
    assert state(connection, span_id, "bad") == ("scored", "fail: too rude")


def test_unscored(connection: Connection) -> None:
    inline(connection, "raising", expression="1 / (length(span.output) - 4) > 0")
    inline(connection, "silent", expression="null::boolean")
    span_id = insert(connection, "fine")
    assert state(connection, span_id, "raising") == ("unscored", "raised: division by zero")
    assert state(connection, span_id, "silent") == ("unscored", "no_verdict: it returned null")


def test_queued(connection: Connection) -> None:
    activate(connection, "short")
    worker(connection)
    assert state(connection, insert(connection), "short") == ("queued", "lane bulk, live")


def test_queued_and_no_worker_is_there_to_claim_it(connection: Connection) -> None:
    activate(connection, "short")
    assert state(connection, insert(connection), "short") == (
        "queued",
        "lane bulk, live; no worker of this lane is alive",
    )


def test_queued_in_a_lane_that_is_paused(connection: Connection) -> None:
    activate(connection, "short")
    worker(connection)
    span_id = insert(connection)
    connection.execute("select flywheel.pause_lane('bulk', 'the provider moves house')")
    assert state(connection, span_id, "short") == (
        "queued",
        "lane bulk, live; the lane is paused: the provider moves house",
    )


def test_queued_though_its_where_raises(connection: Connection) -> None:
    worker(connection)
    activate(connection, "short", where="1 / (length(span.output) - 4) > 0")
    assert state(connection, insert(connection, "fine"), "short") == ("queued", "lane bulk, live")


def test_running(connection: Connection) -> None:
    activate(connection, "short")
    span_id = insert(connection)
    worker_id = worker(connection)
    claim(connection, worker_id)
    found, detail = state(connection, span_id, "short")
    assert found == "running"
    assert detail == f"attempt 1, worker {worker_id}"


def test_retrying(connection: Connection) -> None:
    activate(connection, "short")
    span_id = insert(connection)
    worker_id = worker(connection)
    fences = [row[0] for row in claim(connection, worker_id)]
    connection.execute("select flywheel._retry(%s, %s, 60, 'unreachable', 'no route')", [worker_id, fences])
    assert state(connection, span_id, "short") == ("retrying", "unreachable: no route")


def test_dead(connection: Connection) -> None:
    activate(connection, "short")
    span_id = insert(connection)
    worker_id = worker(connection)
    fences = [row[0] for row in claim(connection, worker_id)]
    connection.execute("select flywheel._bury(%s, %s, 'crashed', 'out of luck')", [worker_id, fences])
    assert state(connection, span_id, "short") == ("dead", "crashed: out of luck")


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ({"filter": {"node": ["writer", "tool"]}}, 'node is app, not ["writer", "tool"]'),
        ({"filter": {"release": "7"}}, 'release is null, not "7"'),
        ({"target": "input"}, "input is null"),
        ({"where": "span.cost_usd > 1"}, "where is not true: span.cost_usd > 1"),
        ({"where": "span.node <> 'app' -- no apps"}, "where is not true: span.node <> 'app' -- no apps"),
    ],
)
def test_filtered_by_what(connection: Connection, definition: dict[str, object], words: str) -> None:
    activate(connection, "short", **{"expression": "true", **definition})
    assert state(connection, insert(connection, input=None), "short") == ("filtered", words)


def test_sampled_out(connection: Connection) -> None:
    activate(connection, "rarely", sample=0.0001)
    spans = [insert(connection) for _ in range(5)]
    assert ("sampled_out", "the sample rate is 0.0001") in {state(connection, span_id, "rarely") for span_id in spans}


def test_paused(connection: Connection) -> None:
    activate(connection, "short")
    connection.execute("select flywheel.pause_validator('short', 'too strict')")
    assert state(connection, insert(connection), "short") == ("paused", "manual: too strict")


def test_paused_with_its_job_held(connection: Connection) -> None:
    activate(connection, "short")
    span_id = insert(connection)
    worker_id = worker(connection)
    connection.execute("select flywheel.pause_validator('short', 'too strict')")
    connection.execute("select flywheel._hold(%s, %s)", [worker_id, [row[0] for row in claim(connection, worker_id)]])
    found, detail = state(connection, span_id, "short")
    assert found == "paused"
    assert "too strict" in detail


def test_not_active(connection: Connection) -> None:
    span_id = insert(connection)
    define(connection, "short")
    assert state(connection, span_id, "short") == ("not_active", "version 1 is draft")
    connection.execute("select flywheel.activate_validator('short')")
    found, detail = state(connection, span_id, "short")
    assert found == "not_active"
    assert "pgflywheel backfill short" in detail


def test_missing(connection: Connection) -> None:
    activate(connection, "short")
    worker(connection)
    insert_past_triggers(connection)
    span_id = value(connection, "select span_id from flywheel.spans")
    found, detail = state(connection, span_id, "short")
    assert found == "missing"
    assert "reconcile" in detail
    connection.execute("select flywheel.reconcile(now() - interval '1 day', clock_timestamp())")
    assert state(connection, span_id, "short") == ("queued", "lane bulk, reconcile")
    work_off(connection)
    assert state(connection, span_id, "short") == ("scored", "pass")


def test_each_version_with_an_answer_has_a_row(connection: Connection) -> None:
    inline(connection, "short", expression="true")
    span_id = insert(connection)
    inline(connection, "short", expression="false")
    define(connection, "other")
    query = "select validator, version, state from flywheel.why(%s)"
    assert rows(connection, query, [span_id]) == [
        ("other", 1, "not_active"),
        ("short", 1, "scored"),
        ("short", 2, "not_active"),
    ]


def test_an_old_revisions_score_is_no_answer(connection: Connection) -> None:
    activate(connection, "short")
    span_id = insert(connection)
    work_off(connection)
    connection.execute("update flywheel.spans set output = 'new'")
    assert state(connection, span_id, "short") == ("queued", "lane bulk, live")


def test_a_span_nobody_has_is_said_so(connection: Connection) -> None:
    said = refused(connection, "select * from flywheel.why('00000000-0000-0000-0000-000000000001')")
    assert said.sqlstate == "WF010"
    assert said.message_primary == "there is no span 00000000-0000-0000-0000-000000000001"


def test_without_validators_there_is_nothing_to_say(connection: Connection) -> None:
    assert rows(connection, "select * from flywheel.why(%s)", [insert(connection)]) == []


def test_running_in_a_batch(connection: Connection) -> None:
    provider(connection)
    polite = judge(connection)
    span_id = insert(connection)
    batch_id = value(
        connection,
        """insert into flywheel._batches (batch_id, provider, model, lines)
           values (gen_random_uuid(), 'fake', 'small', 1) returning batch_id""",
    )
    connection.execute("delete from flywheel._ready")
    connection.execute(
        """insert into flywheel._batch_lines
             (call_id, batch_id, version_id, span_id, revision, started_at, attempt, origin, request_hash, rung, model)
           select gen_random_uuid(), %s, %s, span_id, 1, started_at, 1, 'backfill', 'hash', 'text', 'small'
             from flywheel.spans""",
        [batch_id, polite],
    )
    assert state(connection, span_id, "polite") == ("running", "in a batch at provider fake")
    assert accounts(connection, "polite") == {"eligible": 1, "running": 1}


def test_a_judges_own_spans_and_those_no_tier_handed_on_are_filtered(connection: Connection) -> None:
    provider(connection)
    judge(connection)
    judge(connection, "strict", runs="escalated")
    own = insert(connection, attributes='{"pgflywheel.judge": "polite"}')
    assert state(connection, own, "polite") == ("filtered", "a judge's own span")
    span_id = insert(connection)
    assert state(connection, span_id, "polite")[0] == "queued"
    assert state(connection, span_id, "strict") == ("filtered", "not handed on by an earlier tier")
