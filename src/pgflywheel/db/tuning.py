"""Policies of shots, tried on the labels of dev."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflywheel.db import wire
from pgflywheel.db.connect import Database

Policy = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """What is tuned, and the labelled spans it is tuned on; all lists have one length, None = no label."""

    policy: dict[str, Any]
    embedder: str | None
    span_ids: list[UUID] | None
    started_ats: list[datetime] | None
    texts: list[str] | None
    passes: list[bool] | None


async def bench(database: Database, version_id: UUID) -> Bench:
    """Return the policy a judge version has, and its question's labels of dev."""
    found = await database.row(Bench, "select * from flywheel._tuning(%s)", [version_id])
    assert found is not None  # the function returns one row
    return found


async def votes(
    database: Database, version_id: UUID, policy: Policy, bench: Bench, vectors: Sequence[array[float]]
) -> list[bool | None]:
    """Return how the examples a policy finds vote on each span; None where there are too few. Nothing is kept."""
    found: list[bool | None] | None = await database.value(
        "select flywheel._try_shots(%s, %s::jsonb, %s, %s, %s::real[], %s)",
        [
            version_id,
            json.dumps(policy),
            bench.span_ids,
            bench.started_ats,
            wire.reals(vectors),
            len(vectors[0]) if vectors else 0,
        ],
    )
    return found or []
