"""Budgets: caps that hold with many workers, periods that change, and jobs that come back by themselves."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.sql.paying import (
    COST,
    begin,
    books,
    budget,
    call,
    calls,
    decisions,
    end,
    judge,
    provider,
    running,
)
from tests.sql.support import Connection, insert, refused, rows, state, value, worker

SHARE = "select flywheel._budget_share(%s)"
HELD = "select flywheel._held_versions()"


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A judge of a provider whose prices are known."""
    provider(connection, max_in_flight=1000)
    return judge(connection)


def test_a_budget_is_set_raised_and_dropped(connection: Connection, polite: uuid.UUID) -> None:
    assert budget(connection, "validator", "polite", 5)
    assert not budget(connection, "validator", "polite", 5)
    assert budget(connection, "validator", "polite", 6)
    assert budget(connection, "provider", "fake", 1, "month")
    assert budget(connection, "project", "a project to come", 1)
    assert rows(connection, "select scope, cap_usd, spent_usd, reached from flywheel.budget_status order by 1") == [
        ("project", 1, 0, False),
        ("provider", 1, 0, False),
        ("validator", 6, 0, False),
    ]
    drop = "select flywheel.drop_budget('validator', 'polite', 'day')"
    assert [value(connection, drop), value(connection, drop)] == [True, False]


@pytest.mark.parametrize(
    ("given", "sqlstate"),
    [
        (["validator", "gone", "day", 1], "WF002"),
        (["provider", "gone", "day", 1], "WF013"),
        (["project", "", "day", 1], "WF009"),
        (["team", "us", "day", 1], "WF009"),
        (["project", "shop", "week", 1], "WF009"),
        (["project", "shop", "day", -1], "WF009"),
        (["project", "shop", "day", float("nan")], "WF009"),
        (["project", "shop", "day", float("inf")], "WF009"),
        (["project", "shop", "day", None], "WF009"),
    ],
)
def test_a_budget_nothing_falls_under_is_refused(connection: Connection, given: list[Any], sqlstate: str) -> None:
    assert refused(connection, "select flywheel.set_budget(%s, %s, %s, %s)", given).sqlstate == sqlstate


def test_money_is_reserved_settled_by_usage_and_never_passes_the_cap(connection: Connection, polite: uuid.UUID) -> None:
    budget(connection, "validator", "polite", 2.5 * COST)
    asked = calls(3, polite)
    begun = begin(connection, asked)
    assert decisions(begun) == ["go", "go", "wait"], "the calls on their way may turn out cheaper"
    assert books(connection, "validator", "polite") == (0, round(2 * COST, 9), False)
    end(connection, asked[:2], input_tokens=500, output_tokens=50)
    assert books(connection, "validator", "polite") == (round(COST, 9), 0, False)
    assert decisions(begin(connection, asked[2:])) == ["go"]
    end(connection, asked[2:])
    begun = begin(connection, calls(1, polite))
    assert decisions(begun) == ["over_budget"]
    assert begun[0][2].startswith("budget validator:polite of 0.003 USD a day: 0.0024 USD are spent")
    assert 0 < begun[0][1] <= 86_400


def test_cached_tokens_cost_less(connection: Connection, polite: uuid.UUID) -> None:
    budget(connection, "provider", "fake", 1)
    asked = calls(1, polite)
    begin(connection, asked)
    end(connection, asked, cached_tokens=900)
    assert value(connection, "select cost_usd from flywheel.calls") == pytest.approx(0.00039)
    assert books(connection, "provider", "fake") == (0.00039, 0, False)


def test_every_budget_a_call_falls_under_is_asked_and_pays(connection: Connection, polite: uuid.UUID) -> None:
    budget(connection, "validator", "polite", 1)
    budget(connection, "provider", "fake", 1, "month")
    budget(connection, "project", "shop", 1.5 * COST)
    budget(connection, "project", "zoo", 1)
    asked = [call(polite), call(polite, project="zoo")]
    assert decisions(begin(connection, asked)) == ["go", "go"]
    end(connection, asked)
    assert books(connection, "validator", "polite")[0] == round(2 * COST, 9)
    assert books(connection, "provider", "fake", "month")[0] == round(2 * COST, 9)
    assert books(connection, "project", "shop")[0] == books(connection, "project", "zoo")[0] == COST
    assert decisions(begin(connection, [call(polite), call(polite, project="zoo")])) == ["over_budget", "go"]


def test_an_unknown_price_is_no_price_of_zero(connection: Connection, polite: uuid.UUID) -> None:
    provider(connection, models={"small": {"input_usd": 1}}, max_in_flight=1000)
    assert decisions(begin(connection, calls(1, polite))) == ["go"], "nothing to keep to"
    budget(connection, "validator", "polite", 100)
    begun = begin(connection, calls(1, polite))
    assert decisions(begun) == ["over_budget"]
    assert begun[0][2].endswith("needs the price of model small of provider fake")


def test_a_call_without_known_usage_pays_what_was_reserved(connection: Connection, polite: uuid.UUID) -> None:
    budget(connection, "validator", "polite", 1)
    for outcome, costs in [("timed_out", True), ("connection_lost", True), ("answered", True), ("lost", True)] + [
        (free, False) for free in ("rate_limited", "server_error", "rejected", "quota_exhausted", "expired")
    ]:
        before = books(connection, "validator", "polite")[0]
        asked = calls(1, polite)
        begin(connection, asked)
        end(connection, asked, outcome=outcome, input_tokens=None, output_tokens=None)
        spent, reserved, _ = books(connection, "validator", "polite")
        assert (round(spent - before, 9), reserved) == (COST if costs else 0, 0), outcome
    query = "select outcome, cost_usd from flywheel.calls where outcome in ('timed_out', 'rejected') order by 1"
    assert rows(connection, query) == [("rejected", 0), ("timed_out", None)]


def test_a_new_budget_knows_what_its_period_has_cost(connection: Connection, polite: uuid.UUID) -> None:
    asked = [call(polite), call(polite, project="zoo")]
    begin(connection, asked)
    end(connection, asked)
    for scope, name, spent in [("validator", "polite", 2), ("provider", "fake", 2), ("project", "zoo", 1)]:
        budget(connection, scope, name, 1)
        assert books(connection, scope, name)[0] == round(spent * COST, 9)


def test_a_new_period_begins_at_nothing_and_old_calls_settle_in_theirs(
    connection: Connection, polite: uuid.UUID
) -> None:
    budget(connection, "validator", "polite", 1.5 * COST)
    asked = calls(1, polite)
    begin(connection, asked)
    connection.execute("update flywheel._budget_periods set started_on = started_on - 1")
    connection.execute("update flywheel._reservations set reserved_at = reserved_at - interval '1 day'")
    today = calls(1, polite)
    assert decisions(begin(connection, today)) == ["go"]
    end(connection, [*asked, *today])
    query = "select round(spent_usd::numeric, 9), round(reserved_usd::numeric, 9) from flywheel._budget_periods"
    assert [(float(spent), reserved) for spent, reserved in rows(connection, query)] == [(COST, 0), (COST, 0)]


def test_periods_are_of_utc(connection: Connection) -> None:
    connection.execute("set timezone = 'Pacific/Auckland'")
    query = """select first_day::text, flywheel._period_end(period, first_day) at time zone 'UTC'
                 from unnest(array['day', 'month']) as period
                cross join lateral flywheel._period_start(period, '2026-02-28T23:30Z') as first_day"""
    assert [(first, str(end)) for first, end in rows(connection, query)] == [
        ("2026-02-28", "2026-03-01 00:00:00"),
        ("2026-02-01", "2026-03-01 00:00:00"),
    ]


def put_off(connection: Connection, polite: uuid.UUID) -> uuid.UUID:
    """Have a claimed span refused by a budget, and put off as a worker does; return the span."""
    worker_id = worker(connection)
    fence = running(connection, worker_id)
    ((decision, seconds, detail, *_),) = begin(connection, [call(polite, fence=fence)], worker_id)
    assert decision == "over_budget"
    query = "select flywheel._retry(%s, %s, %s, 'over_budget', %s, false)"
    assert value(connection, query, [worker_id, [fence], seconds, detail]) == 1
    span_id: uuid.UUID = value(connection, "select span_ids[1] from flywheel._later")
    return span_id


def test_why_says_over_budget_and_raising_it_brings_the_job_back(connection: Connection, polite: uuid.UUID) -> None:
    budget(connection, "validator", "polite", COST / 2)
    span_id = put_off(connection, polite)
    said, detail = state(connection, span_id, "polite")
    assert said == "over_budget"
    assert "budget validator:polite" in detail
    assert value(connection, "select flywheel._promote_later()") == 0
    budget(connection, "validator", "polite", COST / 2)
    assert value(connection, "select flywheel._promote_later()") == 0, "nothing changed"
    budget(connection, "validator", "polite", 1)
    assert value(connection, "select flywheel._promote_later()") == 1
    assert state(connection, span_id, "polite")[0] == "queued"


@pytest.mark.parametrize("act", ["drop", "price"])
def test_a_dropped_budget_or_a_known_price_brings_the_job_back(
    connection: Connection, polite: uuid.UUID, act: str
) -> None:
    budget(connection, "project", "default", COST / 2)
    put_off(connection, call_project(connection, polite))
    if act == "drop":
        connection.execute("select flywheel.drop_budget('project', 'default', 'day')")
    else:
        provider(connection, models={"small": {"input_usd": 0.1, "output_usd": 0.1}})
    assert value(connection, "select flywheel._promote_later()") == 1


def call_project(connection: Connection, polite: uuid.UUID) -> uuid.UUID:
    """Have the budget of the project of the tests' calls, too."""
    budget(connection, "project", "shop", COST / 2)
    return polite


def test_claims_pass_over_judges_whose_budget_is_used_up(connection: Connection, polite: uuid.UUID) -> None:
    budget(connection, "validator", "polite", COST)
    assert value(connection, HELD) == []
    asked = calls(1, polite)
    begin(connection, asked)
    end(connection, asked)
    span_id = insert(connection)
    assert value(connection, HELD) == [polite]
    assert (
        value(connection, "select count(*) from flywheel._claim_calls(1::smallint, %s, 9)", [worker(connection)]) == 0
    )
    assert state(connection, span_id, "polite")[0] == "over_budget"
    budget(connection, "validator", "polite", 1)
    assert value(connection, HELD) == []
    assert state(connection, span_id, "polite")[0] == "queued"


def test_a_huge_call_that_is_refused_does_not_close_the_budget(connection: Connection, polite: uuid.UUID) -> None:
    budget(connection, "validator", "polite", 10 * COST)
    assert decisions(begin(connection, [call(polite, input_tokens=1_000_000)])) == ["over_budget"]
    assert value(connection, HELD) == []
    assert books(connection, "validator", "polite") == (0, 0, True), "what waits for it is not hidden"
    asked = calls(10, polite, input_tokens=950)
    assert decisions(begin(connection, asked)) == ["go"] * 10
    end(connection, asked, input_tokens=950)
    begin(connection, calls(1, polite))
    assert books(connection, "validator", "polite") == (0.0115, 0, True)
    assert value(connection, HELD) == [polite]


def test_the_used_share_is_that_of_the_tightest_budget(connection: Connection, polite: uuid.UUID) -> None:
    assert value(connection, SHARE, [polite]) == 0
    budget(connection, "provider", "fake", 10 * COST, "month")
    budget(connection, "validator", "polite", 4 * COST)
    asked = calls(2, polite)
    begin(connection, asked)
    end(connection, asked[:1])
    assert value(connection, SHARE, [polite]) == pytest.approx(0.5)
    budget(connection, "validator", "polite", 0)
    assert value(connection, SHARE, [polite]) == 1


def test_eight_workers_together_never_pass_a_cap(connect: Callable[..., Connection]) -> None:
    watcher = connect()
    provider(watcher, max_in_flight=1000)
    polite = judge(watcher)
    cap = 150.5 * COST
    budget(watcher, "validator", "polite", cap)
    budget(watcher, "provider", "fake", 2 * cap, "month")
    budget(watcher, "project", "shop", 2 * cap)
    refusals, errors = [0], list[BaseException]()

    def work(connection: Connection, seed: int) -> None:
        draw = random.Random(seed)
        try:
            for _ in range(60):
                asked = calls(draw.randint(1, 5), polite)
                verdicts = decisions(begin(connection, asked, uuid.uuid4()))
                refusals[0] += verdicts.count("over_budget")
                going = [each for each, verdict in zip(asked, verdicts, strict=True) if verdict == "go"]
                end(connection, going, input_tokens=draw.randint(1, 1000), output_tokens=100)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(connect(), seed)) for seed in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        query = "select max(spent_usd + reserved_usd - cap_usd) from flywheel.budget_status"
        assert value(watcher, query) <= 1e-9
        time.sleep(0.005)
    assert not errors
    spent, reserved, _ = books(watcher, "validator", "polite")
    assert reserved == 0
    assert spent <= cap
    assert spent == pytest.approx(value(watcher, "select sum(cost_usd) from flywheel.calls"), abs=1e-8)
    assert spent > 0.9 * cap
    assert refusals[0] > 0
