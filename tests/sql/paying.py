"""What the tests of providers, budgets and calls say often: a provider, a judge, calls begun and ended."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from psycopg.types.json import Jsonb

from tests.sql.support import Connection, activate, insert, rows, value

JUDGE = {"kind": "judge", "question": "Is it polite?", "pass_when": "it is", "fail_when": "it is not", "model": "small"}
PRICES = {"small": {"input_usd": 1.0, "output_usd": 2.0, "cached_input_usd": 0.1}}
COST = 0.0012  # of 1,000 tokens in and 100 out
NOBODY = uuid.UUID(int=0)


def provider(connection: Connection, name: str = "fake", **definition: Any) -> bool:
    """Define a provider with prices, unless said otherwise; return whether anything changed."""
    whole = {"base_url": "http://localhost:1/v1", "models": PRICES, **definition}
    changed: bool = value(connection, "select flywheel.set_provider(%s, %s)", [name, Jsonb(whole)])
    return changed


def judge(connection: Connection, name: str = "polite", **definition: Any) -> uuid.UUID:
    """Define and activate a judge of the provider "fake"; return the id of the version."""
    return activate(connection, name, **{**JUDGE, "provider": "fake", **definition})


def call(version_id: uuid.UUID | None = None, **given: Any) -> dict[str, Any]:
    """Return a call as a worker announces it: 1,000 tokens in, 100 out, each asking something else."""
    call_id = given.pop("call_id", uuid.uuid4())
    usual: dict[str, Any] = {
        "call_id": str(call_id),
        "fence": None,
        "version_id": version_id and str(version_id),
        "provider": "fake",
        "model": "small",
        "project": "shop",
        "request_hash": uuid.uuid4().hex,
        "input_tokens": 1000,
        "output_tokens": 100,
        "vote": 1,
        "attempt": 1,
        "purpose": "score",
    }
    return {**usual, **{key: str(each) if isinstance(each, uuid.UUID) else each for key, each in given.items()}}


def calls(count: int, version_id: uuid.UUID | None = None, **given: Any) -> list[dict[str, Any]]:
    return [call(version_id, **given) for _ in range(count)]


def begin(connection: Connection, asked: list[dict[str, Any]], worker_id: uuid.UUID = NOBODY) -> list[tuple[Any, ...]]:
    """Begin calls and return decision, wait_seconds and detail of each, in their order."""
    query = "select decision, wait_seconds, detail, call_id, reply from flywheel._begin_calls(%s, %s)"
    begun = {str(row[3]): row for row in rows(connection, query, [worker_id, Jsonb(asked)])}
    assert len(begun) == len(asked)
    return [begun[each["call_id"]] for each in asked]


def decisions(begun: Iterable[tuple[Any, ...]]) -> list[str]:
    return [row[0] for row in begun]


def end(connection: Connection, ended: list[dict[str, Any]], **said: Any) -> int:
    """End calls as answered, with 1,000 tokens in and 100 out, unless said otherwise; return how many were new."""
    usual = {"outcome": "answered", "input_tokens": 1000, "output_tokens": 100, "reply": {"text": "yes"}, **said}
    whole = [{"call_id": each["call_id"], **usual} for each in ended]
    new: int = value(connection, "select flywheel._end_calls(%s)", [Jsonb(whole)])
    return new


def running(connection: Connection, worker_id: uuid.UUID) -> uuid.UUID:
    """Insert a span, claim it for its judge, and return the fence."""
    insert(connection)
    fence: uuid.UUID = value(connection, "select fence from flywheel._claim_calls(1::smallint, %s, 1)", [worker_id])
    return fence


def budget(connection: Connection, scope: str, name: str, cap_usd: float, period: str = "day") -> bool:
    changed: bool = value(connection, "select flywheel.set_budget(%s, %s, %s, %s)", [scope, name, period, cap_usd])
    return changed


def books(connection: Connection, scope: str, name: str, period: str = "day") -> tuple[float, float, bool]:
    """Return what is spent and reserved of a budget, and whether it is reached."""
    query = """select round(spent_usd::numeric, 9), round(reserved_usd::numeric, 9), reached from flywheel.budget_status
                where (scope, name, period) = (%s, %s, %s)"""
    spent, reserved, reached = rows(connection, query, [scope, name, period])[0]
    return float(spent), float(reserved), reached
