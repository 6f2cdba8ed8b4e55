"""Labels, fixes, and the queue of spans that wait for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflywheel.db.connect import Database, columns_of


@dataclass(frozen=True, slots=True)
class Task:
    """A span somebody was given to label, with the question."""

    item_id: UUID
    span_id: UUID
    started_at: datetime
    revision: int
    lane: str
    adjudication: bool
    leased_until: datetime
    project: str
    node: str
    input: str | None
    output: str | None
    messages: Any
    documents: Any
    target: str
    question: str
    pass_when: str | None
    fail_when: str | None


@dataclass(frozen=True, slots=True)
class Label:
    """What an annotator says now of a revision of a span."""

    label_id: UUID
    validator: str
    span_id: UUID
    started_at: datetime
    revision: int
    trace_id: UUID
    project: str
    annotator: str
    annotator_kind: str
    passed: bool
    critique: str | None
    blind: bool
    adjudicated: bool
    lane: str
    incl_prob: float | None
    stratum: str | None
    group_key: str
    split: str
    labelled_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge version says of the revision that was labelled."""

    validator: str
    version: int
    passed: bool | None
    confidence: float | None
    critique: str | None
    unscored_reason: str | None


@dataclass(frozen=True, slots=True)
class LabelStats:
    """For one question, the spans people labelled and those that wait for them."""

    validator: str
    labelled: int
    passed: int
    failed: int
    disputed: int
    estimation: int
    triage: int
    train: int
    dev: int
    test: int
    provisional: int
    fixes: int
    waiting_estimation: int
    waiting_triage: int
    to_settle: int
    last_labelled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn: each stratum with its size and the probability of its spans."""

    draw_id: UUID
    method: str
    wanted: int
    drawn: int
    strata: Any


@dataclass(frozen=True, slots=True)
class Undone:
    """A label that was withdrawn, and the item its annotator has again."""

    label_id: UUID
    span_id: UUID
    item_id: UUID | None


async def claim(database: Database, validator: str, reviewer: str, n: int, lane: str | None = None) -> list[Task]:
    """Give a reviewer up to ``n`` spans; nobody else gets them until the lease ends."""
    query = "select * from flywheel.claim_labels(%s, %s, %s, %s)"
    return await database.rows(Task, query, [validator, reviewer, n, lane])


async def record(
    database: Database, validator: str, task: Task, passed: bool, annotator: str, critique: str | None
) -> UUID:
    """Record what somebody says of the span they were given; raises LabelRefused."""
    query = "select flywheel.record_label(%s, %s, %s, %s, %s, true, %s)"
    found: UUID = await database.value(query, [task.span_id, validator, passed, annotator, critique, task.item_id])
    return found


async def fix(
    database: Database, validator: str | None, span_id: UUID, output: str, annotator: str, wrong: str | None
) -> UUID:
    """Record what the output should have been; raises LabelRefused."""
    query = "select flywheel.record_fix(%s, %s, %s, %s, %s)"
    found: UUID = await database.value(query, [span_id, output, annotator, validator, wrong])
    return found


async def defer(database: Database, item_id: UUID, reviewer: str) -> bool:
    """Give an item back for now; False when it was not held."""
    return bool(await database.value("select flywheel.defer_label(%s, %s)", [item_id, reviewer]))


async def undo(database: Database, reviewer: str) -> Undone:
    """Withdraw a reviewer's last label; raises LabelRefused when there is none."""
    found = await database.row(Undone, "select * from flywheel.undo_label(%s)", [reviewer])
    assert found is not None  # the function returns one row or raises
    return found


async def verdicts(database: Database, label_id: UUID) -> list[Verdict]:
    """Return what judges said of what was labelled, the newest first."""
    return await database.rows(Verdict, "select * from flywheel.label_verdicts(%s)", [label_id])


async def current(database: Database, validator: str | None, kind: str, limit: int | None = None) -> list[Label]:
    """Return the current labels by people (``human``) or those judges proposed (``judge``), oldest first."""
    query = f"""
        select {columns_of(Label)} from flywheel.current_labels
         where annotator_kind = %s and (%s::text is null or validator = %s)
         order by labelled_at, label_id limit %s
    """
    return await database.rows(Label, query, [kind, validator, validator, limit])


async def decide(database: Database, label_id: UUID, annotator: str, agrees: bool, critique: str | None) -> UUID:
    """Confirm or overturn a provisional label; raises LabelRefused."""
    function = "confirm_label" if agrees else "overturn_label"
    found: UUID = await database.value(f"select flywheel.{function}(%s, %s, %s)", [label_id, annotator, critique])
    return found


async def import_line(database: Database, label: dict[str, Any]) -> bool:
    """Record a label from a file; False when it is there already."""
    return bool(await database.value("select flywheel.import_label(%s)", [json.dumps(label)]))


async def stats(database: Database) -> list[LabelStats]:
    """Return what is labelled and what waits, by question."""
    return await database.rows(LabelStats, "select * from flywheel.label_stats order by validator")


async def draw(
    database: Database, validator: str, n: int, since: datetime, until: datetime, method: str, reviewers: int | None
) -> Draw:
    """Draw about ``n`` spans by chance."""
    made = await database.value(
        "select flywheel.draw_labels(%s, %s, %s, %s, %s, %s)", [validator, n, since, until, method, reviewers]
    )
    query = "select draw_id, method, wanted, drawn, strata from flywheel.label_draws where draw_id = %s"
    found = await database.row(Draw, query, [made])
    assert found is not None  # it was just made
    return found


async def triage(database: Database, validator: str, n: int) -> int:
    """Queue up to ``n`` spans whose labels would teach most; return how many."""
    return int(await database.value("select flywheel.queue_triage(%s, %s)", [validator, n]))


async def propose(database: Database, validator: str, n: int) -> int:
    """Make provisional labels of a judge's newest verdicts; return how many."""
    return int(await database.value("select flywheel.propose_labels(%s, %s)", [validator, n]))
