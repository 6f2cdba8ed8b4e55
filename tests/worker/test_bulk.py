"""The bulk lane: what is queued is judged once, whatever the checks do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgflywheel.worker.loop import run_worker
from pgflywheel.worker.site import Options
from tests.worker.support import Connection, activate, insert, scores, set_setting, value, waiting, work


@pytest.fixture
def patient(connection: Connection) -> None:
    """Validators are not paused for faults in this test."""
    set_setting(connection, "faults_before_pause", 1_000_000)


def test_sql_and_python_checks_of_one_job_are_written_together(dsn: str, connection: Connection) -> None:
    activate(connection, "sql_short", kind="sql", expression="length(span.output) <= 5")
    activate(connection, "python_short", check="is_short", parameters={"limit": 5})
    insert(connection, ["short", "longer than five"])
    work(dsn)
    for name in ("sql_short", "python_short"):
        assert {text: row[0] for text, row in scores(connection, name).items()} == {
            "short": True,
            "longer than five": False,
        }
    assert waiting(connection) == 0
    assert (
        value(connection, "select count(distinct finished_at) from flywheel.run_log where outcome = 'completed'") == 1
    )


def test_a_verdict_keeps_value_and_critique_without_what_postgres_cannot_store(
    dsn: str, connection: Connection
) -> None:
    activate(connection, "everything", check="with_everything")
    insert(connection, ["text"])
    work(dsn)
    assert scores(connection, "everything")["text"][:3] == (True, 0.25, "saw \ufffd and \ufffd in text")


def test_a_span_has_only_the_columns_its_check_declares(dsn: str, connection: Connection) -> None:
    activate(
        connection, "some", check="sees_columns", target="span", columns=["input", "node", "attributes", "started_at"]
    )
    activate(connection, "none", check="sees_nothing", target="span", columns=[])
    insert(connection, ["out"])
    work(dsn)
    passed, _, critique, *_ = scores(connection, "some")["out"]
    assert passed
    assert critique.startswith("app {} 20")
    assert scores(connection, "none")["out"][0] is True


def test_filter_and_where_decide_which_spans_a_python_check_sees(dsn: str, connection: Connection) -> None:
    activate(connection, "picky", check="is_short", where="span.output <> 'b'")
    activate(connection, "everyone", check="is_short")
    insert(connection, ["a", "b", "c"])
    work(dsn)
    assert set(scores(connection, "picky")) == {"a", "c"}
    assert set(scores(connection, "everyone")) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("raises_on_bad", "raised"),
        ("exits_on_bad", "raised"),
        ("sleeps_on_bad", "timed_out"),
        ("hangs_in_c_on_bad", "timed_out"),
        ("dies_on_bad", "crashed"),
        ("eats_memory_on_bad", "out_of_memory"),
    ],
)
@pytest.mark.usefixtures("patient")
def test_one_span_a_python_check_fails_on_costs_the_others_nothing(
    dsn: str, connection: Connection, check: str, reason: str
) -> None:
    limit = 1000 if reason == "timed_out" else 60_000
    activate(connection, "faulty", check=check, time_limit_ms=limit, memory_limit_mb=256)
    insert(connection, [*map(str, range(20)), "bad", *map(str, range(20, 40))])
    work(dsn)
    found = scores(connection, "faulty")
    passed, _, _, unscored, detail = found.pop("bad")
    assert (passed, unscored) == (None, reason)
    assert 0 < len(detail) <= 500
    assert len(found) == 40
    assert all(row[0] is True for row in found.values())
    assert waiting(connection) == 0
    assert value(connection, "select reason from flywheel._faults") == reason


@pytest.mark.usefixtures("patient")
def test_what_is_no_verdict_is_unscored_with_its_type(dsn: str, connection: Connection) -> None:
    activate(connection, "wrong", check="gives_wrong_type")
    insert(connection, ["text", "number", "nan", "large", "none in verdict", "none", "coroutine"])
    work(dsn)
    reasons = {text: row[3] for text, row in scores(connection, "wrong").items()}
    expected = dict.fromkeys(("text", "number", "nan", "large", "coroutine"), "wrong_type")
    assert reasons == expected | {"none": "no_verdict", "none in verdict": "no_verdict"}


@pytest.mark.parametrize(
    "path",
    ["no_such_module_here:check", "tests.worker.sample_checks:no_such_check", "os:system", "pgflywheel.records:LIVE"],
)
@pytest.mark.usefixtures("patient")
def test_a_callable_that_is_not_there_is_unscored_with_the_reason(dsn: str, connection: Connection, path: str) -> None:
    activate(connection, "missing", kind="python", callable=path)
    insert(connection, ["true"])
    work(dsn)
    _, _, _, reason, detail = scores(connection, "missing")["true"]
    assert reason == "missing_callable"
    assert path.partition(":")[0] in detail


def test_what_a_check_prints_does_not_disturb_the_worker(dsn: str, connection: Connection) -> None:
    activate(connection, "chatty", check="prints")
    insert(connection, ["a", "b"])
    work(dsn)
    assert [row[0] for row in scores(connection, "chatty").values()] == [True, True]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1 / (length(span.output) - 3) > -100", "raised"),
        ("case when span.output = 'bad' then pg_sleep(60) is null else true end", "timed_out"),
        ("length(repeat(span.output, case when span.output = 'bad' then 1000000000 else 1 end)) > 0", "out_of_memory"),
    ],
)
@pytest.mark.usefixtures("patient")
def test_one_span_an_sql_check_fails_on_costs_the_others_nothing(
    dsn: str, connection: Connection, expression: str, reason: str
) -> None:
    activate(connection, "faulty", kind="sql", expression=expression)
    activate(connection, "sound", kind="sql", expression="span.output <> 'bad'")
    insert(connection, [*(f"{number:04}" for number in range(20)), "bad"])
    work(dsn, batch_seconds=1, span_seconds=1)
    found = scores(connection, "faulty")
    assert found.pop("bad")[3] == reason
    assert len(found) == 20
    assert all(row[0] is True for row in found.values())
    assert len(scores(connection, "sound")) == 21
    assert waiting(connection) == 0


def test_a_job_none_of_whose_spans_a_version_means_ends(dsn: str, connection: Connection) -> None:
    activate(connection, "nobody", check="is_short", where="span.output = 'nothing like it'")
    insert(connection, ["a", "b"])
    connection.execute("insert into flywheel.spans (output) values ('c')")
    connection.execute("delete from flywheel.spans where output = 'c'")
    work(dsn)
    assert waiting(connection) == 0
    assert value(connection, "select count(*) from flywheel.scores") == 0


def test_texts_too_large_to_read_together_are_read_apart(dsn: str, connection: Connection) -> None:
    activate(connection, "large", check="is_short")
    connection.execute(
        "insert into flywheel.spans (output) select repeat(n::text, 10000000) from generate_series(1, 20) as n"
    )
    work(dsn)
    assert value(connection, "select count(*) from flywheel.scores where not passed") == 20
    assert value(connection, "select count(*) from flywheel._faults") == 0


def test_a_where_that_raises_is_a_fault_of_its_python_check(dsn: str, connection: Connection) -> None:
    activate(connection, "faulty", check="is_short", where="1 / (length(span.output) - 3) > -100")
    insert(connection, ["a", "bad", "b"])
    work(dsn)
    assert {text: row[3] for text, row in scores(connection, "faulty").items()} == {
        "a": None,
        "bad": "raised",
        "b": None,
    }


@pytest.mark.parametrize(
    "definition",
    [{"kind": "sql", "expression": "1 / (length(span.output) - 3) > 0"}, {"check": "is_even"}],
    ids=["sql", "python"],
)
def test_a_check_that_always_fails_is_paused_and_its_spans_wait_for_it(
    dsn: str, connection: Connection, definition: dict[str, Any]
) -> None:
    activate(connection, "broken", **definition)
    activate(connection, "sound", kind="sql", expression="true")
    set_setting(connection, "faults_before_pause", 1)
    for _ in range(5):
        insert(connection, ["bad", "mad"])
    work(dsn)
    assert (
        value(connection, "select paused_reason from flywheel.validator_status where validator = 'broken'") == "errors"
    )
    unscored = value(connection, "select count(*) from flywheel.scores where unscored_reason = 'raised'")
    held = value(connection, "select sum(cardinality(span_ids)) from flywheel._later where run_at = 'infinity'")
    assert held > unscored
    assert held + unscored == value(connection, "select count(*) from flywheel.scores where passed") == 10


def test_a_resumed_validator_judges_what_waited(dsn: str, connection: Connection) -> None:
    activate(connection, "later", kind="sql", expression="true")
    insert(connection, ["a"])
    connection.execute("select flywheel.pause_validator('later', 'manual')")
    work(dsn)
    assert scores(connection, "later") == {}
    connection.execute("select flywheel.activate_validator('later')")
    work(dsn)
    assert set(scores(connection, "later")) == {"a"}


def test_a_paused_lane_is_left_alone(dsn: str, connection: Connection) -> None:
    activate(connection, "any", kind="sql", expression="true")
    connection.execute("select flywheel.pause_lane('bulk', 'a test')")
    insert(connection, ["a"])
    work(dsn)
    assert waiting(connection) == 1
    connection.execute("select flywheel.resume_lane('bulk')")
    work(dsn)
    assert waiting(connection) == 0


def test_many_workers_judge_each_span_once(dsn: str, connection: Connection) -> None:
    set_setting(connection, "chunk_spans", 10)
    activate(connection, "once", kind="sql", expression="length(span.output) < 4")
    activate(connection, "once_more", check="is_even")
    insert(connection, list(map(str, range(2000))))

    async def three() -> None:
        await asyncio.gather(*(run_worker(dsn, "flywheel", Options(until_idle=True, name=str(n))) for n in range(3)))

    asyncio.run(three())
    assert value(connection, "select count(*) from flywheel.scores") == 4000
    assert value(connection, "select sum(scores) from flywheel.run_log where outcome = 'completed'") == 4000
    assert value(connection, "select count(distinct worker_id) from flywheel.run_log where outcome = 'completed'") > 1
    assert waiting(connection) == 0
