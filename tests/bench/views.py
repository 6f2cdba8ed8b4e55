"""One metric live, from rollups and materialized, at 10^4 to 10^7 scores: to read, to refresh, to write, how fresh."""

from __future__ import annotations

import json
import statistics
from typing import LiteralString

from tests.bench import scored
from tests.bench.figures import Options, Result, timed
from tests.bench.server import Session, connected, installed_database, value

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
STORAGES = ("live", "rollup", "materialized")
MOST_RUNS, SECONDS_OF_RUNS = 40, 5.0
WRITTEN = 10_000
METRIC = {"measure": "pass_rate", "validator": "validator_9", "by": ["node"], "grain": "day", "days": 30}
SHOWN = "select time, dims, n, round(value::numeric, 9)"
MAKE_SCORES: LiteralString = """
create table public.fresh as
select spans.span_id, versions.version_id, spans.started_at, spans.trace_id, spans.project
  from (select * from flywheel.spans order by started_at desc limit %s) as spans
 cross join (select version_id from flywheel.validator_versions
              where definition ->> 'expression' = 'false') as versions
"""
WRITE_SCORES: LiteralString = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
select span_id, 1, version_id, started_at, trace_id, project, true from public.fresh
"""
UNWRITE_SCORES: LiteralString = """
delete from flywheel.scores using public.fresh
 where (scores.span_id, scores.version_id, scores.started_at) = (fresh.span_id, fresh.version_id, fresh.started_at)
"""


def measure(options: Options) -> Result:
    """Return what each storage costs at each size."""
    figures = {f"{size:,} scores": _measured(options, size) for size in SIZES if size <= SIZES[-1] * options.scale}
    return Result(
        "views",
        None,
        "none: what each costs is for the reader to weigh",
        None,
        figures,
        {},
        [
            f"pass rate of one of {scored.VALIDATORS} validators by day and node, over {scored.DAYS} days",
            "read_ms: median of warm runs as an analyst; refresh_ms: refresh materialized view concurrently",
            f"write_us: microseconds for each of {WRITTEN:,} scores in one insert, without and with rollups",
            "fresh_after_seconds: until a score that was just written shows",
        ],
    )


def _measured(options: Options, size: int) -> dict[str, dict[str, float]]:
    with installed_database(options.server_dsn) as dsn:
        scored.store(dsn, size)
        with connected(dsn) as session, connected(dsn) as analyst:
            for storage in STORAGES:
                define = "select flywheel.define_metric(%s, %s)"
                session.execute(define, [storage, json.dumps(METRIC | {"storage": storage})])
            analyst.execute("set role flywheel_analyst")
            read = {storage: _read(analyst, storage) for storage in STORAGES}
            _same(analyst)
            refresh = _refreshed(session)
            plain, rolled = _written(session)
    return {
        "live": {"read_ms": read["live"], "refresh_ms": 0.0, "write_us": plain, "fresh_after_seconds": 0.0},
        "rollup": {"read_ms": read["rollup"], "refresh_ms": 0.0, "write_us": rolled, "fresh_after_seconds": 0.0},
        "materialized": {
            "read_ms": read["materialized"],
            "refresh_ms": refresh,
            "write_us": rolled,
            "fresh_after_seconds": 300 + refresh / 1000,
        },
    }


def _read(session: Session, storage: str) -> float:
    """Return the median of milliseconds, after one run that warms up."""
    waits: list[float] = []
    query = f"select * from flywheel_bi.metric_{storage}".encode()
    session.execute(query).fetchall()
    while len(waits) < MOST_RUNS and sum(waits) < SECONDS_OF_RUNS * 1000:
        with timed() as clock:
            session.execute(query).fetchall()
        waits.append(clock.seconds * 1000)
    return statistics.median(waits)


def _same(session: Session) -> None:
    """Stop unless the three say the same."""
    found = [
        session.execute(f"{SHOWN} from flywheel_bi.metric_{storage} order by 1, 2".encode()).fetchall()
        for storage in STORAGES
    ]
    if not found[0] == found[1] == found[2]:
        raise RuntimeError("live, rollup and materialized differ")


def _refreshed(session: Session) -> float:
    waits = []
    for _ in range(5):
        session.execute("update flywheel.metrics set refreshed_at = '-infinity' where storage = 'materialized'")
        session.execute("select flywheel._refresh_metrics()")
        waits.append(float(value(session, "select refresh_ms from flywheel.metrics where storage = 'materialized'")))
    return statistics.median(waits)


def _written(session: Session) -> tuple[float, float]:
    """Return microseconds for each score of an insert without rollups and with them; the first of each warms up."""
    definition = json.dumps(scored.CHECK | {"expression": "false"})
    session.execute("select flywheel.define_validator('fresh', %s)", [definition])
    session.execute(MAKE_SCORES, [WRITTEN])
    count = value(session, "select count(*) from public.fresh")
    sides: dict[str, list[float]] = {"disable": [], "enable": []}
    for _ in range(4):
        for side, waits in sides.items():
            session.execute(f"alter table flywheel.scores {side} trigger all".encode())
            with timed() as clock:
                session.execute(WRITE_SCORES)
            waits.append(clock.seconds * 1e6 / count)
            session.execute(UNWRITE_SCORES)
            session.execute("select flywheel._fold(1000000)")
    return statistics.median(sides["disable"][1:]), statistics.median(sides["enable"][1:])
