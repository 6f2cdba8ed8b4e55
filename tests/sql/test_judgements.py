"""What a judge reads of its claims, and the act that ends them."""

from __future__ import annotations

import uuid
from typing import Any

from psycopg.types.json import Jsonb

from tests.sql.paying import begin, call, judge, provider
from tests.sql.support import Connection, insert, insert_many, rows, value, worker


def claimed(connection: Connection, worker_id: uuid.UUID, most: int = 100) -> list[uuid.UUID]:
    """Claim calls and return their fences."""
    query = "select fence from flywheel._claim_calls(1::smallint, %s, %s)"
    return [fence for (fence,) in rows(connection, query, [worker_id, most])]


def read(connection: Connection, fences: list[uuid.UUID], version_id: uuid.UUID, columns: str) -> list[tuple[Any, ...]]:
    """Return columns of what the judge reads."""
    query = f"select {columns} from flywheel._read_judgements(%s, %s)"
    return rows(connection, query, [fences, version_id])


def score(connection: Connection, version_id: uuid.UUID, fence: uuid.UUID) -> dict[str, Any]:
    """Return the judgement of a claimed span, as a worker writes it."""
    (found,) = rows(
        connection,
        "select to_jsonb(subject) from flywheel._read_judgements(%s, %s) as subject",
        [[fence], version_id],
    )
    keys = ("span_id", "revision", "started_at", "trace_id", "project", "fence")
    said = {"version_id": str(version_id), "passed": True, "critique": "it is", "votes": 1, "cost_usd": 0.001}
    return {key: found[0][key] for key in keys} | said


def end(
    connection: Connection,
    worker_id: uuid.UUID,
    fences: list[uuid.UUID],
    judgements: list[dict[str, Any]],
    calls: list[dict[str, Any]],
) -> tuple[int, int]:
    """End claims; return the jobs that held and the scores."""
    query = "select jobs, scores from flywheel._end_judgements(%s, %s, %s, %s, now())"
    (ended,) = rows(connection, query, [worker_id, fences, Jsonb(judgements), Jsonb(calls)])
    return ended[0], ended[1]


def test_score_job_and_money_end_together(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection)
    insert(connection)
    worker_id = worker(connection)
    (fence,) = claimed(connection, worker_id)
    asked = call(version_id, fence=fence)
    assert begin(connection, [asked], worker_id)[0][0] == "go"
    judged = score(connection, version_id, fence)
    assert end(connection, worker_id, [fence], [judged], [asked | {"outcome": "answered"}]) == (1, 1)
    assert rows(connection, "select passed, critique, annotator_kind, votes, cost_usd from flywheel.scores") == [
        (True, "it is", "judge", 1, 0.001)
    ]
    assert value(connection, "select outcome from flywheel.calls") == "answered"
    assert value(connection, "select count(*) from flywheel._running") == 0
    assert value(connection, "select count(*) from flywheel._reservations") == 0


def test_a_claim_that_was_lost_writes_no_score_and_its_call_is_settled(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection)
    insert_many(connection, 2)
    worker_id = worker(connection)
    kept, lost = claimed(connection, worker_id)
    asked = [call(version_id, fence=kept), call(version_id, fence=lost)]
    begin(connection, asked, worker_id)
    judged = [score(connection, version_id, fence) for fence in (kept, lost)]
    connection.execute("update flywheel._running set worker_id = gen_random_uuid() where fence = %s", [lost])
    answered = [each | {"outcome": "answered"} for each in asked]
    assert end(connection, worker_id, [kept, lost], judged, answered) == (1, 1)
    assert rows(connection, "select span_id from flywheel.scores") == [(uuid.UUID(judged[0]["span_id"]),)]
    assert value(connection, "select count(*) from flywheel.calls where outcome = 'answered'") == 2
    assert value(connection, "select fence from flywheel._running") == lost


def test_what_was_judged_meanwhile_is_not_read(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection)
    insert_many(connection, 2)
    worker_id = worker(connection)
    first, second = claimed(connection, worker_id)
    query = "select flywheel._write_judgements(%s)"
    assert value(connection, query, [Jsonb([score(connection, version_id, first)])]) == 1
    assert read(connection, [first, second], version_id, "fence") == [(second,)]


def test_a_smaller_sample_is_a_share_of_the_same_traces(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection, sample=0.5, degrade={"sample_at": 0.5, "sample": 0.4})
    insert_many(connection, 400)
    fences = claimed(connection, worker(connection), 1000)
    found = read(connection, fences, version_id, "sampled")
    assert 150 < len(found) < 250
    assert 0.25 < sum(sampled for (sampled,) in found) / len(found) < 0.55


def test_parents_that_form_a_ring_end(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection, context={"parents": True}, filter={"node": "answer"})
    ids = [uuid.uuid4() for _ in range(3)]
    trace_id = uuid.uuid4()
    for span_id, parent_id, node in zip(ids, [ids[1], ids[2], ids[1]], ["answer", "plan", "route"], strict=True):
        connection.execute(
            "insert into flywheel.spans (span_id, trace_id, parent_span_id, node, input, output)"
            " values (%s, %s, %s, %s, 'in', 'out')",
            [span_id, trace_id, parent_id, node],
        )
    fences = claimed(connection, worker(connection))
    ((parents,),) = read(connection, fences, version_id, "parents")
    assert len(parents) == 20
    assert [step["node"] for step in parents[-2:]] == ["route", "plan"]


def test_nothing_is_embedded_where_there_is_no_example(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection)
    insert(connection)
    fences = claimed(connection, worker(connection))
    assert read(connection, fences, version_id, "exemplified") == [(False,)]
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    span_id = value(connection, "select span_id from flywheel.spans")
    connection.execute("select flywheel.record_label(%s, 'polite', false, 'ann', 'it is not kind')", [span_id])
    assert read(connection, fences, version_id, "exemplified") == [(True,)]


def test_what_was_said_with_an_example_revoked_meanwhile_is_asked_again(connection: Connection) -> None:
    provider(connection)
    version_id = judge(connection)
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    first = insert(connection)
    name = value(connection, "select name from flywheel.validators")
    connection.execute("select flywheel.record_label(%s, %s, false, 'ada', 'It is rude.')", [first, name])
    example = value(connection, "select example_id from flywheel.examples")
    second = insert(connection)
    worker_id = worker(connection)
    fences = claimed(connection, worker_id)
    judged = [score(connection, version_id, fence) for fence in fences]
    shown = [said | {"shots": [str(example)]} if said["span_id"] == str(second) else said for said in judged]
    connection.execute("select flywheel.revoke_example(%s, 'wrong', true)", [example])
    assert end(connection, worker_id, fences, shown, []) == (2, 1)
    assert rows(connection, "select span_id from flywheel.scores") == [(first,)]
    assert rows(connection, "select lane, span_ids, origin from flywheel._ready where lane = 'judge'") == [
        ("judge", [second], "replay")
    ]
