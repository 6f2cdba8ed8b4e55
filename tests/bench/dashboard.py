"""The eight queries of the quality dashboard over 30 days, as an analyst, against the same numbers from raw scores."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench import scored
from tests.bench.figures import Options, Result, quantile, timed
from tests.bench.server import Session, connected, installed_database

SCORES = 10_000_000
P95_MS, TIMES_FASTER = 50.0, 50.0
RUNS = 40
SINCE = "date_trunc('day', now(), 'UTC') - interval '29 days'"
RAW = f"""
  from flywheel.spans
  join flywheel.scores
    on (scores.span_id, scores.started_at, scores.revision) = (spans.span_id, spans.started_at, spans.revision)
  join flywheel.validator_versions as versions using (version_id)
  join flywheel.validators using (validator_id)
 where spans.started_at >= {SINCE} and scores.started_at >= {SINCE} and spans.project = 'shop'
"""
RATES = "sum(judged)::bigint, round(sum(passed) / nullif(sum(judged), 0), 9)::float8"
RAW_RATES = "count(passed), round(count(*) filter (where passed) / nullif(count(passed), 0)::numeric, 9)::float8"
DAY = "date_trunc('day', spans.started_at, 'UTC')"
WINDOW = "judged, round(pass_rate::numeric, 9)::float8"
CORRECTED = "judged, labels, round(corrected_rate::numeric, 9)::float8"


@dataclass(frozen=True)
class Panel:
    """A panel's query over the views, and one that counts the same from raw rows; {since} is where 30 days begin."""

    views: str
    raw: str


PANELS = {
    "pass rate by day and validator": Panel(
        f"select time, validator, {RATES} from flywheel.quality_by_day"
        f" where time >= {SINCE} and project = 'shop' group by 1, 2 order by 1, 2",
        f"select {DAY}, validators.name, {RAW_RATES} {RAW} group by 1, 2 order by 1, 2",
    ),
    "pass rate by day and node of one judge": Panel(
        f"select time, node, {RATES} from flywheel.quality_by_day"
        f" where time >= {SINCE} and project = 'shop' and validator = 'validator_9' group by 1, 2 order by 1, 2",
        f"select {DAY}, spans.node, {RAW_RATES} {RAW} and validators.name = 'validator_9' group by 1, 2 order by 1, 2",
    ),
    "validators": Panel(
        f"select validator, {WINDOW} from flywheel.quality_by_validator where project = 'shop' order by 1",
        f"select validators.name, {RAW_RATES} {RAW} group by 1 order by 1",
    ),
    "nodes": Panel(
        f"select validator, node, {WINDOW} from flywheel.quality_by_node where project = 'shop' order by 1, 2",
        f"select validators.name, spans.node, {RAW_RATES} {RAW} group by 1, 2 order by 1, 2",
    ),
    "releases": Panel(
        f"select validator, release, {WINDOW} from flywheel.quality_by_release where project = 'shop' order by 1, 2",
        f"select validators.name, spans.release, {RAW_RATES} {RAW} group by 1, 2 order by 1, 2",
    ),
    "values of one judge": Panel(
        "select bin, sum(n)::bigint from flywheel.score_distributions"
        f" where time >= {SINCE} and project = 'shop' and validator = 'validator_9' group by 1 order by 1",
        "select least(19, floor(scores.value * 20))::integer, count(*)"
        f" {RAW} and validators.name = 'validator_9' and scores.value is not null group by 1 order by 1",
    ),
    "coverage by day": Panel(
        "select time, sum(n)::bigint, sum(unscored)::bigint from flywheel.quality_by_day"
        f" where time >= {SINCE} and project = 'shop' group by 1 order by 1",
        f"select {DAY}, count(*), count(*) - count(passed) {RAW} group by 1 order by 1",
    ),
    "corrected pass rates": Panel(
        f"select validator, {CORRECTED} from flywheel.corrected_pass_rates where project = 'shop' order by 1",
        f"""
        with judged as (
          select validators.name, version_id, count(passed) as judged, count(*) filter (where passed) as passed
            {RAW} and versions.kind = 'neighbours' group by 1, 2
        ), labelled as (
          select version_id, count(*) filter (where scores.passed and gold.passed) as tp,
                 count(*) filter (where scores.passed and not gold.passed) as fp,
                 count(*) filter (where not scores.passed and gold.passed) as fn,
                 count(*) filter (where not scores.passed and not gold.passed) as tn
            from flywheel.gold_labels as gold
            join flywheel.validator_versions as versions using (validator_id)
            join flywheel.scores using (span_id, started_at, revision, version_id)
           where gold.lane = 'estimation' and gold.started_at >= {SINCE} and scores.started_at >= {SINCE} group by 1
        )
        select name, judged, tp + fp + fn + tn, round(corrected.rate::numeric, 9)::float8
          from judged join labelled using (version_id),
               lateral flywheel.corrected_rate(tp, fp, fn, tn, passed, judged) as corrected
         order by 1
        """,
    ),
}


def measure(options: Options) -> Result:
    """Return how many times faster the slowest panel is than its raw query."""
    with installed_database(options.server_dsn) as dsn:
        with timed() as loading:
            scored.store(dsn, int(SCORES * options.scale))
        with connected(dsn) as analyst, connected(dsn) as owner:
            analyst.execute("set role flywheel_analyst")
            figures = {name: _panel(analyst, owner, panel) for name, panel in PANELS.items()}
            count = scored.stored(owner)
    slowest = max(figure["p95_ms"] for figure in figures.values())
    least = min(figure["times_faster"] for figure in figures.values())
    return Result(
        "dashboard",
        least,
        f"each p95 <= {P95_MS:.0f} ms warm and >= {TIMES_FASTER:.0f} x faster than from raw scores",
        slowest <= P95_MS and least >= TIMES_FASTER,
        {"panels": figures},
        {"slowest_p95_ms": slowest, "least_times_faster": least},
        [
            f"{count:,} scores by {scored.VALIDATORS} in {scored.DAYS} days, stored in {loading.seconds:.0f} s",
            f"p95 of {RUNS} warm runs; the raw query once",
            "both queries of a panel return the same rows, or the benchmark stops",
        ],
    )


def _panel(analyst: Session, owner: Session, panel: Panel) -> dict[str, float]:
    shown = _rows(analyst, panel.views)
    with timed() as raw:
        counted = _rows(owner, panel.raw)
    if shown != counted:
        raise RuntimeError(f"the views say {shown[:3]}, the raw rows {counted[:3]}")
    waits = [_milliseconds(lambda: _rows(analyst, panel.views)) for _ in range(RUNS)]
    median = statistics.median(waits)
    return {
        "p50_ms": median,
        "p95_ms": quantile(waits, 0.95),
        "raw_ms": raw.seconds * 1000,
        "times_faster": raw.seconds * 1000 / median,
        "rows": len(shown),
    }


def _rows(session: Session, query: str) -> list[Any]:
    return session.execute(query.encode()).fetchall()


def _milliseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000
