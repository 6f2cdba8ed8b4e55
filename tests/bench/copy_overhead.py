"""COPY of 100,000 spans with 5 bulk checks and a judge-lane version sampled at 10 %, against no validators."""

from __future__ import annotations

from functools import partial

from tests.bench import spans
from tests.bench.figures import Options, Result, interleaved, medians, timed
from tests.bench.server import connected, installed_database

BAR = 1.15


def measure(options: Options) -> Result:
    """Return the time of the COPY with validators over the time without."""
    rows = spans.blocks(int(100_000 * options.scale))
    sides = {side: partial(_copy, options, rows, side) for side in ("no_triggers", "no_validators", "validators")}
    figures = interleaved(options.runs, sides)
    middle = medians(figures)
    ratio = middle["validators"] / middle["no_validators"]
    return Result(
        "copy_overhead",
        ratio,
        f"<= {BAR} of the time without validators",
        ratio <= BAR,
        {"blocks_of_500_spans": len(rows), "seconds": figures},
        middle | {"ratio_to_no_triggers": middle["validators"] / middle["no_triggers"]},
    )


def _copy(options: Options, rows: list[bytes], side: str) -> float:
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        if side == "no_triggers":
            session.execute("alter table flywheel.spans disable trigger user")
        if side == "validators":
            spans.activate_sql(session, 5, "bulk")
            spans.activate(
                session, "judged", kind="python", target="output", lane="judge", sample=0.1, callable="judge:ask"
            )
        spans.copy(session, rows[:1])  # the functions' plans and the catalogue are in the session's memory
        with timed() as clock:
            spans.copy(session, rows)
        return clock.seconds
