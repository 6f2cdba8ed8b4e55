"""How often each interval holds the truth: simulated judges, labels and streams, computed by the SQL itself."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import LiteralString

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from psycopg import sql

from tests.bench.figures import Options, Result
from tests.bench.interval_draws import INTERVALS, JUDGES, THETAS, Column, Interval, cells
from tests.bench.server import Session, connected, installed_database

RUNS, ROWS, SEED, SECOND_SEED = 2_000, 2_000, 20270104, 20270105
NOMINAL, ALLOWED, SURER = 0.95, 0.015, 10
LOOKS = (*range(1, 101), *range(110, ROWS + 1, 10))
FEW_LOOKS = (2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 120, 150, 175, 200)
# In the table so that everyone sees why they are not used, or when not.
WARNINGS = ("wilson_interval, watched", "active_rate, fails seldom drawn", "mean_interval")


@dataclass(frozen=True, slots=True)
class Found:
    """Shares of runs in which the interval held the truth, by setting, and the mean width."""

    coverage: dict[str, float]
    width: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.coverage.values())

    @property
    def below(self) -> list[str]:
        """Return the settings that miss what is allowed, the worst first."""
        low = [name for name, share in self.coverage.items() if share < NOMINAL - ALLOWED]
        return sorted(low, key=lambda name: self.coverage[name])


WATCHED: dict[str, LiteralString] = {
    "confidence_sequence": "flywheel.confidence_sequence(a::bigint, b::bigint)",
    "centred_confidence_sequence": "flywheel.centred_confidence_sequence(a::bigint, b::bigint)",
    "wilson_interval": "flywheel.wilson_interval(a::bigint, b::bigint)",
}
_CORRECTED_SEQUENCE: LiteralString = (
    "flywheel.corrected_sequence(a::bigint, b::bigint, c::bigint, d::bigint, e::bigint, f::bigint)"
)


def measure(options: Options) -> Result:
    """Return coverage and width of each interval; print the tables of the docs on stderr."""
    runs = max(100, round(RUNS * options.scale))
    found: dict[str, Found] = {}
    again: dict[str, dict[str, float]] = {}
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        for name, interval in INTERVALS.items():
            found[name] = _coverage(session, interval, np.random.default_rng(SEED), runs)
            again[name] = _again(session, interval, np.random.default_rng(SECOND_SEED), runs * SURER, found[name].below)
        for name, call in WATCHED.items():
            found[f"{name}, watched"] = _watched(session, call, np.random.default_rng(SEED), runs)
        found["corrected_sequence, watched"] = _watched_corrected(session, np.random.default_rng(SEED), runs // 10)
    print(_table(found), _table_of_low(found, again), sep="\n\n", file=sys.stderr)
    missed = [
        f"{name}: {setting}"
        for name, shares in again.items()
        if name not in WARNINGS
        for setting, share in shares.items()
        if share < NOMINAL - ALLOWED
    ]
    watched = [one for name, one in found.items() if name.endswith(", watched") and name not in WARNINGS]
    return Result(
        "interval_truth",
        None,
        f"coverage of every interval at least {NOMINAL - ALLOWED:.3f} in every setting (nominal {NOMINAL})",
        not missed and not any(one.below for one in watched),
        {
            name: {"mean": one.mean, "worst": min(one.coverage.values()), "width": one.width} | _counts(one)
            for name, one in found.items()
        }
        | {"missed": missed},
        notes=[
            f"{runs} runs of each setting, seed {SEED}",
            f"a setting below misses the bar only if {runs * SURER} runs of seed {SECOND_SEED} are below as well",
        ],
    )


def _counts(one: Found) -> dict[str, int]:
    return {"settings": len(one.coverage), "below": len(one.below)}


def _coverage(session: Session, interval: Interval, chance: Generator, runs: int) -> Found:
    coverage, widths = {}, []
    for name, columns, truth in interval.draw(chance, runs):
        coverage[name], width = _held(session, interval, columns, truth)
        widths.append(width)
    return Found(coverage, statistics.fmean(widths))


def _again(
    session: Session, interval: Interval, chance: Generator, runs: int, settings: Sequence[str]
) -> dict[str, float]:
    """Measure the settings anew: the lowest of many figures is low by chance as well."""
    if not settings:
        return {}
    drawn = {name: (columns, truth) for name, columns, truth in interval.draw(chance, runs) if name in settings}
    return {name: _held(session, interval, *drawn[name])[0] for name in settings}


def _held(session: Session, interval: Interval, columns: Sequence[Column], truth: float) -> tuple[float, float]:
    """Return the share of runs whose limits hold the truth, and their mean width."""
    low, high = _limits(session, interval.call, columns)
    return float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean()), float((high - low).mean())


def _limits(session: Session, call: LiteralString, columns: Sequence[Column]) -> tuple[Column, Column]:
    """Return the limits of each run; its arguments are called a, b, c ..."""
    query = sql.SQL(
        "select array_agg(found.low order by place), array_agg(found.high order by place)"
        " from unnest({columns}) with ordinality as run ({names}, place), lateral {call} as found"
    ).format(
        columns=sql.SQL(", ").join([sql.SQL("%s::float8[]")] * len(columns)),
        names=sql.SQL(", ").join(map(sql.Identifier, ascii_lowercase[: len(columns)])),
        call=sql.SQL(call),
    )
    row = session.execute(query, [column.tolist() for column in columns]).fetchone()
    assert row is not None, "an aggregate has one row"
    return np.array(row[0]), np.array(row[1])


def _watched(session: Session, call: LiteralString, chance: Generator, runs: int) -> Found:
    """Look after each of 100 rows, then after every tenth: a run is right only if the interval holds every time."""
    looks = np.array(LOOKS)
    coverage, widths = {}, []
    for theta in THETAS:
        middle = np.rint(looks * theta).astype(np.int64)
        fewest = _limit(session, call, theta, looks, middle, np.full_like(middle, -1))
        most = _limit(session, call, theta, looks, middle, looks + 1)
        passes = np.cumsum(chance.random((runs, ROWS)) < theta, axis=1)[:, looks - 1]
        coverage[f"rate {theta}"] = float(((passes >= fewest) & (passes <= most)).all(axis=1).mean())
        low, high = _limits(session, call, (middle[-1:], looks[-1:]))
        widths.append(float((high - low)[0]))
    return Found(coverage, statistics.fmean(widths))


def _watched_corrected(session: Session, chance: Generator, runs: int) -> Found:
    """Look at the corrected rate fifteen times, while twenty spans are judged for each label that is made."""
    coverage, widths = {}, []
    for theta, (tpr, tnr) in itertools.product(THETAS, JUDGES):
        steps = chance.multinomial(1, cells(theta, tpr, tnr), (runs, FEW_LOOKS[-1])).cumsum(axis=1)
        judged = chance.multinomial(19, cells(theta, tpr, tnr), (runs, FEW_LOOKS[-1])).cumsum(axis=1) + steps
        held = np.ones(runs, dtype=bool)
        for look in FEW_LOOKS:
            passed = judged[:, look - 1, :2].sum(axis=1)
            columns = [*steps[:, look - 1].T, passed, np.full(runs, 20 * look)]
            low, high = _limits(session, _CORRECTED_SEQUENCE, columns)
            held &= (low <= theta) & (theta <= high)
        coverage[f"rate {theta}, judge {tpr} {tnr}"] = float(held.mean())
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
    lines = [
        "| interval | settings | mean coverage | worst | below .935 | mean width |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in found.items():
        shares = f"{one.mean:.3f} | {min(one.coverage.values()):.3f}"
        lines.append(f"| {name} | {len(one.coverage)} | {shares} | {len(one.below)} | {one.width:.3g} |")
    return "\n".join(lines)


def _table_of_low(found: dict[str, Found], again: dict[str, dict[str, float]]) -> str:
    lines = ["| interval | setting | coverage | measured anew |", "|---|---|---:|---:|"]
    for name, shares in again.items():
        lines += [
            f"| {name} | {setting} | {found[name].coverage[setting]:.3f} | {share:.3f} |"
            for setting, share in shares.items()
        ]
    return "\n".join(lines)
