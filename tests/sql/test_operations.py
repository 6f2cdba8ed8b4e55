"""Latency, errors and cost from counts, against the raw rows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sql.days import noon, today
from tests.sql.support import Connection, define, inline, insert, refused, rows, value, version_id

QUANTILE = """
select flywheel.latency_quantile(array_agg(flywheel._latency_bin(ms)), array_agg(1::bigint), %(share)s),
       percentile_disc(%(share)s) within group (order by ms) from unnest(%(ms)s::double precision[]) as ms"""


def spans(connection: Connection, milliseconds: Sequence[float | None], **columns: Any) -> None:
    """Insert one span for each latency at noon of yesterday; None = it did not end."""
    given_columns: dict[str, Any] = {"project": "shop", "started_at": noon(), **columns}
    names, places = ", ".join(given_columns), ", ".join(["%s"] * len(given_columns))
    started_at = given_columns["started_at"]
    ends = [None if ms is None else started_at + timedelta(milliseconds=ms) for ms in milliseconds]
    query = f"insert into flywheel.spans (input, output, ended_at, {names}) values ('q', 'a', %s, {places})"
    connection.cursor().executemany(query.encode(), [[end, *given_columns.values()] for end in ends])


@settings(max_examples=60)
@given(
    st.lists(st.floats(0.001, 1e7), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0]),
)
def test_a_quantile_is_within_its_bound_of_the_latency_of_that_rank(
    calculator: Connection, milliseconds: list[float], share: float
) -> None:
    ((binned, exact),) = rows(calculator, QUANTILE, {"ms": milliseconds, "share": share})
    assert abs(binned / exact - 1) <= 0.045


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_quantiles_of_many_latencies_are_those_of_percentile_cont(calculator: Connection, share: float) -> None:
    calculator.execute("select setseed(0.5)")
    query = """select flywheel.latency_quantile(array_agg(flywheel._latency_bin(ms)), array_agg(1::bigint), %(share)s),
                      percentile_cont(%(share)s) within group (order by ms)
                 from (select exp(5 + 1.5 * sqrt(-2 * ln(random())) * cos(2 * pi() * random())) as ms
                         from generate_series(1, 20000)) as drawn"""
    ((binned, exact),) = rows(calculator, query, {"share": share})
    assert binned == pytest.approx(exact, rel=0.045)


def test_what_was_not_timed_is_in_no_quantile_and_counts_may_be_split_and_negative(
    calculator: Connection,
) -> None:
    quantiles = "select flywheel.latency_quantiles(%s::smallint[], %s::bigint[], '{0,0.5,1}')"
    middle = 2 ** (80.5 / 8)
    assert value(calculator, quantiles, [[-999], [7]]) == [None, None, None]
    assert value(calculator, quantiles, [[], []]) == [None, None, None]
    assert value(calculator, quantiles, [[-999, 80], [1000, 1]]) == pytest.approx([middle] * 3)
    assert value(calculator, quantiles, [[80, 8, 80, 8], [2, 1, 3, -1]]) == pytest.approx([middle] * 3)
    assert "no quantiles at {1.5}" in str(
        refused(calculator, "select flywheel.latency_quantile('{1}', '{1}', 1.5)").message_primary
    )


def test_latency_errors_tokens_and_cost_are_those_of_the_spans(
    connection: Connection,
) -> None:
    spans(
        connection,
        [100.0] * 18 + [2000.0, None],
        node="answer",
        cost_usd=0.5,
        input_tokens=10,
        output_tokens=1,
    )
    spans(connection, [50.0], node="answer", status="error")
    spans(connection, [None], node="answer", status="running")
    for view in ("latency_by_hour", "latency_by_day"):
        ((*counts, rate, low, high, p50, p99, mean, cost, priced),) = rows(
            connection,
            f"""select n, errors, running, timed, input_tokens, output_tokens, root, error_rate, error_low, error_high,
                       p50_ms, p99_ms, mean_ms, cost_usd, priced_share from flywheel.{view} where node = 'answer'""",
        )
        assert counts == [22, 1, 1, 20, 200, 20, True]
        assert (rate, mean, cost, priced) == pytest.approx((1 / 21, 3850 / 20, 10.0, 20 / 22))
        assert 0 < low < rate < high < 1
        assert (p50, p99) == pytest.approx((100, 2000), rel=0.045)


def test_what_is_unknown_is_null_and_never_zero(connection: Connection) -> None:
    spans(connection, [None, None], status="running", node="stuck")
    found = rows(
        connection,
        """select error_rate, error_low, error_high, p50_ms, mean_ms, input_tokens, output_tokens, cost_usd,
                  priced_share
             from flywheel.latency_by_day""",
    )
    assert found == [(None, 0, 1, None, None, None, None, None, 0)]
    query = "select cost_usd, cost_per_request, cost_per_pass, priced_share from flywheel.cost_by_day"
    assert rows(connection, query) == [(None, None, None, 0)]


def test_where_only_the_tokens_written_are_known_those_read_are_null(connection: Connection) -> None:
    spans(connection, [10], output_tokens=7)
    for source in ("latency_by_hour", "latency_by_day", "latency(now() - interval '9 days', now() + interval '1 day')"):
        assert rows(connection, f"select input_tokens, output_tokens from flywheel.{source}") == [(None, 7)]


def test_an_empty_install_has_no_rows_and_no_errors(connection: Connection) -> None:
    for view in (
        "latency_by_hour",
        "latency_by_day",
        "cost_by_day",
        "validation_coverage",
        "validation_reasons",
    ):
        assert rows(connection, f"select * from flywheel.{view}") == []
    assert rows(connection, "select * from flywheel.validation_backlog") == []
    assert rows(connection, "select * from flywheel.validation_cost_by_day") == []
    assert rows(connection, "select * from flywheel.latency('-infinity', 'infinity')") == []


def test_quantiles_of_a_grouping_are_those_of_all_its_spans_and_not_a_mean(
    connection: Connection,
) -> None:
    spans(connection, [10.0] * 99, node="quick")
    spans(connection, [1000.0], node="slow", started_at=noon() + timedelta(minutes=61))
    since, until = noon() - timedelta(days=1), noon() + timedelta(days=1)
    query = "select node, n, p50_ms, p99_ms from flywheel.latency(%s, %s, %s)"
    assert [row[:2] for row in rows(connection, query, [since, until, ["node"]])] == [
        ("quick", 99),
        ("slow", 1),
    ]
    ((node, n, p50, p99),) = rows(connection, query, [since, until, ["project"]])
    assert (node, n) == (None, 100)
    assert (p50, p99) == pytest.approx((10, 10), rel=0.045)
    stepped = rows(
        connection,
        "select time, n from flywheel.latency(%s, %s, '{}', 'hour')",
        [since, until],
    )
    assert stepped == [(noon(), 99), (noon() + timedelta(hours=1), 1)]


@pytest.mark.parametrize(("minutes", "expected"), [(0, 3), (1, 2), (60, 1), (61, 0)])
def test_an_interval_that_begins_at_any_minute_is_counted_exactly(
    connection: Connection, minutes: int, expected: int
) -> None:
    for shift in (0, 1, 60):
        spans(connection, [5.0], started_at=noon() + timedelta(minutes=shift))
    query = "select coalesce(sum(n), 0) from flywheel.latency(%s, 'infinity')"
    assert value(connection, query, [noon() + timedelta(minutes=minutes)]) == expected


def test_latency_and_quality_count_the_same_minutes(connection: Connection) -> None:
    inline(connection, "short")
    for seconds in (5, 50, 65, 130):
        spans(connection, [5.0], started_at=noon() + timedelta(seconds=seconds))
    for since, until, expected in ((30, 125, 4), (59.5, 61, 3), (60, 120, 1), (61, 62, 1)):
        window = [noon() + timedelta(seconds=since), noon() + timedelta(seconds=until)]
        query = "select sum(n) from flywheel.latency(%s, %s)"
        assert value(connection, query, window) == expected
        assert value(connection, query.replace("latency", "quality"), window) == expected


def test_latency_by_something_it_is_not_counted_by_is_refused(
    connection: Connection,
) -> None:
    said = refused(connection, "select * from flywheel.latency(now(), now(), '{user_id}')")
    assert (said.sqlstate, "user_id" in str(said.message_primary)) == ("WF009", True)
    assert refused(connection, "select * from flywheel.latency(now(), now(), '{}', 'week')").sqlstate == "WF009"


def test_steps_are_paid_for_by_requests_and_requests_that_pass_by_all(
    connection: Connection,
) -> None:
    inline(connection, "good", expression="span.output = 'good'", filter={"node": ["root"]})
    inline(connection, "unlucky", expression="false", filter={"node": ["root"]})
    for output in ("good", "good", "bad", "bad"):
        trace, root = uuid.uuid4(), uuid.uuid4()
        shared = {"trace_id": trace, "project": "shop", "started_at": noon()}
        insert(connection, output, span_id=root, node="root", cost_usd=0.1, **shared)
        insert(
            connection,
            "found",
            node="search",
            parent_span_id=root,
            cost_usd=0.3,
            **shared,
        )
        insert(connection, "kept", node="cache", parent_span_id=root, **shared)
    found = rows(
        connection,
        """select validator, requests, spans, cost_usd, priced_share, cost_per_request, passed, judged, cost_per_pass
             from flywheel.cost_by_day order by validator nulls first""",
    )
    assert [row[0] for row in found] == [None, "good", "unlucky"]
    assert all(row[1:6] == pytest.approx((4, 12, 1.6, 8 / 12, 0.4)) for row in found)
    assert [row[6:] for row in found] == [
        (None, None, None),
        (2, 4, pytest.approx(0.8)),
        (0, 4, None),
    ]
    assert value(
        connection,
        "select sum(cost_usd) from flywheel.cost_by_day where validator is null",
    ) == pytest.approx(1.6)


def test_a_shadow_sets_no_price(connection: Connection) -> None:
    define(connection, "quiet", lane="inline")
    connection.execute("select flywheel.shadow_validator('quiet', 1)")
    insert(connection, started_at=noon())
    assert rows(connection, "select validator from flywheel.cost_by_day") == [(None,)]
    assert rows(connection, "select validator, status, n from flywheel.validation_coverage") == [("quiet", "shadow", 1)]


def test_names_that_look_like_code_are_names(connection: Connection) -> None:
    evil = "'; drop table flywheel.spans; --<script>\\"
    spans(connection, [1.0], project=evil, node=evil, release=evil, environment=evil)
    assert rows(connection, "select project, node, release from flywheel.latency_by_day") == [(evil, evil, evil)]
    query = "select node from flywheel.latency('-infinity', 'infinity', '{node,release}')"
    assert rows(connection, query) == [(evil,)]


VIEWS = [
    "latency_by_hour", "latency_by_day", "cost_by_day", "validation_coverage", "validation_reasons",
    "validation_backlog", "validation_cost_by_day", "classification_metrics", "classification_confusion",
    "classification_calibration", "feedback_by_day", "rephrases", "rephrases_by_topic",
]  # fmt: skip


def test_an_analyst_reads_every_view_and_no_table_behind_them(
    connection: Connection,
) -> None:
    inline(connection, "short")
    insert(connection)
    connection.execute("set role flywheel_analyst")
    for view in VIEWS:
        connection.execute(f"select * from flywheel.{view}".encode())
    connection.execute("select * from flywheel.latency(now() - interval '1 hour', now(), '{node}')")
    for hidden in ("_latency", "_ready", "spans"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"select * from flywheel.{hidden}".encode())
    connection.execute("reset role")


def test_versions_are_not_mixed(connection: Connection) -> None:
    first = inline(connection, "good", expression="true")
    insert(connection, started_at=noon())
    inline(connection, "good", expression="false")
    insert(connection, started_at=noon())
    found = rows(
        connection,
        "select version, judged, passed from flywheel.cost_by_day where validator = 'good' order by 1",
    )
    assert found == [(1, 1, 1), (2, 1, 0)]
    assert version_id(connection, "good") == first


def test_a_day_of_latency_is_read_from_the_index_of_the_rollups(connection: Connection) -> None:
    connection.execute(
        """insert into flywheel._slices
           select flywheel._slice_id('p', 'e', 'v', 'node ' || n, 'app', true, null, null, null),
                  'p', 'e', 'v', 'node ' || n, 'app', true, null, null, null from generate_series(1, 20) as n"""
    )
    connection.execute(
        """insert into flywheel._span_rollups
           select 'day', %s - day * interval '1 day', slice_id, bin, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1
             from generate_series(1, 90) as day, flywheel._slices, generate_series(20, 39) as bin""",
        [today()],
    )
    connection.execute("analyze flywheel._span_rollups")
    for view in ("latency_by_day", "cost_by_day"):
        query = f"explain (costs off) select * from flywheel.{view} where time >= %s"
        plan = "\n".join(line for (line,) in rows(connection, query, [today() - timedelta(days=2)]))
        assert "_span_rollups_pkey" in plan, plan
        assert not [name for name in ("Seq Scan on _span_rollups", " on spans", " on scores") if name in plan], plan


def test_what_is_folded_and_what_was_taken_back_since_is_one_count(connection: Connection) -> None:
    spans(connection, [10.0, 10.0, 10.0], node="answer", status="error", cost_usd=1.0)
    connection.execute("select flywheel._fold()")
    assert value(connection, "select count(*) from flywheel._span_rollups where grain = 'day'") > 0
    connection.execute(
        "update flywheel.spans set ended_at = started_at + interval '1 second', status = 'ok', cost_usd = 2"
    )
    query = "select n, errors, timed, cost_usd, p50_ms from flywheel.{} where node = 'answer'"
    for view in ("latency_by_hour", "latency_by_day", "latency('-infinity', 'infinity', '{node}')"):
        ((*counts, p50),) = rows(connection, query.format(view))
        assert counts == [3, 0, 3, 6.0]
        assert p50 == pytest.approx(1000, rel=0.045)
    connection.execute("delete from flywheel.spans")
    assert rows(connection, "select * from flywheel.latency_by_day") == []
    assert rows(connection, "select * from flywheel.cost_by_day") == []
