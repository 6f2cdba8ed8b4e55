"""Estimates from a judge who errs and few labels, against ppi-python, GLIDE, judgy and statsmodels."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import NormalDist
from typing import Any

import psycopg
import pytest

from tests.sql.reference import Case, case, cases, close
from tests.sql.support import Connection, rows, value

Z = NormalDist().inv_cdf(0.975)
PPI_PLACES = "%s, %s, %s, %s, %s, %s, %s, %s, %s"
Sums = list[float]


def ppi_sums(y: list[float], f: list[float], others: list[float]) -> Sums:
    """Return the arguments of ppi_rate."""
    labelled = [
        len(y),
        sum(y),
        sum(f),
        *(sum(a * b for a, b in zip(p, q, strict=True)) for p, q in ((y, f), (f, f), (y, y))),
    ]
    return [*labelled, len(others), sum(others), sum(one * one for one in others)]


def ppi_case(given: dict[str, Any]) -> Sums:
    if "Y" in given:
        return ppi_sums(given["Y"], given["Yhat"], given["Yhat_unlabeled"])
    counts = given["counts"]
    both, judge, human = counts["judge1_human1"], counts["judge1_human0"], counts["judge0_human1"]
    n = both + judge + human + counts["judge0_human0"]
    passed = counts["unlabeled_judge1"]
    others = passed + counts["unlabeled_judge0"]
    return [n, both + human, both + judge, both, both + judge, both + human, others, passed, passed]


def glide_rows(given: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    return list(zip(given["y_human_null_if_unlabeled"], given["judge"], *(given[name] for name in names), strict=True))


@pytest.mark.parametrize("case", cases("ppi"))
def test_ppi_equals_ppi_python_where_nothing_forbids_it(calculator: Connection, case: Case) -> None:
    query = f"select rate, standard_error, lambda, method from flywheel.ppi_rate({PPI_PLACES}, minimum_labels => 3)"
    rate, error, tuned, method = rows(calculator, query, ppi_case(case["input"]))[0]
    low, high = case["expected"]["power_tuned"]["ci95"]
    if method == "ppi":
        assert [rate - Z * error, rate + Z * error] == close([low, high])
        assert tuned == close(case["expected"]["lambda_hat"])
    else:
        low, high = case["expected"]["lambda_0"]["ci95"]
        assert [rate - Z * error, rate + Z * error] == close([low, high])
        assert case["expected"]["lambda_hat"] == close(0)


def test_ppi_needs_a_hundred_labels_and_a_judge_that_tells_something(calculator: Connection) -> None:
    query = f"select rate, low, high, method from flywheel.ppi_rate({PPI_PLACES})"
    small = rows(calculator, query, [99, 74, 78, 70, 78, 74, 2000, 1500, 1500])[0]
    blind = rows(calculator, query, [100, 50, 60, 30, 60, 50, 2000, 900, 900])[0]
    wilson = "select %s / %s::float, low, high, 'labels_only' from flywheel.wilson_interval(%s, %s)"
    assert small[:3] == close(rows(calculator, wilson, [74, 99, 74, 99])[0][:3])
    assert blind[:3] == close(rows(calculator, wilson, [50, 100, 50, 100])[0][:3])
    assert small[3] == blind[3] == "labels_only"
    assert rows(calculator, query, [100, 74, 78, 70, 78, 74, 2000, 1500, 1500])[0][3] == "ppi"


def test_ppi_is_never_sure_of_constant_labels_and_knows_nothing_without(calculator: Connection) -> None:
    query = f"select rate, low, high, method from flywheel.ppi_rate({PPI_PLACES})"
    rate, low, high, method = rows(calculator, query, [400, 400, 400, 400, 400, 400, 9000, 9000, 9000])[0]
    assert (rate, high, method) == (1, 1, "labels_only")
    assert low == close(value(calculator, "select low from flywheel.wilson_interval(400, 400)"))
    assert rows(calculator, query, [0] * 9) == [(None, 0, 1, "none")]
    assert rows(calculator, query, [*[0] * 6, 50, 20, 20]) == [(None, 0, 1, "none")]


def test_the_interval_of_ppi_stays_within_0_and_1_where_walds_does_not(calculator: Connection) -> None:
    sums = ppi_sums([1.0] * 118 + [0.0] * 2, [0.9] * 118 + [0.2] * 2, [0.9] * 1980 + [0.2] * 20)
    query = f"select rate, low, high, standard_error, method from flywheel.ppi_rate({PPI_PLACES})"
    rate, low, high, error, method = rows(calculator, query, sums)[0]
    assert method == "ppi"
    assert 0 < low < rate < high <= 1
    assert rate - low > high - rate
    assert high - low == pytest.approx(2 * Z * error, rel=0.3)


@pytest.mark.parametrize(
    "arguments",
    ["-1, 0, 0, 0, 0, 0, 1, 0, 0", "10, 11, 5, 5, 5, 5, 10, 5, 5", "10, 5, 5, 5, 5, 5, 10, 50, 5"],
)
def test_sums_that_cannot_be_are_refused(calculator: Connection, arguments: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot sum"):
        calculator.execute(f"select flywheel.ppi_rate({arguments})".encode())


@pytest.mark.parametrize(
    "case", [one for one in cases("corrected_rate") if "rogan_gladen_point_clipped" in one.values[0]["expected"]]
)
def test_rogan_gladen_equals_judgy_and_the_interval_of_lee(calculator: Connection, case: Case) -> None:
    rate, *interval, method = rogan_gladen(calculator, case["input"])
    assert rate == close(case["expected"]["rogan_gladen_point_clipped"])
    assert rate == close(case["expected"]["judgy_point"])
    assert interval == close(case["expected"]["lee2025_ci95"])
    assert method == "rogan_gladen"


@pytest.mark.parametrize("name", ["worse_than_random", "no_fail_verdict_labeled", "all_pass_labels"])
def test_rogan_gladen_falls_back_on_labels_where_the_judge_says_nothing(calculator: Connection, name: str) -> None:
    given = case("corrected_rate", name)["input"]
    passes = given["judge_pass_human_pass"] + given["judge_fail_human_pass"]
    total = passes + given["judge_pass_human_fail"] + given["judge_fail_human_fail"]
    wilson = rows(calculator, "select low, high from flywheel.wilson_interval(%s, %s)", [passes, total])[0]
    assert rogan_gladen(calculator, given) == (passes / total, *wilson, "labels_only")


def test_rogan_gladen_without_labels_knows_nothing(calculator: Connection) -> None:
    assert rogan_gladen(calculator, case("corrected_rate", "no_labels")["input"]) == (None, 0, 1, "none")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot have passed"):
        calculator.execute("select flywheel.rogan_gladen(11, 10, 1, 1, 1, 1)")


def rogan_gladen(calculator: Connection, given: dict[str, int]) -> tuple[Any, ...]:
    names = ["judge_pass_all", "judged_all", "judge_pass_human_pass", "judge_pass_human_fail"]
    names += ["judge_fail_human_pass", "judge_fail_human_fail"]
    return rows(
        calculator, "select * from flywheel.rogan_gladen(%s, %s, %s, %s, %s, %s)", [given[one] for one in names]
    )[0]


def test_strata_of_the_two_verdicts_are_the_corrected_rate(calculator: Connection) -> None:
    strata = "select rate, low, high from flywheel.stratified_rate('{1800,200}', '{50,50}', '{46,10}')"
    corrected = "select rate, low, high from flywheel.corrected_rate(46, 4, 10, 40, 1800, 2000)"
    rate, *interval = rows(calculator, strata)[0]
    expected, *limits = rows(calculator, corrected)[0]
    assert rate == close(expected)
    assert interval == close(limits, 0.02)  # Wilson's limits there, two passes and fails more here


def test_strata_share_two_passes_and_two_fails_more(calculator: Connection) -> None:
    sizes, labels, passes = [1200, 600, 200], [20, 30, 10], [20, 27, 4]
    moved = [(k + 2 / 3) / (n + 4 / 3) for k, n in zip(passes, labels, strict=True)]
    weights = [size / 2000 for size in sizes]
    spreads = [w**2 * p * (1 - p) / (n + 4 / 3) for w, p, n in zip(weights, moved, labels, strict=True)]
    shares = [k / n for k, n in zip(passes, labels, strict=True)]
    rate = sum(w * p for w, p in zip(weights, shares, strict=True))
    between = (sum(w * p**2 for w, p in zip(weights, shares, strict=True)) - rate**2) / 2000
    variance = sum(spreads) + between
    degrees = variance**2 / sum(spread**2 / (n - 1) for spread, n in zip(spreads, labels, strict=True))
    half = value(calculator, "select flywheel._t_quantile(0.975, %s)", [degrees]) * math.sqrt(variance)
    middle = sum(w * p for w, p in zip(weights, moved, strict=True))
    found = rows(
        calculator, "select rate, low, high from flywheel.stratified_rate(%s, %s, %s)", [sizes, labels, passes]
    )
    assert found[0] == close((rate, middle - half, middle + half))


def test_strata_move_as_in_statpsych(calculator: Connection) -> None:
    # Its documentation: ci.lc.prop.bs(.05, c(26, 24, 38), c(60, 60, 60), c(-.5, -.5, 1)) has SE 0.07602892.
    sizes = [25 * 10**13, 25 * 10**13, 50 * 10**13]  # so many that their shares are certain
    query = "select low, high from flywheel.stratified_rate(%s, '{60,60,60}', '{26,24,38}')"
    low, high = rows(calculator, query, [sizes])[0]
    moved = [(k + 2 / 3) / (60 + 4 / 3) for k in (26, 24, 38)]
    parts = [w**2 * p * (1 - p) for w, p in zip((0.25, 0.25, 0.5), moved, strict=True)]
    t = value(calculator, "select flywheel._t_quantile(0.975, %s)", [59 * sum(parts) ** 2 / sum(p**2 for p in parts)])
    assert (high - low) / 2 / t == close(0.07602892 / 2, 1e-8)
    assert (high + low) / 2 == close(0.25 * moved[0] + 0.25 * moved[1] + 0.5 * moved[2])


def test_many_strata_that_agree_leave_room_for_fails(calculator: Connection) -> None:
    query = """select rate, low, high from flywheel.stratified_rate(array_fill(100::bigint, array[20]),
                 array_fill(10::bigint, array[20]), array_fill(10::bigint, array[20]))"""
    rate, low, high = rows(calculator, query)[0]
    assert (rate, high) == (1, 1)
    assert 0.96 < low < 0.99  # of 200 labels, not of twenty times 10


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_handful_of_labels_says_next_to_nothing(calculator: Connection, labels: int) -> None:
    low, high = rows(calculator, "select low, high from flywheel.stratified_rate('{900}', %s, %s)", [[labels]] * 2)[0]
    assert high == 1
    assert low < 0.3


def test_small_strata_are_merged(calculator: Connection) -> None:
    apart = "select * from flywheel.stratified_rate('{500,300,200}', '{60,4,5}', '{50,1,4}')"
    together = "select * from flywheel.stratified_rate('{500,500}', '{60,9}', '{50,5}', minimum_labels => 0)"
    assert rows(calculator, apart) == rows(calculator, together)
    assert value(calculator, "select strata from flywheel.stratified_rate('{500,300}', '{60,40}', '{50,1}')") == 2


def test_a_stratum_nobody_labelled_adds_half_its_weight_to_both_sides(calculator: Connection) -> None:
    seen = rows(calculator, "select low, high from flywheel.stratified_rate('{900}', '{90}', '{45}')")[0]
    query = "select rate, low, high from flywheel.stratified_rate('{900,100}', '{90,0}', '{45,0}')"
    rate, low, high = rows(calculator, query)[0]
    assert rate == close(0.5)
    assert low == close(0.5 - 0.05 - 0.9 * (0.5 - seen[0]))
    assert high == close(0.5 + 0.05 + 0.9 * (seen[1] - 0.5))


def test_strata_without_labels_have_no_rate(calculator: Connection) -> None:
    assert rows(calculator, "select * from flywheel.stratified_rate('{9,1}', '{0,0}', '{0,0}')") == [(None, 0, 1, 1)]
    assert rows(calculator, "select * from flywheel.stratified_rate('{}', '{}', '{}')") == [(None, 0, 1, 0)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="same strata"):
        calculator.execute("select flywheel.stratified_rate('{9,1}', '{5}', '{3}')")


def test_stratified_ppi_equals_glide(calculator: Connection) -> None:
    given = case("glide", "ppi_and_stratified")
    strata: dict[str, list[tuple[float | None, float]]] = defaultdict(list)
    for y, f, stratum in glide_rows(given["input"], "stratum"):
        strata[stratum].append((y, f))
    sums = [
        ppi_sums(
            [y for y, _ in part if y is not None],
            [f for y, f in part if y is not None],
            [f for y, f in part if y is None],
        )
        for part in strata.values()
    ]
    query = f"select rate, standard_error, strata from flywheel.stratified_ppi_rate({PPI_PLACES}, minimum_labels => 2)"
    expected = given["expected"]["stratified_ppi_tuned"]
    rate, error, count = rows(calculator, query, [list(column) for column in zip(*sums, strict=True)])[0]
    assert [rate, error] == close([expected["estimate"], expected["se"]])
    assert count == len(strata)


def test_the_interval_of_stratified_ppi_counts_errors_of_the_judge_it_did_not_see(calculator: Connection) -> None:
    query = f"select rate, low, high, standard_error from flywheel.stratified_ppi_rate({PPI_PLACES})"
    perfect = ppi_sums([1.0] * 25 + [0.0] * 5, [1.0] * 25 + [0.0] * 5, [1.0] * 800 + [0.0] * 200)
    rate, low, high, error = rows(calculator, query, [[one, one] for one in perfect])[0]
    assert low < rate - 2.5 * error
    assert high > rate + 2.5 * error
    assert 0 < low < rate < high < 1


def test_a_stratum_with_one_label_may_be_all_passes_or_none(calculator: Connection) -> None:
    query = f"select low, high from flywheel.stratified_ppi_rate({PPI_PLACES}, minimum_labels => 0)"
    known = ppi_sums([1.0] * 15 + [0.0] * 15, [1.0] * 15 + [0.0] * 15, [1.0] * 485 + [0.0] * 485)
    single = ppi_sums([1.0], [1.0], [1.0] * 999)
    low, high = rows(calculator, query, [list(pair) for pair in zip(known, single, strict=True)])[0]
    assert low < 0.25
    assert high > 0.75


def test_strata_of_which_all_rows_are_labelled_need_no_judge(calculator: Connection) -> None:
    query = f"select rate, low, high from flywheel.stratified_ppi_rate({PPI_PLACES})"
    labelled = ppi_sums([1.0] * 15 + [0.0] * 15, [1.0] * 20 + [0.0] * 10, [])
    rate, low, high = rows(calculator, query, [[one, one] for one in labelled])[0]
    assert rate == close(0.5)
    assert low == close(1 - high)
    assert 0.3 < low < 0.4


def test_active_labels_equal_glide(calculator: Connection) -> None:
    given = case("glide", "active_statistical_inference")
    drawn = [
        (f * ((y is not None) / pi - 1), (y or 0) / pi, y is not None) for y, f, pi in glide_rows(given["input"], "pi")
    ]
    a, b = [one[0] for one in drawn], [one[1] for one in drawn]
    sums = [sum(a), sum(b), *(sum(x * y for x, y in zip(p, q, strict=True)) for p, q in ((a, a), (a, b), (b, b)))]
    query = "select rate, standard_error, low, high from flywheel.active_rate(%s, %s, %s, %s, %s, %s, %s)"
    rate, error, low, high = rows(calculator, query, [len(drawn), sum(one[2] for one in drawn), *sums])[0]
    expected = given["expected"]["asi_tuned"]
    assert [rate, error] == close([expected["estimate"], expected["se"]])
    assert 0 < low < rate < high < 1


def test_active_labels_have_two_passes_and_two_fails_more(calculator: Connection) -> None:
    # 100 of 2,000 rows drawn alike, the judge says nothing (f = 0): 60 passes of weight 20 each.
    found = rows(calculator, "select * from flywheel.active_rate(2000, 100, 0, 1200, 0, 0, 24000)")[0]
    error = math.sqrt((24000 - 1200**2 / 2000) / 1999 / 2000)
    variance = ((100 * error) ** 2 + 2) / 104**2
    half = value(calculator, "select flywheel._t_quantile(0.975, 99)") * math.sqrt(variance)
    assert found == close((0.6, 62 / 104 - half, 62 / 104 + half, error))


def test_active_labels_never_leave_out_their_own_rate(calculator: Connection) -> None:
    for labels, passed in ((1, 0), (1, 1), (7, 7), (400, 400), (400, 0), (400, 399)):
        weight = 2000 / labels
        sums = [2000, labels, 0, passed * weight, 0, 0, passed * weight**2]
        query = "select rate, low, high from flywheel.active_rate(%s, %s, %s, %s, %s, %s, %s)"
        rate, low, high = rows(calculator, query, sums)[0]
        assert 0 <= low <= rate <= high <= 1
        assert high - low >= 1 / labels


def test_active_labels_that_are_not_there_say_nothing(calculator: Connection) -> None:
    assert rows(calculator, "select * from flywheel.active_rate(500, 0, 0, 0, 0, 0, 0)") == [(None, 0, 1, None)]
    rate, low, high = rows(calculator, "select rate, low, high from flywheel.active_rate(50, 50, 0, 50, 0, 0, 50)")[0]
    assert (rate, high) == (1, 1)
    assert low < 0.95


def test_labels_for_a_half_width_are_those_that_give_it(calculator: Connection) -> None:
    n = value(calculator, "select flywheel.labels_for_half_width(0.05)")
    assert n == math.ceil(Z**2 * 0.25 / 0.05**2) == 385
    neyman = value(calculator, "select flywheel.labels_for_half_width(0.05, '{0.9,0.2}', '{9,1}')")
    assert neyman == math.ceil(Z**2 * (0.9 * 0.3 + 0.1 * 0.4) ** 2 / 0.05**2)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no number of labels"):
        calculator.execute("select flywheel.labels_for_half_width(0)")


def test_so_many_labels_more_halve_the_interval(calculator: Connection) -> None:
    more = value(calculator, "select flywheel.labels_to_halve(46, 4, 10, 40, 18000, 20000)")
    width = "select high - low from flywheel.corrected_rate(%s, %s, %s, %s, 18000, 20000)"
    before = value(calculator, width, [46, 4, 10, 40])
    of_pass = round(more * 0.9)
    after = [46 + round(of_pass * 0.92), 4 + of_pass - round(of_pass * 0.92)]
    after += [10 + round((more - of_pass) * 0.2), 40 + more - of_pass - round((more - of_pass) * 0.2)]
    assert value(calculator, width, after) <= before / 2 + 1e-9
    assert value(calculator, width, after) == pytest.approx(before / 2, rel=0.02)


def test_what_all_labels_cannot_halve_has_no_number(calculator: Connection) -> None:
    assert value(calculator, "select flywheel.labels_to_halve(46, 4, 10, 40, 180, 200)") is None
    assert value(calculator, "select flywheel.labels_to_halve(0, 0, 0, 0, 0, 0)") is None
    assert value(calculator, "select flywheel.labels_to_halve(0, 0, 0, 0, 1800, 2000)") > 5


@pytest.mark.parametrize("case", cases("differences", "two_"))
def test_differences_equal_newcombes_of_statsmodels(calculator: Connection, case: Case) -> None:
    query = "select difference, low, high from flywheel.rate_difference(%s, %s, %s, %s)"
    difference, *interval = rows(calculator, query, list(case["input"].values()))[0]
    baseline_k, baseline_n, candidate_k, candidate_n = case["input"].values()
    assert difference == close(candidate_k / candidate_n - baseline_k / baseline_n)
    assert interval == close(case["expected"]["newcomb"])


def test_a_difference_to_nothing_is_unknown(calculator: Connection) -> None:
    unknown = (None, -1, 1)
    assert rows(calculator, "select * from flywheel.rate_difference(90, 100, 0, 0)") == [unknown]
    assert rows(calculator, "select * from flywheel.corrected_difference(0.8, 0.7, 0.9, null, 0, 1)") == [unknown]


def test_corrected_differences_take_the_limits_of_both(calculator: Connection) -> None:
    found = rows(calculator, "select * from flywheel.corrected_difference(0.8, 0.7, 0.85, 0.9, 0.82, 0.93)")[0]
    assert found == close((0.1, 0.1 - math.hypot(0.08, 0.05), 0.1 + math.hypot(0.03, 0.1)))


# From tables of Student's t, as printed in any textbook.
@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.706204736), (2, 4.302652730), (5, 2.570581836), (10, 2.228138852), (30, 2.042272456), (120, 1.979930405)],
)
def test_quantiles_of_t_are_those_of_the_tables(calculator: Connection, degrees: int, expected: float) -> None:
    assert value(calculator, "select flywheel._t_quantile(0.975, %s)", [degrees]) == close(expected, 1e-8)
    assert value(calculator, "select flywheel._t_quantile(0.025, %s)", [degrees]) == close(-expected, 1e-8)


def test_adjusted_p_values_equal_statsmodels(calculator: Connection) -> None:
    known = case("differences", "bh_fdr")
    given, expected = known["input"]["p"], known["expected"]["bh_adjusted"]
    assert value(calculator, "select flywheel.bh_adjusted(%s)", [given]) == close(expected)
    assert value(calculator, "select flywheel.bh_adjusted(%s)", [given[::-1]]) == close(expected[::-1])
    with_gap = value(calculator, "select flywheel.bh_adjusted(%s)", [[None, *given]])
    assert with_gap[0] is None
    assert with_gap[1:] == close(expected)
    assert value(calculator, "select flywheel.bh_adjusted('{}')") == []


@pytest.mark.parametrize(
    ("e_values", "found"),
    [
        ("{}", []),
        ("{19.9}", [False]),
        ("{20}", [True]),
        ("{1,80,45,null,2}", [False, True, True, False, False]),
        ("{79,45,1,2}", [True, True, False, False]),  # the first alone is too small, the two together are not
        ("{79,39,26,19}", [False, False, False, False]),
        ("{30,30,30,30}", [True, True, True, True]),
    ],
)
def test_ebh_reports_the_most_that_hold_together(calculator: Connection, e_values: str, found: list[bool]) -> None:
    assert value(calculator, "select flywheel.ebh(%s::double precision[])", [e_values]) == found


FEW = "generate_series(0, 6, 2)"


@pytest.mark.parametrize(
    "calls",
    [
        f"{FEW} a, {FEW} b, {FEW} c, {FEW} d, generate_series(0, 100, 20) k, flywheel.rogan_gladen(k, 100, a, b, c, d)",
        f"{FEW} a, {FEW} b, {FEW} c, {FEW} d, generate_series(0, 100, 50) k,"
        " flywheel.corrected_sequence(a, b, c, d, k, 100)",
        f"{FEW} a, {FEW} b, {FEW} c, generate_series(0, 50, 25) k,"
        " flywheel.ppi_rate(a + b + c, a + c, a + b, a, a + b, a + c, 50, k, k, minimum_labels => 0)",
        f"{FEW} a, {FEW} b, {FEW} c, {FEW} d,"
        " flywheel.stratified_rate(array[100, 50], array[a, b], array[least(a, c), least(b, d)])",
        "generate_series(1, 30) k, generate_series(0, 30) y,"
        " flywheel.active_rate(100, greatest(k, y), 0, y * 3, 0, 0, y * 9)",
    ],
    ids=["rogan_gladen", "corrected_sequence", "ppi_rate", "stratified_rate", "active_rate"],
)
def test_no_estimate_lies_outside_of_its_interval_or_that_outside_of_0_and_1(
    calculator: Connection, calls: str
) -> None:
    query = f"select count(*), count(*) filter (where low >= 0 and high <= 1 and coalesce(rate between low - 1e-9 and high + 1e-9, low = 0 and high = 1)) from {calls}"  # noqa: E501
    tried, right = rows(calculator, query)[0]
    assert tried == right > 100
