"""False alarms a month and time until a drop is found, on simulated streams judged by the rules themselves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from tests.bench.figures import Options, Result
from tests.bench.server import Session, connected, installed_database, value

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
PAST_DAYS, MONTH_DAYS, MONTHS, CHANGE_DAY, SLIDE_DAYS = 36, 30, 3, 6, 14
PER_DAY = (50, 200, 1_000, 10_000)
STEADY, CHANGING, LOOK_HOURS, SEED = 8, 6, 3, 20261121
GOOD, BAD = 0.95, 0.85
RULES = ("no change", "at the floor", "step", "slide")


@dataclass(frozen=True, slots=True)
class Stream:
    """Hourly counts of one slice: rows and passes."""

    kind: str
    per_day: int
    node: str
    rows: NDArray[np.int64]
    passes: NDArray[np.int64]


def measure(options: Options) -> Result:
    """Look every three hours at streams of 50 to 10,000 scores a day; count what is told, and how late."""
    months = max(1, round(MONTHS * options.scale))
    streams = list(_streams(np.random.default_rng(SEED), months))
    with installed_database(options.server_dsn) as dsn, connected(dsn) as session:
        _load(session, streams)
        budget = float(value(session, "select flywheel._setting('false_alarms_per_month')"))
        _set_rules(session)
        _look(session, months)
        false_alarms = _false_alarms(session)
        found = {kind: _delays(session, kind, streams) for kind in ("step", "slide")}
    per_month = sum(false_alarms.values()) / months
    figures = {"false_alarms": false_alarms, "months": months, "slices": _slices(streams), "found": found}
    return Result(
        benchmark="alert_truth",
        ratio=per_month / budget,
        bar=f"at most {budget:g} false alarms a month over all rules (settings.false_alarms_per_month)",
        met=per_month <= budget and all(one["missed"] == 0 for kind in found.values() for one in kind.values()),
        figures=figures,
        medians={"false_alarms_a_month": per_month},
        notes=[
            f"Counts are written into the rollups; _evaluate_alerts(at) is called every {LOOK_HOURS} simulated hours.",
            f"no change: {GOOD}; at the floor: a threshold of {GOOD} on a rate of {GOOD}, the worst case there is.",
            f"step: {GOOD} to {BAD} at once; slide: {GOOD} to {BAD} over {SLIDE_DAYS} days; delays from its beginning.",
            f"Delays: the median of {CHANGING} streams of each volume; alarms before the change are false.",
        ],
    )


def _streams(chance: Generator, months: int) -> Iterator[Stream]:
    for kind, count in (("steady", STEADY), ("step", CHANGING), ("slide", CHANGING)):
        days = PAST_DAYS + MONTH_DAYS * (months if kind == "steady" else 1)
        for per_day in PER_DAY:
            for number in range(count):
                rows = chance.poisson(per_day / 24, days * 24)
                passes = chance.binomial(rows, _rates(kind, days * 24))
                yield Stream(kind, per_day, f"{kind} {per_day} {number}", rows, passes)


def _rates(kind: str, hours: int) -> NDArray[np.float64]:
    since = np.arange(hours) - (PAST_DAYS + CHANGE_DAY) * 24
    gone = np.clip(since / (SLIDE_DAYS * 24), 0, 1) if kind == "slide" else since >= 0
    return np.asarray(GOOD - (GOOD - BAD) * gone * (kind != "steady"), dtype=np.float64)


def _load(session: Session, streams: Sequence[Stream]) -> None:
    """Write hours and days into the rollups, where a fold would have put them."""
    definition = Jsonb({"kind": "sql", "expression": "true", "filter": {"project": "nowhere"}})
    session.execute("select flywheel.define_validator('polite', %s)", [definition])
    session.execute("select flywheel.activate_validator('polite')")
    session.execute(
        "create temp table counted (kind text, node text, grain text, bucket timestamptz, n int, passed int)"
    )
    with session.cursor() as cursor, cursor.copy("copy counted from stdin") as copy:
        for stream in streams:
            for row in _rows(stream):
                copy.write_row(row)
    session.execute("""
        insert into flywheel._slices (slice_id, project, environment, node, node_kind, root)
        select distinct flywheel._slice_id('shop', kind, null, node, 'app', true, null, null, null),
               'shop', kind, node, 'app', true
          from counted""")
    session.execute("""
        insert into flywheel._score_rollups
               (grain, bucket, version_id, slice_id, reason, value_bin, n, passed, failed, valued, value_sum,
                value_squares, cost_usd, priced, input_tokens, output_tokens, metered, latency_ms, timed)
        select grain, bucket, version_id,
               flywheel._slice_id('shop', counted.kind, null, node, 'app', true, null, null, null),
               '', -1, n, passed, n - passed, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
          from counted, flywheel.validator_versions""")
    session.execute("analyze flywheel._score_rollups, flywheel._slices")


def _rows(stream: Stream) -> Iterator[tuple[object, ...]]:
    for grain, hours in (("hour", 1), ("day", 24)):
        rows, passes = (counts.reshape(-1, hours).sum(axis=1).tolist() for counts in (stream.rows, stream.passes))
        for place, (n, passed) in enumerate(zip(rows, passes, strict=True)):
            yield stream.kind, stream.node, grain, BEGINNING + timedelta(hours=place * hours), n, passed


def _set_rules(session: Session) -> None:
    common = {"metric": "pass_rate", "by": ["node"]}
    rules = {
        "no_change": {**common, "slice": {"environment": "steady"}},
        "at_the_floor": {**common, "slice": {"environment": "steady"}, "threshold": GOOD, "window": "12h"},
        "step": {**common, "slice": {"environment": "step"}},
        "slide": {**common, "slice": {"environment": "slide"}},
    }
    for name, definition in rules.items():
        session.execute("select flywheel.set_alert_rule(%s, %s)", [name, Jsonb(definition)])
    session.execute("update flywheel.settings set value = '1000' where name = 'alerts_per_rule'")


def _look(session: Session, months: int) -> None:
    """Look every few hours; what changes is over after a month and is left alone then, though its rules count."""
    for hour in range(0, MONTH_DAYS * months * 24, LOOK_HOURS):
        if hour == MONTH_DAYS * 24:
            session.execute(
                "update flywheel._alert_evaluations set next_at = 'infinity' where rule in ('step', 'slide')"
            )
        end = BEGINNING + timedelta(days=PAST_DAYS, hours=hour + LOOK_HOURS)
        session.execute("select flywheel._evaluate_alerts(%s)", [end - timedelta(minutes=2)])
        if hour % 240 == 0:
            session.execute("vacuum analyze flywheel._alert_states, flywheel._alert_evaluations, flywheel.alerts")


def _false_alarms(session: Session) -> dict[str, int]:
    changed_at = BEGINNING + timedelta(days=PAST_DAYS + CHANGE_DAY)
    query = """
        select coalesce(sum(1 + reopened), 0)::integer from flywheel.alerts
         where rule = %s and (rule in ('no_change', 'at_the_floor') or opened_at < %s)"""
    return {rule: int(value(session, query, rule.replace(" ", "_"), changed_at)) for rule in RULES}


def _delays(session: Session, kind: str, streams: Sequence[Stream]) -> dict[str, dict[str, float]]:
    """Return for each volume the median hours and scores from the change to its alert."""
    changed = (PAST_DAYS + CHANGE_DAY) * 24
    query = (
        "select slice ->> 'node', min(opened_at) from flywheel.alerts where rule = %s and opened_at >= %s group by 1"
    )
    opened: dict[str, datetime] = dict(session.execute(query, [kind, BEGINNING + timedelta(hours=changed)]).fetchall())
    found: dict[str, dict[str, float]] = {}
    for per_day in PER_DAY:
        chosen = [stream for stream in streams if (stream.kind, stream.per_day) == (kind, per_day)]
        seen = [stream for stream in chosen if stream.node in opened]
        hours = [round((opened[one.node] - BEGINNING) / timedelta(hours=1)) - changed for one in seen]
        rows = [int(one.rows[changed : changed + late].sum()) for one, late in zip(seen, hours, strict=True)]
        missed = len(chosen) - len(seen)
        medians = {"hours": statistics.median(hours), "scores": statistics.median(rows)} if seen else {}
        found[f"{per_day} a day"] = {**medians, "missed": missed}
    return found


def _slices(streams: Sequence[Stream]) -> dict[str, int]:
    return {kind: sum(stream.kind == kind for stream in streams) for kind in ("steady", "step", "slide")}
