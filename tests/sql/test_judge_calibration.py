"""Calibration of judges, trusted verdicts, and two versions on the same rows."""

from __future__ import annotations

import math
import uuid
from typing import Any

import pytest

from tests.sql.reference import close
from tests.sql.support import Connection, refused, rows, value
from tests.sql.test_alignment import cells, judge, labelled


def calibrated(connection: Connection, arguments: str = "") -> dict[str, Any]:
    query = f"select to_jsonb(made) from flywheel.calibrate_judge('polite'{arguments}) as made"
    return dict(value(connection, query))


def probability(connection: Connection, judge_id: uuid.UUID, passed: bool, confidence: float | None) -> float:
    return float(
        value(connection, "select flywheel.judge_probability(%s, %s, null, %s)", [judge_id, passed, confidence])
    )


@pytest.mark.parametrize(("each", "method"), [(2, "beta"), (13, "platt"), (50, "isotonic")])
def test_the_method_follows_the_number_of_labels(connection: Connection, each: int, method: str) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, each, each, each, each)
    made = calibrated(connection)
    assert (made["method"], made["labels"]) == (method, 4 * each)
    assert made["brier"] == close(0.25, 1e-3)  # a judge that knows nothing
    assert probability(connection, judge_id, True, 0.9) == close(0.5, 1e-3)


def test_few_labels_give_each_verdict_its_smoothed_rate(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 8, 1, 2, 5)
    calibrated(connection)
    assert probability(connection, judge_id, True, 0.9) == close(9 / 11)
    assert probability(connection, judge_id, False, 0.9) == close(3 / 9)


def test_a_verdict_that_was_not_calibrated_is_taken_as_it_is(connection: Connection) -> None:
    judge_id = judge(connection)
    assert probability(connection, judge_id, True, 0.8) == 0.8
    assert probability(connection, judge_id, False, 0.8) == close(0.2)
    assert probability(connection, judge_id, False, None) == 0.01
    assert value(connection, "select flywheel.judge_probability(%s, null, 0.5, null)", [judge_id]) is None


def test_verdicts_are_trusted_from_drawn_labels_only(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 20, 0, 0, 20)
    made = calibrated(connection)
    assert made["threshold"] is None
    assert made["basis"] == "0 drawn labels with a confidence; 30 are needed"
    made = calibrated(connection, ", any_lane => true")
    assert (made["threshold"], made["trusted"], made["errors"]) == (0.9, 40, 0)
    assert "no guarantee" in made["basis"]


def test_the_threshold_leaves_out_what_the_judge_was_unsure_of(connection: Connection) -> None:
    judge_id = judge(connection)
    for place in range(60):
        sure = place < 40
        labelled(connection, True, {judge_id: (sure or place % 2 == 0, 0.9 if sure else 0.6)}, incl_prob=0.2)
    made = calibrated(connection, ", alpha => 0.08")
    assert (made["threshold"], made["trusted"], made["errors"], made["alpha"]) == (0.9, 40, 0, 0.08)
    assert calibrated(connection, ", alpha => 0.04")["threshold"] is None


def test_labels_of_the_test_split_calibrate_nothing(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 40, 0, 0, 40, split="test")
    said = refused(connection, "select flywheel.calibrate_judge('polite')")
    assert said.sqlstate == "WF009"
    assert "has judged no labelled span" in (said.message_primary or "")


def test_calibrating_again_replaces_what_was_fitted(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 3, 0, 0, 3)
    calibrated(connection)
    cells(connection, judge_id, 0, 3, 3, 0)
    assert calibrated(connection)["labels"] == 12
    assert value(connection, "select count(*) from flywheel.calibrations") == 1


def test_two_versions_are_compared_on_what_both_judged(connection: Connection) -> None:
    first, second = judge(connection), judge(connection, pass_when="it is very polite")
    for _ in range(2):
        labelled(connection, True, {first: (True, 0.9), second: (False, 0.9)})
    for _ in range(11):
        labelled(connection, False, {first: (True, 0.9), second: (False, 0.9)})
    labelled(connection, True, {first: (True, 0.9), second: (True, 0.9)})
    labelled(connection, False, {first: (False, 0.9)})
    labelled(connection, False, {first: (False, 0.9), second: (None, None)})
    query = """select labels, both_right, only_a_right, only_b_right, both_wrong, mcnemar_p, log_e,
                      tpr_a, tpr_b, tnr_a, tnr_b, cost_usd_a, latency_ms_b
                 from flywheel.compare_judges('polite', 1, 2)"""
    *counts, p, log_e, tpr_a, tpr_b, tnr_a, tnr_b, cost, latency = rows(connection, query)[0]
    assert counts == [14, 1, 2, 11, 0]
    assert p == close(0.0224609375)
    assert log_e == close(math.lgamma(2.5) + math.lgamma(11.5) - math.lgamma(14) - math.log(math.pi) + 13 * math.log(2))
    assert (tpr_a, tpr_b, tnr_a, tnr_b) == (1, close(1 / 3), 0, 1)
    assert (cost, latency) == (0.25, 100)


def test_only_judges_of_one_question_are_compared_and_never_on_test(connection: Connection) -> None:
    judge(connection)
    judge(connection, "correct")
    said = refused(connection, "select flywheel.compare_judges('polite', 1, 1, validator_b => 'correct')")
    assert said.sqlstate == "WF009"
    assert "answer different questions" in (said.message_primary or "")
    said = refused(connection, "select flywheel.compare_judges('polite', 1, 1, 'test')")
    assert said.sqlstate == "WF009"
    assert "split is test" in (said.message_primary or "")
