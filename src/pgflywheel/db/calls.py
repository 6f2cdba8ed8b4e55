"""Calls to models: what is set aside before them, what is settled after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from pgflywheel.db.connect import Database
from pgflywheel.db.judgements import dumped
from pgflywheel.errors import ProviderNotFound

Decision = Literal["go", "cached", "wait", "over_budget", "void"]


@dataclass(frozen=True, slots=True)
class Begun:
    """What is to be done with a call: make it, take the reply of an earlier one, or come back after some seconds."""

    call_id: UUID
    decision: Decision
    wait_seconds: float
    detail: str | None
    reply: dict[str, Any] | None


async def begin_calls(database: Database, worker_id: UUID, calls: Sequence[Mapping[str, Any]]) -> list[Begun]:
    """Set aside what calls need, many at a time; in a transaction of its own, for it locks providers and budgets."""
    query = "select * from flywheel._begin_calls(%s, %s::jsonb)"
    return await database.rows(Begun, query, [worker_id, dumped(list(calls))])


async def end_calls(database: Database, calls: Sequence[Mapping[str, Any]]) -> int:
    """Record calls that ended and settle them; return how many were new."""
    ended: int = await database.value("select flywheel._end_calls(%s::jsonb)", [dumped(list(calls))])
    return ended


async def block_provider(
    database: Database, provider: str, seconds: float | None, reason: str, detail: str | None
) -> float:
    """Leave a provider alone for some seconds, or (None) as long as the reason asks for; return how many are left."""
    query = """
        select extract(epoch from flywheel._block_provider(%s, %s::double precision, %s, %s) - clock_timestamp())
               ::double precision
    """
    left: float | None = await database.value(query, [provider, seconds, reason, detail])
    if left is None:
        raise ProviderNotFound(f"there is no provider {provider}", hint="List them: pgflywheel providers list.")
    return max(left, 0.0)
