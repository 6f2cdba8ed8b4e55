"""The judge lane: one call a span, many at once, retried where that helps."""

from __future__ import annotations

import asyncio

import pytest

from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.worker import sample_checks
from tests.worker.support import Connection, activate, insert, scores, set_setting, value, waiting, work


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    sample_checks.calls.clear()


def test_every_span_is_called_once_and_its_answer_written(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="says_true", lane="judge")
    insert(connection, list(map(str, range(300))))
    work(dsn, concurrency=50)
    found = scores(connection, "judge")
    assert len(found) == 300
    assert all(row[0] is True for row in found.values())
    assert value(connection, "select sum(scores) from flywheel.run_log") == 300
    assert waiting(connection) == 0


def test_two_workers_never_make_the_same_call(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="fails_once", lane="judge")
    sample_checks.calls.update({str(number): 1 for number in range(200)})  # so that it passes at the first call
    insert(connection, list(map(str, range(200))))

    async def two() -> None:
        await asyncio.gather(*(run_worker(dsn, "flywheel", Options(until_idle=True, concurrency=10)) for _ in range(2)))

    asyncio.run(two())
    assert set(sample_checks.calls.values()) == {2}
    assert len(scores(connection, "judge")) == 200


def test_calls_are_read_for_eligible_spans_only(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="says_true", lane="judge", where="span.output <> 'b'")
    insert(connection, ["a", "b", "c"])
    work(dsn)
    assert set(scores(connection, "judge")) == {"a", "c"}
    assert waiting(connection) == 0


def test_a_lost_connection_is_tried_again(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="fails_once", lane="judge")
    insert(connection, ["a"])
    work(dsn)
    assert scores(connection, "judge")["a"][0] is True
    assert sample_checks.calls == {"a": 2}


def test_a_call_that_never_works_is_dead_after_its_attempts(dsn: str, connection: Connection) -> None:
    set_setting(connection, "max_attempts", 2)
    activate(connection, "judge", check="always_fails", lane="judge")
    insert(connection, ["a"])
    work(dsn)
    reason, detail, attempt = value(connection, "select array[reason, detail, attempt::text] from flywheel._dead")
    assert (reason, attempt) == ("raised", "2")
    assert "the provider is away" in detail
    assert scores(connection, "judge") == {}


def test_later_puts_a_call_off_and_costs_no_attempt(dsn: str, connection: Connection) -> None:
    set_setting(connection, "max_attempts", 1)
    activate(connection, "judge", check="asks_to_wait_once", lane="judge")
    insert(connection, ["a"])
    work(dsn)
    assert scores(connection, "judge")["a"][0] is True
    assert sample_checks.calls == {"a": 2}


def test_an_error_that_trying_again_would_not_mend_is_unscored(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="raises_value_error", lane="judge")
    insert(connection, ["a"])
    work(dsn)
    assert scores(connection, "judge")["a"][3:] == ("raised", "ValueError: the reply makes no sense")


def test_a_call_over_its_time_limit_is_tried_again_and_then_dead(dsn: str, connection: Connection) -> None:
    set_setting(connection, "max_attempts", 1)
    activate(connection, "judge", check="waits_for_ever", lane="judge", time_limit_ms=100)
    insert(connection, ["a"])
    work(dsn)
    assert value(connection, "select reason from flywheel._dead") == "timed_out"


def test_a_plain_function_is_no_judge(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="is_short", lane="judge")
    insert(connection, ["a"])
    work(dsn)
    _, _, _, reason, detail = scores(connection, "judge")["a"]
    assert reason == "missing_callable"
    assert "coroutine" in detail


def test_calls_of_a_paused_validator_wait_for_it(dsn: str, connection: Connection) -> None:
    activate(connection, "judge", check="says_true", lane="judge")
    insert(connection, ["a", "b"])
    connection.execute("select flywheel.pause_validator('judge', 'manual')")
    work(dsn)
    assert scores(connection, "judge") == {}
    connection.execute("select flywheel.activate_validator('judge')")
    work(dsn)
    assert set(scores(connection, "judge")) == {"a", "b"}


def test_backfill_waits_for_live_calls(dsn: str, connection: Connection) -> None:
    connection.execute("insert into flywheel.spans (input, output) values ('in', 'old')")
    activate(connection, "judge", check="says_true", lane="judge")
    backfill = value(connection, "select flywheel.start_backfill('judge', now() - interval '1 hour')")
    connection.execute("select flywheel.advance_backfill(%s)", [backfill])
    live = list(map(str, range(20)))
    insert(connection, live)
    work(dsn, concurrency=1)
    assert set(list(sample_checks.calls)[:15]) < set(live)  # the last live calls are at hand when others are looked for
    assert len(sample_checks.calls) == 21
