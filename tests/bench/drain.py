"""50,000 spans, one no-op python check that reads no column, one worker process, against queues of no-op jobs."""

from __future__ import annotations

from tests.bench import peers, spans
from tests.bench.figures import Options, Result, interleaved, medians
from tests.bench.server import connected, installed_database, value
from tests.bench.worker import drain, drain_from_pause, running_worker

BAR = 2.0
SPANS = 50_000
PROCRASTINATE_JOBS = 2_000


def measure(options: Options) -> Result:
    """Return spans judged a second over pgqueuer's jobs a second."""
    count = max(500, int(SPANS * options.scale))
    rows = spans.blocks(count)
    sides = {"pgflywheel": lambda: count / _drain(options, rows)}
    notes = peers.missing("pgqueuer", "asyncpg", "uvloop")
    if not options.quick and not notes:
        sides["pgqueuer"] = lambda: count / peers.pgqueuer_seconds(options.server_dsn, "drain", count)
    if not options.quick and peers.graphile():
        sides["graphile_worker"] = lambda: count / peers.graphile_seconds(options.server_dsn, count)
    figures = interleaved(options.runs, sides)
    if not options.quick and not peers.missing("procrastinate"):
        seconds = peers.procrastinate_seconds(options.server_dsn, PROCRASTINATE_JOBS)
        figures["procrastinate"] = [PROCRASTINATE_JOBS / seconds]
    return _result(figures, notes)


def _result(figures: dict[str, list[float]], notes: list[str]) -> Result:
    middle = medians(figures)
    ours, others = middle["pgflywheel"], middle.get("pgqueuer")
    ratio = ours / others if others else None
    ahead = ours > middle.get("graphile_worker", 0)
    return Result(
        "drain",
        ratio,
        f">= {BAR} of pgqueuer's jobs a second, and more than graphile-worker's where Node is there",
        None if ratio is None else ratio >= BAR and ahead,
        {"spans_or_jobs_per_second": figures},
        middle,
        [
            *notes,
            "scores are written; peers only delete their jobs; every worker has done a first job before",
            "pgflywheel's one worker asks checks in a process for each core",
        ],
    )


def _drain(options: Options, rows: list[bytes]) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        spans.activate(
            session, "nothing", kind="python", target="span", columns=[], callable="tests.bench.checks:nothing"
        )
        with running_worker(dsn, "--lanes", "bulk"):
            spans.copy(session, rows[:1])
            drain(session)
            session.execute("select flywheel.pause_lane('bulk', 'loading')")
            spans.copy(session, rows)
            seconds = drain_from_pause(session, "bulk")
        found = value(session, "select count(*) from flywheel.scores where passed")
        if found != 500 * (len(rows) + 1):
            raise RuntimeError(f"{found} scores were written")
        return seconds
