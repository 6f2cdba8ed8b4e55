"""Fold of 10,000 fresh scores when 100,000 and when 10,000,000 are stored, beside a materialized view's refresh."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import LiteralString

from tests.bench import rollups
from tests.bench.figures import Options, Result, interleaved, medians, timed
from tests.bench.server import Session, connected, installed_database

BAR = 1.3
FRESH = 10_000
SIZES = {"scores_100k": 100_000, "scores_10m": 10_000_000}
FOLDS = 11
WARM = 2  # the first folds warm the cache and the plans

MATVIEW: LiteralString = """
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
    with ExitStack() as stack:
        sessions = {name: _filled(options, stack, max(FRESH, int(n * options.scale))) for name, n in SIZES.items()}
        folds = interleaved(FOLDS, {name: partial(_fold, session) for name, session in sessions.items()})
        refreshes = {name: _refresh(session) for name, session in sessions.items()}
    folds = {name: seconds[WARM:] for name, seconds in folds.items()}
    middle = medians(folds)
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


def _filled(options: Options, stack: ExitStack, scores: int) -> Session:
    dsn = stack.enter_context(installed_database(options.server_dsn))
    session = stack.enter_context(connected(dsn))
    rollups.store_history(session, scores, days=30)
    session.execute("checkpoint")
    return session


def _fold(session: Session) -> float:
    rollups.write_fresh(session, FRESH)
    seconds = _seconds(session, "select flywheel._fold()")
    session.execute("vacuum flywheel._score_changes")  # as workers do every 30 seconds
    return seconds


def _refresh(session: Session) -> float:
    session.execute(MATVIEW)
    return _seconds(session, "refresh materialized view public.equal_counts")


def _seconds(session: Session, statement: LiteralString) -> float:
    with timed() as clock:
        session.execute(statement)
    return clock.seconds
