"""Judges: failures, kills and lost claims; every call is paid once and every score written once."""

from __future__ import annotations

import signal
import threading
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.fakes.asking import chat
from tests.fakes.openai import Fake
from tests.worker.judging import judge, outcomes, provide
from tests.worker.support import Connection, insert, process, scores, set_setting, started, until, value, waiting, work

OTHERS = """
    select count(*) from pg_stat_activity
     where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
"""


@pytest.mark.parametrize("misbehaviour", ["server_error", "reset", "reset_midway", "half_json", "overloaded"])
def test_what_passes_is_tried_again_and_costs_an_attempt(
    dsn: str, connection: Connection, fake: Fake, misbehaviour: str
) -> None:
    fake.set(first=[misbehaviour])
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert scores(connection, "polite")["a"][0] is True
    assert value(connection, "select array_agg(attempt order by attempt) from flywheel.calls") == [1, 2]


def test_a_call_that_never_ends_is_dead_after_its_attempts(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(mix={"hang": 1.0})
    set_setting(connection, "max_attempts", 2)
    provide(connection, fake, time_limit_ms=200)
    judge(connection)
    insert(connection, ["a"])
    work(dsn)
    assert value(connection, "select reason from flywheel._dead") == "timed_out"
    assert outcomes(connection) == {"timed_out": 2}
    assert scores(connection, "polite") == {}


def test_what_a_killed_worker_was_told_is_not_asked_again(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(delay=0.1)
    provide(connection, fake, time_limit_ms=5000, max_in_flight=14)  # a lost call is waited for some seconds longer
    judge(connection, votes=3)
    insert(connection, list(map(str, range(60))))
    with process(dsn, "--lanes", "judge", "--concurrency", "12", "--lease-seconds", "3") as running:
        until(lambda: value(connection, "select count(*) from flywheel.calls") > 60)
        running.send_signal(signal.SIGKILL)
        running.wait()
    until(lambda: value(connection, OTHERS) == 0)
    chat(fake.url, "what was sent before is read before")
    asked, told, begun = (
        len(fake.requests) - 1,
        value(connection, "select count(*) from flywheel.calls where outcome = 'answered'"),
        value(connection, "select count(*) from flywheel._reservations"),
    )
    until(lambda: value(connection, "select count(*) from flywheel._workers where leased_until > now()") == 0)
    work(dsn, concurrency=12)
    assert len(scores(connection, "polite")) == 60
    assert len(fake.requests) - 1 - asked == 180 - told
    assert asked - told <= begun <= 14  # on their way at the kill, or told to the worker and not yet entered
    assert waiting(connection) == 0


def test_a_lost_claim_writes_no_score_but_its_call_is_kept(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(delay=0.5)
    provide(connection, fake)
    judge(connection)
    insert(connection, ["a"])
    working = threading.Thread(target=work, args=[dsn])
    working.start()
    until(lambda: fake.requests)
    lose = "select flywheel._give_back(array_agg(distinct worker_id)) from flywheel._running"
    assert value(connection, lose) == 1
    working.join(60)
    assert scores(connection, "polite")["a"][0] is True
    assert len(fake.requests) == 1
    assert outcomes(connection) == {"answered": 1}
    assert value(connection, "select sum(jobs) from flywheel.run_log where outcome = 'completed'") == 1


def test_a_stopped_worker_finishes_the_calls_on_their_way_and_gives_back_the_rest(
    dsn: str, connection: Connection, fake: Fake
) -> None:
    fake.set(delay=1.0)
    provide(connection, fake)
    judge(connection)
    insert(connection, list(map(str, range(40))))
    with process(dsn, "--lanes", "judge", "--concurrency", "8") as running:
        until(started(connection))
        until(lambda: fake.requests)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    done = len(scores(connection, "polite"))
    assert 0 < done < 40
    assert outcomes(connection) == {"answered": done}
    assert len(fake.requests) == done
    assert value(connection, "select sum(cardinality(span_ids)) from flywheel._ready") == 40 - done


def test_no_text_of_a_span_and_no_key_is_logged(
    dsn: str, connection: Connection, fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mix = {"server_error": 0.3, "prose": 0.3, "rate_limited": 0.2}
    fake.set(mix=mix, api_key="k-secret", at_most=2, retry_after=0.1)
    monkeypatch.setenv("FAKE_KEY", "k-secret")
    provide(connection, fake, key_variable="FAKE_KEY")
    judge(connection)
    insert(connection, [f"private words {number}" for number in range(20)])
    work(dsn, concurrency=4)
    logged = "\n".join(str(vars(record)) for record in caplog.records)
    assert "private words" not in logged
    assert "k-secret" not in logged
    assert len(scores(connection, "polite")) == 20


def test_a_judge_that_is_paused_meanwhile_makes_no_more_calls(dsn: str, connection: Connection, fake: Fake) -> None:
    fake.set(delay=1.0)
    provide(connection, fake)
    judge(connection)
    insert(connection, list(map(str, range(20))))
    working = threading.Thread(target=work, args=[dsn], kwargs={"concurrency": 2})
    working.start()
    until(lambda: fake.requests)
    connection.execute("select flywheel.pause_validator('polite', 'manual')")
    working.join(60)
    assert len(fake.requests) < 12
    assert len(scores(connection, "polite")) == len(fake.requests)
    connection.execute("select flywheel.activate_validator('polite')")
    work(dsn)
    assert len(scores(connection, "polite")) == len(fake.requests) == 20


def test_a_worker_needs_no_more_than_its_role(dsn: str, connection: Connection, fake: Fake) -> None:
    name = f"worker_{uuid4().hex[:12]}"
    provide(connection, fake, max_in_flight=8)
    judge(connection, shots={"strategy": "similar"})
    connection.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
    insert(connection, ["before"])
    span_id = value(connection, "select span_id from flywheel.spans")
    connection.execute("select flywheel.record_label(%s, 'polite', false, 'ann', 'it is not kind')", [span_id])
    insert(connection, ["a", "zzfail"])
    connection.execute(
        sql.SQL("create role {} login password 'secret' in role flywheel_worker").format(sql.Identifier(name))
    )
    try:
        work(make_conninfo(dsn, user=name, password="secret"))
    finally:
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
    assert {output: row[0] for output, row in scores(connection, "polite").items()} == {
        "before": True,
        "a": True,
        "zzfail": False,
    }
    assert value(connection, "select count(*) from flywheel.calls where shots is not null") == 2
