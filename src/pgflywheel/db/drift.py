"""Drift: what is due, the vectors a classifier compares, the sentinels a judge is asked about, what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflywheel.db.connect import Database, columns_of
from pgflywheel.db.judgements import Subject, dumped


@dataclass(frozen=True, slots=True)
class DueDomain:
    """A project and node whose last week was not compared with the weeks before."""

    project: str
    node: str
    n_reference: int
    n_current: int


@dataclass(frozen=True, slots=True)
class Vector:
    """The input of a span; ``current`` tells whether it is of the last week."""

    span_id: UUID
    current: bool
    embedding: list[float]


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A row of flywheel.sentinel_status: ``passed`` is what people say, ``said`` what the judge said last."""

    sentinel_id: UUID
    validator: str
    span_id: UUID
    started_at: datetime
    revision: int
    passed: bool
    version: int | None
    run_at: datetime | None
    said: bool | None
    value: float | None
    unscored_reason: str | None
    agrees: bool | None
    chosen_by: str
    chosen_at: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class SentinelRun:
    """A row of flywheel.sentinel_history; ``drifted`` None = not enough data."""

    run_at: datetime
    validator: str
    version: int
    n: int
    judged: int
    unscored: int
    agreed: int
    agreement: float | None
    agreement_low: float
    agreement_high: float
    p_value: float | None
    drifted: bool | None
    answered_by: str | None
    cost_usd: float | None


async def take_turn(db: Database, name: str, seconds: float) -> bool:
    """Tell whether this worker may begin some work; nobody else does for so many seconds."""
    return bool(await db.value("select flywheel._take_turn(%s, %s)", [name, seconds]))


async def due_domains(db: Database) -> list[DueDomain]:
    """Return what a classifier is to look at now."""
    return await db.rows(DueDomain, "select project, node, n_reference, n_current from flywheel._domain_due()")


async def domain_sample(db: Database, due: DueDomain, most: int) -> list[Vector]:
    """Return up to so many vectors of each side, chosen by hash."""
    query = "select span_id, current, embedding from flywheel._domain_sample(%s, %s, %s)"
    return await db.rows(Vector, query, [due.project, due.node, most])


async def note_domain(
    db: Database,
    due: DueDomain | None,
    auc: float | None,
    chance: float | None,
    drifted: bool | None,
    evidence: Mapping[str, Any],
) -> None:
    """Write what a classifier found; without a project, why there is none."""
    given = [None] * 4 if due is None else [due.project, due.node, due.n_reference, due.n_current]
    await db.execute(
        "select flywheel._note_domain(%s, %s, %s, %s, %s, %s, %s, %s::jsonb)",
        [given[0], given[1], auc, chance, given[2], given[3], drifted, dumped(dict(evidence))],
    )


async def due_sentinels(db: Database) -> list[UUID]:
    """Return the judge versions that are to be asked about their sentinels now."""
    return [row[0] for row in await db.rows(tuple, "select version_id from flywheel._sentinels_due()")]


async def sentinels(db: Database, version_id: UUID) -> list[Subject]:
    """Return the sentinels of a version as a judge is shown them; ``fence`` is the id of the sentinel."""
    return await db.rows(Subject, "select * from flywheel._sentinel_items(%s)", [version_id])


async def write_sentinel_run(
    db: Database, version_id: UUID, run_at: datetime, said: Sequence[Mapping[str, Any]]
) -> int:
    """Write what a judge said of its sentinels and test it against the runs before; return how many were new."""
    query = "select flywheel._write_sentinel_run(%s, %s, %s::jsonb)"
    written: int = await db.value(query, [version_id, run_at, dumped(list(said))])
    return written


async def choose_sentinels(db: Database, validator: str, n: int) -> int:
    """Choose items a judge is asked about every day; return how many there are now."""
    chosen: int = await db.value("select flywheel.choose_sentinels(%s, %s)", [validator, n])
    return chosen


async def retire_sentinels(db: Database, validator: str) -> int:
    """Have a judge asked about its sentinels no more; return how many there were."""
    retired: int = await db.value("select flywheel.retire_sentinels(%s)", [validator])
    return retired


async def sentinel_status(
    db: Database, validator: str | None, limit: int, *, all_of_them: bool = False
) -> list[Sentinel]:
    """Return sentinels and what was said of them last: first those on which judge and people differ."""
    columns = columns_of(Sentinel)
    query = f"""select {columns} from flywheel.sentinel_status
                 where (%s::text is null or validator = %s) and (%s or retired_at is null)
                 order by retired_at is not null, validator, agrees nulls last, passed, sentinel_id limit %s"""
    return await db.rows(Sentinel, query, [validator, validator, all_of_them, limit])


async def sentinel_history(db: Database, validator: str | None, limit: int) -> list[SentinelRun]:
    """Return the last runs, the newest first."""
    columns = columns_of(SentinelRun)
    query = f"""select {columns} from flywheel.sentinel_history where %s::text is null or validator = %s
                 order by run_at desc, validator, version desc limit %s"""
    return await db.rows(SentinelRun, query, [validator, validator, limit])
