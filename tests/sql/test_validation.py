"""How much of the traffic is judged, what waits, and what judging costs."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from tests.sql import paying
from tests.sql.days import noon, today
from tests.sql.support import Connection, activate, claim, inline, insert, refused, rows, value, work_off, worker


def test_coverage_tells_judged_from_unscored_and_says_why(
    connection: Connection,
) -> None:
    inline(
        connection,
        "number",
        expression="span.output::integer > 0",
        filter={"node": ["count"]},
    )
    for output in ("1", "-1", "none"):
        insert(connection, output, node="count", project="shop", started_at=noon())
    insert(connection, "text", node="say", project="shop", started_at=noon())
    work_off(connection)
    columns = "time, validator, version, status, project, n, judged, unscored, spans"
    ((*facts, n, judged, unscored, all_spans),) = rows(
        connection, f"select {columns} from flywheel.validation_coverage"
    )
    assert facts == [today() - timedelta(days=1), "number", 1, "active", "shop"]
    assert (n, judged + unscored, all_spans) == (3, 3, 4)
    shares = rows(
        connection,
        "select judged_share, covered_share from flywheel.validation_coverage",
    )
    assert shares == [(pytest.approx(judged / 3), 0.75)]
    reasons = rows(
        connection,
        "select validator, reason, n, share from flywheel.validation_reasons",
    )
    assert reasons == [("number", "raised", unscored, pytest.approx(unscored / 3))]


def test_the_backlog_is_what_waits_and_reads_no_spans(connection: Connection) -> None:
    activate(connection, "waiting")
    for _ in range(3):
        insert(connection)
    activate(connection, "idle")
    columns = "validator, version, lane, queued, running, later, dead, oldest_seconds is not null, status"
    query = f"select {columns} from flywheel.validation_backlog order by 1"
    assert rows(connection, query) == [
        ("idle", 1, "bulk", 0, 0, 0, 0, False, "active"),
        ("waiting", 1, "bulk", 3, 0, 0, 0, True, "active"),
    ]
    plan = str(rows(connection, f"explain {query}"))
    assert "_ready" in plan
    assert not [name for name in ("spans_", "scores") if name in plan]


def test_each_span_of_the_queue_is_in_one_column_of_the_backlog(connection: Connection) -> None:
    activate(connection, "busy")
    query = "select queued, running, later, dead, oldest_seconds >= 0 from flywheel.validation_backlog"
    insert(connection)
    claim(connection, worker(connection))
    assert rows(connection, query) == [(0, 1, 0, 0, True)]
    shared = "lane, priority, job_id, version_ids, span_ids, started_from, started_until"
    for table in ("_later", "_dead"):
        extra = "run_at, reason" if table == "_later" else "died_at, reason"
        connection.execute(
            f"""insert into flywheel.{table} ({shared}, {extra})
                select {shared}, now() + interval '1 minute', 'raised' from flywheel._running""".encode()
        )
    assert rows(connection, query) == [(0, 1, 1, 1, True)]
    connection.execute("delete from flywheel._running; delete from flywheel._later")
    assert rows(connection, query) == [(0, 0, 0, 1, None)]


def test_calls_cost_by_day_version_and_model_and_unknown_costs_are_told(
    connection: Connection,
) -> None:
    paying.provider(connection)
    polite = paying.judge(connection)
    span = insert(connection)
    asked = [paying.call(polite, span_id=span, vote=vote) for vote in (1, 2)]
    failed = [paying.call(polite, span_id=uuid.uuid4())]
    unpriced = [paying.call(None, model="unknown", purpose="embed")]
    for some in (asked, failed, unpriced):
        paying.begin(connection, some)
    paying.end(connection, asked, cached_tokens=500)
    paying.end(connection, failed, outcome="timed_out", input_tokens=0, output_tokens=0)
    paying.end(connection, unpriced)
    found = rows(
        connection,
        """select validator, model, purpose, calls, judged, input_tokens, output_tokens
             from flywheel.validation_cost_by_day order by validator""",
    )
    assert [row[:5] for row in found] == [
        ("polite", "small", "score", 3, 1),
        (None, "unknown", "embed", 1, 0),
    ]
    whole = value(
        connection,
        "select sum(cost_usd) from flywheel.calls where version_id is not null",
    )
    query = "select cost_usd, cost_per_judged, priced_share from flywheel.validation_cost_by_day where validator {}"
    assert rows(connection, query.format("= 'polite'"))[0][:2] == pytest.approx((whole, whole))
    assert rows(connection, query.format("is null")) == [(None, None, 0)]


def test_a_cost_that_is_no_number_is_unknown(connection: Connection) -> None:
    paying.provider(connection)
    polite = paying.judge(connection, "polite")
    connection.execute("update flywheel.provider_models set input_usd = 'NaN', output_usd = 'infinity'")
    asked = paying.call(polite, span_id=uuid.uuid4())
    paying.begin(connection, [asked])
    paying.end(connection, [asked])
    assert rows(connection, "select cost_usd from flywheel.calls") == [(None,)]
    for cost in ("NaN", "infinity", "-1"):
        said = refused(connection, "update flywheel.calls set cost_usd = %s", [cost])
        assert (said.sqlstate, said.constraint_name) == ("23514", "call_cost_is_a_number")


def test_costs_of_earlier_releases_that_are_no_number_break_no_sum(connection: Connection) -> None:
    paying.provider(connection)
    polite = paying.judge(connection, "polite")
    asked = [paying.call(polite, span_id=uuid.uuid4()) for _ in range(4)]
    paying.begin(connection, asked)
    paying.end(connection, asked)
    connection.execute("alter table flywheel.calls drop constraint call_cost_is_a_number")
    for cost, call in zip(("NaN", "infinity", 0.5, 0.25), asked, strict=True):
        connection.execute("update flywheel.calls set cost_usd = %s where call_id = %s", [cost, call["call_id"]])
    query = "select cost_usd, priced_share, cost_per_judged from flywheel.validation_cost_by_day"
    assert rows(connection, query) == [(0.75, 0.5, 0.75 / 4)]
    assert value(connection, "select flywheel._spent_before('validator', 'polite', current_date - 1)") == 0.75


def test_a_day_of_calls_leaves_other_days_unread(connection: Connection) -> None:
    query = """explain (analyze, costs off, timing off, summary off, buffers off)
               select * from flywheel.validation_cost_by_day where time = %s"""
    plan = "\n".join(line for (line,) in rows(connection, query, [today()]))
    read = [line for line in plan.splitlines() if " on calls_" in line and "never executed" not in line]
    assert {line.split(" on ")[1].split()[0] for line in read} <= {
        f"calls_{today():%Y%m%d}",
        "calls_default",
    }, plan
