"""Fold of 10,000 fresh scores when 100,000 and when 10,000,000 are stored, beside a materialized view's refresh."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from tests.bench import rollups
from tests.bench.figures import Options, Result, timed
from tests.bench.server import Session, connected, installed_database

BAR = 1.3
FRESH = 10_000
SIZES = {"scores_100k": 100_000, "scores_10m": 10_000_000}
FOLDS = 9

MATVIEW = """
create materialized view public.equal_counts as
select cut.grain, cut.bucket, version_id, project, environment, release, node, node_kind, root, reason, value_bin,
       sum(n) as n, sum(passed) as passed, sum(failed) as failed, sum(value_sum) as value_sum,
       sum(cost_usd) as cost_usd, sum(latency_ms) as latency_ms
  from flywheel._recount_scores('-infinity', 'infinity') as counted
 cross join lateral flywheel._cuts(counted.minute) as cut
 group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
"""


def measure(options: Options) -> Result:
    """Return the time of a fold with many scores stored over the time with few."""
    folds: dict[str, list[float]] = {}
    refreshes: dict[str, float] = {}
    for name, scores in SIZES.items():
        folds[name], refreshes[name] = _one_size(options, max(FRESH, int(scores * options.scale)))
    middle = {name: statistics.median(seconds) for name, seconds in folds.items()}
    ratio = middle["scores_10m"] / middle["scores_100k"]
    return Result(
        "fold_cost",
        ratio,
        f"<= {BAR}",
        ratio <= BAR,
        {"fresh_scores": FRESH, "fold_seconds": folds, "refresh_materialized_view_seconds": refreshes},
        middle,
        [
            f"scores of 10 versions over 30 days; each fold takes {FRESH} scores of {FRESH // 10} new spans",
            "the materialized view holds the same counts; refreshed once",
        ],
    )


def _one_size(options: Options, scores: int) -> tuple[list[float], float]:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        rollups.store_history(session, scores, days=30)
        session.execute("checkpoint")
        folds = [_fold(session) for _ in range(FOLDS)][2:]  # the first two warm the cache and the plans
        session.execute(MATVIEW)
        return folds, _seconds(lambda: session.execute("refresh materialized view public.equal_counts"))


def _fold(session: Session) -> float:
    rollups.write_fresh(session, FRESH)
    seconds = _seconds(lambda: session.execute("select flywheel._fold()"))
    session.execute("vacuum flywheel._score_changes")  # as workers do every 30 seconds
    return seconds


def _seconds(act: Callable[[], object]) -> float:
    with timed() as clock:
        act()
    return clock.seconds
