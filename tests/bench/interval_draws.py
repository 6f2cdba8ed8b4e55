"""Simulated judges, labels and values that ``interval_truth`` tries the intervals on, each with the truth behind it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

JUDGED = 2_000
THETAS = (0.5, 0.8, 0.95)
JUDGES = ((0.95, 0.9), (0.9, 0.7), (0.8, 0.6))
LABELS = (30, 60, 100, 200)
Column = NDArray[np.int64] | NDArray[np.float64]


class Setting(NamedTuple):
    """Arguments of a call, a column each with a row for each run, and the truth."""

    name: str
    columns: Sequence[Column]
    truth: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A call in SQL and the settings it is tried on; ``draw`` yields them with as many runs as it is told."""

    call: LiteralString
    draw: Callable[[Generator, int], Iterator[Setting]]


def _judged_settings() -> Iterator[tuple[str, float, float, float, int]]:
    for theta, (tpr, tnr), labels in itertools.product(THETAS, JUDGES, LABELS):
        yield f"rate {theta}, judge {tpr} {tnr}, {labels} labels", theta, tpr, tnr, labels


def cells(theta: float, tpr: float, tnr: float) -> list[float]:
    """Return the chances of pass-pass, pass-fail, fail-pass, fail-fail (judge, person)."""
    return [theta * tpr, (1 - theta) * (1 - tnr), theta * (1 - tpr), (1 - theta) * tnr]


def _wilson(chance: Generator, runs: int) -> Iterator[Setting]:
    for theta, labels in itertools.product(THETAS, LABELS):
        columns = chance.binomial(labels, theta, runs), np.full(runs, labels)
        yield Setting(f"rate {theta}, {labels} rows", columns, theta)


def _corrected_of(
    chance: Generator, runs: int, theta: float, tpr: float, tnr: float, labels: int, judged: int = JUDGED
) -> list[NDArray[np.int64]]:
    labelled = chance.multinomial(labels, cells(theta, tpr, tnr), runs).T
    rest = chance.binomial(judged - labels, theta * tpr + (1 - theta) * (1 - tnr), runs)
    return [*labelled, labelled[0] + labelled[1] + rest, np.full(runs, judged)]


def _corrected(chance: Generator, runs: int) -> Iterator[Setting]:
    for name, theta, tpr, tnr, labels in _judged_settings():
        yield Setting(name, _corrected_of(chance, runs, theta, tpr, tnr, labels), theta)


def _corrected_by_verdict(chance: Generator, runs: int) -> Iterator[Setting]:
    """Draw half of the labels from each verdict, as people do who look for fails."""
    for name, theta, tpr, tnr, labels in _judged_settings():
        q = theta * tpr + (1 - theta) * (1 - tnr)
        passed = chance.binomial(JUDGED, q, runs)
        pp = chance.binomial(labels // 2, theta * tpr / q, runs)
        fp = chance.binomial(labels // 2, theta * (1 - tpr) / (1 - q), runs)
        columns = pp, labels // 2 - pp, fp, labels // 2 - fp, passed, np.full(runs, JUDGED)
        yield Setting(name, columns, theta)


def _corrected_of_two_draws(chance: Generator, runs: int) -> Iterator[Setting]:
    """Label a tenth of the rows as often as all others, of which people pass fewer."""
    for name, theta, tpr, tnr, labels in _judged_settings():
        passed = np.zeros(runs, dtype=np.int64)
        sums = [np.zeros(runs) for _ in range(8)]
        for size, rate in ((JUDGED // 10, theta), (JUDGED - JUDGED // 10, theta - 0.1)):
            pp, pf, fp, ff, judged_pass, _ = _corrected_of(chance, runs, rate, tpr, tnr, labels // 2, size)
            passed += judged_pass
            weighed = [count * (size / (labels // 2)) ** power for power in (1, 2) for count in (pp + pf, pp)]
            weighed += [count * (size / (labels // 2)) ** power for power in (1, 2) for count in (fp + ff, fp)]
            sums = [one + more for one, more in zip(sums, weighed, strict=True)]
        yield Setting(name, [*sums, passed, np.full(runs, JUDGED)], 0.1 * theta + 0.9 * (theta - 0.1))


def _ratings(quality: float) -> NDArray[np.float64]:
    """Return the chances of the ratings 0, 0.25 ... 1 for an item that deserves a high one."""
    return np.array([0.5 * (1 - quality), 0.4 * (1 - quality), 0.1, 0.4 * quality, 0.5 * quality])


def _rated(
    chance: Generator, runs: int, theta: float, tpr: float, tnr: float, labels: int, rest: NDArray[np.int64] | int
) -> list[Column]:
    """Return sums of y, f, yf, ff of the labelled rows, of f, ff of the rest; the judge gives one of five ratings."""
    values = np.arange(5) / 4
    of_pass, of_fail = _ratings(tpr), _ratings(tnr)[::-1]
    labelled = chance.multinomial(labels, [*(theta * of_pass), *((1 - theta) * of_fail)], runs)
    passed, ratings = labelled[:, :5], labelled[:, :5] + labelled[:, 5:]
    others = chance.multinomial(rest, theta * of_pass + (1 - theta) * of_fail, runs)
    of_labelled = [passed.sum(axis=1), ratings @ values, passed @ values, ratings @ values**2]
    return [*of_labelled, others @ values, others @ values**2]


def _ppi(chance: Generator, runs: int) -> Iterator[Setting]:
    for name, theta, tpr, tnr, labels in _judged_settings():
        y, f, yf, ff, rest_f, rest_ff = _rated(chance, runs, theta, tpr, tnr, labels, JUDGED - labels)
        n, rest = np.full(runs, labels), np.full(runs, JUDGED - labels)
        yield Setting(name, (n, y, f, yf, ff, y, rest, rest_f, rest_ff), theta)


TOPICS = np.array([0.6, 0.3, 0.1])


def _of_topics(theta: float) -> NDArray[np.float64]:
    return np.array([theta + 0.03, theta - 0.05, theta - 0.2])


def _stratified_ppi(chance: Generator, runs: int) -> Iterator[Setting]:
    """Label three topics of unequal size equally often, as for ``stratified_rate``."""
    for name, theta, tpr, tnr, labels in _judged_settings():
        sizes = chance.multinomial(JUDGED, TOPICS, runs).T - labels // 3
        topics = [
            _rated(chance, runs, rate, tpr, tnr, labels // 3, size)
            for rate, size in zip(_of_topics(theta), sizes, strict=True)
        ]
        y, f, yf, ff, rest_f, rest_ff = zip(*topics, strict=True)
        columns = *y, *f, *yf, *ff, *sizes, *rest_f, *rest_ff, np.full(runs, labels // 3)
        yield Setting(name, columns, float(TOPICS @ _of_topics(theta)))


def _rogan_gladen(chance: Generator, runs: int) -> Iterator[Setting]:
    """Take labels from a balanced set made elsewhere."""
    for name, theta, tpr, tnr, labels in _judged_settings():
        tp, fp, fn, tn = chance.multinomial(labels, cells(0.5, tpr, tnr), runs).T
        passed = chance.binomial(JUDGED, theta * tpr + (1 - theta) * (1 - tnr), runs)
        yield Setting(name, (passed, np.full(runs, JUDGED), tp, fp, fn, tn), theta)


def _stratified(chance: Generator, runs: int) -> Iterator[Setting]:
    """Label three topics of unequal size equally often."""
    for theta, labels in itertools.product(THETAS, LABELS):
        sizes = chance.multinomial(JUDGED, TOPICS, runs).T
        passes = [chance.binomial(labels // 3, rate, runs) for rate in _of_topics(theta)]
        columns = *sizes, *passes, np.full(runs, labels // 3)
        yield Setting(f"rate {theta}, {labels} labels", columns, float(TOPICS @ _of_topics(theta)))


def _many_strata(chance: Generator, runs: int) -> Iterator[Setting]:
    """Label eight strata of equal size, whose rates differ."""
    for (low, high), each in itertools.product([(0.96, 1.0), (0.9, 0.99), (0.3, 0.9), (0.02, 0.2)], (10, 20, 50)):
        rates = np.linspace(low, high, 8)
        columns = *(chance.binomial(each, rate, runs) for rate in rates), np.full(runs, each)
        yield Setting(f"rates {low} to {high}, {each} labels each", columns, float(rates.mean()))


class Kind(NamedTuple):
    """Rows that look alike to a judge: their share, its value, how much more often they are drawn, how many pass."""

    share: float
    value: float
    drawn: float
    passing: float


def _active_of(chance: Generator, runs: int, kinds: Sequence[Kind], labels: int) -> list[Column]:
    """Return the arguments of active_rate for rows drawn with the probabilities of their kinds."""
    share, f, drawn, passing = np.array(kinds).T
    p = np.minimum(1, labels / JUDGED * drawn / (share @ drawn))
    rows = chance.multinomial(JUDGED, share, runs)
    found = chance.binomial(rows, p)
    passed, rest, up = chance.binomial(found, passing), rows - found, f * (1 / p - 1)
    sums = found @ up - rest @ f, passed @ (1 / p), found @ up**2 + rest @ f**2, passed @ (up / p), passed @ (1 / p**2)
    return [np.full(runs, JUDGED), found.sum(axis=1), *sums]


def _active(chance: Generator, runs: int) -> Iterator[Setting]:
    """Draw fails of the judge three times as often as passes."""
    for name, theta, tpr, tnr, labels in _judged_settings():
        q = theta * tpr + (1 - theta) * (1 - tnr)
        kinds = Kind(q, 1, 1, theta * tpr / q), Kind(1 - q, 0, 3, theta * (1 - tpr) / (1 - q))
        yield Setting(name, _active_of(chance, runs, kinds, labels), theta)


DRAWS = {
    "all alike": [Kind(0.8, 1, 1, 0.97), Kind(0.2, 0, 1, 0.6)],
    "fails ten times": [Kind(0.9, 1, 1, 0.98), Kind(0.1, 0, 10, 0.4)],
    "unsure five times": [Kind(0.7, 0.95, 1, 0.98), Kind(0.2, 0.6, 5, 0.7), Kind(0.1, 0.1, 1, 0.1)],
    "unsure five times, most fail": [Kind(0.1, 0.95, 1, 0.9), Kind(0.2, 0.6, 5, 0.5), Kind(0.7, 0.1, 1, 0.03)],
}
SELDOM = {"fails a third": [Kind(0.8, 1, 3, 0.97), Kind(0.2, 0, 1, 0.6)]}


def _active_draws(draws: dict[str, list[Kind]]) -> Callable[[Generator, int], Iterator[Setting]]:
    def draw(chance: Generator, runs: int) -> Iterator[Setting]:
        for (name, kinds), labels in itertools.product(draws.items(), LABELS):
            truth = sum(kind.share * kind.passing for kind in kinds)
            yield Setting(f"{name}, {labels} labels", _active_of(chance, runs, kinds, labels), truth)

    return draw


def _difference(chance: Generator, runs: int) -> Iterator[Setting]:
    pairs = [(0.5, 0.5), (0.8, 0.8), (0.95, 0.95), (0.8, 0.7), (0.95, 0.85), (0.9, 0.97)]
    for (a, b), n, times in itertools.product(pairs, LABELS, (1, 5)):
        totals = np.full(runs, n * times), np.full(runs, n)
        columns = chance.binomial(n * times, a, runs), totals[0], chance.binomial(n, b, runs), totals[1]
        yield Setting(f"rates {a} and {b}, {n * times} and {n} rows", columns, b - a)


def _corrected_difference(chance: Generator, runs: int) -> Iterator[Setting]:
    for name, theta, tpr, tnr, labels in _judged_settings():
        other = theta - 0.1
        a = _corrected_of(chance, runs, theta, tpr, tnr, labels)
        yield Setting(name, [*a, *_corrected_of(chance, runs, other, tpr, tnr, labels)], other - theta)


Values = Callable[[Generator, tuple[int, int]], NDArray[np.float64]]
TAILED: dict[str, tuple[Values, float]] = {
    "normal": (lambda chance, size: chance.normal(500, 100, size), 500),
    "gamma, shape 2": (lambda chance, size: chance.gamma(2, 300, size), 600),
    "exponential": (lambda chance, size: chance.exponential(400, size), 400),
    "lognormal, sigma 0.5": (lambda chance, size: chance.lognormal(6, 0.5, size), float(np.exp(6 + 0.125))),
    "lognormal, sigma 1": (lambda chance, size: chance.lognormal(6, 1, size), float(np.exp(6.5))),
}
BOUNDED: dict[str, tuple[Values, float]] = {
    "ratings": (lambda chance, size: chance.choice(np.arange(5) / 4, size, p=_ratings(0.9)), 0.78),
    "beta 2, 2": (lambda chance, size: chance.beta(2, 2, size), 0.5),
    "beta 8, 0.6": (lambda chance, size: chance.beta(8, 0.6, size), 8 / 8.6),
    "beta 0.9, 0.1": (lambda chance, size: chance.beta(0.9, 0.1, size), 0.9),
    "0.9, one in 20 low": (
        lambda chance, size: np.where(chance.random(size) < 0.95, 0.9, 0.3 * chance.random(size)),
        0.95 * 0.9 + 0.05 * 0.15,
    ),
    "0 and 1": (lambda chance, size: np.where(chance.random(size) < 0.95, 1.0, 0.0), 0.95),
}


def _means(kinds: dict[str, tuple[Values, float]], powers: int) -> Callable[[Generator, int], Iterator[Setting]]:
    def draw(chance: Generator, runs: int) -> Iterator[Setting]:
        for (name, (values_of, truth)), n in itertools.product(kinds.items(), LABELS):
            values = values_of(chance, (runs, n))
            sums = [(values**power).sum(axis=1) for power in range(1, powers + 1)]
            yield Setting(f"{name}, {n} values", [np.full(runs, n), *sums], truth)

    return draw


CORRECTED: LiteralString = "flywheel.corrected_rate(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint)"
ACTIVE: LiteralString = "flywheel.active_rate(a::bigint, b::bigint, c, d, e, f, g)"
INTERVALS = {
    "wilson_interval": Interval("flywheel.wilson_interval(a::bigint, b::bigint)", _wilson),
    "corrected_rate": Interval(CORRECTED, _corrected),
    "corrected_rate, labels by verdict": Interval(CORRECTED, _corrected_by_verdict),
    "corrected_rate, two draws": Interval(
        """flywheel._worth(a, b, c, d) as passed, lateral flywheel._worth(e, f, g, h) as failed,
           lateral flywheel._corrected(passed.pass, passed.fail, failed.pass, failed.fail,
                                       i::bigint, j::bigint, 0.95)""",
        _corrected_of_two_draws,
    ),
    "ppi_rate": Interval("flywheel.ppi_rate(a::bigint, b, c, d, e, f, g::bigint, h, i)", _ppi),
    "rogan_gladen": Interval(
        "flywheel.rogan_gladen(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint)", _rogan_gladen
    ),
    "stratified_rate": Interval(
        "flywheel.stratified_rate(array[a, b, c]::bigint[], array[g, g, g]::bigint[], array[d, e, f]::bigint[])",
        _stratified,
    ),
    "stratified_rate, eight strata": Interval(
        """flywheel.stratified_rate(array_fill(250::bigint, array[8]), array_fill(i::bigint, array[8]),
                                    array[a, b, c, d, e, f, g, h]::bigint[])""",
        _many_strata,
    ),
    "stratified_ppi_rate": Interval(
        """flywheel.stratified_ppi_rate(array[v, v, v]::bigint[], array[a, b, c], array[d, e, f], array[g, h, i],
             array[j, k, l], array[a, b, c], array[m, n, o]::bigint[], array[p, q, r], array[s, t, u])""",
        _stratified_ppi,
    ),
    "active_rate": Interval(ACTIVE, _active),
    "active_rate, other draws": Interval(ACTIVE, _active_draws(DRAWS)),
    "active_rate, fails seldom drawn": Interval(ACTIVE, _active_draws(SELDOM)),
    "rate_difference": Interval("flywheel.rate_difference(a::bigint, b::bigint, c::bigint, d::bigint)", _difference),
    "corrected_difference": Interval(
        """flywheel.corrected_rate(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint) as one,
           lateral flywheel.corrected_rate(g::bigint, h::bigint, i::bigint, j::bigint, k::bigint, l::bigint) as two,
           lateral flywheel.corrected_difference(one.rate, one.low, one.high, two.rate, two.low, two.high)""",
        _corrected_difference,
    ),
    "mean_interval": Interval("flywheel.mean_interval(a::bigint, b, c)", _means(TAILED, 2)),
    "skewed_mean_interval": Interval("flywheel.skewed_mean_interval(a::bigint, b, c, d)", _means(TAILED, 3)),
    "bounded_mean_interval": Interval("flywheel.bounded_mean_interval(a::bigint, b, c)", _means(BOUNDED, 2)),
}
