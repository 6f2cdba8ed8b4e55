"""COPY of 100,000 spans with 3 inline SQL checks, against COPY and one hand-written insert of the same scores."""

from __future__ import annotations

from functools import partial
from typing import LiteralString

from tests.bench import spans
from tests.bench.figures import Options, Result, interleaved, medians, timed
from tests.bench.server import Session, connected, installed_database, value

BAR = 1.15
BY_HAND: LiteralString = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
select span.span_id, span.revision, said.version_id, span.started_at, span.trace_id, span.project, said.passed
  from flywheel.spans as span
 cross join lateral (values
   ('00000000-0000-0000-0000-000000000001'::uuid, span.output <> ''),
   ('00000000-0000-0000-0000-000000000002'::uuid, length(span.output) <= 4000),
   ('00000000-0000-0000-0000-000000000003'::uuid, position('confidential' in span.output) = 0)
 ) as said(version_id, passed)
 where span.ingested_at = now()
"""


def measure(options: Options) -> Result:
    """Return the time with inline checks over the time by hand."""
    rows = spans.blocks(int(100_000 * options.scale))
    sides = {"by_hand": partial(_by_hand, options, rows), "inline": partial(_inline, options, rows)}
    figures = interleaved(options.runs, sides)
    middle = medians(figures)
    ratio = middle["inline"] / middle["by_hand"]
    return Result(
        "inline_overhead",
        ratio,
        f"<= {BAR} of COPY and a hand-written insert of the same scores",
        ratio <= BAR,
        {"blocks_of_500_spans": len(rows), "seconds": figures},
        middle,
    )


def _inline(options: Options, rows: list[bytes]) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        spans.activate_sql(session, 3, "inline")
        spans.copy(session, rows[:1])
        with timed() as clock:
            spans.copy(session, rows)
        _require_scores(session, 3 * 500 * (len(rows) + 1))
        return clock.seconds


def _by_hand(options: Options, rows: list[bytes]) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        session.execute("alter table flywheel.spans disable trigger user")
        with session.transaction():
            spans.copy(session, rows[:1])
            session.execute(BY_HAND)
        with timed() as clock, session.transaction():
            spans.copy(session, rows)
            session.execute(BY_HAND)
        _require_scores(session, 3 * 500 * (len(rows) + 1))
        return clock.seconds


def _require_scores(session: Session, expected: int) -> None:
    found = value(session, "select count(*) from flywheel.scores where passed is not null")
    if found != expected:
        raise RuntimeError(f"{found} scores were written, not {expected}")
