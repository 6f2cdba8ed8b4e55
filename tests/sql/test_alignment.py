"""Alignment: what people and judges said of the same span, and what follows from it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.sql.reference import close
from tests.sql.support import Connection, define, insert, refused, rows, value, version_id

STARTED = datetime(2026, 11, 20, 12, tzinfo=UTC)
NEIGHBOURS = {
    "kind": "neighbours",
    "lane": "bulk",
    "question": "Is the answer polite?",
    "pass_when": "it is",
    "fail_when": "it is rude",
}


def judge(connection: Connection, name: str = "polite", **more: Any) -> uuid.UUID:
    """Define a further version of a judge that needs no provider; return its id."""
    _, version, *_ = define(connection, name, **{**NEIGHBOURS, **more})
    return version_id(connection, name, version)


def labelled(
    connection: Connection,
    human: bool,
    verdicts: dict[uuid.UUID, tuple[bool | None, float | None]],
    split: str = "dev",
    name: str = "polite",
    incl_prob: float | None = None,
    node: str = "app",
) -> uuid.UUID:
    """Store a span, its label, and what judge versions said of it, with their confidence; past the queue."""
    span_id = uuid.uuid4()
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        connection.execute(
            """insert into flywheel.spans (span_id, trace_id, input, output, node, started_at)
               values (%s, %s, 'q', 'a', %s, %s)""",
            [span_id, span_id, node, STARTED],
        )
        connection.execute(
            """insert into flywheel.labels (label_id, validator_id, span_id, started_at, revision, trace_id, project,
                                            annotator, passed, critique, lane, incl_prob, group_key, split)
               select flywheel.new_id(), validator_id, %s, %s, 1, %s, 'default', 'ann', %s, 'so', %s, %s, %s, %s
                 from flywheel.validators where name = %s""",
            [
                *(span_id, STARTED, span_id, human, "triage" if incl_prob is None else "estimation"),
                *(incl_prob, str(span_id), split, name),
            ],
        )
        for judge_id, (passed, confidence) in verdicts.items():
            connection.execute(
                """insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed,
                                                confidence, unscored_reason, annotator_kind, cost_usd, latency_ms)
                   values (%s, 1, %s, %s, %s, 'default', %s, %s, %s, 'neighbours', 0.25, 100)""",
                [
                    span_id,
                    judge_id,
                    STARTED,
                    span_id,
                    passed,
                    confidence,
                    None if passed is not None else "no_examples",
                ],
            )
    return span_id


def cells(
    connection: Connection, judge_id: uuid.UUID, tp: int, fp: int, fn: int, tn: int, **more: Any
) -> list[uuid.UUID]:
    """Label spans so that a judge has these cells."""
    verdicts: Iterable[tuple[bool, bool, int]] = [
        (True, True, tp),
        (False, True, fp),
        (True, False, fn),
        (False, False, tn),
    ]
    return [
        labelled(connection, human, {judge_id: (said, 0.9)}, **more)
        for human, said, count in verdicts
        for _ in range(count)
    ]


def shown(connection: Connection, columns: str = "tp, fp, fn, tn", split: str = "all") -> list[tuple[Any, ...]]:
    return rows(connection, f"select {columns} from flywheel.alignment where split = %s order by version", [split])


def standing(connection: Connection, version: int = 1) -> tuple[bool, str]:
    connection.execute("select flywheel._refresh_standings()")
    query = "select provisional, reason from flywheel.judge_standing where version = %s"
    provisional, reason = rows(connection, query, [version])[0]
    return provisional, reason


def test_alignment_counts_each_split_and_all_that_may_be_seen(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 5, 1, 2, 3)
    cells(connection, judge_id, 4, 0, 0, 1, split="train")
    assert shown(connection, split="dev") == [(5, 1, 2, 3)]
    assert shown(connection, split="train") == [(4, 0, 0, 1)]
    assert shown(connection) == [(9, 1, 2, 4)]
    tpr, tnr, kappa, n_pass, n_fail, disagreements = shown(
        connection, "tpr, tnr, kappa, n_pass, n_fail, disagreements"
    )[0]
    assert (tpr, tnr) == (close(9 / 11), close(4 / 5))
    assert kappa == close((16 * 13 - (10 * 11 + 6 * 5)) / (16 * 16 - (10 * 11 + 6 * 5)))
    assert (n_pass, n_fail, disagreements) == (11, 5, 3)


def test_the_test_split_is_not_shown_once_there_is_enough_to_hold_out(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 20, 0, 0, 19)
    cells(connection, judge_id, 20, 0, 0, 0, split="test")
    assert shown(connection) == [(40, 0, 0, 19)]  # 59 are few: all are looked at together
    assert value(connection, "select count(*) from flywheel.judged_labels") == 59
    cells(connection, judge_id, 0, 1, 0, 0, split="test")
    assert shown(connection) == [(20, 0, 0, 19)]
    assert value(connection, "select count(*) from flywheel.judged_labels where split = 'test'") == 0
    assert value(connection, "select count(*) from flywheel.judge_disagreements") == 0
    assert value(connection, "select sum(labels) from flywheel.alignment_slices") == 39


def test_unscored_spans_are_no_verdict(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 2, 0, 0, 1)
    labelled(connection, False, {judge_id: (None, None)})
    assert shown(connection, "labels, unscored, n_fail") == [(3, 1, 1)]


def test_slices_tell_projects_and_nodes_apart(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 3, 0, 0, 1, node="writer")
    cells(connection, judge_id, 0, 2, 0, 0, node="planner")
    found = rows(connection, "select node, tp, fp, fn, tn from flywheel.alignment_slices order by node")
    assert found == [("planner", 0, 2, 0, 0), ("writer", 3, 0, 0, 1)]


def test_judges_of_one_question_share_its_labels(connection: Connection) -> None:
    cheap = judge(connection)
    strong = judge(connection, "polite_strong", labels_of="polite")
    other = judge(connection, "correct")
    labelled(connection, True, {cheap: (True, 0.9), strong: (False, 0.9), other: (True, 0.9)})
    found = rows(connection, "select validator, judge_passed from flywheel.judged_labels order by 1")
    assert found == [("polite", True), ("polite_strong", False)]


def test_drawn_labels_are_weighted_by_how_likely_they_were_drawn(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 1, 0, 0, 0, incl_prob=0.5)
    cells(connection, judge_id, 0, 0, 1, 3, incl_prob=1.0)
    cells(connection, judge_id, 0, 9, 9, 0)
    drawn, tpr, tnr = shown(connection, "drawn, weighted_tpr, weighted_tnr")[0]
    assert (drawn, tpr, tnr) == (5, close(2 / 3), 1)


def test_a_disagreement_stays_open_until_someone_looks_again(connection: Connection) -> None:
    judge_id = judge(connection)
    span_id = cells(connection, judge_id, 2, 1, 0, 0)[-1]
    query = "select span_id, kind, human_critique, reviewed from flywheel.judge_disagreements"
    assert rows(connection, query) == [(span_id, "false_pass", "so", False)]
    connection.execute(
        """insert into flywheel.labels (label_id, validator_id, span_id, started_at, revision, trace_id, project,
                                        annotator, passed, critique, blind, group_key, split, supersedes)
           select flywheel.new_id(), validator_id, span_id, started_at, revision, trace_id, project, annotator, false,
                  'still rude', false, group_key, split, label_id from flywheel.labels where span_id = %s""",
        [span_id],
    )
    assert rows(connection, query) == [(span_id, "false_pass", "still rude", True)]


def test_a_judge_without_labels_is_provisional(connection: Connection) -> None:
    judge(connection)
    assert rows(connection, "select provisional from flywheel.judge_standing") == [(True,)]
    assert standing(connection) == (True, "not enough data: 0 labels say pass, 0 say fail")


@pytest.mark.parametrize(
    ("given", "provisional", "words"),
    [
        ((40, 0, 0, 0), True, "not enough data: 40 labels say pass, 0 say fail"),
        ((40, 8, 0, 32), True, "TPR 1.00 and TNR 0.80: both must be above 0.80"),
        ((9, 0, 1, 10), True, "may be as low as"),
        ((38, 3, 2, 27), False, "TPR 0.95 and TNR 0.90 of 40 and 30 labels"),
    ],
)
def test_the_gate_wants_both_rates_high_and_surely_so(
    connection: Connection, given: tuple[int, int, int, int], provisional: bool, words: str
) -> None:
    cells(connection, judge(connection), *given)
    found, reason = standing(connection)
    assert found is provisional
    assert words in reason


def test_the_gate_looks_at_dev_where_there_is_enough_of_it(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 38, 3, 2, 27)
    cells(connection, judge_id, 0, 30, 30, 0, split="train")
    assert standing(connection)[0] is False


def test_the_gate_prefers_labels_that_were_drawn(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 38, 3, 2, 27, incl_prob=0.5)
    cells(connection, judge_id, 0, 10, 10, 0)
    assert standing(connection) == (False, "TPR 0.95 and TNR 0.90 of 40 and 30 labels")


def test_unequal_weights_count_as_fewer_labels(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 38, 3, 2, 27, incl_prob=0.9)
    cells(connection, judge_id, 2, 0, 0, 2, incl_prob=0.01)
    provisional, reason = standing(connection)
    assert provisional
    assert "may be as low as" in reason


def test_refreshing_writes_only_what_changed(connection: Connection) -> None:
    judge_id = judge(connection)
    query = "select flywheel._refresh_standings()"
    assert value(connection, query) == 1
    assert value(connection, query) == 0
    cells(connection, judge_id, 1, 0, 0, 0)
    assert value(connection, query) == 1


def test_current_scores_say_whether_a_verdict_is_provisional(connection: Connection) -> None:
    judge_id = judge(connection)
    connection.execute("select flywheel.activate_validator('polite')")
    cells(connection, judge_id, 38, 3, 2, 27)
    query = "select distinct provisional from flywheel.current_scores"
    assert rows(connection, query) == [(True,)]
    connection.execute("select flywheel._refresh_standings()")
    assert rows(connection, query) == [(False,)]


def test_a_draft_may_be_measured_without_deciding(connection: Connection) -> None:
    cells(connection, judge(connection), 1, 0, 0, 0)
    assert rows(connection, "select tp from flywheel.alignment where split = 'dev' and status = 'draft'") == [(1,)]
    assert rows(connection, "select * from flywheel.current_scores") == []


def test_the_test_split_is_read_once_a_version(connection: Connection) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 5, 1, 2, 3, split="test")
    read = "select split, tp, fp, fn, tn, disagreements from flywheel.read_test_split('polite')"
    assert rows(connection, read) == [("test", 5, 1, 2, 3, 3)]
    said = refused(connection, read)
    assert said.sqlstate == "WF014"
    assert "the test split was read by version 1 of polite" in (said.message_primary or "")
    again = "select tp from flywheel.read_test_split('polite', again => true)"
    assert rows(connection, again) == [(5,)]
    reads = rows(connection, "select read_number, labels from flywheel.test_reads order by 1")
    assert reads == [(1, 11), (2, 11)]


def test_reading_a_test_split_without_labels_uses_nothing_up(connection: Connection) -> None:
    judge(connection)
    said = refused(connection, "select flywheel.read_test_split('polite')")
    assert said.sqlstate == "WF009"
    assert "has judged no labelled span of the test split" in (said.message_primary or "")
    assert rows(connection, "select * from flywheel.test_reads") == []


def test_labelled_spans_are_queued_once_and_by_split(connection: Connection) -> None:
    judge_id = judge(connection)
    labelled(connection, True, {})
    labelled(connection, False, {})
    labelled(connection, False, {}, split="test")
    cells(connection, judge_id, 1, 0, 0, 0)
    queue = "select flywheel._queue_labelled(%s, array['train', 'dev'])"
    assert value(connection, queue, [judge_id]) == 2
    assert value(connection, queue, [judge_id]) == 0
    waiting = "select lane, origin, cardinality(span_ids), version_ids from flywheel._ready"
    assert rows(connection, waiting) == [("bulk", "replay", 2, [judge_id])]


def test_agreement_waits_for_labelled_spans_and_for_no_others(connection: Connection) -> None:
    judge_id = judge(connection)
    connection.execute("select flywheel.activate_validator('polite')")
    spans = [insert(connection) for _ in range(3)]
    waiting = "select soon, stuck from flywheel._waiting_for(%s)"
    assert rows(connection, waiting, [judge_id]) == [(0, 0)]
    connection.execute("select flywheel.record_label(%s, 'polite', true, 'ann')", [spans[1]])
    assert rows(connection, waiting, [judge_id]) == [(1, 0)]


@pytest.mark.parametrize("role", ["flywheel_analyst", "flywheel_reviewer", "flywheel_admin"])
def test_everyone_who_reads_numbers_may_read_alignment(connection: Connection, role: str) -> None:
    judge_id = judge(connection)
    cells(connection, judge_id, 2, 1, 1, 2)
    connection.execute(f"set role {role}".encode())
    for view in ("alignment", "alignment_slices", "judged_labels", "judge_disagreements", "judge_standing"):
        assert value(connection, f"select count(*) from flywheel.{view}") > 0, view
    assert value(connection, "select count(*) from flywheel.judge_calibration") == 0
    assert value(connection, "select labels from flywheel.compare_judges('polite', 1, 1)") == 6
    assert value(connection, "select flywheel.judge_probability(%s, true, null, 0.9)", [judge_id]) == 0.9


def test_only_admins_read_the_test_split_and_calibrate(connection: Connection) -> None:
    cells(connection, judge(connection), 1, 0, 0, 1, split="test")
    connection.execute("set role flywheel_analyst")
    for call in ("read_test_split('polite')", "calibrate_judge('polite')"):
        assert refused(connection, f"select flywheel.{call}").sqlstate == "42501"
    connection.execute("set role flywheel_admin")
    assert value(connection, "select count(*) from flywheel.read_test_split('polite')") == 1
    assert value(connection, "select method from flywheel.calibrate_judge('polite')") == "beta"


def test_a_deadlock_in_a_trial_of_examples_is_an_error_and_not_an_answer(connection: Connection) -> None:
    version = judge(connection)
    connection.execute(
        """create function public.deadlock() returns trigger language plpgsql as $$
           begin
             if new.name like 'tuning%' then raise exception using errcode = 'deadlock_detected'; end if;
             return new;
           end $$"""
    )
    connection.execute(
        """create trigger deadlock before insert on flywheel.validators
              for each row execute function public.deadlock()"""
    )
    query = "select flywheel._try_shots(%s, '{}', '{}', '{}', '{}', 8)"
    assert refused(connection, query, [version]).sqlstate == "40P01"
