"""Intervals and tests on counts, against statsmodels, scipy and exact sums."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import psycopg
import pytest

from tests.sql.reference import Case, cases, close
from tests.sql.support import Connection, rows, value

CELLS = ["judge_pass_human_pass", "judge_pass_human_fail", "judge_fail_human_pass", "judge_fail_human_fail"]


def interval(calculator: Connection, function: str, *arguments: float) -> list[float]:
    places = ", ".join(["%s"] * len(arguments))
    return list(rows(calculator, f"select low, high from flywheel.{function}({places})", arguments)[0])


def corrected(calculator: Connection, function: str, given: dict[str, int]) -> tuple[float | None, ...]:
    arguments = [given[name] for name in [*CELLS, "judge_pass_all", "judged_all"]]
    return rows(calculator, f"select * from flywheel.{function}(%s, %s, %s, %s, %s, %s)", arguments)[0]


@pytest.mark.parametrize("case", cases("intervals", "one_"))
def test_intervals_of_one_rate_equal_statsmodels(calculator: Connection, case: Case) -> None:
    k, n = case["input"]["k"], case["input"]["n"]
    expected = case["expected"]
    assert interval(calculator, "wilson_interval", k, n) == close(expected["wilson"])
    assert interval(calculator, "wilson_interval", k, n, 0.9) == close(expected["wilson_90"])
    upper = value(calculator, "select flywheel.clopper_pearson_upper(%s, %s, 0.1)", [k, n])
    assert upper == close(expected["clopper_pearson_upper_one_sided_90"])


def test_nothing_seen_leaves_every_rate_possible(calculator: Connection) -> None:
    assert interval(calculator, "wilson_interval", 0, 0) == [0, 1]
    assert interval(calculator, "confidence_sequence", 0, 0) == [0, 1]
    assert value(calculator, "select flywheel.clopper_pearson_upper(0, 0)") == 1
    assert rows(calculator, "select * from flywheel.wilson_interval(null, 10)") == [(None, None)]


@pytest.mark.parametrize(("passes", "total"), [(6, 5), (-1, 5), (1, 0), (0, -1)])
def test_counts_that_cannot_be_have_no_interval_and_say_so(calculator: Connection, passes: int, total: int) -> None:
    with pytest.raises(psycopg.Error, match=f"{passes} of {total} cannot have passed") as refused:
        interval(calculator, "wilson_interval", passes, total)
    assert refused.value.sqlstate == "22023"
    assert refused.value.diag.message_hint == "Passes are 0 to total."


def test_a_rate_of_all_or_none_reaches_the_end_exactly(calculator: Connection) -> None:
    for function in ("wilson_interval", "confidence_sequence"):
        assert interval(calculator, function, 0, 7)[0] == 0
        assert interval(calculator, function, 7, 7)[1] == 1


@pytest.mark.parametrize("case", cases("confidence_sequence"))
def test_the_confidence_sequence_equals_its_definition_solved_by_scipy(calculator: Connection, case: Case) -> None:
    found = interval(calculator, "confidence_sequence", case["input"]["k"], case["input"]["n"])
    assert found == close(case["expected"]["cs95"])


@pytest.mark.parametrize("case", cases("intervals", "mcnemar"))
def test_mcnemar_equals_statsmodels(calculator: Connection, case: Case) -> None:
    p = value(calculator, "select flywheel.mcnemar_exact(%s, %s)", list(case["input"].values()))
    assert p == close(case["expected"]["exact_p"])


def test_mcnemar_of_two_that_never_differ_is_one(calculator: Connection) -> None:
    assert value(calculator, "select flywheel.mcnemar_exact(0, 0)") == 1


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (2, 11), (30, 55), (400, 250)])
def test_the_paired_e_value_is_the_mixture_of_likelihood_ratios(
    calculator: Connection, first: int, second: int
) -> None:
    mixture = math.lgamma(first + 0.5) + math.lgamma(second + 0.5) - math.lgamma(first + second + 1) - math.log(math.pi)
    found = value(calculator, "select flywheel.paired_log_e(%s, %s)", [first, second])
    assert found == close(mixture + (first + second) * math.log(2))


@pytest.mark.parametrize("p", [1e-12, 1e-4, 0.025, 0.3, 0.5, 0.9, 0.975, 0.9999])
def test_normal_quantiles_equal_pythons(calculator: Connection, p: float) -> None:
    assert value(calculator, "select flywheel._normal_quantile(%s)", [p]) == close(NormalDist().inv_cdf(p))


@pytest.mark.parametrize("x", [0.01, 0.5, 1, 2, 7.5, 100, 5000.5, 1e6])
def test_lgamma_equals_pythons(calculator: Connection, x: float) -> None:
    assert value(calculator, "select flywheel._lgamma(%s)", [x]) == pytest.approx(math.lgamma(x), rel=1e-14, abs=1e-13)


@pytest.mark.parametrize(("events", "trials"), [(0, 1), (3, 10), (9, 10), (10, 10), (40, 200), (250, 500)])
def test_binomial_chances_equal_the_exact_sum(calculator: Connection, events: int, trials: int) -> None:
    for p in (Fraction(1, 50), Fraction(3, 10), Fraction(1, 2), Fraction(19, 20)):
        exact = sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(events + 1))
        found = value(calculator, "select flywheel._binomial_cdf(%s, %s, %s)", [events, trials, float(p)])
        assert found == close(float(exact), 1e-12)


@pytest.mark.parametrize("case", cases("corrected_rate"))
def test_the_corrected_rate_equals_the_reference(calculator: Connection, case: Case) -> None:
    rate, low, high = corrected(calculator, "corrected_rate", case["input"])
    expected = case["expected"]["post_stratified"]
    assert rate == close(expected["estimate"])
    assert [low, high] == close(expected["ci95_mover_wilson"])


@pytest.mark.parametrize(
    "case", [one for one in cases("corrected_rate") if "begg_greenes" in one.values[0]["expected"]]
)
def test_weighted_tpr_and_tnr_equal_the_reference(calculator: Connection, case: Case) -> None:
    expected = case["expected"]["begg_greenes"]
    assert corrected(calculator, "begg_greenes", case["input"]) == close((expected["tpr"], expected["tnr"]))


def test_a_verdict_without_labels_has_no_weighted_tpr(calculator: Connection) -> None:
    query = "select * from flywheel.begg_greenes(30, 5, 0, 0, 900, 1000)"
    assert rows(calculator, query) == [(None, None)]


def test_nothing_judged_has_no_rate(calculator: Connection) -> None:
    assert rows(calculator, "select * from flywheel.corrected_rate(0, 0, 0, 0, 0, 0)") == [(None, 0, 1)]
