"""Processor time of the server for one span: its insert, part by part, and what a worker has done there for it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from tests.bench import spans
from tests.bench.figures import Options, Result, interleaved, medians
from tests.bench.server import Session, backend_cpu_seconds, connected, installed_database, value

SPANS = 3_000
SLICES = 3
CHECKS = 3
CLAIMED = 300  # jobs at a time, as at a steady trickle
PARTS = ("table", "counted", "queued")


def measure(options: Options) -> Result:
    """Return microseconds a span; each later part of an insert holds the ones before."""
    count = max(100, round(SPANS * options.scale))
    with ExitStack() as stack:
        sessions = {part: stack.enter_context(_prepared(options.server_dsn, part)) for part in PARTS}
        sides = {part: partial(_insert, session, count) for part, session in sessions.items()}
        figures = interleaved(options.runs * SLICES, sides)
        for name, step in _steps(sessions["queued"]).items():
            figures[name] = [step()]
    middle = medians(figures)
    return Result(
        "insert_cost",
        middle["queued"] / middle["table"],
        "none",
        None,
        {"spans": count, "microseconds_a_span": figures},
        middle,
        [
            "single rows by one connection: table = triggers off; counted = no validator; queued = three bulk checks",
            "claim, complete, fold: what a worker calls for those spans, some hundred at a time; not its own process",
        ],
    )


@contextmanager
def _prepared(server_dsn: str, part: str) -> Iterator[Session]:
    with installed_database(server_dsn) as dsn, connected(dsn) as session:
        if part == "queued":
            spans.activate_sql(session, CHECKS, "bulk")
        if part == "table":
            session.execute("alter table flywheel.spans disable trigger user")
        session.execute("set synchronous_commit = off")  # the wait for a disk is not the processor's
        _insert(session, 300)
        yield session


def _insert(session: Session, count: int) -> float:
    choose = random.Random(5)
    texts = [spans.text(choose), spans.text(choose)]

    def one_by_one() -> None:
        for _ in range(count):
            session.execute("insert into flywheel.spans (input, output) values (%s, %s)", texts, prepare=True)

    return _microseconds(session, count, one_by_one)


def _microseconds(session: Session, count: int, work: Callable[[], None]) -> float:
    before = backend_cpu_seconds(session)
    work()
    return (backend_cpu_seconds(session) - before) * 1e6 / count


def _steps(session: Session) -> dict[str, Callable[[], float]]:
    """Return what a worker does after inserts, in its order; each is to be called once."""
    waiting: int = value(session, "select count(*) from flywheel._ready")
    held: list[tuple[list[uuid.UUID], list[uuid.UUID]]] = []
    worker_id = uuid.uuid4()

    def claim() -> None:
        held.extend(_claim(session, worker_id) for _ in range(-(-waiting // CLAIMED)))

    def complete() -> None:
        for fences, version_ids in held:
            session.execute("select flywheel._complete(%s, %s, %s, now())", [worker_id, fences, version_ids])

    def fold() -> None:
        session.execute("select flywheel._fold(1000)")

    steps = {"claim": claim, "complete": complete, "fold": fold}
    return {name: partial(_microseconds, session, waiting, step) for name, step in steps.items()}


def _claim(session: Session, worker_id: uuid.UUID) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    found = session.execute(
        "select fence, version_ids from flywheel._claim_together('bulk', 1::smallint, %s, %s)", [worker_id, CLAIMED]
    ).fetchall()
    return [fence for fence, _ in found], found[0][1]
