"""Calibration, trusted verdicts and draws, against scikit-learn, scipy and properties every answer must have."""

from __future__ import annotations

import math
import random
import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.reference import Case, case, cases, close
from tests.sql.support import Connection, rows, value


def apply(calculator: Connection, method: str, parameters: dict[str, Any], judged: float) -> float | None:
    query = "select flywheel.apply_calibration(%s, %s, %s)"
    found: float | None = value(calculator, query, [method, Jsonb(parameters), judged])
    return found


def selected(calculator: Connection, counts: dict[str, list[int]], *options: float) -> tuple[Any, ...]:
    """Ask for the threshold of rows given as confidence: [rows, errors]."""
    confidences = [float(key) for key, (n, _) in counts.items() for _ in range(n)]
    correct = [place >= errors for n, errors in counts.values() for place in range(n)]
    places = "".join([", %s"] * len(options))
    return rows(
        calculator, f"select * from flywheel.selective_threshold(%s, %s{places})", [confidences, correct, *options]
    )[0]


def test_isotonic_equals_scikit_learn(calculator: Connection) -> None:
    known = case("calibration", "isotonic")
    given = [known["input"]["x"], [bool(y) for y in known["input"]["y"]]]
    found = rows(calculator, "select * from flywheel.isotonic_fit(%s, %s)", given)
    assert [x for x, _ in found] == known["expected"]["at"]
    assert [p for _, p in found] == close(known["expected"]["pred"])


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_is_the_max_of_the_mins_of_the_means(calculator: Connection, seed: int) -> None:
    draw = random.Random(seed)
    xs = sorted(draw.sample(range(100), 12))
    pairs = [(x / 100, draw.random() < x / 150 + 0.2) for x in xs for _ in range(draw.randint(1, 5))]
    by_x = [[y for x, y in pairs if x == at / 100] for at in xs]

    def mean(first: int, last: int) -> float:
        return sum(map(sum, by_x[first : last + 1])) / sum(map(len, by_x[first : last + 1]))

    known = [max(min(mean(j, k) for k in range(i, 12)) for j in range(i + 1)) for i in range(12)]
    found = rows(
        calculator, "select * from flywheel.isotonic_fit(%s, %s)", [list(part) for part in zip(*pairs, strict=True)]
    )
    assert [p for _, p in found] == close(known)


def test_platt_equals_scikit_learn(calculator: Connection) -> None:
    known = case("calibration", "platt")
    given = [known["input"]["x"], [bool(y) for y in known["input"]["y"]]]
    slope, intercept = rows(calculator, "select * from flywheel.platt_fit(%s, %s)", given)[0]
    assert slope == close(known["expected"]["slope"], 1e-6)  # scikit-learn stops at 1e-8 of the gradient
    assert intercept == close(known["expected"]["intercept"], 1e-6)
    xs = [p * 0.2 for p in range(6)]
    assert [1 / (1 + math.exp(-slope * x - intercept)) for x in xs] == close(known["expected"]["pred"], 1e-6)


def test_platt_ends_where_no_finite_fit_is_best(calculator: Connection) -> None:
    query = "select slope, intercept from flywheel.platt_fit(%s, %s)"
    slope, intercept = rows(calculator, query, [[0.1, 0.2, 0.8, 0.9], [False, False, True, True]])[0]
    assert apply(calculator, "platt", {"slope": slope, "intercept": intercept}, 0.9) == 0.99
    slope, intercept = rows(calculator, query, [[0.5] * 4, [True, True, True, False]])[0]
    assert (slope, intercept) == (0, close(math.log(2)))
    assert rows(calculator, query, [[], []]) == [(0, 0)]


def test_few_labels_are_smoothed_per_verdict(calculator: Connection) -> None:
    query = "select * from flywheel.beta_fit(%s, %s)"
    assert rows(calculator, query, [[1.0, 0.9, 0.5, 0.2], [True, True, False, False]]) == [(3 / 5, 1 / 3)]
    assert rows(calculator, query, [[], []]) == [(0.5, 0.5)]


def test_isotonic_is_applied_between_its_knots_and_clipped(calculator: Connection) -> None:
    fit = {"values": [0.2, 0.4, 0.8], "probabilities": [0.0, 0.5, 1.0]}
    for judged, expected in {0.0: 0.01, 0.2: 0.01, 0.3: 0.25, 0.4: 0.5, 0.6: 0.75, 0.8: 0.99, 1.0: 0.99}.items():
        assert apply(calculator, "isotonic", fit, judged) == close(expected), judged
    assert apply(calculator, "isotonic", {"values": [], "probabilities": []}, 0.5) is None


def test_other_methods_are_applied_as_their_fits_say(calculator: Connection) -> None:
    assert apply(calculator, "platt", {"slope": 2, "intercept": -1}, 0.5) == 0.5
    assert apply(calculator, "platt", {"slope": 1e6, "intercept": 0}, -1) == 0.01
    beta = {"judged_pass": 0.9, "judged_fail": 0.2}
    assert [apply(calculator, "beta", beta, judged) for judged in (0.5, 0.49)] == [0.9, 0.2]
    assert apply(calculator, "none", {}, 0.7) == 0.7
    assert apply(calculator, "unheard of", {}, 0.7) is None


def test_the_calibration_error_equals_the_reference(calculator: Connection) -> None:
    known = case("calibration", "ece")
    given = [known["input"]["p"], [bool(y) for y in known["input"]["y"]]]
    assert value(calculator, "select flywheel.calibration_error(%s, %s)", given) == close(known["expected"]["ece"])
    assert value(calculator, "select flywheel.calibration_error('{}', '{}')") is None


def test_the_brier_score_equals_scikit_learn(calculator: Connection) -> None:
    known = case("agreement", "probabilistic")
    given = [known["input"]["p"], [bool(y) for y in known["input"]["y"]]]
    assert value(calculator, "select flywheel.brier_score(%s, %s)", given) == close(known["expected"]["brier"])


@pytest.mark.parametrize("case", cases("calibration", "selective"))
def test_the_trusted_threshold_equals_the_reference(calculator: Connection, case: Case) -> None:
    given, expected = case["input"], case["expected"]
    threshold, n, errors = selected(calculator, given["counts_by_conf"], given["alpha"], given["delta"], given["n_min"])
    assert threshold == expected["threshold"]
    row = next((row for row in expected["table"] if row["lambda"] == threshold), {"n": None, "errors": None})
    assert (n, errors) == (row["n"], row["errors"])
    for row in expected["table"]:
        upper = value(
            calculator, "select flywheel.clopper_pearson_upper(%s, %s, %s)", [row["errors"], row["n"], given["delta"]]
        )
        assert upper == close(row["cp_upper"])


def test_a_looser_threshold_never_wins_after_one_failed(calculator: Connection) -> None:
    assert selected(calculator, {"0.9": [40, 20], "0.5": [4000, 0]}) == (None, None, None)


def test_too_few_rows_are_not_trusted_though_all_are_right(calculator: Connection) -> None:
    assert selected(calculator, {"0.9": [29, 0]}) == (None, None, None)
    assert selected(calculator, {"0.9": [29, 0], "0.8": [1, 0]}) == (0.8, 30, 0)


@pytest.mark.parametrize("case", cases("sampling", "pps_capped"))
def test_capped_probabilities_equal_the_reference(calculator: Connection, case: Case) -> None:
    found = value(calculator, "select flywheel.capped_probabilities(%s, %s)", [case["input"]["u"], case["input"]["n"]])
    assert found == close(case["expected"]["pi"])


@pytest.mark.parametrize(
    ("u", "budget", "expected"),
    [([0.5, 0.0, 2.0], 10, [1, 0, 1]), ([0.0, 0.0], 1, [0, 0]), ([1.0, 1.0], 0, [0, 0]), ([1.0] * 4, 2, [0.5] * 4)],
)
def test_no_row_is_drawn_more_than_once(
    calculator: Connection, u: list[float], budget: float, expected: list[float]
) -> None:
    assert value(calculator, "select flywheel.capped_probabilities(%s, %s)", [u, budget]) == expected


def allocated(calculator: Connection, sizes: list[int], rates: list[float], budget: int, minimum: int = 2) -> list[int]:
    weights = [size / sum(sizes) for size in sizes]
    query = "select flywheel.neyman_allocation(%s, %s, %s::bigint[], %s, %s)"
    return list(value(calculator, query, [weights, rates, sizes, budget, minimum]))


@pytest.mark.parametrize("case", cases("sampling", "neyman"))
def test_allocation_equals_neymans(calculator: Connection, case: Case) -> None:
    given = case["input"]
    rates = [(1 - math.sqrt(1 - 4 * sd * sd)) / 2 for sd in given["sd_h"]]
    assert allocated(calculator, given["N_h"], rates, given["n"], 0) == case["expected"]["largest_remainder"]


@pytest.mark.parametrize(
    ("sizes", "rates", "budget", "expected"),
    [
        ([500, 500], [0.0, 0.2], 50, [2, 48]),  # never fewer than two
        ([10, 1000], [0.5, 0.0], 40, [10, 30]),  # never more than there are
        ([3, 1], [0.5, 0.5], 100, [3, 1]),
        ([100, 100, 100], [0.5, 0.5, 0.5], 2, [1, 1, 0]),  # too little for two each
        ([300, 100], [0.0, 1.0], 40, [30, 10]),  # spread unknown: by weight
    ],
)
def test_allocation_keeps_to_its_limits(
    calculator: Connection, sizes: list[int], rates: list[float], budget: int, expected: list[int]
) -> None:
    assert allocated(calculator, sizes, rates, budget) == expected


def test_allocation_spends_the_budget(calculator: Connection) -> None:
    draw = random.Random(7)
    for _ in range(30):
        sizes = [draw.randint(1, 300) for _ in range(draw.randint(1, 8))]
        rates = [draw.choice([0.0, draw.random(), 1.0]) for _ in sizes]
        budget = draw.randint(0, 400)
        found = allocated(calculator, sizes, rates, budget)
        assert sum(found) == min(budget, sum(sizes))
        assert all(0 <= n <= size for n, size in zip(found, sizes, strict=True))


def test_hash01_is_even_and_says_the_same_again(calculator: Connection) -> None:
    one = uuid.uuid4()
    query = "select flywheel.hash01(%s, %s)"
    assert value(calculator, query, [one, "round 1"]) == value(calculator, query, [one, "round 1"])
    assert value(calculator, query, [one, "round 1"]) != value(calculator, query, [one, "round 2"])
    drawn = """select floor(flywheel.hash01(md5(n::text)::uuid, 'salt') * 10)::integer, count(*)
                 from generate_series(1, 20000) as n group by 1 order by 1"""
    found = dict(rows(calculator, drawn))
    assert list(found) == list(range(10))
    assert all(abs(n - 2000) < 200 for n in found.values())
