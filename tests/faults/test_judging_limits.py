"""Eight workers and one provider's limits, one budget."""

from __future__ import annotations

from contextlib import ExitStack

from tests.conftest import Connection
from tests.fakes.misbehaviours import even_mix
from tests.fakes.openai import serving
from tests.faults.books import wait_until, wait_until_empty
from tests.faults.conftest import Started, Tell
from tests.faults.judging import (
    LANES,
    assert_all_scored,
    assert_paid,
    cap,
    judge,
    outcomes,
    provide,
    wait_until_settled,
    watch_money,
)
from tests.faults.scale import scaled
from tests.sql.support import insert_many, rows, value

WORKERS = 8
PLACES, REQUESTS, TOKENS = 12, 600, 900_000  # a minute
# A bucket holds a tenth of a minute's limit, and 0.88 of the limit flows into it in a minute: so much of a limit is let
# pass in a shorter window. The rest of a minute's limit is for calls that arrive late.
WINDOW_SECONDS = 5
SHARE = 0.1 + 0.88 * WINDOW_SECONDS / 60
MOST_LET_PASS = """
    select max(calls), max(tokens)
      from (select count(*) over following as calls, sum(tokens) over following as tokens
              from public.set_aside where provider = %s
            window following as (order by at range between current row and %s::interval following)) as windows
"""
CAP_USD = scaled(1, 6) * 0.03
MOST_FUNDED = """
    select max(funded.usd) from public.funded join flywheel.budgets using (budget_id)
     where scope = 'provider' and name = 'money' and at < %s
"""
# All the others are judged, and of the judge without money no job runs or will by itself before the day ends.
HELD_BACK = """
    select count(*) filter (where validator <> 'money' and scored < eligible) = 0
       and count(*) filter (where validator = 'money' and running = 0 and scored < eligible) = 1
       and not exists (select from flywheel._reservations)
       and (exists (select from flywheel.budget_status where reached)
            or (select count(*) from flywheel._ready) = 0
           and (select count(*) from flywheel._later where run_at < now() + interval '10 s') = 0)
      from flywheel.accounts
"""
WHY = """
    select why.state, count(*) from flywheel.spans cross join lateral flywheel.why(spans.span_id) as why
     where why.validator = 'money' and why.state <> 'scored' group by 1
"""


def test_eight_workers_pass_no_limit_of_a_provider_and_no_budget(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    spans = scaled(150, 870)  # in full they take more than a minute
    watch_money(connection)
    limits = {
        "places": {"max_in_flight": PLACES},
        "requests": {"requests_per_minute": REQUESTS},
        "tokens": {"tokens_per_minute": TOKENS},
        "money": {},
    }
    with ExitStack() as stack:
        fakes = {name: stack.enter_context(serving(delay=0.1)) for name in limits}
        for name, fake in fakes.items():
            fake.limits(**limits[name], enforce=False)
        fakes["money"].set(mix=even_mix(0.1, ["no_usage", "server_error", "hang"]))
        provide(connection, fakes["places"], "places", max_in_flight=PLACES)
        provide(connection, fakes["requests"], "requests", requests_per_minute=REQUESTS)
        provide(connection, fakes["tokens"], "tokens", tokens_per_minute=TOKENS)
        provide(connection, fakes["money"], "money", time_limit_ms=2000)
        cap(connection, "money", CAP_USD)
        for name in limits:
            judge(connection, name, name)
        workers = [start_worker(*LANES, "--concurrency", "16") for _ in range(WORKERS)]
        present = "select count(*) from flywheel.worker_status"
        wait_until("all are there", lambda: value(connection, present) == WORKERS)
        insert_many(connection, spans)
        wait_until("only the budget holds calls back", lambda: value(connection, HELD_BACK), scaled(120, 600))
        wait_until_settled(connection)
        ((state, refused),) = rows(connection, WHY)
        assert state == "over_budget"
        before = assert_paid(connection, "money")
        raised_at = value(connection, "select clock_timestamp()")
        funded = value(connection, MOST_FUNDED, [raised_at])
        assert 0 < before <= funded <= CAP_USD + 1e-9
        cap(connection, "money", 1000)
        wait_until_empty(connection)
        wait_until_settled(connection)
        assert {name: fake.violations for name, fake in fakes.items()} == {name: {} for name in limits}
        window = f"{WINDOW_SECONDS} seconds"
        passed, _ = rows(connection, MOST_LET_PASS, ["requests", window])[0]
        _, tokens = rows(connection, MOST_LET_PASS, ["tokens", window])[0]
        assert passed <= REQUESTS * SHARE
        assert tokens <= TOKENS * SHARE
        most = fakes["places"].most_in_flight
        assert 1 < most <= PLACES
        took = max(each.began for each in fakes["requests"].requests) - fakes["requests"].requests[0].began
    books = assert_all_scored(connection)
    assert all(worker.alive for worker in workers)
    spent = {name: assert_paid(connection, name) for name in limits}
    assert all(outcomes(connection, name) == {"answered": spans} for name in ("places", "requests", "tokens"))
    tell(
        f"eight workers, {books.eligible} judgements: at most {most} calls at a time of {PLACES}, {spans} requests in "
        f"{took:.0f} s at {REQUESTS} a minute, 0 calls beyond a limit; budget of {CAP_USD} USD: at most {funded:.6f} "
        f"spent and reserved at once, {before:.6f} spent when {refused} spans waited; raised, all were judged for "
        f"{spent['money']:.4f} USD"
    )
