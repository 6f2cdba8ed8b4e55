"""How often each interval holds the truth: simulated judges, labels and streams, computed by the SQL itself."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from psycopg import sql

from tests.bench.figures import Options, Result
from tests.bench.server import Session, connected, installed_database

RUNS, JUDGED, ROWS, SEED = 2_000, 2_000, 2_000, 20261121
NOMINAL, ALLOWED = 0.95, 0.015
THETAS = (0.5, 0.8, 0.95)
JUDGES = ((0.95, 0.9), (0.9, 0.7), (0.8, 0.6))
LABELS = (30, 60, 100, 200)
LOOKS = (*range(1, 101), *range(110, ROWS + 1, 10))
FEW_LOOKS = (2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 120, 150, 175, 200)
Column = NDArray[np.int64] | NDArray[np.float64]
Setting = tuple[Sequence[Column], float]


@dataclass(frozen=True, slots=True)
class Interval:
    """A call in SQL and the settings it is tried on; ``draw`` yields its arguments, a column each, and the truth."""

    call: LiteralString
    draw: Callable[[Generator, int], Iterator[Setting]]


@dataclass(frozen=True, slots=True)
class Found:
    """Shares of runs in which the interval held the truth, one for each setting, and the mean width."""

    coverage: Sequence[float]
    width: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.coverage)


def _judged_settings() -> Iterator[tuple[float, float, float, int]]:
    for theta, (tpr, tnr), labels in itertools.product(THETAS, JUDGES, LABELS):
        yield theta, tpr, tnr, labels


def _cells(theta: float, tpr: float, tnr: float) -> list[float]:
    """Return the chances of pass-pass, pass-fail, fail-pass, fail-fail (judge, person)."""
    return [theta * tpr, (1 - theta) * (1 - tnr), theta * (1 - tpr), (1 - theta) * tnr]


def _wilson(chance: Generator, runs: int) -> Iterator[Setting]:
    for theta, labels in itertools.product(THETAS, LABELS):
        yield (chance.binomial(labels, theta, runs), np.full(runs, labels)), theta


def _corrected_of(chance: Generator, runs: int, theta: float, tpr: float, tnr: float, labels: int) -> list[Column]:
    cells = chance.multinomial(labels, _cells(theta, tpr, tnr), runs).T
    passed = cells[0] + cells[1] + chance.binomial(JUDGED - labels, theta * tpr + (1 - theta) * (1 - tnr), runs)
    return [*cells, passed, np.full(runs, JUDGED)]


def _corrected(chance: Generator, runs: int) -> Iterator[Setting]:
    for setting in _judged_settings():
        yield _corrected_of(chance, runs, *setting), setting[0]


def _corrected_by_verdict(chance: Generator, runs: int) -> Iterator[Setting]:
    """Draw half of the labels from each verdict, as people do who look for fails."""
    for theta, tpr, tnr, labels in _judged_settings():
        q = theta * tpr + (1 - theta) * (1 - tnr)
        passed = chance.binomial(JUDGED, q, runs)
        pp = chance.binomial(labels // 2, theta * tpr / q, runs)
        fp = chance.binomial(labels // 2, theta * (1 - tpr) / (1 - q), runs)
        yield (pp, labels // 2 - pp, fp, labels // 2 - fp, passed, np.full(runs, JUDGED)), theta


def _ratings(quality: float) -> NDArray[np.float64]:
    """Return the chances of the ratings 0, 0.25 ... 1 for an item that deserves a high one."""
    return np.array([0.5 * (1 - quality), 0.4 * (1 - quality), 0.1, 0.4 * quality, 0.5 * quality])


def _ppi(chance: Generator, runs: int) -> Iterator[Setting]:
    """Let the judge give one of five ratings, as a judge that answers with a value does."""
    values = np.arange(5) / 4
    for theta, tpr, tnr, labels in _judged_settings():
        of_pass, of_fail = _ratings(tpr), _ratings(tnr)[::-1]
        labelled = chance.multinomial(labels, [*(theta * of_pass), *((1 - theta) * of_fail)], runs)
        passed, ratings = labelled[:, :5], labelled[:, :5] + labelled[:, 5:]
        others = chance.multinomial(JUDGED - labels, theta * of_pass + (1 - theta) * of_fail, runs)
        of_labelled = [passed.sum(axis=1), ratings @ values, passed @ values, ratings @ values**2, passed.sum(axis=1)]
        n, rest = np.full(runs, labels), np.full(runs, JUDGED - labels)
        yield (n, *of_labelled, rest, others @ values, others @ values**2), theta


def _rogan_gladen(chance: Generator, runs: int) -> Iterator[Setting]:
    """Take labels from a balanced set made elsewhere."""
    for theta, tpr, tnr, labels in _judged_settings():
        tp, fp, fn, tn = chance.multinomial(labels, _cells(0.5, tpr, tnr), runs).T
        passed = chance.binomial(JUDGED, theta * tpr + (1 - theta) * (1 - tnr), runs)
        yield (passed, np.full(runs, JUDGED), tp, fp, fn, tn), theta


def _stratified(chance: Generator, runs: int) -> Iterator[Setting]:
    """Label three topics of unequal size equally often."""
    weights = np.array([0.6, 0.3, 0.1])
    for theta, labels in itertools.product(THETAS, LABELS):
        rates = np.array([theta + 0.03, theta - 0.05, theta - 0.2])
        sizes = chance.multinomial(JUDGED, weights, runs).T
        passes = [chance.binomial(labels // 3, rate, runs) for rate in rates]
        yield (*sizes, *passes, np.full(runs, labels // 3)), float(weights @ rates)


def _active(chance: Generator, runs: int) -> Iterator[Setting]:
    """Draw fails of the judge three times as often as passes, each with its known probability."""
    for theta, tpr, tnr, labels in _judged_settings():
        pp, pf, fp, ff = chance.multinomial(JUDGED, _cells(theta, tpr, tnr), runs).T
        share = 3 - 2 * (theta * tpr + (1 - theta) * (1 - tnr))
        p1, p0 = labels / JUDGED / share, min(1.0, 3 * labels / JUDGED / share)
        drawn_pp, drawn_pf = chance.binomial(pp, p1), chance.binomial(pf, p1)
        drawn_fp, drawn_ff = chance.binomial(fp, p0), chance.binomial(ff, p0)
        drawn, rest = drawn_pp + drawn_pf, pp + pf - drawn_pp - drawn_pf
        sum_a, sum_aa = drawn * (1 / p1 - 1) - rest, drawn * (1 / p1 - 1) ** 2 + rest
        sum_b, sum_bb = drawn_pp / p1 + drawn_fp / p0, drawn_pp / p1**2 + drawn_fp / p0**2
        found = drawn + drawn_fp + drawn_ff
        yield (np.full(runs, JUDGED), found, sum_a, sum_b, sum_aa, drawn_pp * (1 / p1 - 1) / p1, sum_bb), theta


def _difference(chance: Generator, runs: int) -> Iterator[Setting]:
    pairs = [(0.5, 0.5), (0.8, 0.8), (0.95, 0.95), (0.8, 0.7), (0.95, 0.85), (0.9, 0.97)]
    for (a, b), n, times in itertools.product(pairs, LABELS, (1, 5)):
        totals = np.full(runs, n * times), np.full(runs, n)
        yield (
            (chance.binomial(n * times, a, runs), totals[0], chance.binomial(n, b, runs), totals[1]),
            b - a,
        )


def _corrected_difference(chance: Generator, runs: int) -> Iterator[Setting]:
    for theta, tpr, tnr, labels in _judged_settings():
        other = theta - 0.1
        a = _corrected_of(chance, runs, theta, tpr, tnr, labels)
        yield [*a, *_corrected_of(chance, runs, other, tpr, tnr, labels)], other - theta


def _means(chance: Generator, runs: int) -> Iterator[Setting]:
    draws: list[tuple[Callable[[tuple[int, int]], NDArray[np.float64]], float]] = [
        (lambda size: chance.normal(500, 100, size), 500),
        (lambda size: chance.gamma(2, 300, size), 600),
        (lambda size: chance.lognormal(6, 0.5, size), float(np.exp(6 + 0.125))),
        (lambda size: chance.lognormal(6, 1, size), float(np.exp(6.5))),
    ]
    for (draw, truth), n in itertools.product(draws, LABELS):
        values = draw((runs, n))
        yield (np.full(runs, n), values.sum(axis=1), (values**2).sum(axis=1)), truth


INTERVALS = {
    "wilson_interval": Interval("flywheel.wilson_interval(a::bigint, b::bigint)", _wilson),
    "corrected_rate": Interval(
        "flywheel.corrected_rate(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint)", _corrected
    ),
    "corrected_rate, labels by verdict": Interval(
        "flywheel.corrected_rate(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint)",
        _corrected_by_verdict,
    ),
    "ppi_rate": Interval("flywheel.ppi_rate(a::bigint, b, c, d, e, f, g::bigint, h, i)", _ppi),
    "rogan_gladen": Interval(
        "flywheel.rogan_gladen(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint)", _rogan_gladen
    ),
    "stratified_rate": Interval(
        "flywheel.stratified_rate(array[a, b, c]::bigint[], array[g, g, g]::bigint[], array[d, e, f]::bigint[])",
        _stratified,
    ),
    "active_rate": Interval("flywheel.active_rate(a::bigint, b::bigint, c, d, e, f, g)", _active),
    "rate_difference": Interval("flywheel.rate_difference(a::bigint, b::bigint, c::bigint, d::bigint)", _difference),
    "corrected_difference": Interval(
        """flywheel.corrected_rate(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint) as one,
           lateral flywheel.corrected_rate(g::bigint, h::bigint, i::bigint, j::bigint, k::bigint, l::bigint) as two,
           lateral flywheel.corrected_difference(one.rate, one.low, one.high, two.rate, two.low, two.high)""",
        _corrected_difference,
    ),
    "mean_interval": Interval("flywheel.mean_interval(a::bigint, b, c)", _means),
}
WATCHED: dict[str, LiteralString] = {
    "confidence_sequence": "flywheel.confidence_sequence(a::bigint, b::bigint)",
    "centred_confidence_sequence": "flywheel.centred_confidence_sequence(a::bigint, b::bigint)",
    "wilson_interval": "flywheel.wilson_interval(a::bigint, b::bigint)",
}
_CORRECTED_SEQUENCE: LiteralString = (
    "flywheel.corrected_sequence(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint)"
)


def measure(options: Options) -> Result:
    """Return coverage and width of each interval; print the table of the docs on stderr."""
    runs = max(100, round(RUNS * options.scale))
    found: dict[str, Found] = {}
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        for name, interval in INTERVALS.items():
            found[name] = _coverage(session, interval, np.random.default_rng(SEED), runs)
        for name, call in WATCHED.items():
            found[f"{name}, watched"] = _watched(session, call, np.random.default_rng(SEED), runs)
        found["corrected_sequence, watched"] = _watched_corrected(session, np.random.default_rng(SEED), runs // 10)
    print(_table(found), file=sys.stderr)
    held = {name: one for name, one in found.items() if name != "wilson_interval, watched"}  # shown why it is not used
    return Result(
        "interval_truth",
        None,
        f"mean coverage of every interval at least {NOMINAL - ALLOWED:.3f} (nominal {NOMINAL})",
        all(one.mean >= NOMINAL - ALLOWED for one in held.values()),
        {
            name: {"mean": one.mean, "worst": min(one.coverage), "width": one.width, "settings": len(one.coverage)}
            for name, one in found.items()
        },
        notes=[f"{runs} runs of each setting, seed {SEED}"],
    )


def _coverage(session: Session, interval: Interval, chance: Generator, runs: int) -> Found:
    coverage, widths = [], []
    for columns, truth in interval.draw(chance, runs):
        low, high = _limits(session, interval.call, columns)
        coverage.append(float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean()))
        widths.append(float((high - low).mean()))
    return Found(coverage, statistics.fmean(widths))


def _limits(session: Session, call: LiteralString, columns: Sequence[Column]) -> tuple[Column, Column]:
    """Return the limits of each run; its arguments are called a, b, c ..."""
    query = sql.SQL(
        "select array_agg(found.low order by place), array_agg(found.high order by place)"
        " from unnest({columns}) with ordinality as run ({names}, place), lateral {call} as found"
    ).format(
        columns=sql.SQL(", ").join([sql.SQL("%s::float8[]")] * len(columns)),
        names=sql.SQL(", ").join(map(sql.Identifier, "abcdefghijkl"[: len(columns)])),
        call=sql.SQL(call),
    )
    row = session.execute(query, [column.tolist() for column in columns]).fetchone()
    assert row is not None, "an aggregate has one row"
    return np.array(row[0]), np.array(row[1])


def _watched(session: Session, call: LiteralString, chance: Generator, runs: int) -> Found:
    """Look after each of 100 rows, then after every tenth: a run is right only if the interval holds every time."""
    looks = np.array(LOOKS)
    coverage, widths = [], []
    for theta in THETAS:
        middle = np.rint(looks * theta).astype(np.int64)
        fewest = _limit(session, call, theta, looks, middle, np.full_like(middle, -1))
        most = _limit(session, call, theta, looks, middle, looks + 1)
        passes = np.cumsum(chance.random((runs, ROWS)) < theta, axis=1)[:, looks - 1]
        coverage.append(float(((passes >= fewest) & (passes <= most)).all(axis=1).mean()))
        low, high = _limits(session, call, (middle[-1:], looks[-1:]))
        widths.append(float((high - low)[0]))
    return Found(coverage, statistics.fmean(widths))


def _watched_corrected(session: Session, chance: Generator, runs: int) -> Found:
    """Look at the corrected rate fifteen times, while twenty spans are judged for each label that is made."""
    coverage, widths = [], []
    for theta, (tpr, tnr) in itertools.product(THETAS, JUDGES):
        steps = chance.multinomial(1, _cells(theta, tpr, tnr), (runs, FEW_LOOKS[-1])).cumsum(axis=1)
        judged = chance.multinomial(19, _cells(theta, tpr, tnr), (runs, FEW_LOOKS[-1])).cumsum(axis=1) + steps
        held = np.ones(runs, dtype=bool)
        for look in FEW_LOOKS:
            passed = judged[:, look - 1, :2].sum(axis=1)
            columns = [*steps[:, look - 1].T, passed, np.full(runs, 20 * look)]
            low, high = _limits(session, _CORRECTED_SEQUENCE, columns)
            held &= (low <= theta) & (theta <= high)
        coverage.append(float(held.mean()))
        widths.append(float((high - low).mean()))
    return Found(coverage, statistics.fmean(widths))


def _limit(
    session: Session,
    call: LiteralString,
    theta: float,
    looks: Column,
    inside: NDArray[np.int64],
    outside: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return for each number of rows the most extreme number of passes whose interval still holds theta, by halving."""
    inside, outside = inside.copy(), outside.copy()
    while (open_ := np.abs(outside - inside) > 1).any():
        tried = (inside + outside) // 2
        low, high = _limits(session, call, (tried[open_], looks[open_]))
        holds = np.zeros(len(tried), dtype=bool)
        holds[open_] = (low <= theta) & (theta <= high)
        inside = np.where(open_ & holds, tried, inside)
        outside = np.where(open_ & ~holds, tried, outside)
    return inside


def _table(found: dict[str, Found]) -> str:
    lines = ["| interval | settings | mean coverage | worst | mean width |", "|---|---:|---:|---:|---:|"]
    for name, one in found.items():
        lines.append(f"| {name} | {len(one.coverage)} | {one.mean:.3f} | {min(one.coverage):.3f} | {one.width:.3g} |")
    return "\n".join(lines)
