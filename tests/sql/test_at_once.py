"""People, judges and money at the same moment: what one decides by is not changed under it by another."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from psycopg.types.json import Jsonb

from tests.sql import exampling, test_batches
from tests.sql.blocking import meanwhile
from tests.sql.paying import COST, begin, books, budget, call, calls, decisions, end, judge, provider, running
from tests.sql.support import Connection, activate, insert, insert_many, rows, value, worker
from tests.sql.test_judgements import claimed, score

Connect = Callable[[], Connection]
END = "select jobs, scores from flywheel._end_judgements(%s, %s, %s, '[]', now())"
REVOKE = "select flywheel.revoke_example(%s, 'wrong', true)"
CLAIM = "select span_id from flywheel.claim_labels('polite', %s, 5)"
LEASES = "select reviewer from flywheel._label_claims where state = 'leased' and leased_until > now()"
STATUS = "select status from flywheel.examples"
FREEZE = "select flywheel.freeze_shots('best', 'polite', %s, 'eve')"
SIGN = "select flywheel.sign_example(%s, %s)"
POLICY = "select flywheel.set_example_policy('default', %s)"
BUDGET = "select flywheel.set_budget('provider', 'fake', 'day', %s)"
BEGIN = "select decision from flywheel._begin_calls(gen_random_uuid(), %s)"
BACKFILL = "select flywheel.start_backfill('polite', '2026-01-02')"
LINES = "select decision from flywheel._begin_lines(%s, %s, 'fake', 'small', %s)"


@pytest.fixture
def taught(connection: Connection) -> uuid.UUID:
    """A judge, and an example of its question among spans all of which may be examples; returns the version's id."""
    provider(connection)
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    return judge(connection)


def test_a_score_written_while_its_example_is_revoked_is_asked_for_again(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    first, second = insert(connection), insert(connection)
    exampling.label(connection, first, False)
    example = exampling.example_of(connection, first)
    worker_id, admin = worker(connection), connect()
    fences = claimed(connection, worker_id)
    said = [score(connection, taught, fence) for fence in fences]
    shown = [each | {"shots": [str(example)]} for each in said if each["span_id"] == str(second)]
    writing = connect()
    writing.execute("begin")
    writing.execute(END, [worker_id, fences, Jsonb(shown)])
    with meanwhile(connection, admin, REVOKE, [example]) as touched:
        writing.execute("commit")
    assert touched.result() == [(1,)]
    assert value(connection, "select count(*) from flywheel.scores") == 0
    assert rows(connection, "select span_ids, origin from flywheel._ready where lane = 'judge'") == [
        ([second], "replay")
    ]


def test_a_score_does_not_wait_while_its_example_is_compared_with_others(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    span = insert(connection)
    exampling.label(connection, span)
    example = exampling.example_of(connection, span)
    exampling.embed(connection, example, 1)
    worker_id, comparing = worker(connection), connect()
    fences = claimed(connection, worker_id)
    said = score(connection, taught, fences[0]) | {"shots": [str(example)]}
    with comparing.transaction():
        assert value(comparing, "select flywheel._advance_examples()") == 1
        connection.execute("set lock_timeout = '5s'")
        assert rows(connection, END, [worker_id, fences, Jsonb([said])]) == [(1, 1)]


def test_an_example_revoked_while_a_score_is_written_is_in_none(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    span = insert(connection)
    exampling.label(connection, span, False)
    example = exampling.example_of(connection, span)
    worker_id, admin, writing = worker(connection), connect(), connect()
    fences = claimed(connection, worker_id)
    said = score(connection, taught, fences[0]) | {"shots": [str(example)]}
    admin.execute("begin")
    admin.execute(REVOKE, [example])
    with meanwhile(connection, writing, END, [worker_id, fences, Jsonb([said])]) as ended:
        admin.execute("commit")
    assert ended.result() == [(1, 0)]
    assert rows(connection, "select span_ids, origin from flywheel._ready where lane = 'judge'") == [([span], "replay")]


@pytest.fixture
def over(connection: Connection) -> None:
    """A span whose lease by ada is over."""
    activate(connection, "polite")
    insert(connection)
    assert len(rows(connection, CLAIM, ["ada"])) == 1
    connection.execute("update flywheel._label_claims set leased_until = now() - interval '1 minute'")


@pytest.mark.parametrize(("first", "second"), [("ada", "bob"), ("bob", "ada")])
def test_a_lease_that_is_over_is_renewed_or_given_to_another_and_not_both(
    connection: Connection, connect: Connect, over: None, first: str, second: str
) -> None:
    one, two = connect(), connect()
    one.execute("begin")
    assert len(rows(one, CLAIM, [first])) == 1
    with meanwhile(connection, two, CLAIM, [second]) as given:
        one.execute("commit")
    assert given.result() == []
    assert rows(connection, LEASES) == [(first,)]


def test_who_labels_after_the_item_was_given_to_another_is_told(
    connection: Connection, connect: Connect, over: None
) -> None:
    item, span = rows(connection, "select item_id, span_id from flywheel._label_items")[0]
    ada, bob = connect(), connect()
    bob.execute("begin")
    assert len(rows(bob, CLAIM, ["bob"])) == 1
    query = "select flywheel.record_label(%s, 'polite', true, 'ada', item_id => %s)"
    with meanwhile(connection, ada, query, [span, item]) as said:
        bob.execute("commit")
    assert f"item {item} is not held by ada" in str(said.exception())
    assert rows(connection, LEASES) == [("bob",)]


def test_nothing_is_proposed_where_somebody_is_labelling(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    span, worker_id, ada = insert(connection), worker(connection), connect()
    fences = claimed(connection, worker_id)
    connection.execute(END, [worker_id, fences, Jsonb([score(connection, taught, fences[0])])])
    ada.execute("begin")
    exampling.label(ada, span)
    assert value(connection, "select flywheel.propose_labels('polite')") == 0
    ada.execute("commit")
    assert value(connection, "select flywheel.propose_labels('polite')") == 0


def test_of_examples_made_at_once_an_end_user_keeps_as_many_as_the_policy_lets(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    connection.execute("select flywheel.set_example_policy('default', 'auto', 1)")
    spans = [insert(connection, user_id="mallory") for _ in range(2)]
    one, two = connect(), connect()
    with one.transaction(), two.transaction():
        exampling.label(one, spans[0])
        exampling.label(two, spans[1])
    for number, span in enumerate(spans):
        exampling.embed(connection, exampling.example_of(connection, span), 1, number)
    connection.execute("select flywheel._advance_examples()")
    query = "select status, quarantined_reason from flywheel.examples order by status"
    assert rows(connection, query) == [("quarantined", "one_user"), ("servable", None)]


def test_an_example_made_while_its_policy_becomes_looser_is_served(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    connection.execute(POLICY, ["one"])
    span, author, admin = insert(connection), connect(), connect()
    author.execute("begin")
    exampling.label(author, span)
    with meanwhile(connection, admin, POLICY, ["auto"]) as served:
        author.execute("commit")
    assert served.result() == [(1,)]
    assert value(connection, STATUS) == "servable"


def test_a_signature_given_while_fewer_become_enough_counts(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    connection.execute(POLICY, ["two"])
    span, signer, admin = insert(connection), connect(), connect()
    exampling.label(connection, span)
    signer.execute("begin")
    assert value(signer, SIGN, [exampling.example_of(connection, span), "bob"]) == "candidate"
    with meanwhile(connection, admin, POLICY, ["one"]) as served:
        signer.execute("commit")
    assert served.result() == [(1,)]
    assert value(connection, STATUS) == "servable"


def test_of_two_who_freeze_a_set_of_one_name_the_second_is_told(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    span, one, two = insert(connection), connect(), connect()
    exampling.label(connection, span)
    given = [[exampling.example_of(connection, span)]]
    one.execute("begin")
    one.execute(FREEZE, given)
    with meanwhile(connection, two, FREEZE, given) as told:
        one.execute("commit")
    assert "shot set best is there already" in str(told.exception())


def test_an_example_that_is_being_revoked_is_not_signed_in_a_set(
    connection: Connection, connect: Connect, taught: uuid.UUID
) -> None:
    span, admin, signer = insert(connection), connect(), connect()
    exampling.label(connection, span)
    example = exampling.example_of(connection, span)
    admin.execute("begin")
    admin.execute(REVOKE, [example])
    with meanwhile(connection, signer, FREEZE, [[example]]) as told:
        admin.execute("commit")
    assert f"example {example} is no servable example" in str(told.exception())


def test_two_signatures_at_once_are_two(connection: Connection, connect: Connect, taught: uuid.UUID) -> None:
    connection.execute(POLICY, ["two"])
    span, bob, cyd = insert(connection), connect(), connect()
    exampling.label(connection, span)
    example = exampling.example_of(connection, span)
    bob.execute("begin")
    assert value(bob, SIGN, [example, "bob"]) == "candidate"
    with meanwhile(connection, cyd, SIGN, [example, "cyd"]) as status:
        bob.execute("commit")
    assert status.result() == [("servable",)]


def test_a_new_budget_pays_for_calls_that_are_on_their_way(connection: Connection) -> None:
    provider(connection)
    version = judge(connection)
    asked = calls(2, version)
    assert decisions(begin(connection, asked)) == ["go", "go"]
    assert end(connection, asked[:1]) == 1
    budget(connection, "provider", "fake", 1)
    budget(connection, "validator", "polite", 1, "month")
    budget(connection, "project", "elsewhere", 1)
    assert books(connection, "provider", "fake") == (COST, COST, False)
    assert books(connection, "validator", "polite", "month") == (COST, COST, False)
    assert books(connection, "project", "elsewhere") == (0, 0, False)
    assert end(connection, asked[1:]) == 1
    assert books(connection, "provider", "fake") == (2 * COST, 0, False)
    assert books(connection, "validator", "polite", "month") == (2 * COST, 0, False)


def test_a_call_that_ends_while_a_budget_is_set_is_paid_once(connection: Connection, connect: Connect) -> None:
    provider(connection)
    asked, ending, admin = calls(1, judge(connection)), connect(), connect()
    assert decisions(begin(connection, asked)) == ["go"]
    ending.execute("begin")
    assert end(ending, asked) == 1
    with meanwhile(connection, admin, BUDGET, [1]):
        ending.execute("commit")
    assert books(connection, "provider", "fake") == (COST, 0, False)


def test_a_call_that_began_just_before_a_budget_falls_under_it(connection: Connection, connect: Connect) -> None:
    provider(connection)
    asked, other, admin, beginning = calls(1, judge(connection)), connect(), connect(), connect()
    other.execute("begin")
    other.execute("select from flywheel._provider_states for no key update")
    with (
        meanwhile(connection, beginning, BEGIN, [Jsonb(asked)]) as told,
        meanwhile(connection, admin, BUDGET, [1]),
    ):
        other.execute("commit")
    assert told.result() == [("go",)]
    assert books(connection, "provider", "fake") == (0, COST, False)


def test_a_call_that_begins_while_a_budget_is_set_falls_under_it(connection: Connection, connect: Connect) -> None:
    provider(connection)
    asked, admin, beginning = calls(1, judge(connection)), connect(), connect()
    admin.execute("begin")
    admin.execute(BUDGET, [0])
    with meanwhile(connection, beginning, BEGIN, [Jsonb(asked)]) as told:
        admin.execute("commit")
    assert told.result() == [("over_budget",)]


PUT_OFF = {
    "one": "select flywheel._retry(%s, array[%s::uuid], 86400, 'over_budget', 'a cap', false)",
    "each": "select flywheel._retry_each(%s, array[%s::uuid], '{86400}', '{over_budget}', '{a cap}', '{false}')",
}
LATE = "select run_at > now() + interval '1 hour' from flywheel._later"


@pytest.fixture
def refused(connection: Connection) -> tuple[uuid.UUID, uuid.UUID]:
    """A worker, and its claim of a span whose call a budget refused."""
    provider(connection)
    judge(connection)
    budget(connection, "project", "shop", 0.0001)
    worker_id = worker(connection)
    fence = running(connection, worker_id)
    assert decisions(begin(connection, [call(fence=fence)], worker_id)) == ["over_budget"]
    return worker_id, fence


@pytest.mark.parametrize("way", PUT_OFF)
def test_who_was_refused_before_a_budget_was_raised_is_due_at_once(
    connection: Connection, refused: tuple[uuid.UUID, uuid.UUID], way: str
) -> None:
    budget(connection, "project", "shop", 100)
    connection.execute(PUT_OFF[way].encode(), refused)
    assert rows(connection, LATE) == [(False,)]


@pytest.mark.parametrize("way", PUT_OFF)
def test_who_is_put_off_while_a_budget_is_raised_is_due_at_once(
    connection: Connection, connect: Connect, refused: tuple[uuid.UUID, uuid.UUID], way: str
) -> None:
    waiting, admin = connect(), connect()
    waiting.execute("begin")
    waiting.execute(PUT_OFF[way].encode(), refused)
    assert rows(waiting, LATE) == [(True,)]
    with meanwhile(connection, admin, "select flywheel.set_budget('project', 'shop', 'day', 100)"):
        waiting.execute("commit")
    assert rows(connection, LATE) == [(False,)]


def test_who_asks_while_a_budget_is_raised_is_told_by_the_new_one(
    connection: Connection, connect: Connect, refused: tuple[uuid.UUID, uuid.UUID]
) -> None:
    admin, asking = connect(), connect()
    connection.execute("update flywheel._budget_periods set refused_usd = null")
    admin.execute("begin")
    admin.execute("select flywheel.set_budget('project', 'shop', 'day', 100)")
    with meanwhile(connection, asking, BEGIN, [Jsonb([call(purpose="test")])]) as told:
        admin.execute("commit")
    assert told.result() == [("go",)]


def test_two_who_start_one_backfill_go_on_with_the_same(connection: Connection, connect: Connect) -> None:
    activate(connection, "polite")
    insert_many(connection, 2)
    one, two = connect(), connect()
    one.execute("begin")
    first = value(one, BACKFILL)
    with meanwhile(connection, two, BACKFILL) as second:
        one.execute("commit")
    assert second.result() == [(first,)]
    assert value(connection, "select count(*) from flywheel._backfills") == 1


def test_a_span_claimed_twice_is_a_line_of_one_batch(connection: Connection, connect: Connect) -> None:
    provider(connection, abilities={"batch": True})
    judge(connection)
    test_batches.queued(connection, 1)
    connection.execute(
        "insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until)"
        " select lane, priority, gen_random_uuid(), version_ids, span_ids, started_from, started_until"
        "   from flywheel._ready"
    )
    sessions, workers = (connect(), connect()), (worker(connection), worker(connection))
    fences = [test_batches.claimed(connection, each, 1)[0] for each in workers]
    lines = [Jsonb([test_batches.line(connection, fence)]) for fence in fences]
    sessions[0].execute("begin")
    assert value(sessions[0], LINES, [workers[0], uuid.uuid4(), lines[0]]) == "line"
    with meanwhile(connection, sessions[1], LINES, [workers[1], uuid.uuid4(), lines[1]]) as told:
        sessions[0].execute("commit")
    assert told.result() == [("twice",)]
    assert value(connection, "select count(*) from flywheel._batch_lines") == 1


def test_a_batch_that_was_returned_takes_no_more_lines(connection: Connection, connect: Connect) -> None:
    provider(connection, abilities={"batch": True})
    judge(connection)
    test_batches.queued(connection, 2)
    worker_id, batch_id, late = worker(connection), uuid.uuid4(), connect()
    one, two = (test_batches.line(connection, each) for each in test_batches.claimed(connection, worker_id))
    assert test_batches.begin(connection, worker_id, batch_id, [one]) == [("line", None)]
    connection.execute("begin")
    connection.execute("select flywheel._return_batch(%s, 'batch', 0, 'lost', 'its worker is gone')", [batch_id])
    with meanwhile(connect(), late, LINES, [worker_id, batch_id, Jsonb([two])]) as told:
        connection.execute("commit")
    assert told.result() == [("released",)]
    assert value(connection, "select count(*) from flywheel._batch_lines") == 0
    assert value(connection, "select count(*) from flywheel._reservations") == 0
    assert rows(connection, "select fence from flywheel._running") == [(uuid.UUID(two["fence"]),)]
