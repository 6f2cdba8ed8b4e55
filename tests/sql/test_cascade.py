"""Tiers of a cascade: who keeps a verdict, who hands a span on, and what the question's verdict is."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.sql.support import Connection, rows, value

JUDGE = {
    "kind": "judge",
    "question": "Is the answer polite?",
    "pass_when": "It is polite.",
    "fail_when": "It is rude.",
    "provider": "here",
    "model": "m",
}
CHEAP, STRONG = "polite_cheap", "polite"


@pytest.fixture
def cascade(connection: Connection) -> Connection:
    """A cheap judge that hands on to a strong one, which hands on to a person."""
    connection.execute("select flywheel.set_provider('here', '{\"base_url\": \"http://127.0.0.1:9/v1\"}')")
    define(connection, STRONG, runs="escalated", escalates_to="person")
    define(connection, CHEAP, labels_of=STRONG, escalates_to=STRONG)
    return connection


def define(connection: Connection, name: str, **keys: Any) -> None:
    definition = json.dumps(JUDGE | keys)
    connection.execute("select flywheel.define_validator(%s, %s::jsonb)", [name, definition])
    connection.execute("select flywheel.activate_validator(%s)", [name])


def insert(connection: Connection, count: int = 1) -> list[UUID]:
    query = "insert into flywheel.spans (input, output) select 'a', 'b' from generate_series(1, %s) returning span_id"
    return [found[0] for found in connection.execute(query, [count])]


def trust_from(connection: Connection, name: str, threshold: float | None) -> None:
    connection.execute(
        "insert into flywheel.calibrations (version_id, method, parameters, labels, threshold, alpha, delta)"
        " select version_id, 'beta', '{}', 10, %s, 0.1, 0.1 from flywheel.validator_versions"
        "   join flywheel.validators using (validator_id) where name = %s",
        [threshold, name],
    )


def judge(connection: Connection, name: str, span_id: UUID, passed: bool | None, confidence: float | None) -> int:
    written: int = value(
        connection,
        "select flywheel._write_judgements(jsonb_agg(jsonb_build_object('span_id', span_id, 'revision', revision,"
        "   'started_at', started_at, 'trace_id', trace_id, 'project', project, 'version_id', version_id,"
        "   'passed', %s::boolean, 'confidence', %s::float8, 'cost_usd', 0.25,"
        "   'reason', case when %s::boolean is null then 'refused' end)))"
        "  from flywheel.spans, flywheel.validator_versions join flywheel.validators using (validator_id)"
        " where span_id = %s and name = %s",
        [passed, confidence, passed, span_id, name],
    )
    return written


def queued_for(connection: Connection, name: str) -> list[UUID]:
    query = (
        "select unnest(span_ids) from flywheel._ready"
        "  join flywheel.validator_versions on version_id = any (version_ids)"
        "  join flywheel.validators using (validator_id) where name = %s"
    )
    return [found[0] for found in rows(connection, query, [name])]


def test_a_new_span_is_queued_for_the_first_tier_only(cascade: Connection) -> None:
    (span,) = insert(cascade)
    assert queued_for(cascade, CHEAP) == [span]
    assert queued_for(cascade, STRONG) == []


@pytest.mark.parametrize(
    ("threshold", "passed", "confidence", "handed_on"),
    [
        (0.9, True, 0.95, False),
        (0.9, True, 0.9, False),
        (0.9, False, 0.89, True),
        (0.9, True, None, True),
        (0.9, None, None, True),
        (None, True, 1.0, True),
    ],
)
def test_a_tier_hands_on_what_it_is_not_sure_of(
    cascade: Connection, threshold: float | None, passed: bool | None, confidence: float | None, handed_on: bool
) -> None:
    (span,) = insert(cascade)
    trust_from(cascade, CHEAP, threshold)
    assert judge(cascade, CHEAP, span, passed, confidence) == 1
    assert queued_for(cascade, STRONG) == ([span] if handed_on else [])


def test_a_score_written_twice_is_handed_on_once(cascade: Connection) -> None:
    (span,) = insert(cascade)
    assert [judge(cascade, CHEAP, span, True, 0.5), judge(cascade, CHEAP, span, True, 0.5)] == [1, 0]
    assert queued_for(cascade, STRONG) == [span]


def test_the_last_tier_hands_on_to_people_in_the_triage_lane(cascade: Connection) -> None:
    (span,) = insert(cascade)
    judge(cascade, CHEAP, span, True, 0.5)
    judge(cascade, STRONG, span, True, 0.6)
    query = "select span_id, lane, incl_prob, components ->> 'confidence' from flywheel._label_items"
    assert rows(cascade, query) == [(span, "triage", None, "0.6")]


def test_a_shadow_hands_nothing_on(connection: Connection) -> None:
    connection.execute("select flywheel.set_provider('here', '{\"base_url\": \"http://127.0.0.1:9/v1\"}')")
    define(connection, STRONG, runs="escalated")
    shadow = json.dumps(JUDGE | {"labels_of": STRONG, "escalates_to": STRONG})
    connection.execute("select flywheel.define_validator(%s, %s::jsonb)", [CHEAP, shadow])
    connection.execute("select flywheel.shadow_validator(%s)", [CHEAP])
    (span,) = insert(connection)
    judge(connection, CHEAP, span, True, 0.5)
    assert queued_for(connection, STRONG) == []


def test_the_books_balance_when_some_spans_were_handed_on(cascade: Connection) -> None:
    sure, unsure, waiting = insert(cascade, 3)
    trust_from(cascade, CHEAP, 0.9)
    judge(cascade, CHEAP, sure, True, 0.99)
    judge(cascade, CHEAP, unsure, True, 0.6)
    query = "select eligible, scored, queued, missing from flywheel.accounts where validator = %s"
    assert rows(cascade, query, [STRONG]) == [(1, 0, 1, 0)]
    assert rows(cascade, query, [CHEAP]) == [(3, 2, 1, 0)]
    assert waiting in queued_for(cascade, CHEAP)


def test_the_reconciler_queues_what_was_handed_on_while_the_next_tier_was_paused(cascade: Connection) -> None:
    (span,) = insert(cascade)
    judge(cascade, CHEAP, span, True, 0.5)
    cascade.execute("delete from flywheel._ready")
    value(cascade, "select flywheel.reconcile(now() - interval '1 minute', clock_timestamp())")
    assert queued_for(cascade, STRONG) == [span]


def test_the_question_has_the_verdict_of_the_first_tier_that_is_trusted(cascade: Connection) -> None:
    sure, unsure, open_ = insert(cascade, 3)
    trust_from(cascade, CHEAP, 0.9)
    trust_from(cascade, STRONG, 0.7)
    judge(cascade, CHEAP, sure, True, 0.99)
    judge(cascade, CHEAP, unsure, True, 0.6)
    judge(cascade, STRONG, unsure, False, 0.8)
    judge(cascade, CHEAP, open_, True, 0.6)
    query = (
        "select passed, decided_by, settled, tiers, cost_usd from flywheel.question_verdicts"
        " where validator = %s and span_id = %s"
    )
    assert rows(cascade, query, [STRONG, sure])[0] == (True, CHEAP, True, 1, 0.25)
    assert rows(cascade, query, [STRONG, unsure])[0] == (False, STRONG, True, 2, 0.5)
    assert rows(cascade, query, [STRONG, open_])[0] == (True, CHEAP, False, 1, 0.25)


def test_a_person_has_the_last_word(cascade: Connection) -> None:
    (span,) = insert(cascade)
    judge(cascade, CHEAP, span, True, 0.6)
    judge(cascade, STRONG, span, True, 0.6)
    cascade.execute("select flywheel.record_label(%s, %s, false, 'ann', 'It is rude.')", [span, STRONG])
    query = "select passed, decided_by, settled from flywheel.question_verdicts where span_id = %s"
    assert rows(cascade, query, [span])[0] == (False, "person", True)


def test_what_each_tier_cost_can_be_read(cascade: Connection) -> None:
    sure, unsure = insert(cascade, 2)
    trust_from(cascade, CHEAP, 0.9)
    trust_from(cascade, STRONG, 0.7)
    judge(cascade, CHEAP, sure, True, 0.99)
    judge(cascade, CHEAP, unsure, True, 0.6)
    judge(cascade, STRONG, unsure, False, 0.8)
    query = (
        "select validator, judged, kept, handed_on, cost_usd, cost_per_kept_usd from flywheel.cascade_status order by 1"
    )
    assert rows(cascade, query) == [(STRONG, 1, 1, 0, 0.25, 0.25), (CHEAP, 2, 1, 1, 0.5, 0.5)]


def test_a_draft_that_was_measured_on_labels_decides_nothing(cascade: Connection) -> None:
    (span_id,) = insert(cascade)
    trust_from(cascade, STRONG, 0.6)
    judge(cascade, STRONG, span_id, True, 0.9)
    cascade.execute(
        "select flywheel.define_validator(%s, %s::jsonb)",
        [STRONG, json.dumps(JUDGE | {"question": "Is it kind?", "runs": "escalated", "escalates_to": "person"})],
    )
    cascade.execute(
        """insert into flywheel.scores
                  (span_id, revision, version_id, started_at, trace_id, project, passed, annotator_kind, confidence)
           select span_id, revision, version_id, started_at, trace_id, project, false, 'judge', 1
             from flywheel.spans, flywheel.validator_versions where version = 2"""
    )
    assert rows(cascade, "select passed, version, settled from flywheel.question_verdicts") == [(True, 1, True)]
    assert rows(cascade, "select version from flywheel.cascade_status") == [(1,)]


@pytest.mark.parametrize("view", ["question_verdicts", "current_scores", "score_history"])
def test_reviewers_cannot_look_up_verdicts_before_they_label(connection: Connection, view: str) -> None:
    assert not value(connection, "select has_table_privilege('flywheel_reviewer', %s, 'select')", [f"flywheel.{view}"])


def test_what_was_handed_on_is_purged_with_its_day(cascade: Connection) -> None:
    (span_id,) = insert(cascade)
    judge(cascade, CHEAP, span_id, True, 0.6)
    cascade.execute("select flywheel.purge(now() - interval '1 day')")
    assert value(cascade, "select count(*) from flywheel._escalations") == 1
    cascade.execute("select flywheel.purge(now() + interval '1 day')")
    assert value(cascade, "select count(*) from flywheel._escalations") == 0
