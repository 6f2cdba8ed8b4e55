"""3 SQL checks on 100,000 spans through the queue, against one hand-written insert of the same scores."""

from __future__ import annotations

from functools import partial

from tests.bench import spans
from tests.bench.figures import Options, Result, interleaved, medians, timed
from tests.bench.inline_overhead import BY_HAND
from tests.bench.server import connected, installed_database, value
from tests.bench.worker import drain, drain_from_pause, running_worker

BAR = 0.8
CHECKS = 3


def measure(options: Options) -> Result:
    """Return checks a second through the queue over those by hand."""
    rows = spans.blocks(int(100_000 * options.scale))
    sides = {"by_hand": partial(_by_hand, options, rows), "queue": partial(_queue, options, rows)}
    figures = interleaved(options.runs, sides)
    middle = medians(figures)
    ratio = middle["queue"] / middle["by_hand"]
    return Result(
        "bulk_sql",
        ratio,
        f">= {BAR} of one hand-written insert",
        ratio >= BAR,
        {"checks_per_second": figures},
        middle,
    )


def _checks(rows: list[bytes]) -> int:
    return CHECKS * spans.BLOCK_ROWS * len(rows)


def _by_hand(options: Options, rows: list[bytes]) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        session.execute("alter table flywheel.spans disable trigger user")
        with session.transaction():
            spans.copy(session, rows)
            session.execute("analyze flywheel.spans")
            with timed() as clock:
                session.execute(BY_HAND)
        return _checks(rows) / clock.seconds


def _queue(options: Options, rows: list[bytes]) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        spans.activate_sql(session, CHECKS, "bulk")
        with running_worker(dsn, "--lanes", "bulk"):
            spans.copy(session, rows[:1])
            drain(session)
            session.execute("select flywheel.pause_lane('bulk', 'loading')")
            spans.copy(session, rows)
            session.execute("analyze flywheel.spans")
            seconds = drain_from_pause(session, "bulk")
        found = value(session, "select count(*) from flywheel.scores where passed is not null")
        if found != _checks([*rows, rows[0]]):
            raise RuntimeError(f"{found} scores were written")
        return _checks(rows) / seconds
