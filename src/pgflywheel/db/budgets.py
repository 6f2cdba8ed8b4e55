"""Budgets: hard caps on what judging may cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from pgflywheel.db.connect import Database, columns_of


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """One row of the view budget_status: a budget in the period that runs."""

    scope: str
    name: str
    period: str
    started_on: date
    cap_usd: float
    spent_usd: float
    reserved_usd: float
    used_share: float
    reached: bool
    resumes_at: datetime | None


@dataclass(frozen=True, slots=True)
class BackfillPrice:
    """What a backfill would cost; ``usd`` is None when a price is unknown, ``basis`` says where numbers are from."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    price_per_call: float | None
    basis: str


async def set_budget(database: Database, scope: str, name: str, period: str, cap_usd: float) -> bool:
    """Cap what judging may cost; return whether anything changed."""
    query = "select flywheel.set_budget(%s, %s, %s, %s::double precision)"
    changed: bool = await database.value(query, [scope, name, period, cap_usd])
    return changed


async def drop_budget(database: Database, scope: str, name: str, period: str) -> bool:
    """Take a cap away; return whether there was one."""
    dropped: bool = await database.value("select flywheel.drop_budget(%s, %s, %s)", [scope, name, period])
    return dropped


async def status(database: Database) -> list[BudgetStatus]:
    """Return the budgets with what is used of them."""
    columns = columns_of(BudgetStatus)
    query = f"select {columns} from flywheel.budget_status order by scope, name, period"
    return await database.rows(BudgetStatus, query)


async def price_backfill(
    database: Database, name: str, since: datetime, until: datetime, lane: str | None = None
) -> BackfillPrice | None:
    """Say what a backfill would cost; None for a validator that makes no calls."""
    query = "select * from flywheel.price_backfill(%s, %s, %s, %s)"
    return await database.row(BackfillPrice, query, [name, since, until, lane])
