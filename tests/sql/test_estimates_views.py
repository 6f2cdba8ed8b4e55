"""Estimates: what labels make of a judge's pass rate, and when they make nothing of it."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from tests.sql.measured import LONG_AGO, NOW, YESTERDAY, Spot, judge
from tests.sql.reference import close
from tests.sql.support import Connection, activate, rows, value

COLUMNS = "labels, method, corrected_rate, corrected_low, corrected_high, note"


def estimate(connection: Connection, where: str = "true") -> tuple[Any, ...]:
    found = rows(connection, f"select {COLUMNS} from flywheel.corrected_pass_rates where {where}")
    assert len(found) == 1, found
    return found[0]


def test_a_judge_without_labels_has_no_corrected_rate(connection: Connection) -> None:
    Spot().score(connection, judge(connection), 100, True)
    assert estimate(connection) == (0, "none", None, 0, 1, "no labels")
    query = "select live_low, live_high, labels_to_halve > 0 from flywheel.corrected_pass_rates"
    assert rows(connection, query) == [(0, 1, True)]


def test_labels_correct_the_rate_by_verdict(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 80, True)
    Spot().score(connection, version, 20, False)
    Spot().label(connection, version, 18, 2, 1, 9)
    expected = rows(connection, "select * from flywheel.corrected_rate(18, 2, 1, 9, 80, 100)")[0]
    labels, method, *found, note = estimate(connection)
    assert (labels, method, note) == (30, "post_stratified", None)
    assert found == [close(each) for each in expected]
    assert found[0] == close(0.8 * 0.9 + 0.2 * 0.1)


@pytest.mark.parametrize(
    ("cells", "said"),
    [((25, 1, 0, 3), "4 of 29 labels fail"), ((1, 2, 3, 20), "4 of 26 labels pass"), ((25, 2, 0, 3), None)],
)
def test_an_interval_from_few_labels_of_a_kind_says_that_it_may_be_short(
    connection: Connection, cells: tuple[int, int, int, int], said: str | None
) -> None:
    version = judge(connection)
    Spot().score(connection, version, 80, True)
    Spot().score(connection, version, 40, False)
    Spot().label(connection, version, *cells)
    note = estimate(connection)[-1]
    assert note == (said and f"{said}: with fewer than 5 the interval may be a little short")


LABEL_DRAWN = """
insert into flywheel.labels (label_id, validator_id, span_id, started_at, revision, trace_id, project, annotator,
                             passed, lane, incl_prob, stratum, group_key, split)
select flywheel.new_id(), items.validator_id, spans.span_id, spans.started_at, 1, spans.trace_id, spans.project,
       'ann', row_number() over (order by items.priority desc) %% 3 > 0, 'estimation', items.incl_prob, items.stratum,
       spans.span_id::text, 'dev'
  from flywheel._label_items as items join flywheel.spans using (span_id, started_at)
 where items.draw_id = %s
 order by items.priority desc limit %s
"""


def test_labels_drawn_from_a_part_of_what_was_judged_say_from_which(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 400, True)
    Spot().score(connection, version, 200, False)
    Spot().label(connection, version, 35, 5, 10, 10)
    assert estimate(connection)[-1] is None
    Spot(NOW - timedelta(hours=1)).score(connection, version, 12_000, True)
    said = "labels were drawn from about 600 of 12600 judged spans: the rate holds for those only"
    assert estimate(connection)[-1] == said
    of_time = "select note from flywheel.corrected_pass_rate('polite', %s, %s)"
    assert value(connection, of_time, [NOW - timedelta(days=2), NOW]) == said
    assert value(connection, of_time, [NOW - timedelta(days=2), NOW - timedelta(hours=2)]) is None
    connection.execute("select flywheel._fold()")
    assert estimate(connection)[-1] == said


def test_what_labels_cover_is_said_before_what_else_they_lack(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 2000, True)
    Spot().label(connection, version, 20, 2, 0, 0)
    first, second = estimate(connection)[-1].split("; ")
    assert first.startswith("labels were drawn from about 220 of 2000 judged spans")
    assert second.startswith("2 of 22 labels fail")


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_a_draw_that_is_half_labelled_covers_all_it_was_drawn_from(connection: Connection, method: str) -> None:
    version = judge(connection)
    Spot().score(connection, version, 800, True)
    Spot().score(connection, version, 200, False)
    draw = "select flywheel.draw_labels('polite', 200, %s, %s, %s)"
    drawn = value(connection, draw, [NOW - timedelta(days=2), NOW, method])
    connection.execute(LABEL_DRAWN.encode(), [drawn, 60])
    assert estimate(connection)[-1] is None
    Spot(NOW - timedelta(hours=1)).score(connection, version, 5000, True)
    assert "of 6000 judged spans: the rate holds for those only" in estimate(connection)[-1]


def test_a_draw_without_labels_covers_nothing_yet(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 600, True)
    Spot().label(connection, version, 50, 10, 0, 0)
    Spot(NOW - timedelta(hours=2)).score(connection, version, 6000, True)
    draw = "select flywheel.draw_labels('polite', 200, %s, %s)"
    connection.execute(draw.encode(), [NOW - timedelta(hours=3), NOW])
    assert "about 600 of 6600 judged spans" in estimate(connection)[-1]


def test_labels_picked_for_triage_estimate_nothing(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 50, True)
    Spot().label(connection, version, 5, 15, 0, 0, lane="triage")
    assert estimate(connection)[:3] == (0, "none", None)


def test_a_verdict_without_labels_may_hide_anything(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 50, True)
    Spot().score(connection, version, 50, False)
    Spot().label(connection, version, 20, 0, 0, 0)
    _, _, rate, low, high, note = estimate(connection)
    assert low < 0.45
    assert high > 0.99
    assert rate == close(0.75)
    assert note == "no labels of what it fails: half of that is added to both sides"


def test_labels_of_one_version_say_nothing_of_the_next(connection: Connection) -> None:
    first = judge(connection)
    Spot().score(connection, first, 50, True)
    Spot().label(connection, first, 20, 2, 0, 0)
    second = judge(connection, question="Is it kind?")
    Spot(YESTERDAY + timedelta(hours=1)).score(connection, second, 50, True)
    assert estimate(connection, "version = 1")[0] == 22
    assert estimate(connection, "version = 2")[:3] == (0, "none", None)


def test_labels_of_another_time_stand_in_and_the_note_says_so(connection: Connection) -> None:
    version = judge(connection)
    old = Spot(LONG_AGO)
    old.score(connection, version, 100, True)
    old.score(connection, version, 100, False)
    old.label(connection, version, 45, 5, 5, 45)
    Spot().score(connection, version, 70, True)
    Spot().score(connection, version, 30, False)
    expected = rows(connection, "select rate, low, high from flywheel.rogan_gladen(70, 100, 45, 5, 5, 45)")[0]
    labels, method, *found, note = estimate(connection)
    assert (labels, method) == (0, "rogan_gladen")
    assert found == [close(each) for each in expected]
    assert note == "100 labels, all of other times or slices: right only if the judge errs as it did there"
    live = "select live_low, live_high, labels_to_halve from flywheel.corrected_pass_rates"
    assert rows(connection, live) == [(0, 1, None)]


def test_old_labels_of_a_judge_no_better_than_chance_say_nothing(connection: Connection) -> None:
    version = judge(connection)
    old = Spot(LONG_AGO)
    old.score(connection, version, 40, True)
    old.score(connection, version, 40, False)
    old.label(connection, version, 20, 20, 20, 20)
    Spot().score(connection, version, 10, True)
    labels, method, rate, low, high, note = estimate(connection)
    assert (labels, method, rate, low, high) == (0, "none", None, 0, 1)
    assert "better than chance" in note


def test_old_labels_drawn_by_verdict_are_thinned_first(connection: Connection) -> None:
    version = judge(connection)
    old = Spot(LONG_AGO)
    old.score(connection, version, 180, True)
    old.score(connection, version, 20, False)
    old.label(connection, version, 18, 2, 2, 18, stratified=True)
    Spot().score(connection, version, 90, True)
    Spot().score(connection, version, 10, False)
    expected = rows(connection, "select rate from flywheel.rogan_gladen(90, 100, 18, 2, 0, 2)")[0][0]
    assert estimate(connection)[:3] == (0, "rogan_gladen", close(expected))


def test_values_sharpen_the_rate_where_they_tell_more_than_the_verdict(connection: Connection) -> None:
    version = judge(connection)
    draw = random.Random(5)
    for place in range(40):
        probability = draw.random()
        spot = Spot(YESTERDAY + timedelta(seconds=2 * place))
        spot.score(connection, version, 20, probability > 0.2, round(probability, 3))
        passes = round(5 * probability)
        cells = (passes, 5 - passes, 0, 0) if probability > 0.2 else (0, 0, passes, 5 - passes)
        spot.label(connection, version, *cells)
    labels, method, rate, low, high, _ = estimate(connection)
    truth = rows(connection, "select avg(value) from flywheel.scores")[0][0]
    plain = rows(
        connection,
        """select plain.high - plain.low
             from (select sum(tp)::bigint as tp, sum(fp)::bigint as fp, sum(fn)::bigint as fn, sum(tn)::bigint as tn
                     from flywheel._cell_counts where grain = 'day') as cells,
                  (select sum(passed)::bigint as passed, sum(judged)::bigint as judged
                     from flywheel.quality_by_day) as all_,
                  flywheel.corrected_rate(tp, fp, fn, tn, passed, judged) as plain""",
    )[0][0]
    assert (labels, method) == (200, "ppi")
    assert low < truth < high
    assert high - low < plain
    assert rate == pytest.approx(truth, abs=0.05)


def test_values_that_only_repeat_the_verdict_change_nothing(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 300, True, 1.0)
    Spot().score(connection, version, 100, False, 0.0)
    Spot().label(connection, version, 90, 10, 10, 30)
    assert estimate(connection)[:2] == (140, "post_stratified")


def test_the_live_interval_holds_the_rate_and_is_wider(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 400, True)
    Spot().score(connection, version, 100, False)
    Spot().label(connection, version, 45, 5, 5, 45)
    query = "select live_low < corrected_low, live_high > corrected_high from flywheel.corrected_pass_rates"
    assert rows(connection, query) == [(True, True)]


def test_as_many_labels_as_it_says_halve_the_interval(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 4000, True)
    Spot().score(connection, version, 1000, False)
    Spot().label(connection, version, 36, 4, 2, 8)
    query = "select labels_to_halve, corrected_high - corrected_low from flywheel.corrected_pass_rates"
    more, width = rows(connection, query)[0]
    factor = 1 + more / 50
    cells = [round(each * factor) for each in (36, 4, 2, 8)]
    after = "select high - low from flywheel.corrected_rate(%s, %s, %s, %s, 4000, 5000)"
    assert value(connection, after, cells) == pytest.approx(width / 2, rel=0.05)


def test_a_slice_is_corrected_by_its_own_labels(connection: Connection) -> None:
    version = judge(connection)
    old, new = Spot(release="r1"), Spot(YESTERDAY + timedelta(hours=1), release="r2")
    for spot in (old, new):
        spot.score(connection, version, 40, True)
    old.label(connection, version, 9, 1, 0, 0)
    query = "select labels, method from flywheel.corrected_pass_rate('polite', %s, %s, release => %s)"
    since = [YESTERDAY - timedelta(minutes=1), NOW]
    assert rows(connection, query, [*since, "r1"]) == [(10, "post_stratified")]
    assert rows(connection, query, [*since, "r2"]) == [(0, "none")]
    assert rows(connection, query, [*since, "%s' or true --"]) == []


def test_a_check_of_code_is_exact_and_says_so(connection: Connection) -> None:
    activate(connection, "short", lane="inline")
    connection.execute("insert into flywheel.spans (input, output) values ('a', 'b')")
    query = """select corrected_rate, raw_rate, note, live_high
                 from flywheel.corrected_pass_rate('short', '-infinity', 'infinity')"""
    assert rows(connection, query) == [
        (None, 1, "no labels; whatever people would say, the verdicts of code are exact", 1)
    ]
    assert rows(connection, "select * from flywheel.corrected_pass_rates") == []


def test_weeks_are_corrected_by_their_own_labels(connection: Connection) -> None:
    version = judge(connection)
    last, this = Spot(NOW - timedelta(days=14)), Spot()
    for spot, wrong in ((last, 5), (this, 1)):
        spot.score(connection, version, 50, True)
        spot.label(connection, version, 10 - wrong, wrong, 0, 0)
    query = "select labels, corrected_rate from flywheel.corrected_by_week order by time"
    assert rows(connection, query) == [(10, close(0.5)), (10, close(0.9))]


def two_releases(connection: Connection, before: tuple[int, int], after: tuple[int, int]) -> tuple[Any, Spot, Spot]:
    version = judge(connection)
    baseline, candidate = Spot(NOW - timedelta(days=9), release="r1"), Spot(release="r2")
    for spot, (passed, failed) in ((baseline, before), (candidate, after)):
        spot.score(connection, version, passed, True)
        spot.score(connection, version, failed, False)
    return version, baseline, candidate


def test_a_worse_release_is_said_to_be_worse_by_so_many_points(connection: Connection) -> None:
    two_releases(connection, (950, 50), (850, 150))
    query = """select baseline_release, candidate_release, difference, difference_low, difference_high, verdict
                 from flywheel.release_comparisons"""
    expected = rows(connection, "select * from flywheel.rate_difference(950, 1000, 850, 1000)")[0]
    before, after, *found, verdict = rows(connection, query)[0]
    assert (before, after) == ("r1", "r2")
    assert found == [close(each) for each in expected]
    assert verdict == "worse by 7.4 to 12.6 points, going by the judge alone: a side has no labels"


def test_what_was_not_shown_is_never_called_no_change(connection: Connection) -> None:
    two_releases(connection, (90, 10), (88, 12))
    verdict = value(connection, "select verdict from flywheel.release_comparisons")
    assert verdict.startswith("no difference shown (n too small to see less than 9 points)")


def test_labels_on_both_sides_decide_and_not_the_judge(connection: Connection) -> None:
    version, baseline, candidate = two_releases(connection, (450, 50), (300, 200))
    baseline.label(connection, version, 40, 5, 1, 4)
    candidate.label(connection, version, 28, 2, 18, 2)
    query = """select difference, corrected_difference, corrected_difference_low < 0, verdict
                 from flywheel.release_comparisons"""
    raw, corrected, spans_zero, verdict = rows(connection, query)[0]
    assert raw == close(-0.3)
    assert corrected > raw
    assert spans_zero
    assert verdict.startswith("no difference shown")
    assert "judge alone" not in verdict


def test_releases_are_compared_by_one_version_only(connection: Connection) -> None:
    first = judge(connection)
    Spot(NOW - timedelta(days=9), release="r1").score(connection, first, 50, True)
    second = judge(connection, question="Is it kind?")
    Spot(release="r2").score(connection, second, 50, False)
    assert rows(connection, "select * from flywheel.release_comparisons") == []
    assert rows(connection, "select * from flywheel.compare_releases('polite', 'r1', 'r2')") == []


def test_any_two_releases_can_be_compared(connection: Connection) -> None:
    two_releases(connection, (950, 50), (850, 150))
    query = "select difference, verdict from flywheel.compare_releases('polite', 'r2', 'r1')"
    difference, verdict = rows(connection, query)[0]
    assert difference == close(0.1)
    assert verdict.startswith("better by 7.4 to 12.6 points")


def test_a_side_without_verdicts_leaves_nothing_to_compare(connection: Connection) -> None:
    version, _, candidate = two_releases(connection, (5, 5), (0, 0))
    candidate.score(connection, version, 3, None)
    query = "select difference, difference_low, difference_high, verdict from flywheel.release_comparisons"
    difference, low, high, verdict = rows(connection, query)[0]
    assert (difference, low, high) == (None, -1, 1)
    assert verdict.startswith("nothing to compare")


def test_alignment_by_week_counts_drawn_labels(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 60, True)
    Spot().score(connection, version, 20, False)
    Spot().label(connection, version, 18, 2, 1, 4)
    Spot().label(connection, version, 5, 5, 0, 0, lane="triage")
    query = "select tp, fp, fn, tn, tpr, tnr, labels from flywheel.alignment_by_week"
    assert rows(connection, query) == [(18, 2, 1, 4, close(18 / 19), close(4 / 6), 25)]


def test_alignment_of_labels_drawn_by_verdict_is_that_of_a_plain_draw(connection: Connection) -> None:
    version = judge(connection)
    Spot().score(connection, version, 900, True)
    Spot().score(connection, version, 100, False)
    Spot().label(connection, version, 36, 4, 4, 36, stratified=True)
    query = "select labels, tpr, tnr from flywheel.alignment_by_week"
    labels, tpr, tnr = rows(connection, query)[0]
    assert labels == 80
    assert tpr > 0.98  # 0.9 * 0.9 of all pass both; 0.1 * 0.1 pass people and not the judge
    assert tnr == pytest.approx(0.5, abs=0.01)


def test_analysts_read_every_estimate(connection: Connection) -> None:
    version, baseline, candidate = two_releases(connection, (50, 5), (40, 10))
    baseline.label(connection, version, 4, 1, 1, 2)
    candidate.label(connection, version, 4, 1, 1, 2)
    connection.execute("set role flywheel_analyst")
    for name in ("corrected_pass_rates", "corrected_by_week", "release_comparisons", "alignment_by_week"):
        assert rows(connection, f"select * from flywheel.{name}"), name
    assert rows(connection, "select * from flywheel.corrected_pass_rate('polite', now() - interval '20 days', now())")
    assert rows(connection, "select * from flywheel.compare_releases('polite', 'r1', 'r2')")
