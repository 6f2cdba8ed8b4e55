"""Means with intervals, from sums: of latencies and costs with their long tails, and of values in [0, 1]."""

from __future__ import annotations

import math
import random

import psycopg
import pytest

from tests.sql.reference import close
from tests.sql.support import Connection, rows, value

LATENCIES = [120.0, 180.0, 95.0, 400.0, 210.0, 150.0, 2100.0, 130.0, 160.0, 175.0]


def sums(values: list[float], powers: int) -> list[float]:
    """Return how many values there are and their sums of powers."""
    return [len(values), *(sum(one**power for one in values) for power in range(1, powers + 1))]


def test_mean_intervals_are_students(calculator: Connection) -> None:
    values = [120.0, 180.0, 95.0, 400.0, 210.0, 150.0]
    mean = sum(values) / 6
    error = math.sqrt(sum((one - mean) ** 2 for one in values) / 5 / 6)
    found = rows(
        calculator, "select * from flywheel.mean_interval(6, %s, %s)", [sum(values), sum(one * one for one in values)]
    )[0]
    assert found == close((mean, mean - 2.570581835636 * error, mean + 2.570581835636 * error), 1e-7)


def test_a_mean_of_one_or_of_equal_values_has_no_limits(calculator: Connection) -> None:
    assert rows(calculator, "select * from flywheel.mean_interval(0, 0, 0)") == [(None, None, None)]
    assert rows(calculator, "select * from flywheel.mean_interval(1, 7, 49)") == [(7, None, None)]
    assert rows(calculator, "select * from flywheel.mean_interval(1000, 100.1, 10.02001)") == [
        (close(0.1001), None, None)
    ]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot sum"):
        calculator.execute("select flywheel.mean_interval(2, 10, 1)")


def test_the_limits_of_skewed_values_are_halls_where_students_are_nearer(calculator: Connection) -> None:
    n, mean = len(LATENCIES), sum(LATENCIES) / len(LATENCIES)
    squares, cubes = (sum((one - mean) ** power for one in LATENCIES) / n for power in (2, 3))
    skewness: float = cubes / squares**1.5 * math.sqrt(n * (n - 1)) / (n - 2)
    error = math.sqrt(squares / (n - 1))
    t: float = value(calculator, "select flywheel._t_quantile(0.975, 9)")

    def transformed(studentised: float) -> float:
        """Hall's g: what is nearly normal, of a studentised error."""
        return (
            studentised
            + skewness * studentised**2 / (3 * math.sqrt(n))
            + skewness**2 * studentised**3 / (27 * n)
            + skewness / (6 * math.sqrt(n))
        )

    query = "select * from flywheel.skewed_mean_interval(%s, %s, %s, %s)"
    found_mean, low, high, found_skewness = rows(calculator, query, sums(LATENCIES, 3))[0]
    assert [found_mean, found_skewness] == close([mean, skewness], 1e-7)
    assert transformed((mean - high) / error) == close(-t, 1e-6)
    assert low == close(mean - t * error, 1e-6)  # Student's, for Hall's is nearer
    assert transformed((mean - low) / error) > t


def test_limits_of_skewed_values_are_never_nearer_than_students(calculator: Connection) -> None:
    chance = random.Random(5)
    for n in (3, 10, 200):
        for values in (
            [chance.lognormvariate(6, 1) for _ in range(n)],
            [1000 - chance.expovariate(0.01) for _ in range(n)],
            [chance.gauss(500, 100) for _ in range(n)],
        ):
            low, high = rows(
                calculator, "select low, high from flywheel.skewed_mean_interval(%s, %s, %s, %s)", sums(values, 3)
            )[0]
            plain = rows(calculator, "select low, high from flywheel.mean_interval(%s, %s, %s)", sums(values, 2))[0]
            assert low <= plain[0]
            assert high >= plain[1]


def test_values_without_skew_have_students_limits(calculator: Connection) -> None:
    even = [1.0, 2.0, 3.0, 4.0, 5.0]
    skewed = "select mean, low, high from flywheel.skewed_mean_interval(%s, %s, %s, %s)"
    plain = rows(calculator, "select * from flywheel.mean_interval(%s, %s, %s)", sums(even, 2))[0]
    assert rows(calculator, skewed, sums(even, 3))[0] == close(plain)
    two = rows(calculator, "select low, high, skewness from flywheel.skewed_mean_interval(2, 3, 5, 9)")[0]
    assert two == (*rows(calculator, "select low, high from flywheel.mean_interval(2, 3, 5)")[0], None)


def test_skewed_means_of_nothing_or_of_equal_values_have_no_limits(calculator: Connection) -> None:
    query = "select * from flywheel.skewed_mean_interval(%s, %s, %s, %s)"
    assert rows(calculator, query, [0, 0, 0, 0]) == [(None, None, None, None)]
    assert rows(calculator, query, sums([7.0] * 9, 3)) == [(7, None, None, None)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot have cubes"):
        calculator.execute("select flywheel.skewed_mean_interval(5, 15, 55, 999)")


def test_means_of_values_between_0_and_1_have_one_of_each_end_more(calculator: Connection) -> None:
    values = [1.0, 0.75, 0.75, 1.0, 0.5, 0.25, 1.0, 0.75]
    with_ends = [*values, 0.0, 1.0]
    middle = sum(with_ends) / 10
    spread = sum((one - middle) ** 2 for one in with_ends) / 10 / 10
    half = value(calculator, "select flywheel._t_quantile(0.975, 7)") * math.sqrt(spread)
    found = rows(calculator, "select * from flywheel.bounded_mean_interval(%s, %s, %s)", sums(values, 2))[0]
    assert found == close((0.75, middle - half, middle + half))


def test_values_between_0_and_1_that_agree_are_no_certainty(calculator: Connection) -> None:
    query = "select mean, low, high from flywheel.bounded_mean_interval(%s, %s, %s)"
    for constant in (0.0, 0.3, 1.0):
        for n in (1, 2, 30, 5000):
            mean, low, high = rows(calculator, query, sums([constant] * n, 2))[0]
            assert mean == close(constant)
            assert 0 <= low <= mean <= high <= 1
            assert high - low > 0.5 / n
    assert rows(calculator, query, [0, 0, 0]) == [(None, 0, 1)]


@pytest.mark.parametrize("given", [(-1, 0, 0), (2, 3, 2), (2, -1, 0), (2, 1, 1.5), (2, 1, 0.2)])
def test_sums_of_values_that_cannot_lie_between_0_and_1_are_refused(
    calculator: Connection, given: tuple[float, ...]
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot sum"):
        calculator.execute("select flywheel.bounded_mean_interval(%s, %s, %s)", given)


def test_what_rounding_leaves_of_sums_is_not_refused(calculator: Connection) -> None:
    assert rows(calculator, "select * from flywheel.bounded_mean_interval(0, -1e-17, 1e-17)") == [(None, 0, 1)]
    found = rows(calculator, "select mean, high from flywheel.bounded_mean_interval(3, 3.0000000000000004, 3)")
    assert found == [(1, 1)]
    of_millions = "select mean, high - low < 1e-3 from flywheel.bounded_mean_interval(10000000, 7000000.01, 4899999.99)"
    assert rows(calculator, of_millions) == [(close(0.7), True)]
