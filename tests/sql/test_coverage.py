"""How often intervals hold the truth, in settings where the usual ones do so too seldom; the rest is a benchmark."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from tests.sql.support import Connection, rows

ENOUGH = 0.935


def chance_of(passes: int, rows_: int, rate: float) -> float:
    return math.comb(rows_, passes) * rate**passes * (1 - rate) ** (rows_ - passes)


@pytest.mark.parametrize(
    ("sizes", "rates", "labels"),
    [((1560, 440), (0.97, 0.85), 20), ((1000, 1000), (0.99, 0.9), 15), ((1800, 200), (0.98, 0.5), 30)],
)
def test_strata_hold_the_truth_with_few_labels(
    calculator: Connection, sizes: tuple[int, int], rates: tuple[float, float], labels: int
) -> None:
    outcomes = list(itertools.product(range(labels + 1), repeat=2))
    query = """select found.low, found.high
                 from unnest(%s::bigint[], %s::bigint[]) with ordinality as given (one, two, place),
                      lateral flywheel.stratified_rate(%s, %s, array[one, two]) as found order by place"""
    columns = [list(column) for column in zip(*outcomes, strict=True)]
    found = rows(calculator, query, [*columns, list(sizes), [labels, labels]])
    truth = sum(size * rate for size, rate in zip(sizes, rates, strict=True)) / 2000
    held = [
        math.prod(chance_of(passes, labels, rate) for passes, rate in zip(outcome, rates, strict=True))
        for outcome, (low, high) in zip(outcomes, found, strict=True)
        if low <= truth <= high
    ]
    assert sum(held) >= ENOUGH


def held_by_rate(found: list[tuple[float, float]]) -> list[float]:
    """Return for each rate from .5 to .99 the chance that the interval of so many passes holds it."""
    n = len(found) - 1
    return [
        sum(chance_of(passes, n, rate) for passes, (low, high) in enumerate(found) if low <= rate <= high)
        for rate in (place / 400 for place in range(200, 397))
    ]


@pytest.mark.parametrize("n", [10, 30, 40, 100])
def test_bounded_means_hold_the_truth_of_zeros_and_ones_at_every_rate(calculator: Connection, n: int) -> None:
    query = """select found.low, found.high from generate_series(0, %s) as passes,
                      lateral flywheel.bounded_mean_interval(%s, passes, passes) as found order by passes"""
    assert min(held_by_rate(rows(calculator, query, [n, n]))) >= 0.93


@pytest.mark.parametrize(("n", "lowest"), [(30, 0.90), (100, 0.92), (500, 0.935)])
def test_wilsons_interval_holds_the_truth_on_average_if_not_at_every_rate(
    calculator: Connection, n: int, lowest: float
) -> None:
    query = """select found.low, found.high from generate_series(0, %s) as passes,
                      lateral flywheel.wilson_interval(passes, %s) as found order by passes"""
    held = held_by_rate(rows(calculator, query, [n, n]))
    assert sum(held) / len(held) >= 0.949
    assert lowest <= min(held) < lowest + 0.02


def test_skewed_means_hold_the_truth_of_a_long_tail(calculator: Connection) -> None:
    chance = random.Random(20270106)
    values = [[chance.lognormvariate(0, 1) for _ in range(30)] for _ in range(1500)]
    sums = [[sum(one**power for one in run) for run in values] for power in (1, 2, 3)]
    query = """select avg((skewed.low <= truth and truth <= skewed.high)::integer)::float8,
                      avg((plain.low <= truth and truth <= plain.high)::integer)::float8
                 from unnest(%s::float8[], %s::float8[], %s::float8[]) as given (one, two, three),
                      lateral flywheel.skewed_mean_interval(30, one, two, three) as skewed,
                      lateral flywheel.mean_interval(30, one, two) as plain,
                      (select exp(0.5::float8)) as known (truth)"""
    ((held, of_student),) = rows(calculator, query, sums)
    assert held >= ENOUGH
    assert of_student < 0.91
