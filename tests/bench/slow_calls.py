"""2,000 judge-lane calls of 200 ms at concurrency 100, against the time they would ideally take."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench import peers, spans
from tests.bench.figures import Options, Result, interleaved, medians
from tests.bench.server import connected, installed_database, value
from tests.bench.worker import drain, drain_from_pause, running_worker

BAR, MOST_CONNECTIONS = 0.95, 6
CALLS, CALL_SECONDS, CONCURRENCY = 2_000, 0.2, 100
LOOK_SECONDS = 0.05


class Most:
    """The most connections a worker had at once."""

    connections = 0


def measure(options: Options) -> Result:
    """Return the ideal time over the time taken."""
    ideal = CALLS * CALL_SECONDS / CONCURRENCY
    most = Most()
    sides = {"pgflywheel": lambda: ideal / _seconds(options, most)}
    notes = peers.missing("pgqueuer", "asyncpg", "uvloop")
    if not options.quick and not notes:
        sides["pgqueuer"] = lambda: ideal / peers.pgqueuer_seconds(options.server_dsn, "sleep", CALLS)
    figures = interleaved(options.runs, sides)
    middle = medians(figures)
    ratio = middle["pgflywheel"]
    return Result(
        "slow_calls",
        ratio,
        f">= {BAR} of ideal, at most {MOST_CONNECTIONS} connections",
        ratio >= BAR and most.connections <= MOST_CONNECTIONS,
        {"share_of_ideal": figures, "most_connections": most.connections, "ideal_seconds": ideal},
        middle,
        [*notes, "until the last score is written; peers: until the last job is deleted"],
    )


def _seconds(options: Options, most: Most) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        spans.activate(
            session,
            "slow",
            kind="python",
            target="output",
            lane="judge",
            callable="tests.bench.checks:slow",
            parameters={"seconds": CALL_SECONDS},
        )
        with running_worker(dsn, "--lanes", "judge", "--concurrency", str(CONCURRENCY)):
            session.execute("insert into flywheel.spans (input, output) values ('first', 'first')")
            drain(session)
            session.execute("select flywheel.pause_lane('judge', 'loading')")
            spans.copy(session, spans.blocks(CALLS))
            with _counting(dsn, most):
                seconds = drain_from_pause(session, "judge")
        if value(session, "select count(*) from flywheel.scores where passed") != CALLS + 1:
            raise RuntimeError("scores are missing")
        return seconds


@contextmanager
def _counting(dsn: str, most: Most) -> Iterator[None]:
    """Count the worker's connections meanwhile."""
    ended = threading.Event()

    def count() -> None:
        with connected(dsn) as session:
            while not ended.wait(LOOK_SECONDS):
                found = value(
                    session,
                    "select count(*) from pg_stat_activity where datname = current_database()"
                    " and application_name like 'pgflywheel%'",
                )
                most.connections = max(most.connections, found)

    counter = threading.Thread(target=count)
    counter.start()
    yield
    ended.set()
    counter.join()
