"""Second opinions, and labels that a judge proposed and a person decides."""

from __future__ import annotations

import uuid

import pytest

from tests.sql.queueing import claim, items, judge, polite, record
from tests.sql.support import Connection, activate, insert, insert_many, refused, rows, value

__all__ = ["polite"]


@pytest.mark.usefixtures("polite")
def test_two_reviewers_of_three_differ_and_a_third_settles_it(connection: Connection) -> None:
    insert_many(connection, 1)
    connection.execute("select flywheel.draw_labels('polite', 1, '-infinity', 'infinity', 'random', 2)")
    [span_id] = claim(connection)
    assert claim(connection, "bob") == [span_id]
    assert claim(connection, "cyd") == []
    record(connection, span_id)
    assert items(connection, "adjudication, closed_at is null") == [(False, True)]
    record(connection, span_id, passed=False, annotator="bob")
    assert items(connection, "adjudication, closed_at is null") == [(True, True)]
    assert rows(connection, "select passed, disputed from flywheel.gold_labels") == [(None, True)]
    assert claim(connection) == claim(connection, "bob") == []
    assert claim(connection, "cyd") == [span_id]
    assert claim(connection, "dan") == []
    record(connection, span_id, passed=False, annotator="cyd")
    assert items(connection, "adjudication, closed_at is null") == [(False, False)]
    query = "select passed, disputed, reviewers, lane from flywheel.gold_labels"
    assert rows(connection, query) == [(False, False, 3, "estimation")]
    assert rows(connection, "select adjudicated from flywheel.labels order by label_id") == [
        (False,),
        (False,),
        (True,),
    ]


@pytest.mark.usefixtures("polite")
def test_reviewers_who_agree_close_the_item_and_a_withdrawal_opens_it_again(connection: Connection) -> None:
    insert_many(connection, 1)
    connection.execute("update flywheel.settings set value = '2' where name = 'reviews_wanted'")
    [span_id] = claim(connection)
    assert claim(connection, "bob") == [span_id]
    label_id = record(connection, span_id)
    record(connection, span_id, annotator="bob")
    assert items(connection, "adjudication, closed_at is null") == [(False, False)]
    connection.execute("select flywheel.withdraw_label(%s, 'ada')", [label_id])
    assert items(connection, "adjudication, closed_at is null") == [(False, True)]
    assert claim(connection, "bob") == []
    assert claim(connection, "cyd") == [span_id]


@pytest.mark.usefixtures("polite")
def test_labels_that_nobody_was_asked_for_are_settled_too(connection: Connection) -> None:
    span_id = insert(connection)
    record(connection, span_id)
    record(connection, span_id, passed=False, annotator="bob")
    assert items(connection, "lane, adjudication, closed_at is null") == [("triage", True, True)]
    assert claim(connection, "cyd") == [span_id]
    record(connection, span_id, annotator="cyd")
    assert rows(connection, "select passed, disputed, lane from flywheel.gold_labels") == [(True, False, "triage")]
    assert items(connection, "adjudication, closed_at is null") == [(False, False)]


def test_a_provisional_label_never_counts_until_a_person_says_so(connection: Connection) -> None:
    activate(connection, "polite", expression="true")
    passed, failed, sure = (insert(connection) for _ in range(3))
    judge(connection, [(passed, True, None), (failed, False, None)])
    record(connection, sure)
    propose = "select flywheel.propose_labels('polite', 10)"
    assert value(connection, propose) == 2
    assert value(connection, propose) == 0
    kinds = "select annotator, annotator_kind, passed from flywheel.current_labels order by annotator, passed"
    proposed = [("polite v1", "judge", False), ("polite v1", "judge", True)]
    assert rows(connection, kinds) == [("ada", "human", True), *proposed]
    assert rows(connection, "select span_id from flywheel.gold_labels") == [(sure,)]
    stats = "select labelled, provisional from flywheel.label_stats"
    assert rows(connection, stats) == [(1, 2)]
    connection.execute("select flywheel.queue_triage('polite')")
    assert {span_id for (span_id,) in items(connection, "span_id")} == {passed, failed}
    assert items(connection, "item_id", "closed_at is not null") == []


def provisional(connection: Connection) -> dict[uuid.UUID, uuid.UUID]:
    query = "select span_id, label_id from flywheel.current_labels where annotator_kind = 'judge'"
    return dict(rows(connection, query))


def test_people_confirm_or_overturn_what_a_judge_proposed(connection: Connection) -> None:
    activate(connection, "polite", expression="true")
    passed, failed, wrong = (insert(connection) for _ in range(3))
    judge(connection, [(passed, True, None), (failed, False, None), (wrong, True, None)])
    connection.execute("select flywheel.propose_labels('polite')")
    offered = provisional(connection)
    confirm, overturn = "select flywheel.confirm_label(%s, 'ada')", "select flywheel.overturn_label(%s, 'ada', %s)"
    connection.execute(confirm, [offered[passed]])
    connection.execute(confirm, [offered[failed]])
    assert refused(connection, overturn, [offered[wrong], None]).sqlstate == "WF011"
    connection.execute(overturn, [offered[wrong], "calls names"])
    query = "select span_id, passed, critique, blind, lane, supersedes from flywheel.current_labels"
    found = {row[0]: row[1:] for row in rows(connection, query)}
    assert found == {
        passed: (True, "so it is", False, "triage", offered[passed]),
        failed: (False, "so it is", False, "triage", offered[failed]),
        wrong: (False, "calls names", False, "triage", offered[wrong]),
    }
    assert provisional(connection) == {}
    assert value(connection, "select count(*) from flywheel.gold_labels where not blind") == 3


def test_a_provisional_label_is_decided_once_and_only_by_confirming_or_overturning(connection: Connection) -> None:
    activate(connection, "polite", expression="true")
    spans = [insert(connection), insert(connection)]
    judge(connection, [(span_id, True, None) for span_id in spans])
    connection.execute("select flywheel.propose_labels('polite')")
    offered = provisional(connection)
    first, second = offered[spans[0]], offered[spans[1]]
    confirm = "select flywheel.confirm_label(%s, %s)"
    assert refused(connection, "select flywheel.withdraw_label(%s, 'polite v1')", [first]).sqlstate == "WF011"
    connection.execute(confirm, [first, "ada"])
    assert (
        refused(connection, confirm, [first, "bob"]).message_primary == f"provisional label {first} was decided already"
    )
    assert refused(connection, confirm, [uuid.uuid4(), "bob"]).sqlstate == "WF011"
    human = value(connection, "select label_id from flywheel.current_labels where annotator = 'ada'")
    assert refused(connection, confirm, [human, "bob"]).sqlstate == "WF011"
    record(connection, spans[1])
    assert refused(connection, confirm, [second, "ada"]).message_primary == f"ada has labelled span {spans[1]} already"
