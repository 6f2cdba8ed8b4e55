"""100,000 judged scores inserted with the triggers that note them for the rollups, against without."""

from __future__ import annotations

from functools import partial

from tests.bench import rollups
from tests.bench.figures import Options, Result, interleaved, medians, timed
from tests.bench.server import connected, installed_database

BAR = 1.25
MINIMUM_RUNS = 5

INSERT = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique,
                             annotator_kind, latency_ms, input_tokens, output_tokens, cost_usd, request_hash)
select span_id, revision, version_id, started_at, trace_id, project, passed, value, critique,
       'judge', latency_ms, input_tokens, output_tokens, cost_usd, request_hash
  from public.judged
"""


def measure(options: Options) -> Result:
    """Return the time of the insert with the triggers over the time without them."""
    sides = {side: partial(_insert, options, side) for side in ("without", "with_deltas")}
    figures = interleaved(max(options.runs, MINIMUM_RUNS), sides)
    middle = medians(figures)
    ratio = middle["with_deltas"] / middle["without"]
    return Result(
        "delta_overhead",
        ratio,
        f"<= {BAR} of the time without deltas",
        ratio <= BAR,
        {"scores": int(100_000 * options.scale), "seconds": figures},
        middle,
        ["one statement; the rows it inserts are ready in a table: verdict, a critique of a sentence, cost and tokens"],
    )


def _insert(options: Options, side: str) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        rollups.store_judged(session, int(100_000 * options.scale))
        if side == "without":
            session.execute("alter table flywheel.scores disable trigger user")
        session.execute("checkpoint")
        with timed() as clock:
            session.execute(INSERT)
        return clock.seconds
