"""The queue of people: who gets which span, drawn by chance or picked by priority, and what a second opinion does."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable

import pytest

from tests.sql.queueing import DRAW, claim, distinct, items, polite, record
from tests.sql.support import Connection, insert, insert_many, refused, rows, value

__all__ = ["polite"]


CLAIM = "select item_id, span_id, lane from flywheel.claim_labels(%s, %s, %s)"


def end_leases(connection: Connection) -> None:
    """Let all leases and deferrals be over."""
    connection.execute("""update flywheel._label_claims set changed_at = changed_at - interval '1 day',
                                 leased_until = leased_until - interval '1 day'""")


@pytest.mark.usefixtures("polite")
def test_ten_reviewers_at_once_never_get_the_same_span(
    connection: Connection, connect: Callable[..., Connection]
) -> None:
    insert_many(connection, 200)
    connection.execute("select flywheel.queue_triage('polite', 100)")  # the rest is queued when these are taken
    got: dict[str, list[uuid.UUID]] = {}

    def review(reviewer: str, session: Connection) -> None:
        got[reviewer] = []
        while taken := claim(session, reviewer, 7):
            got[reviewer] += taken
            for span_id in taken:
                record(session, span_id, annotator=reviewer)

    threads = [threading.Thread(target=review, args=(f"reviewer {n}", connect())) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = Counter(span_id for spans in got.values() for span_id in spans)
    assert len(got) == 10
    assert set(counted.values()) == {1}
    assert value(connection, "select count(*) from flywheel.current_labels") == counted.total() == 200


@pytest.mark.usefixtures("polite")
def test_reviewers_who_hold_their_claims_share_them_out(
    connection: Connection, connect: Callable[..., Connection]
) -> None:
    insert_many(connection, 40)
    connection.execute("select flywheel.queue_triage('polite', 40)")
    barrier = threading.Barrier(10)
    got: list[list[uuid.UUID]] = []

    def review(reviewer: str, session: Connection) -> None:
        barrier.wait()
        got.append(claim(session, reviewer, 4))

    threads = [threading.Thread(target=review, args=(f"reviewer {n}", connect())) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = [span_id for each in got for span_id in each]
    assert len(spans) == len(set(spans)) == 40


@pytest.mark.usefixtures("polite")
def test_a_claim_in_an_old_snapshot_fails_rather_than_give_a_span_twice(
    connection: Connection, connect: Callable[..., Connection]
) -> None:
    insert_many(connection, 3)
    connection.execute("select flywheel.queue_triage('polite', 3)")
    late = connect()
    late.execute("begin isolation level repeatable read")
    late.execute("select count(*) from flywheel._label_items")
    assert len(claim(connection)) == 3
    assert refused(late, CLAIM, ["polite", "bob", 3]).sqlstate == "40001"


@pytest.mark.usefixtures("polite")
def test_a_reviewer_gets_back_what_they_hold_and_others_get_it_when_the_lease_ends(connection: Connection) -> None:
    insert_many(connection, 4)
    connection.execute("select flywheel.queue_triage('polite', 4)")
    first = claim(connection, n=2)
    assert claim(connection, n=2) == first
    assert set(claim(connection, n=3)) > set(first)
    assert len(claim(connection, "bob")) == 1
    end_leases(connection)
    assert len(claim(connection, "cyd")) == 4
    assert claim(connection, "ada") == []


@pytest.mark.usefixtures("polite")
def test_who_lost_a_lease_to_another_cannot_answer_the_item(connection: Connection) -> None:
    insert_many(connection, 1)
    item_id, span_id, _ = rows(connection, CLAIM, ["polite", "ada", 1])[0]
    end_leases(connection)
    assert claim(connection, "bob") == [span_id]
    answer = "select flywheel.record_label(%s, 'polite', true, 'ada', null, true, %s)"
    assert refused(connection, answer, [span_id, item_id]).message_primary == f"item {item_id} is not held by ada"
    connection.execute("select flywheel._release_labels()")
    assert value(connection, "select count(*) from flywheel._label_claims") == 1


@pytest.mark.usefixtures("polite")
def test_a_claim_shows_the_span_and_the_question(connection: Connection) -> None:
    insert(connection, "Hello.", project="shop", node="answer")
    query = """select input, output, project, node, lane, target, question, pass_when, adjudication
                 from flywheel.claim_labels('polite', 'ada')"""
    assert rows(connection, query) == [
        ("question", "Hello.", "shop", "answer", "triage", "output", "Is the answer polite?", None, False)
    ]


@pytest.mark.usefixtures("polite")
def test_a_deferred_span_goes_to_others_and_comes_back_after_a_while(connection: Connection) -> None:
    insert_many(connection, 1)
    item_id, span_id, _ = rows(connection, CLAIM, ["polite", "ada", 1])[0]
    defer = "select flywheel.defer_label(%s, %s)"
    assert value(connection, defer, [item_id, "bob"]) is False
    assert value(connection, defer, [item_id, "ada"]) is True
    assert claim(connection, "ada") == []
    assert claim(connection, "bob") == [span_id]
    assert value(connection, defer, [item_id, "bob"]) is True
    end_leases(connection)
    assert claim(connection, "ada") == [span_id]


@pytest.mark.usefixtures("polite")
def test_undo_takes_the_last_label_back_and_gives_its_item_again(connection: Connection) -> None:
    insert_many(connection, 2)
    item_id, span_id, _ = rows(connection, CLAIM, ["polite", "ada", 1])[0]
    label_id = record(connection, span_id)
    assert rows(connection, "select * from flywheel.undo_label('ada')") == [(label_id, span_id, item_id)]
    assert rows(connection, "select * from flywheel.current_labels") == []
    assert claim(connection, n=1) == [span_id]
    assert refused(connection, "select flywheel.undo_label('ada')").sqlstate == "WF011"
    record(connection, span_id, passed=False)
    connection.execute("update flywheel.labels set labelled_at = labelled_at - interval '2 hours'")
    assert refused(connection, "select flywheel.undo_label('ada')").message_primary == (
        "ada has labelled nothing in the last hour"
    )


@pytest.mark.usefixtures("polite")
def test_spans_that_changed_or_are_gone_wait_for_nobody(connection: Connection) -> None:
    gone = insert(connection, "a1", started_at="2024-05-05 12:00+00")
    changed = insert(connection, "a2")
    kept = insert(connection, "a3")
    held = dict(rows(connection, "select span_id, item_id from flywheel.claim_labels('polite', 'ada')"))
    assert held.keys() == {gone, changed, kept}
    connection.execute("select flywheel.purge('2024-06-01')")
    connection.execute("update flywheel.spans set output = 'b' where span_id = %s", [changed])
    answer = "select flywheel.record_label(%s, 'polite', true, 'ada', null, true, %s)"
    assert refused(connection, answer, [changed, held[changed]]).message_primary == (
        f"span {changed} has changed since it was claimed"
    )
    assert claim(connection) == [kept]
    assert value(connection, "select flywheel._release_labels()") == 2
    assert items(connection, "span_id", "closed_at is null") == [(kept,)]


@pytest.mark.usefixtures("polite")
def test_estimation_and_triage_never_mix(connection: Connection) -> None:
    insert_many(connection, 300)
    connection.execute(DRAW.encode(), [100, "random"])
    drawn = {span_id for (span_id,) in items(connection, "span_id")}
    connection.execute("select flywheel.queue_triage('polite', 100)")
    picked = {span_id for (span_id,) in items(connection, "span_id", "lane = 'triage'")}
    assert len(picked) == 100
    assert not picked & drawn
    triage = claim(connection, n=20, lane="triage")
    assert set(triage) <= picked
    estimation = claim(connection, n=20, lane="estimation")
    assert set(estimation) <= drawn
    for span_id in [*triage, *estimation]:
        record(connection, span_id)
    curious = rows(
        connection, "select span_id from flywheel.spans where not span_id = any (%s) limit 1", [[*drawn, *picked]]
    )
    record(connection, curious[0][0])
    query = "select span_id, lane, incl_prob from flywheel.labels order by span_id"
    probability = distinct(connection, "incl_prob", "lane = 'estimation'")[0][0]
    expected = dict.fromkeys(estimation, ("estimation", probability))
    expected |= dict.fromkeys([*triage, curious[0][0]], ("triage", None))
    assert {span_id: (lane, chance) for span_id, lane, chance in rows(connection, query)} == expected


@pytest.mark.usefixtures("polite")
def test_a_drawn_span_that_was_labelled_in_triage_is_asked_again_and_counts_then(connection: Connection) -> None:
    span_id = insert(connection)
    record(connection, span_id)
    connection.execute(DRAW.encode(), [1, "random"])
    assert claim(connection) == [span_id]
    record(connection, span_id, passed=False)
    assert rows(connection, "select lane, incl_prob, passed from flywheel.gold_labels") == [("estimation", 1.0, False)]
    record(connection, span_id)  # a second thought, not claimed, stays in the draw
    assert rows(connection, "select lane, incl_prob, passed from flywheel.gold_labels") == [("estimation", 1.0, True)]


@pytest.mark.usefixtures("polite")
def test_an_unlabelled_draw_comes_before_triage_and_is_never_made_by_claiming(connection: Connection) -> None:
    insert_many(connection, 10)
    assert claim(connection, lane="estimation") == []
    assert items(connection, "item_id") == []
    assert len(claim(connection, "bob", n=1)) == 1
    connection.execute(DRAW.encode(), [10, "random"])
    lanes = [lane for _, _, lane in rows(connection, CLAIM, ["polite", "ada", 15])]
    assert lanes == ["estimation"] * 10 + ["triage"] * 5


@pytest.mark.usefixtures("polite")
def test_a_claim_asks_about_few_of_many_open_items(connection: Connection) -> None:
    insert_many(connection, 3000)
    connection.execute("select flywheel.queue_triage('polite', 3000)")
    connection.execute("analyze")
    connection.execute("set track_functions = 'all'")
    with connection.transaction():
        assert len(claim(connection, n=5)) == 5
        asked = "select calls from pg_stat_xact_user_functions where funcname = '_may_review'"
        assert value(connection, asked) < 50
