"""What the tests of lane batch share: a past to judge, and the books afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from pgflywheel.worker import batch_endpoint, batch_polls
from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.fakes.openai import Fake
from tests.worker.support import Connection, activate, insert, scores, value

QUESTION = {
    "kind": "judge",
    "question": "Is the answer polite?",
    "pass_when": "it is polite",
    "fail_when": "it is rude",
    "provider": "fake",
    "model": "small",
    "shots": {"strategy": "none"},
}
PRICES = {"small": {"input_usd": 1.0, "cached_input_usd": 0.1, "output_usd": 2.0, "batch_share": 0.5}}


def have_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in these tests is worth waiting a minute for."""
    monkeypatch.setattr(batch_endpoint, "RECHECK_SECONDS", 0.5)
    monkeypatch.setattr(batch_polls, "FIND_SECONDS", 0.0)
    monkeypatch.setattr(batch_polls, "FAILED_SECONDS", 0.5)
    monkeypatch.setattr(batch_polls, "LOOK_SECONDS", 0.05)


def prepare(
    connection: Connection, fake: Fake, spans: int = 300, lane: str | None = "batch", **definition: Any
) -> None:
    """Have spans, every tenth of them bad, and a judge that came after them and is to judge them in a lane."""
    poll_after(connection, 0.1)
    whole = {"base_url": fake.url, "abilities": {"batch": True}, "models": PRICES}
    connection.execute("select flywheel.set_provider('fake', %s)", [Jsonb(whole)])
    insert(connection, [f"answer {n}" + (" zzfail" if n % 10 == 0 else "") for n in range(spans)])
    activate(connection, "polite", **QUESTION | definition)
    backfill(connection, lane)


def poll_after(connection: Connection, seconds: float) -> None:
    """Let a batch be asked for again after so many seconds, whatever its age."""
    function = "create or replace function flywheel._poll_seconds(submitted_at timestamptz) returns double precision"
    connection.execute(f"{function} language sql volatile return {seconds}".encode())


def backfill(connection: Connection, lane: str | None = "batch") -> None:
    """Queue the spans there are."""
    began = "select flywheel.start_backfill('polite', now() - interval '1 day', now() + interval '1 day', %s)"
    connection.execute("select flywheel.advance_backfill(%s)", [value(connection, began, lane)])


def require_all_judged(connection: Connection, spans: int = 300) -> None:
    """Every span has one score, which is right; nothing is left over and nothing is paid or reserved twice."""
    found = scores(connection, "polite")
    assert len(found) == spans
    assert {output for output, said in found.items() if said[0] is not True} == {
        output for output in found if "zzfail" in output
    }
    require_settled(connection)


def require_settled(connection: Connection) -> None:
    """Nothing waits, runs, or is reserved; the books balance and budgets have paid what calls cost."""
    tables = ("_ready", "_running", "_later", "_batch_lines", "_reservations")
    assert {table: value(connection, f"select count(*) from flywheel.{table}") for table in tables} == dict.fromkeys(
        tables, 0
    )
    assert value(connection, "select count(*) from flywheel._batches where closed_at is null") == 0
    require_balanced(connection)
    spent = "select spent_usd - (select sum(cost_usd) from flywheel.calls) from flywheel._budget_periods limit 1"
    assert value(connection, spent) in (None, pytest.approx(0, abs=1e-9))


def require_balanced(connection: Connection) -> None:
    """Every eligible pair is somewhere, once."""
    query = "select eligible - (scored + unscored + queued + running + later + dead), missing from flywheel.accounts"
    assert connection.execute(query).fetchall() == [(0, 0)]


def calls(connection: Connection) -> Counter[tuple[str, str]]:
    """Count calls by purpose and outcome."""
    rows = connection.execute("select purpose, outcome from flywheel.calls").fetchall()
    return Counter((purpose, outcome) for purpose, outcome in rows)


def chats(fake: Fake) -> int:
    """Return how many calls were made one by one."""
    return sum(request.path.endswith("/chat/completions") for request in fake.requests)


def statuses(connection: Connection) -> list[str]:
    return [row[0] for row in connection.execute("select status from flywheel.batch_status order by submitted_at")]


def run_until(dsn: str, condition: Callable[[], object]) -> None:
    """Run a worker until something holds, then stop it at once."""

    async def run() -> None:
        worker = asyncio.create_task(run_worker(dsn, "flywheel", Options()))
        while not condition():
            assert not worker.done(), worker.exception()
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    asyncio.run(run())
