"""Draws for estimation: which spans, with which probability, and what makes none."""

from __future__ import annotations

import uuid

import pytest

from tests.sql.queueing import DRAW, claim, distinct, items, polite, record
from tests.sql.support import Connection, activate, insert, insert_many, refused, rows, value, work_off

__all__ = ["polite"]


def define_many(connection: Connection, count: int) -> None:
    """Define validators asked_1, asked_2 ..."""
    define = """select flywheel.define_validator('asked_' || n, jsonb_build_object('kind', 'sql', 'expression',
                         'length(span.output) > ' || n)) from generate_series(1, %s) as n"""
    connection.execute(define.encode(), [count])


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


@pytest.mark.usefixtures("polite")
def test_a_stratified_draw_smaller_than_its_strata_leaves_none_out(connection: Connection) -> None:
    insert_many(connection, 30)
    work_off(connection)
    connection.execute(DRAW.encode(), [1, "stratified"])
    strata = value(connection, "select strata from flywheel.label_draws")
    assert len(strata) == 2
    assert all(stratum["probability"] > 0 for stratum in strata)
