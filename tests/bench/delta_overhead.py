"""100,000 scores of code and of a judge inserted with the triggers that note them for the rollups, against without."""

from __future__ import annotations

from functools import partial
from typing import LiteralString

from tests.bench import rollups
from tests.bench.figures import Options, Result, interleaved, medians, timed
from tests.bench.server import Session, connected, installed_database

BAR = 1.25
MINIMUM_RUNS = 5

INSERTS: dict[str, LiteralString] = {
    "code": """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
select span_id, revision, version_id, started_at, trace_id, project, passed
  from public.judged
""",
    "judge": """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique,
                             annotator_kind, latency_ms, input_tokens, output_tokens, cost_usd, request_hash)
select span_id, revision, version_id, started_at, trace_id, project, passed, value, critique,
       'judge', latency_ms, input_tokens, output_tokens, cost_usd, request_hash
  from public.judged
""",
}


def measure(options: Options) -> Result:
    """Return the time of the insert with the triggers over the time without them, for the dearer kind of score."""
    sides = {
        f"{kind}_{triggers}": partial(_insert, options, kind, triggers)
        for kind in INSERTS
        for triggers in ("without", "with")
    }
    figures = interleaved(max(options.runs, MINIMUM_RUNS), sides)
    middle = medians(figures)
    ratios = {kind: middle[f"{kind}_with"] / middle[f"{kind}_without"] for kind in INSERTS}
    return Result(
        "delta_overhead",
        max(ratios.values()),
        f"<= {BAR} of the time without deltas",
        max(ratios.values()) <= BAR,
        {"scores": int(100_000 * options.scale), "seconds": figures, "ratios": ratios},
        middle,
        [
            "one statement; the rows it inserts are ready in a table",
            "code: a bare verdict; judge: a value, a critique of a sentence, cost and tokens",
            "another version's scores were inserted, folded and vacuumed before, as in an install at work",
        ],
    )


def _insert(options: Options, kind: str, triggers: str) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        rollups.store_judged(session, int(100_000 * options.scale))
        _warm_up(session, INSERTS[kind])
        if triggers == "without":
            session.execute("alter table flywheel.scores disable trigger user")
        session.execute("checkpoint")
        with timed() as clock:
            session.execute(INSERTS[kind])
        return clock.seconds


def _warm_up(session: Session, insert: LiteralString) -> None:
    """Leave the table of changes as workers do: emptied by folds, its pages free again."""
    session.execute(insert)
    session.execute("select flywheel._fold(1000)")
    session.execute("vacuum (truncate off) flywheel._score_changes")
    session.execute("update public.judged set version_id = (select gen_random_uuid())")
    session.execute("vacuum full public.judged")
