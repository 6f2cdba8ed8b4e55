"""Triage: which spans are worth a person's look first, and why."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import pytest

from tests.sql.queueing import claim, items, judge, polite, record
from tests.sql.support import Connection, activate, insert, insert_many, rows, value

__all__ = ["polite"]


def components(connection: Connection) -> dict[uuid.UUID, dict[str, Any]]:
    return dict(items(connection, "span_id, components || jsonb_build_object('priority', priority)"))


@pytest.mark.usefixtures("polite")
def test_unsure_verdicts_come_first_and_unjudged_spans_before_them(connection: Connection) -> None:
    sure, unsure, unjudged = (insert(connection) for _ in range(3))
    judge(connection, [(sure, False, 0.99), (unsure, False, 0.55)])
    connection.execute("select flywheel.queue_triage('polite')")
    found = components(connection)
    assert [found[span_id]["uncertainty"] for span_id in (sure, unsure, unjudged)] == pytest.approx([0.02, 0.9, 1])
    assert claim(connection) == [unjudged, unsure, sure]


def test_a_calibrated_judge_is_as_unsure_as_labels_found_it(connection: Connection, polite: uuid.UUID) -> None:
    connection.execute(
        """insert into flywheel.calibrations (version_id, method, parameters, labels, alpha, delta)
           values (%s, 'beta', '{"judged_pass": 0.9, "judged_fail": 0.4}', 40, 0.1, 0.1)""",
        [polite],
    )
    passed, failed = insert(connection), insert(connection)
    judge(connection, [(passed, True, 0.51), (failed, False, None)])
    connection.execute("select flywheel.queue_triage('polite')")
    found = components(connection)
    assert [found[span_id]["uncertainty"] for span_id in (passed, failed)] == pytest.approx([0.2, 0.8])


@pytest.mark.usefixtures("polite")
def test_verdicts_without_a_confidence_are_half_unsure(connection: Connection) -> None:
    span_id = insert(connection)
    judge(connection, [(span_id, True, None)])
    connection.execute("select flywheel.queue_triage('polite')")
    assert components(connection)[span_id]["uncertainty"] == 0.5


@pytest.mark.usefixtures("polite")
def test_what_else_speaks_against_a_span_raises_its_priority(connection: Connection) -> None:
    activate(connection, "no_secret", expression="span.output !~ 'secret'", severity="critical", lane="inline")
    plain, failed, disliked, edited = (
        insert(connection),
        insert(connection, "secret"),
        insert(connection),
        insert(connection),
    )
    for span_id, kind, number in ((disliked, "thumb", 0), (plain, "thumb", 1), (edited, "edit", None)):
        feedback = "insert into flywheel.feedback (span_id, kind, value) values (%s, %s, %s)"
        connection.execute(feedback, [span_id, kind, number])
    connection.execute("select flywheel.queue_triage('polite')")
    found = {span_id: each["severity"] for span_id, each in components(connection).items()}
    assert found == {plain: 0, failed: 1, disliked: 1, edited: 0.5}
    assert set(claim(connection, n=2)) == {failed, disliked}


@pytest.mark.usefixtures("polite")
def test_the_priority_is_made_of_the_components_that_are_stored(connection: Connection) -> None:
    insert_many(connection, 5)
    record(connection, insert(connection, "labelled"))
    connection.execute("select flywheel.queue_triage('polite')")
    for each in components(connection).values():
        made = 0.35 * each["uncertainty"] + 0.25 * each["severity"] + 0.15 * 0.5
        made += 0.15 * each["cluster_need"] + 0.10 * each["flip_risk"]
        assert each["novelty"] is None
        assert each["cluster_need"] == pytest.approx(2**-0.5)
        assert each["priority"] == pytest.approx(made)


@pytest.mark.usefixtures("polite")
def test_versions_that_differ_make_a_span_worth_a_look(connection: Connection) -> None:
    same, different = insert(connection), insert(connection)
    activate(connection, "polite", expression="true")
    connection.execute(
        """
        insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
        select span_id, revision, version_id, started_at, trace_id, project, span_id = %s or version = 1
          from flywheel.spans, flywheel.validator_status where validator = 'polite'""",
        [same],
    )
    connection.execute("select flywheel.queue_triage('polite')")
    assert {span_id: each["flip_risk"] for span_id, each in components(connection).items()} == {same: 0, different: 1}


VECTOR = "('[1,{}' || repeat(',0', 382) || ']')::public.halfvec"
EMBEDDER = "select embedder_id from flywheel.embedders where status = 'serving'"


def embed_example(connection: Connection, label_id: uuid.UUID) -> None:
    """Make a label an example, unless it is one, with a vector of the embedder that serves."""
    if not rows(connection, EMBEDDER):
        connection.execute("""insert into flywheel.embedders (embedder_id, name, kind, dimensions, status)
                              values (gen_random_uuid(), 'own', 'hashing', 384, 'serving')""")
    example = """
        insert into flywheel.examples (example_id, kind, validator_id, label_id, span_id, started_at, revision,
               trace_id, project, node, group_key, passed, author, tokens, content_hash)
        select gen_random_uuid(), 'label', validator_id, label_id, span_id, started_at, revision,
               trace_id, project, 'app', group_key, passed, annotator, 1, 'x'
          from flywheel.labels where label_id = %s on conflict do nothing"""
    connection.execute(example.encode(), [label_id])
    connection.execute(
        f"""
        insert into flywheel._example_embeddings (example_id, embedder_id, part, validator_id, servable, content_hash,
               embedding)
        select example_id, ({EMBEDDER}), 'item', validator_id, true, 'x', {VECTOR.format(0)}
          from flywheel.examples on conflict do nothing""".encode()
    )


@pytest.mark.usefixtures("polite")
def test_what_lies_far_from_the_examples_is_new(connection: Connection) -> None:
    seen, near, far, unknown = (insert(connection, output) for output in ("seen", "near", "far", "unknown"))
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    embed_example(connection, record(connection, seen, passed=False))
    for span_id, second in ((near, 0.1), (far, 9)):
        vector = f"""
            insert into flywheel.span_embeddings (span_id, started_at, revision, embedder_id, part, content_hash,
                   embedding)
            select span_id, started_at, revision, ({EMBEDDER}), 'item', 'x', {VECTOR.format(second)}
              from flywheel.spans where span_id = %s"""
        connection.execute(vector.encode(), [span_id])
    connection.execute("select flywheel.queue_triage('polite')")
    found = {span_id: each["novelty"] for span_id, each in components(connection).items()}
    assert found == {near: 0, far: 1, unknown: None}


@pytest.mark.usefixtures("polite")
def test_three_in_ten_are_spans_the_judge_passed(connection: Connection) -> None:
    spans = [insert(connection) for _ in range(60)]
    judge(connection, [(span_id, place < 30, 0.99 if place < 30 else 0.6) for place, span_id in enumerate(spans)])
    assert value(connection, "select flywheel.queue_triage('polite', 20)") == 20
    judged = Counter(each["judged"] for each in components(connection).values())
    assert judged == {True: 6, False: 14}


@pytest.mark.usefixtures("polite")
def test_triage_never_takes_what_is_labelled_or_queued_already(connection: Connection) -> None:
    insert_many(connection, 10)
    queue = "select flywheel.queue_triage('polite', 6)"
    labelled = value(connection, "select span_id from flywheel.spans limit 1")
    record(connection, labelled)
    assert [value(connection, queue) for _ in range(3)] == [6, 3, 0]
    assert (labelled,) not in items(connection, "span_id")
