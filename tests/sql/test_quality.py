"""Quality: pass rates that say what was judged, of how much, and how surely."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from tests.sql.measured import LONG_AGO, NOW, YESTERDAY, Spot, judge
from tests.sql.reference import close
from tests.sql.support import Connection, activate, refused, rows, value


@pytest.fixture(scope="module")
def judged(server_dsn: str, template: str) -> Iterator[Connection]:
    """Two projects, two nodes, two releases, an older version, a shadow and a check, in a database nobody changes."""
    name = sql.Identifier(f"judged_{uuid.uuid4().hex[:16]}")
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("create database {} template {}").format(name, sql.Identifier(template)))
        with psycopg.connect(server_dsn, dbname=name.as_string().strip('"'), autocommit=True) as opened:
            fill(opened)
            yield opened
        session.execute(sql.SQL("drop database {} with (force)").format(name))


def fill(connection: Connection) -> None:
    first, second, shadow = (
        judge(connection),
        judge(connection, question="Is it kind?"),
        judge(connection, "shy", "shadow"),
    )
    shop = Spot(project="shop", release="r1")
    shop.score(connection, first, 30, True, 0.9)
    shop.score(connection, first, 10, False, 0.1)
    shop.score(connection, first, 5, None)
    later = Spot(NOW - timedelta(hours=2), project="shop", release="r2", node="search")
    later.score(connection, second, 7, True)
    later.score(connection, shadow, 3, False)
    Spot(project="bank").score(connection, first, 4, True, 1.0)
    Spot(LONG_AGO, project="shop", release="r0").score(connection, first, 50, False)


def test_unscored_is_never_a_fail_and_every_score_is_in_n(judged: Connection) -> None:
    query = """select n, judged, passed, failed, unscored, judged_share, pass_rate from flywheel.quality_by_validator
                where project = 'shop' and version = 1"""
    assert rows(judged, query) == [(45, 40, 30, 10, 5, 40 / 45, 0.75)]


def test_versions_of_a_judge_are_never_added_up(judged: Connection) -> None:
    query = "select version, n, status from flywheel.quality_by_validator where project = 'shop' order by 1"
    assert rows(judged, query) == [(1, 45, "retired"), (2, 7, "active")]


def test_shadows_are_in_the_series_with_their_status_and_in_no_summary(judged: Connection) -> None:
    for grain in ("minute", "hour", "day"):
        query = f"select sum(n), min(status) from flywheel.quality_by_{grain} where validator = 'shy'"
        assert rows(judged, query) == [(3, "shadow")]
    for name in ("validator", "node", "release"):
        assert value(judged, f"select count(*) from flywheel.quality_by_{name} where validator = 'shy'") == 0


def test_a_judge_nobody_has_checked_is_provisional(judged: Connection) -> None:
    assert value(judged, "select bool_and(provisional) from flywheel.quality_by_day")


def test_the_window_leaves_out_what_is_older(judged: Connection) -> None:
    assert rows(judged, "select release from flywheel.quality_by_release where project = 'shop' order by 1") == [
        ("r1",),
        ("r2",),
    ]
    assert value(judged, "select sum(n) from flywheel.quality_by_day where release = 'r0'") == 50


def test_nodes_and_releases_add_up_to_validators(judged: Connection) -> None:
    total = """select validator, version, project, sum(n)::bigint, sum(passed)::bigint
                 from flywheel.quality_by_{} group by 1, 2, 3"""
    expected = sorted(rows(judged, total.format("validator")))
    assert sorted(rows(judged, total.format("node"))) == expected
    known = "select validator, version, project, n, passed from flywheel.quality_by_validator where project = 'shop'"
    by_release = [row for row in rows(judged, total.format("release")) if row[2] == "shop"]
    assert sorted(by_release) == sorted(rows(judged, known))


def test_minutes_hours_and_days_say_the_same(judged: Connection) -> None:
    totals = {
        rows(judged, f"select sum(n), sum(passed), sum(unscored), sum(cost_usd) from flywheel.quality_by_{grain}")[0]
        for grain in ("minute", "hour", "day")
    }
    assert len(totals) == 1


def test_constant_data_keep_an_interval(judged: Connection) -> None:
    query = """select pass_rate, pass_low, pass_high, live_low, live_high from flywheel.quality_by_validator
                where project = 'bank'"""
    rate, low, high, live_low, live_high = rows(judged, query)[0]
    assert (rate, high, live_high) == (1, 1, 1)
    assert 0 < live_low < low < 0.6


def test_where_nothing_was_judged_the_rate_is_null_and_may_be_anything(connection: Connection) -> None:
    Spot().score(connection, judge(connection), 2, None)
    query = """select n, judged, judged_share, pass_rate, pass_low, pass_high, live_low, live_high
                 from flywheel.quality_by_validator"""
    assert rows(connection, query) == [(2, 0, 0, None, 0, 1, 0, 1)]


def test_an_empty_install_has_no_rows(connection: Connection) -> None:
    for name in ("by_minute", "by_hour", "by_day", "by_validator", "by_node", "by_release"):
        assert rows(connection, f"select * from flywheel.quality_{name}") == []
    assert rows(connection, "select * from flywheel.quality('-infinity', 'infinity', '{day,node}')") == []


@pytest.mark.parametrize(
    ("passes", "total"), [(0, 0), (0, 1), (1, 1), (0, 50), (50, 50), (450, 500), (10**7 - 1, 10**7), (3, 10**7)]
)
def test_the_fast_intervals_are_those_of_the_functions(calculator: Connection, passes: int, total: int) -> None:
    query = """
        select flywheel._wilson_low(p, n), wilson.low, flywheel._wilson_high(p, n), wilson.high,
               flywheel._live_low(p, n), live.low, 1 - flywheel._live_low(n - p, n), live.high
          from (select %s::bigint as p, %s::bigint as n) as given,
               flywheel.wilson_interval(p, n) as wilson, flywheel.confidence_sequence(p, n) as live
    """
    found = rows(calculator, query, [passes, total])[0]
    for fast, slow in zip(found[::2], found[1::2], strict=True):
        assert fast == close(slow)


def test_any_grouping_gives_the_same_total(judged: Connection) -> None:
    query = "select sum(n), sum(passed) from flywheel.quality('-infinity', 'infinity', %s)"
    groupings = [[], ["node"], ["project", "release"], ["day", "environment"], ["minute", "node", "project"]]
    assert {rows(judged, query, [by])[0] for by in groupings} == {(109, 41)}


def test_a_time_is_exact_to_the_minute(connection: Connection) -> None:
    version = judge(connection)
    start = YESTERDAY.replace(hour=5, minute=30, second=0, microsecond=0) - timedelta(days=3)
    for minutes in range(0, 60 * 48, 7):
        Spot(start + timedelta(minutes=minutes)).score(connection, version, 1, True)
    for since, until in ((0, 2880), (7, 8), (3, 61), (100, 1700), (29, 31), (1000, 2000)):
        given = [start + timedelta(minutes=since), start + timedelta(minutes=until)]
        expected = value(
            connection, "select count(*) from flywheel.spans where started_at >= %s and started_at < %s", given
        )
        for by in ([], ["day", "node"], ["hour"], ["minute"]):
            query = "select coalesce(sum(n), 0) from flywheel.quality(%s, %s, %s)"
            assert value(connection, query, [*given, by]) == expected


def test_a_time_is_cut_without_gap_or_overlap(calculator: Connection) -> None:
    query = """
        select count(*) from generate_series(0, 4000, 61) as shift, generate_series(0, 5000, 97) as length,
               lateral (select timestamptz '2026-02-27 22:17:00+00' + shift * interval '1 minute') as began(since),
               lateral (select since + length * interval '1 minute') as ended(until),
               lateral (select coalesce(sum(part.until - part.since), '0') as covered,
                               coalesce(bool_and(extract(epoch from part.since)::bigint % seconds = 0), true) as whole
                          from flywheel._ranges(since, until) as part
                          join (values ('minute', 60), ('hour', 3600), ('day', 86400)) as known(grain, seconds)
                         using (grain)
                       ) as parts
         where parts.covered <> until - since or not whole
    """
    assert value(calculator, query) == 0


@pytest.mark.parametrize("by", [["validator"], ["node; drop table spans"], ["day", "hour"], [None]])
def test_an_unknown_grouping_is_refused(calculator: Connection, by: list[str | None]) -> None:
    assert refused(calculator, "select * from flywheel.quality(now(), now(), %s)", [by]).sqlstate == "WF009"


def test_values_are_counted_in_twentieths(judged: Connection) -> None:
    query = """select bin, value_low, value_high, sum(n)::bigint from flywheel.score_distributions
                where validator = 'polite' group by 1, 2, 3 order by 1"""
    assert rows(judged, query) == [(2, 0.1, 0.15, 10), (18, 0.9, 0.95, 30), (19, 0.95, 1.0, 4)]


def test_the_lowest_scores_are_fails_then_low_values_and_never_unscored(judged: Connection) -> None:
    query = "select passed, value from flywheel.lowest_scores('polite', %s, %s, 60)"
    found = rows(judged, query, [NOW - timedelta(days=2), NOW])
    assert found == [(False, 0.1)] * 10 + [(True, 0.9)] * 30 + [(True, 1.0)] * 4 + [(True, None)] * 7
    assert value(judged, "select count(*) from flywheel.lowest_scores(null, '-infinity', 'infinity', -1)") == 0


def test_a_check_of_code_is_never_provisional(connection: Connection) -> None:
    activate(connection, "short", lane="inline")
    connection.execute("insert into flywheel.spans (input, output) values ('a', 'b')")
    query = "select annotator_kind, provisional, pass_rate from flywheel.quality_by_validator"
    assert rows(connection, query) == [("code", False, 1)]


def test_hostile_names_are_only_values(connection: Connection) -> None:
    name = """';drop table flywheel.spans;-- %s {} \\ "x" $1 \u202e"""
    Spot(project=name, node=name, release=name).score(connection, judge(connection), 1, True)
    query = "select project, node, release, n from flywheel.quality(%s, %s, '{project,node,release}')"
    assert rows(connection, query, [YESTERDAY - timedelta(days=1), NOW]) == [(name, name, name, 1)]


def test_analysts_read_every_view_of_quality(connection: Connection) -> None:
    Spot().score(connection, judge(connection), 3, True)
    connection.execute("set role flywheel_analyst")
    for name in ("minute", "hour", "day", "validator", "node", "release"):
        assert value(connection, f"select sum(n) from flywheel.quality_by_{name}") == 3
    assert value(connection, "select sum(n) from flywheel.quality(now() - interval '2 days', now())") == 3
    assert value(connection, "select count(span_id) from flywheel.lowest_scores_today") <= 3
    refused(connection, "select critique from flywheel.lowest_scores_today")
