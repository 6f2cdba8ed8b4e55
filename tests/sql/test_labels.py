"""Labels and fixes: what people say, kept as they said it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.sql.support import Connection, activate, define, insert, refused, rows, value

RECORD = "select flywheel.record_label(%s, %s, %s, %s, %s)"


def label(
    connection: Connection, span_id: uuid.UUID, passed: bool = True, annotator: str = "ada", critique: str | None = None
) -> uuid.UUID:
    """Label a span under validator polite; a fail gets a critique."""
    said = critique or (None if passed else "rude")
    made: uuid.UUID = value(connection, RECORD, [span_id, "polite", passed, annotator, said])
    return made


def gold(connection: Connection, span_id: uuid.UUID) -> list[tuple[Any, ...]]:
    query = (
        "select passed, critique, reviewers, disputed from flywheel.gold_labels where span_id = %s order by revision"
    )
    return rows(connection, query, [span_id])


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A validator to label for; returns the id of its version."""
    return activate(connection, "polite", expression="span.output !~ 'idiot'", description="Is the answer polite?")


def test_a_label_copies_what_it_needs_of_its_span(connection: Connection, polite: uuid.UUID) -> None:
    span_id = insert(connection, project="shop", session_id="s1", trace_id=uuid.UUID(int=7))
    label_id = label(connection, span_id, passed=False, critique=" calls names ")
    query = """select span_id, revision, trace_id, project, version_id, annotator, annotator_kind, passed
                 from flywheel.labels where label_id = %s"""
    assert rows(connection, query, [label_id]) == [
        (span_id, 1, uuid.UUID(int=7), "shop", polite, "ada", "human", False)
    ]
    said = """select critique, blind, lane, incl_prob, group_key, split = flywheel._split('s1'), recorded_by
                from flywheel.labels"""
    assert rows(connection, said) == [("calls names", True, "triage", None, "s1", True, "postgres")]


@pytest.mark.usefixtures("polite")
@pytest.mark.parametrize("critique", [None, "", "  \n"])
def test_a_fail_without_a_critique_is_refused(connection: Connection, critique: str | None) -> None:
    said = refused(connection, RECORD, [insert(connection), "polite", False, "ada", critique])
    assert (said.sqlstate, said.message_primary) == ("WF011", "a label that says fail has no critique")
    assert value(connection, "select count(*) from flywheel.labels") == 0


@pytest.mark.usefixtures("polite")
def test_a_label_needs_a_verdict_a_name_a_validator_and_a_span(connection: Connection) -> None:
    span_id = insert(connection)
    for given, sqlstate in (
        ([span_id, "polite", None, "ada", "x"], "WF011"),
        ([span_id, "polite", True, " ", "x"], "WF011"),
        ([span_id, "polite", True, None, "x"], "WF011"),
        ([span_id, "unknown", True, "ada", "x"], "WF002"),
        ([uuid.uuid4(), "polite", True, "ada", "x"], "WF010"),
    ):
        assert refused(connection, RECORD, given).sqlstate == sqlstate


@pytest.mark.usefixtures("polite")
def test_who_labels_again_replaces_their_own_label_and_nobody_elses(connection: Connection) -> None:
    span_id = insert(connection)
    first, other = label(connection, span_id), label(connection, span_id, annotator="bob")
    second = label(connection, span_id, passed=False)
    assert rows(connection, "select label_id, supersedes from flywheel.labels order by label_id") == [
        (first, None),
        (other, None),
        (second, first),
    ]
    current = "select annotator, passed from flywheel.current_labels order by annotator"
    assert rows(connection, current) == [("ada", False), ("bob", True)]


@pytest.mark.usefixtures("polite")
def test_gold_is_unanimous_or_disputed_until_somebody_settles_it(connection: Connection) -> None:
    span_id = insert(connection)
    label(connection, span_id)
    assert gold(connection, span_id) == [(True, None, 1, False)]
    label(connection, span_id, passed=False, annotator="bob")
    assert gold(connection, span_id) == [(None, None, 2, True)]
    label(connection, span_id, passed=False, critique="calls names")
    assert gold(connection, span_id) == [(False, "calls names", 2, False)]


@pytest.mark.usefixtures("polite")
def test_a_new_revision_has_no_label_and_the_old_one_keeps_its_own(connection: Connection) -> None:
    span_id = insert(connection)
    label(connection, span_id)
    connection.execute("update flywheel.spans set output = 'other' where span_id = %s", [span_id])
    label(connection, span_id, passed=False)
    assert gold(connection, span_id) == [(True, None, 1, False), (False, "rude", 1, False)]


@pytest.mark.usefixtures("polite")
def test_a_label_is_changed_and_withdrawn_by_its_annotator_only(connection: Connection) -> None:
    span_id = insert(connection)
    label_id = label(connection, span_id)
    relabel = "select flywheel.relabel(%s, false, %s, %s)"
    assert refused(connection, relabel, [label_id, "bob", "rude"]).message_primary == (
        f"label {label_id} is by ada, not by bob"
    )
    assert refused(connection, relabel, [label_id, "ada", None]).sqlstate == "WF011"
    assert refused(connection, relabel, [uuid.uuid4(), "ada", "rude"]).sqlstate == "WF011"
    second = value(connection, relabel, [label_id, "ada", "rude"])
    assert refused(connection, relabel, [label_id, "ada", "rude"]).message_primary == (
        f"label {label_id} was replaced or withdrawn already"
    )
    withdraw = "select flywheel.withdraw_label(%s, %s)"
    assert refused(connection, withdraw, [second, "bob"]).sqlstate == "WF011"
    connection.execute(withdraw, [second, "ada"])
    assert rows(connection, "select * from flywheel.current_labels") == []
    assert gold(connection, span_id) == []
    assert value(connection, "select count(*) from flywheel.labels") == 3
    label(connection, span_id)
    assert gold(connection, span_id) == [(True, None, 1, False)]


@pytest.mark.usefixtures("polite")
def test_labels_and_fixes_outlive_their_span(connection: Connection) -> None:
    span_id = insert(connection, started_at="2024-05-05 12:00+00")
    label_id = label(connection, span_id, passed=False)
    connection.execute("select flywheel.record_fix(%s, 'better', 'ada', 'polite')", [span_id])
    connection.execute("select flywheel.purge('2024-06-01')")
    assert value(connection, "select count(*) from flywheel.spans") == 0
    assert gold(connection, span_id) == [(False, "rude", 1, False)]
    assert value(connection, "select output from flywheel.fixes") == "better"
    second = value(connection, "select flywheel.relabel(%s, true, 'ada')", [label_id])
    assert gold(connection, span_id) == [(True, None, 1, False)]
    connection.execute("select flywheel.withdraw_label(%s, 'ada')", [second])
    assert gold(connection, span_id) == []
    assert refused(connection, RECORD, [span_id, "polite", True, "ada", None]).sqlstate == "WF010"


@pytest.mark.usefixtures("polite")
def test_a_fix_says_what_the_output_should_have_been(connection: Connection) -> None:
    span_id = insert(connection, "You idiot.", session_id="s1")
    record = "select flywheel.record_fix(%s, %s, %s, %s, %s, %s)"
    connection.execute(record, [span_id, "Dear customer.", "ada", "polite", "calls names", "policy 3"])
    connection.execute(record, [span_id, "Hello.", "bob", None, None, None])
    query = """select validators.name, fixes.annotator, fixes.output, wrong, why, group_key,
                      split = flywheel._split('s1')
                 from flywheel.fixes left join flywheel.validators using (validator_id) order by fix_id"""
    assert rows(connection, query) == [
        ("polite", "ada", "Dear customer.", "calls names", "policy 3", "s1", True),
        (None, "bob", "Hello.", None, None, "s1", True),
    ]
    for output, annotator, validator, sqlstate in (
        ("You idiot.", "ada", None, "WF011"),
        ("", "ada", None, "WF011"),
        (None, "ada", None, "WF011"),
        ("x", "", None, "WF011"),
        ("x", "ada", "unknown", "WF002"),
    ):
        assert refused(connection, record, [span_id, output, annotator, validator, None, None]).sqlstate == sqlstate


def test_labels_of_a_cascades_tier_are_those_of_its_question(connection: Connection, polite: uuid.UUID) -> None:
    connection.execute("""insert into flywheel.providers (provider, base_url) values ('fake', 'http://localhost/v1')""")
    asked = {"question": "Is it polite?", "pass_when": "polite", "fail_when": "rude", "provider": "fake", "model": "m"}
    define(connection, "polite_strong", kind="judge", labels_of="polite", **asked)
    span_id = insert(connection)
    connection.execute(RECORD.encode(), [span_id, "polite_strong", True, "ada", None])
    query = "select validator, version_id <> %s from flywheel.current_labels"
    assert rows(connection, query, [polite]) == [("polite", True)]


def test_splits_are_of_groups_and_have_their_shares(connection: Connection) -> None:
    query = """select flywheel._split('group ' || n), count(*) from generate_series(1, 20000) as n group by 1"""
    shares = {split: count / 20_000 for split, count in rows(connection, query)}
    expected = {"train": 0.2, "dev": 0.4, "test": 0.4}
    assert shares.keys() == expected.keys()
    assert all(abs(shares[split] - share) < 0.02 for split, share in expected.items())
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    assert value(connection, "select flywheel._split('group 1')") == "train"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, "00000000-0000-0000-0000-000000000009"),
        ({"session_id": "s1"}, "s1"),
        ({"session_id": ""}, "00000000-0000-0000-0000-000000000009"),
        ({"session_id": "s1", "attributes": '{"group_key": "cluster 4"}'}, "cluster 4"),
    ],
)
def test_the_group_is_named_or_the_conversation_or_the_trace(
    connection: Connection, columns: dict[str, str], expected: str
) -> None:
    insert(connection, trace_id=uuid.UUID(int=9), **columns)
    assert value(connection, "select flywheel._group_key(spans) from flywheel.spans") == expected


def test_an_items_text_is_what_is_judged(connection: Connection) -> None:
    query = """select flywheel._item_text(target, 'q', output)
                 from (values ('input', 'a'), ('output', 'a'), ('span', null)) as given(target, output)"""
    assert rows(connection, query) == [("q",), ("q\n\na",), ("q",)]


@pytest.mark.usefixtures("polite")
def test_two_labels_of_one_person_at_once_leave_one_current(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    span_id = insert(connection)
    other = connect()
    with other.transaction():
        label(other, span_id)
        connection.execute("set lock_timeout = '100ms'")
        assert refused(connection, RECORD, [span_id, "polite", False, "ada", "rude"]).sqlstate == "55P03"
    connection.execute("set lock_timeout = 0")
    label(connection, span_id, passed=False)
    assert rows(connection, "select passed from flywheel.current_labels") == [(False,)]
