"""Classifier nodes: precision, recall, calibration, against numbers worked out by hand."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.days import noon
from tests.sql.support import Connection, activate, insert, rows, value


def classified(connection: Connection, predicted: str | None, expected: Any = None, **columns: Any) -> uuid.UUID:
    """Insert a span of the node intent; what was expected is in its attributes, where it is known."""
    attributes = {"expected": expected} if expected is not None else {}
    usual = {"project": "shop", "node": "intent", "node_kind": "classifier", "started_at": noon()}
    given = {**usual, **columns, "attributes": Jsonb({**attributes, **columns.get("attributes", {})})}
    return insert(connection, predicted, **given)


def label(connection: Connection, span: uuid.UUID, passed: bool, name: str = "right", by: str = "ann") -> None:
    connection.execute("select flywheel.record_label(%s, %s, %s, %s, 'because')", [span, name, passed, by])


def fix(connection: Connection, span: uuid.UUID, output: str) -> None:
    connection.execute("select flywheel.record_fix(%s, %s, 'ann')", [span, output])


def answers(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(
        connection,
        """select predicted, expected, correct, known_from from flywheel.classified('-infinity', 'infinity')
            order by time, span_id""",
    )


@pytest.fixture
def three_classes(connection: Connection) -> Connection:
    """Ten answers: a a->b; b right 3 times, once c; c right twice and once nothing; d never predicted."""
    for both in ("aa", "aa", "ab", "bb", "bb", "bb", "bc", "cc", "cc", "cd"):
        classified(connection, both[0], both[1])
    return connection


def test_precision_recall_and_f1_are_those_worked_out_by_hand(three_classes: Connection) -> None:
    found = rows(
        three_classes,
        """select class, support, predicted, correct, "precision", recall, f1
             from flywheel.classification_metrics order by 1""",
    )
    third = pytest.approx
    assert found == [
        ("a", 2, 3, 2, third(2 / 3), 1.0, third(0.8)),
        ("b", 4, 4, 3, 0.75, 0.75, 0.75),
        ("c", 3, 3, 2, third(2 / 3), third(2 / 3), third(2 / 3)),
        ("d", 1, 0, 0, None, 0.0, 0.0),
    ]
    ((n, accuracy, macro, classes, low, high),) = rows(
        three_classes,
        """select distinct n, accuracy, macro_f1, classes, accuracy_low, accuracy_high
             from flywheel.classification_metrics""",
    )
    assert (n, classes, accuracy, macro) == (10, 4, 0.7, pytest.approx((0.8 + 0.75 + 2 / 3 + 0) / 4))
    assert 0.39 < low < 0.7 < high < 0.9


def test_the_confusion_adds_up_to_the_answers(three_classes: Connection) -> None:
    found = rows(three_classes, "select predicted, expected, n from flywheel.classification_confusion")
    assert sorted(found) == [
        ("a", "a", 2), ("a", "b", 1), ("b", "b", 3), ("b", "c", 1), ("c", "c", 2), ("c", "d", 1),
    ]  # fmt: skip


def test_releases_nodes_and_projects_are_counted_apart(connection: Connection) -> None:
    for columns in ({}, {"release": "v1"}, {"release": "v2"}, {"node": "topic"}, {"project": "other"}):
        classified(connection, "a", "a", **columns)
        classified(connection, "a", "b", **columns)
    found = rows(
        connection,
        "select project, node, release, n, accuracy, macro_f1 from flywheel.classification_metrics where class = 'a'",
    )
    assert {row[:3] for row in found} == {
        ("shop", "intent", None), ("shop", "intent", "v1"), ("shop", "intent", "v2"), ("shop", "topic", None),
        ("other", "intent", None),
    }  # fmt: skip
    assert [row[3:] for row in found] == [(2, 0.5, pytest.approx(1 / 3))] * 5


def test_a_fix_says_more_than_an_attribute_and_an_attribute_more_than_a_label(connection: Connection) -> None:
    activate(connection, "right")
    fixed, given, passed, failed, unknown = (
        classified(connection, "a", "b", started_at=noon() + timedelta(seconds=0)),
        classified(connection, "a", "b", started_at=noon() + timedelta(seconds=1)),
        classified(connection, "a", started_at=noon() + timedelta(seconds=2)),
        classified(connection, "a", started_at=noon() + timedelta(seconds=3)),
        classified(connection, "a", started_at=noon() + timedelta(seconds=4)),
    )
    for span, verdict in ((fixed, True), (given, True), (passed, True), (failed, False)):
        label(connection, span, verdict)
    fix(connection, fixed, "wrong at first")
    fix(connection, fixed, " a\n")
    assert unknown
    assert answers(connection) == [
        ("a", "a", True, "fix"),
        ("a", "b", False, "attribute"),
        ("a", "a", True, "label"),
        ("a", None, False, "label"),
    ]


def test_a_wrong_answer_of_unknown_class_counts_against_precision_and_accuracy(connection: Connection) -> None:
    activate(connection, "right")
    for passed in (True, True, True, False):
        label(connection, classified(connection, "a"), passed)
    query = 'select class, support, predicted, "precision", recall, n, accuracy from flywheel.classification_metrics'
    assert rows(connection, query) == [("a", 3, 4, 0.75, 1.0, 4, 0.75)]


def test_labels_that_differ_do_not_confirm_an_answer(connection: Connection) -> None:
    activate(connection, "right")
    activate(connection, "polite")
    span = classified(connection, "a")
    label(connection, span, True)
    label(connection, span, False, "polite")
    assert answers(connection) == [("a", None, False, "label")]


def test_what_was_said_of_an_older_revision_does_not_count(connection: Connection) -> None:
    activate(connection, "right")
    span = classified(connection, "a")
    label(connection, span, True)
    fix(connection, span, "b")
    connection.execute("update flywheel.spans set output = 'c' where span_id = %s", [span])
    assert answers(connection) == []


def test_a_node_that_said_nothing_was_wrong_and_one_that_still_runs_is_not_counted(connection: Connection) -> None:
    classified(connection, None, "a", status="error")
    classified(connection, None, "a", status="running")
    classified(connection, "a", "a", node_kind="writer")
    assert answers(connection) == [("", "a", False, "attribute")]


def test_calibration_compares_confidence_with_being_right(connection: Connection) -> None:
    for confidence, right in [(0.9, 1), (0.9, 1), (0.95, 0), (0.35, 1), (0.35, 0), (1, 1)]:
        classified(connection, "a", "a" if right else "b", attributes={"confidence": confidence})
    found = rows(
        connection,
        """select bin, n, mean_confidence, accuracy, accuracy_low < accuracy and accuracy < accuracy_high
             from flywheel.classification_calibration""",
    )
    assert found == [(4, 2, pytest.approx(0.35), 0.5, True), (10, 4, pytest.approx(0.9375), 0.75, True)]
    ((total, brier, error),) = rows(
        connection, "select distinct total, brier, calibration_error from flywheel.classification_calibration"
    )
    assert total == 6
    assert brier == pytest.approx((0.01 + 0.01 + 0.9025 + 0.4225 + 0.1225 + 0) / 6)
    assert error == pytest.approx((2 * 0.15 + 4 * 0.1875) / 6)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        (0, 0.0), (1, 1.0), ("0.5", 0.5), (" .5 ", 0.5), (1e-7, 1e-7), ("1e-99", 1e-99), (1.5, None), (-0.1, None),
        ("high", None), ("NaN", None), ("1e400", None), ("9" * 400, None), ("", None), (".", None), (None, None),
        (True, None), ([0.5], None), ({"p": 0.5}, None), ("0.5; drop table", None), ("0x1", None),
    ],
)  # fmt: skip
def test_a_confidence_that_is_no_number_from_0_to_1_is_unknown_and_no_error(
    connection: Connection, confidence: Any, expected: float | None
) -> None:
    classified(connection, "a", "a", attributes={"confidence": confidence})
    assert value(connection, "select confidence from flywheel.classified('-infinity', 'infinity')") == expected


def test_no_data_is_no_rows_and_one_answer_is_an_interval(connection: Connection) -> None:
    for view in ("metrics", "confusion", "calibration"):
        assert rows(connection, f"select * from flywheel.classification_{view}") == []
    classified(connection, "a", "a")
    query = "select accuracy, accuracy_low, accuracy_high, recall_low from flywheel.classification_metrics"
    assert rows(connection, query) == [(1.0, pytest.approx(0.2065, abs=1e-3), 1, pytest.approx(0.2065, abs=1e-3))]


def test_hostile_classes_and_attributes_are_text(connection: Connection) -> None:
    evil = "'; drop table flywheel.spans; --<script>\u202e"
    classified(connection, evil, evil)
    classified(connection, "x" * 100_000, "x" * 100_000)
    classified(connection, "a", {"class": "a"})
    connection.execute(
        """insert into flywheel.spans (node_kind, node, output, attributes)
           values ('classifier', 'intent', 'a', '["expected"]'), ('classifier', 'intent', 'a', '"expected"')"""
    )
    found = rows(connection, "select class, correct from flywheel.classification_metrics order by correct desc, class")
    assert (evil, 1) in found
    assert ("x" * 200, 1) in found


def test_spans_that_carry_their_class_are_found_by_their_index(connection: Connection) -> None:
    connection.execute(
        """insert into flywheel.spans (input, output, node_kind, started_at)
           select 'q', 'a', 'classifier', %s + n * interval '1 second' from generate_series(1, 5000) as n""",
        [noon()],
    )
    classified(connection, "a", "a")
    connection.execute("analyze flywheel.spans")
    query = """explain select span_id from flywheel.spans where node_kind = 'classifier' and attributes ? 'expected'
                and started_at >= now() - interval '30 days'"""
    plan = "\n".join(line for (line,) in rows(connection, query))
    assert f"spans_{noon():%Y%m%d}_started_at_idx" in plan
    assert f"Seq Scan on spans_{noon():%Y%m%d}" not in plan
