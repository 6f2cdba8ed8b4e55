"""The queue of people: who gets which span, drawn by chance or picked by priority, and what a second opinion does."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.sql.support import Connection, activate, insert, insert_many, refused, rows, value, work_off

CLAIM = "select item_id, span_id, lane from flywheel.claim_labels(%s, %s, %s)"
DRAW = "select flywheel.draw_labels('polite', %s, '-infinity', 'infinity', %s)"
RECORD = "select flywheel.record_label(%s, 'polite', %s, %s, %s)"


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A validator to label for, which passes all but answers that end in 0."""
    return activate(connection, "polite", expression="span.output !~ '0$'", description="Is the answer polite?")


def claim(connection: Connection, reviewer: str = "ada", n: int = 10, lane: str | None = None) -> list[uuid.UUID]:
    """Claim and return ids of spans."""
    query = "select span_id from flywheel.claim_labels('polite', %s, %s, %s)"
    return [span_id for (span_id,) in rows(connection, query, [reviewer, n, lane])]


def record(connection: Connection, span_id: uuid.UUID, passed: bool = True, annotator: str = "ada") -> uuid.UUID:
    made: uuid.UUID = value(connection, RECORD, [span_id, passed, annotator, None if passed else "rude"])
    return made


def items(connection: Connection, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
    return rows(connection, f"select {columns} from flywheel._label_items where {where} order by item_id")


def distinct(connection: Connection, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
    return rows(connection, f"select distinct {columns} from flywheel._label_items where {where}")


def define_many(connection: Connection, count: int) -> None:
    """Define validators asked_1, asked_2 ..."""
    define = """select flywheel.define_validator('asked_' || n, jsonb_build_object('kind', 'sql', 'expression',
                         'length(span.output) > ' || n)) from generate_series(1, %s) as n"""
    connection.execute(define.encode(), [count])


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


# Draws


@pytest.mark.usefixtures("polite")
def test_a_draw_takes_exactly_the_spans_below_a_probability_that_is_stored_with_it(connection: Connection) -> None:
    insert_many(connection, 1_000)
    draw_id = value(connection, DRAW, [200, "random"])
    query = "select wanted, strata, drawn from flywheel.label_draws where draw_id = %s"
    strata = [{"stratum": "all", "size": 1_000, "probability": 0.2}]
    [(wanted, stored, drawn)] = rows(connection, query, [draw_id])
    assert (wanted, stored) == (200, strata)
    expected = """select span_id from flywheel.spans, flywheel.validators
                   where flywheel.hash01(span_id, validator_id::text) < 0.2 order by span_id"""
    taken = items(connection, "span_id", "lane = 'estimation'")
    assert sorted(taken) == rows(connection, expected)
    assert drawn == len(taken)
    assert distinct(connection, "draw_id, incl_prob, stratum, wanted") == [(draw_id, 0.2, "all", 1)]


def test_every_span_is_drawn_as_often_as_its_probability_says(connection: Connection) -> None:
    """400 questions draw from the same 60 spans: each span is drawn Binomial(400, 0.25) times."""
    insert_many(connection, 60)
    define_many(connection, 400)
    connection.execute("select flywheel.draw_labels('asked_' || n, 15, '-infinity') from generate_series(1, 400) as n")
    assert distinct(connection, "incl_prob") == [(0.25,)]
    count = """select count(item_id) from flywheel.spans left join flywheel._label_items using (span_id)
                group by spans.span_id"""
    drawn = [times for (times,) in rows(connection, count)]
    variance = 400 * 0.25 * 0.75
    assert all(abs(times - 100) < 5 * variance**0.5 for times in drawn)
    assert 25 < sum((times - 100) ** 2 for times in drawn) / variance < 110  # chi-square of 60: mean 60, deviation 11
    sizes = [size for (size,) in rows(connection, "select drawn from flywheel.label_draws")]
    assert abs(sum(sizes) / len(sizes) - 15) < 5 * (60 * 0.25 * 0.75 / 400) ** 0.5


def test_the_weighted_sum_of_a_stratified_draw_is_the_sum_over_all(connection: Connection) -> None:
    """Horvitz and Thompson: 1/p summed over what was drawn counts all spans alike, on average over 200 questions."""
    insert_many(connection, 300)
    define_many(connection, 200)
    connection.execute("""
        insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
        select span_id, revision, version_id, started_at, trace_id, project, output !~ '0$'
          from flywheel.spans cross join flywheel.validator_versions""")
    draw = """select flywheel.draw_labels('asked_' || n, 60, '-infinity', 'infinity', 'stratified')
                from generate_series(1, 200) as n"""
    connection.execute(draw.encode())
    sums = """select count(*) filter (where stratum = 'fail'), sum(1 / incl_prob) filter (where output ~ '0$'),
                     sum(1 / incl_prob) filter (where output like 'answer 1%')
                from flywheel._label_items join flywheel.spans using (span_id)"""
    drawn, fails, ones = rows(connection, sums)[0]
    assert abs(drawn / 200 - 6) < 5 * (30 * 0.2 * 0.8 / 200) ** 0.5
    assert abs(fails / 200 - 30) < 5 * (30 * 4 / 200) ** 0.5  # the variance of one span's term is 1/p - 1
    assert abs(ones / 200 - 111) < 5 * (111 * 4 / 200) ** 0.5


def test_a_stratified_draw_takes_more_where_labels_say_that_the_verdict_errs(
    connection: Connection, polite: uuid.UUID
) -> None:
    insert_many(connection, 400)
    work_off(connection)
    for span_id, output in rows(connection, "select span_id, output from flywheel.spans order by span_id limit 60"):
        record(connection, span_id, passed=not output.endswith("0") or output.endswith("10"), annotator="ada")
    draw_id = value(connection, DRAW, [100, "stratified"])
    query = "select strata from flywheel.label_draws where draw_id = %s"
    strata = {each["stratum"]: each for each in value(connection, query, [draw_id])}
    assert {name: each["size"] for name, each in strata.items()} == {"pass": 360, "fail": 40}
    assert strata["fail"]["probability"] > strata["pass"]["probability"]
    assert sum(each["size"] * each["probability"] for each in strata.values()) == pytest.approx(100)
    stored = (
        """select stratum, incl_prob, count(*) from flywheel._label_items where lane = 'estimation' group by 1, 2"""
    )
    assert {name: probability for name, probability, _ in rows(connection, stored)} == {
        name: each["probability"] for name, each in strata.items()
    }
    agree = """select bool_and((items.stratum = 'pass') = scores.passed) from flywheel._label_items as items
                 join flywheel.scores using (span_id) where items.lane = 'estimation' and version_id = %s"""
    assert value(connection, agree, [polite]) is True


@pytest.mark.usefixtures("polite")
def test_a_larger_draw_holds_the_smaller_one_and_raises_its_probability(connection: Connection) -> None:
    insert_many(connection, 500)
    connection.execute(DRAW.encode(), [50, "random"])
    small = {span_id for (span_id,) in items(connection, "span_id")}
    [labelled] = claim(connection, n=1)
    record(connection, labelled)
    connection.execute(DRAW.encode(), [50, "random"])
    assert {span_id for (span_id,) in items(connection, "span_id")} == small
    connection.execute(DRAW.encode(), [250, "random"])
    large = {span_id for (span_id,) in items(connection, "span_id")}
    assert large > small
    assert distinct(connection, "incl_prob") == [(0.5,)]
    assert rows(connection, "select lane, incl_prob from flywheel.gold_labels") == [("estimation", 0.5)]
    assert value(connection, "select incl_prob from flywheel.labels") == 0.1


@pytest.mark.usefixtures("polite")
def test_a_draw_in_progress_is_itself_a_draw(connection: Connection) -> None:
    """Reviewers meet spans in the order of the number that drew them."""
    insert_many(connection, 100)
    connection.execute(DRAW.encode(), [100, "random"])
    order = claim(connection, n=100)
    query = (
        "select span_id from flywheel.spans, flywheel.validators order by flywheel.hash01(span_id, validator_id::text)"
    )
    assert order == [span_id for (span_id,) in rows(connection, query)]


def test_a_draw_is_from_the_spans_the_validator_is_for(connection: Connection) -> None:
    activate(connection, "polite", filter={"node": "answer"}, where="span.output <> 'skip'")
    meant = insert(connection, node="answer")
    for columns in ({"node": "other"}, {"node": "answer", "output": "skip"}, {"node": "answer", "output": None}):
        insert(connection, **columns)
    insert(connection, node="answer", started_at="2024-05-05")
    connection.execute("select flywheel.draw_labels('polite', 9, now() - interval '1 day')")
    assert items(connection, "span_id, incl_prob") == [(meant, 1.0)]


@pytest.mark.usefixtures("polite")
@pytest.mark.parametrize(
    "given",
    [
        "0, '-infinity'",
        "null, '-infinity'",
        "5, now()",
        "5, null",
        "5, '-infinity', now(), 'curious'",
        "5, '-infinity', now(), 'random', 0",
    ],
)
def test_a_draw_that_makes_no_sense_is_refused(connection: Connection, given: str) -> None:
    assert refused(connection, f"select flywheel.draw_labels('polite', {given})").sqlstate == "WF009"
    assert value(connection, "select count(*) from flywheel.label_draws") == 0


@pytest.mark.usefixtures("polite")
def test_a_draw_from_nothing_draws_nothing(connection: Connection) -> None:
    draw_id = value(connection, DRAW, [5, "random"])
    assert rows(connection, "select draw_id, strata, drawn from flywheel.label_draws") == [(draw_id, [], 0)]


# The two lanes


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


# Triage


def judge(
    connection: Connection, verdicts: Iterable[tuple[uuid.UUID, bool, float | None]], name: str = "polite"
) -> None:
    """Write what a judge said: span, verdict, confidence."""
    for span_id, passed, confidence in verdicts:
        connection.execute(
            """insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed,
                      confidence, annotator_kind, critique)
               select span_id, revision, version_id, started_at, trace_id, project, %s, %s, 'judge', 'so it is'
                 from flywheel.spans, flywheel.validator_status where span_id = %s and validator = %s""",
            [passed, confidence, span_id, name],
        )


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


# Second opinions


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


# Provisional labels


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


@pytest.mark.usefixtures("polite")
def test_a_stratified_draw_smaller_than_its_strata_leaves_none_out(connection: Connection) -> None:
    insert_many(connection, 30)
    work_off(connection)
    connection.execute(DRAW.encode(), [1, "stratified"])
    strata = value(connection, "select strata from flywheel.label_draws")
    assert len(strata) == 2
    assert all(stratum["probability"] > 0 for stratum in strata)


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
