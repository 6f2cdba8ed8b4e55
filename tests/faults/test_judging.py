"""Judges whose endpoints misbehave: every span is accounted for, every call recorded, every dollar settled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import Connection
from tests.fakes.misbehaviours import even_mix
from tests.fakes.openai import Fake, serving
from tests.faults.books import wait_until_empty
from tests.faults.conftest import Started, Tell
from tests.faults.judging import (
    LANES,
    assert_accounted,
    assert_paid,
    judge,
    outcomes,
    provide,
    recorded,
    seen,
    wait_until_settled,
    watch_money,
)
from tests.faults.scale import scaled
from tests.sql.support import insert_many, rows, value

CONCURRENCY = ("--concurrency", "64")
QUICK: dict[str, Any] = {"retry_after": 0.2, "slow_seconds": 0.5, "drip_seconds": 0.5, "endless_characters": 1_000_000}
EXPECTED = {  # the outcome by which a call that meets it is recorded
    "rate_limited": "rate_limited",
    "rate_limited_ms": "rate_limited",
    "rate_limited_date": "rate_limited",
    "rate_limited_bare": "rate_limited",
    "server_error": "server_error",
    "overloaded": "server_error",
    "bad_gateway": "server_error",
    "reset": "connection_lost",
    "reset_midway": "connection_lost",
    "closed_midway": "connection_lost",
    "hang": "timed_out",
    "half_json": "unreadable",
    "half_content": "unreadable",
    "prose": "unreadable",
    "wrong_fields": "unreadable",
    "wrong_verdict": "unreadable",
    "refusal": "refused",
    "empty_choices": "empty_reply",
    "content_filter": "content_filter",
    "endless": "length_stop",
    "unending": "length_stop",
    "slow_first_byte": "answered",
    "drip": "answered",
    "wrong_model": "answered",
    "no_usage": "answered",
}


@pytest.fixture
def fakes() -> Iterator[dict[str, Fake]]:
    """A fake for each misbehaviour, which a tenth of its calls meets."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(serving(mix={name: 0.1}, **QUICK)) for name in EXPECTED}


def test_a_tenth_of_any_misbehaviour_loses_no_span(
    connection: Connection, start_worker: Started, fakes: dict[str, Fake], tell: Tell
) -> None:
    spans = scaled(30, 400)
    watch_money(connection)
    for name, fake in fakes.items():
        provide(connection, fake, name, time_limit_ms=8000)
        judge(connection, name, name)
    insert_many(connection, spans)
    start_worker(*LANES, *CONCURRENCY)
    wait_until_empty(connection)
    wait_until_settled(connection)
    books = assert_accounted(connection)
    met = {name: fake.stats()["by_misbehaviour"][name] for name, fake in fakes.items()}
    for name, fake in fakes.items():
        assert met[name] > 0, name
        assert outcomes(connection, name)[EXPECTED[name]] >= met[name], name
        assert recorded(connection, name) == seen(fake, name), name
        assert_paid(connection, name)
    assert books.dead < books.eligible * 0.01
    assert books.scored > books.eligible * 0.97
    tell(
        f"{len(fakes)} misbehaviours, a tenth of the calls each: {books.eligible} judgements, {sum(met.values())} "
        f"calls misbehaved: 0 lost, 0 twice, {books.scored} scored, {books.unscored} unscored, {books.dead} dead"
    )


def test_all_misbehaviours_at_once_leave_every_span_accounted_for(
    connection: Connection, start_worker: Started, tell: Tell
) -> None:
    spans = scaled(300, 10_000)
    watch_money(connection)
    connection.execute("update flywheel.settings set value = '3' where name = 'max_attempts'")
    always = {"doomed": "reset", "mute": "prose"}
    with serving(mix=even_mix(0.1, [*EXPECTED]), when=always, **QUICK) as fake:
        provide(connection, fake, time_limit_ms=8000)
        judge(connection)
        words = "case mod(n, 100) when 7 then 'doomed ' when 9 then 'mute ' else 'answer ' end || n"
        insert_many(connection, spans, words)
        start_worker(*LANES, *CONCURRENCY)
        wait_until_empty(connection)
        wait_until_settled(connection)
        books = assert_accounted(connection)
        assert books.dead >= spans // 100
        assert books.unscored >= spans // 100
        assert books.scored > spans * 0.95
        assert recorded(connection) == seen(fake)
        spent = assert_paid(connection)
        asked = len(fake.requests)
        misbehaved = sum(fake.stats()["by_misbehaviour"].values())
    reasons = rows(connection, "select reason, count(*) from flywheel._dead group by 1 order by 2 desc")
    assert value(connection, "select count(*) from flywheel.calls") == asked
    tell(
        f"all at once, concurrency 64: {spans} judgements by {asked} calls, {misbehaved} of them misbehaved: 0 lost, "
        f"0 twice, {books.scored} scored, {books.unscored} unscored, {books.dead} dead {dict(reasons)}; "
        f"every call recorded, {spent:.4f} USD = what budgets paid"
    )
