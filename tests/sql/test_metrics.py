"""Metrics by name: one view each, the same numbers however they are stored, and none of it an open door."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgflywheel import assets
from pgflywheel.db import metrics, schema
from pgflywheel.db.connect import open_database
from tests.sql.measured import NOW, YESTERDAY, Spot, judge
from tests.sql.support import Connection, refused, rows, value

OF_SCORES = ("pass_rate", "judged_share", "unscored_rate", "mean_value", "corrected_pass_rate", "cost_usd")
OF_SPANS = ("error_rate", "latency_p95", "cost_usd", "requests")
HOSTILE = """a, b=c\\, 'x'; drop table flywheel.spans; -- $q$ %s"""


def declare(connection: Connection, name: str, **definition: Any) -> str:
    return str(value(connection, "select flywheel.define_metric(%s, %s)", [name, json.dumps(definition)]))


def shown(connection: Connection, name: str) -> list[tuple[Any, ...]]:
    return rows(connection, f"select * from flywheel_bi.metric_{name} order by 1, 2")


@pytest.fixture
def filled(connection: Connection) -> Connection:
    """Two days, nodes and releases of one judge, with values, labels, costs, latencies, errors and hostile names."""
    version = judge(connection)
    here, there = Spot(release="r1"), Spot(YESTERDAY.replace(hour=0), release=HOSTILE, node="search", project="bank")
    here.score(connection, version, 20, True, 0.75)
    here.score(connection, version, 10, False, 0.25)
    here.score(connection, version, 3, None)
    there.score(connection, version, 5, True)
    here.label(connection, version, 8, 2, 1, 4)
    connection.execute(
        """insert into flywheel.spans (input, output, status, cost_usd, started_at, ended_at, parent_span_id)
           select 'q', 'a', case when n % 3 = 0 then 'error' else 'ok' end, 0.25, now(), now() + n * interval '1 ms',
                  case when n % 2 = 0 then flywheel.new_id() end
             from generate_series(1, 12) as n"""
    )
    return connection


@pytest.mark.parametrize(
    ("measure", "validator"), [(name, "polite") for name in OF_SCORES] + [(name, None) for name in OF_SPANS]
)
def test_all_storages_say_the_same(filled: Connection, measure: str, validator: str | None) -> None:
    filled.execute("select flywheel._fold(1000)")
    Spot(NOW).score(filled, judge(filled, "other"), 1, True)
    filled.execute("update flywheel.spans set node = 'moved' where node = 'search'")  # some is folded, some is not
    for grain in ("day", "minute"):
        given: dict[str, Any] = {"measure": measure, "by": ["project", "release", "node"], "grain": grain}
        given |= {"validator": validator} if validator else {}
        found = []
        for storage in ("live", "rollup", "materialized"):
            declare(filled, "one", **given, storage=storage)
            found.append(shown(filled, "one"))
        assert found[0]
        assert found[1] == found[2]
        for live, rolled in zip(found[0], found[1], strict=True):
            assert live[:3] == rolled[:3]
            assert [pytest.approx(each, abs=1e-12) if each is not None else None for each in live[3:]] == list(
                rolled[3:]
            )


def test_a_metric_has_the_numbers_of_the_views(filled: Connection) -> None:
    declare(filled, "polite_by_node", measure="pass_rate", validator="polite", by=["node"])
    expected = "select n, pass_rate, pass_low, pass_high from flywheel.quality_by_node where node = 'app'"
    found = [row[3:] for row in shown(filled, "polite_by_node") if row[1] == "node=app, version=1"]
    assert found == [row[1:] for row in rows(filled, expected)]


def test_means_of_values_have_the_interval_of_what_lies_between_0_and_1(filled: Connection) -> None:
    declare(filled, "worth", measure="mean_value", validator="polite", where={"release": "r1"})
    expected = rows(filled, "select 30, mean, low, high from flywheel.bounded_mean_interval(30, 17.5, 11.875)")
    assert [row[2:] for row in shown(filled, "worth")] == expected
    Spot(NOW, release="r2").score(filled, judge(filled, "agreed"), 30, True, 1.0)
    declare(filled, "agreed", measure="mean_value", validator="agreed")
    ((_, _, n, mean, low, high),) = shown(filled, "agreed")
    assert (n, mean, high) == (30, 1, 1)
    assert 0.8 < low < 0.99


def test_where_picks_a_slice(filled: Connection) -> None:
    declare(filled, "bank", measure="judged_share", validator="polite", where={"project": "bank", "release": [HOSTILE]})
    assert [row[1:4] for row in shown(filled, "bank")] == [("version=1", 5, 1)]
    declare(filled, "nothing", measure="requests", where={"node": "nobody"})
    assert shown(filled, "nothing") == []


def test_dims_tell_hostile_values_apart(filled: Connection) -> None:
    declare(filled, "odd", measure="requests", by=["project", "release"], storage="materialized")
    assert {row[1] for row in shown(filled, "odd")} == {
        "project=default",
        "project=default, release=r1",
        "project=bank, release=" + HOSTILE.replace("\\", "\\\\").replace(",", "\\,"),
    }


def test_shadows_are_in_no_metric(connection: Connection) -> None:
    Spot().score(connection, judge(connection, status="shadow"), 5, True)
    declare(connection, "seen", measure="pass_rate", validator="polite")
    assert shown(connection, "seen") == []


def test_a_metric_of_nothing_has_no_rows(connection: Connection) -> None:
    judge(connection)
    for storage in ("live", "rollup", "materialized"):
        declare(connection, "empty", measure="corrected_pass_rate", validator="polite", storage=storage)
        assert shown(connection, "empty") == []


def test_what_is_materialized_is_as_old_as_its_refresh(filled: Connection) -> None:
    declare(filled, "kept", measure="requests", storage="materialized", refresh_seconds=1)
    before = shown(filled, "kept")
    filled.execute("insert into flywheel.spans (input, output) values ('a', 'b')")
    assert shown(filled, "kept") == before
    assert value(filled, "select flywheel._refresh_metrics()") == 0
    filled.execute("update flywheel.metrics set refreshed_at = now() - interval '2 seconds'")
    assert value(filled, "select flywheel._refresh_metrics()") == 1
    assert sum(row[2] for row in shown(filled, "kept")) == sum(row[2] for row in before) + 1
    query = "select refresh_ms > 0, age_seconds < 60, refresh_error from flywheel.metric_status"
    assert rows(filled, query) == [(True, True, None)]


def test_a_refresh_that_fails_says_why_and_holds_up_no_other(filled: Connection) -> None:
    declare(filled, "broken", measure="requests", storage="materialized", refresh_seconds=1)
    declare(filled, "kept", measure="requests", storage="materialized", refresh_seconds=1)
    filled.execute("drop index flywheel._metric_broken_time_dims_hash_idx")
    filled.execute("update flywheel.metrics set refreshed_at = now() - interval '1 day'")
    assert [value(filled, "select flywheel._refresh_metrics()") for _ in range(3)] == [1, 1, 0]
    query = "select metric, refresh_error is not null from flywheel.metric_status order by 1"
    assert rows(filled, query) == [("broken", True), ("kept", False)]


def test_a_metric_declared_anew_keeps_what_was_granted_on_it(filled: Connection) -> None:
    declare(filled, "one", measure="requests")
    filled.execute("grant select on flywheel_bi.metric_one to flywheel_reviewer")
    for storage in ("materialized", "live", "rollup"):
        declare(filled, "one", measure="error_rate", storage=storage)
        query = "select has_table_privilege('flywheel_reviewer', 'flywheel_bi.metric_one', 'select')"
        assert value(filled, query)
    assert value(filled, "select to_regclass('flywheel._metric_one')") is None


def test_analysts_read_metrics_and_declare_none(filled: Connection) -> None:
    for storage in ("live", "rollup", "materialized"):
        for measure in ("corrected_pass_rate", "mean_value"):
            declare(filled, f"{storage}_{measure}", measure=measure, validator="polite", storage=storage)
        declare(filled, f"{storage}_p95", measure="latency_p95", storage=storage)
    filled.execute("set role flywheel_analyst")
    for storage in ("live", "rollup", "materialized"):
        for name in ("corrected_pass_rate", "mean_value", "p95"):
            assert shown(filled, f"{storage}_{name}")
    assert refused(filled, "select flywheel.define_metric('x', '{}')").sqlstate == "42501"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"measure": "speed"}, "measure is speed"),
        ({}, "measure is missing"),
        ({"measure": "pass_rate"}, "measure pass_rate needs a validator"),
        ({"measure": "requests", "validator": "polite"}, "is of spans"),
        ({"measure": "pass_rate", "validator": "nobody"}, "there is no validator nobody"),
        ({"measure": "requests", "by": ["1; drop table x"]}, "by has 1; drop table x"),
        ({"measure": "requests", "by": "node"}, 'by is "node"'),
        ({"measure": "requests", "where": {"node": 5}}, "where.node is 5"),
        ({"measure": "requests", "where": {"secret": "x"}}, "where has secret"),
        ({"measure": "requests", "grain": "week"}, "grain is week"),
        ({"measure": "requests", "days": 0}, "days is 0"),
        ({"measure": "requests", "days": "9'"}, "days is "),
        ({"measure": "requests", "storage": "lake"}, "storage is lake"),
        ({"measure": "requests", "refresh_seconds": 0.5}, "refresh_seconds is 0.5"),
        ({"measure": "requests", "color": "red"}, "key color is not one of"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(connection: Connection, wrong: dict[str, Any], said: str) -> None:
    found = refused(connection, "select flywheel.define_metric('one', %s)", [json.dumps(wrong)])
    assert found.sqlstate == "WF009"
    assert said in (found.message_primary or "")


@pytest.mark.parametrize("name", ["", "A", "1", "status", "x" * 42, "a-b", 'a" as select 1; --', None])
def test_a_name_that_is_no_plain_word_is_refused(connection: Connection, name: str | None) -> None:
    definition = json.dumps({"measure": "requests"})
    found = refused(connection, "select flywheel.define_metric(%s, %s)", [name, definition])
    assert found.sqlstate == "WF009"


def test_a_dropped_metric_leaves_nothing(connection: Connection) -> None:
    declare(connection, "one", measure="requests", storage="materialized")
    query = "select flywheel.drop_metric('one'), flywheel.drop_metric('one'), flywheel.drop_metric(null)"
    assert rows(connection, query) == [(True, False, False)]
    query = "select to_regclass('flywheel_bi.metric_one'), to_regclass('flywheel._metric_one')"
    assert rows(connection, query) == [(None, None)]


def test_metrics_outlive_an_upgrade_that_makes_their_sources_anew(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = assets.sql_files()
    extra = tmp_path / "76_extra.sql"
    extra.write_text("create or replace view flywheel.extra as select 1 as one; comment on view flywheel.extra is 'x';")
    with psycopg.connect(dsn, autocommit=True) as session:
        for storage in ("live", "rollup", "materialized"):
            declare(session, storage, measure="requests", storage=storage)
        session.execute("insert into flywheel.spans (input, output) values ('a', 'b')")
        monkeypatch.setattr(assets, "sql_files", lambda: [*files, extra])
        assert schema.upgrade(dsn).changed
        extra.write_text("create or replace view flywheel.extra as select 'two' as two;")
        assert schema.upgrade(dsn).changed  # a column of another name: everything is dropped and made again
        assert [shown(session, storage)[0][2] for storage in ("live", "rollup", "materialized")] == [1, 1, 1]
        assert schema.verify(dsn) == assets.revisions()
        session.execute("select flywheel.drop_metric('live'), flywheel.drop_metric('materialized')")
        assert schema.verify(dsn) == assets.revisions()


def test_an_upgrade_leaves_alone_what_is_kept_of_an_unchanged_metric(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        declare(session, "kept", measure="requests", storage="materialized")
        before = value(session, "select 'flywheel._metric_kept'::regclass::oid")
        schema.upgrade(dsn, reapply=True)
        assert value(session, "select 'flywheel._metric_kept'::regclass::oid") == before


@pytest.mark.parametrize("storage", ["live", "rollup", "materialized"])
def test_an_upgrade_makes_metrics_of_an_older_release_as_this_one_makes_them(dsn: str, storage: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        judge(session)
        declare(session, "mean", measure="mean_value", validator="polite", storage=storage)
        where = "flywheel._metric_mean" if storage == "materialized" else "flywheel_bi.metric_mean"
        asks = "select pg_get_viewdef(%s::regclass) like %s"
        now = "select flywheel._metric_sql(definition, case storage when 'live' then storage else 'rollup' end)"
        old = value(session, f"{now} from flywheel.metrics").replace("bounded_mean_interval", "mean_interval")
        session.execute(f"create or replace view flywheel_bi.metric_mean as {old}".encode())
        if storage == "materialized":
            session.execute(f"drop materialized view {where}".encode())
            query = f"create materialized view {where} as select *, md5(dims) as dims_hash from ({old}) as metric"
            session.execute(query.encode())
            kept = f'select "time", dims, n, value, low, high from {where}'
            session.execute(f"create or replace view flywheel_bi.metric_mean as {kept}".encode())
        assert not value(session, asks, [where, "%bounded_mean_interval%"])
        schema.upgrade(dsn, reapply=True)
        assert value(session, asks, [where, "%bounded_mean_interval%"])


def test_metrics_are_read_from_python(filled: Connection, dsn: str) -> None:
    async def read() -> None:
        async with open_database(dsn) as database:
            view = await metrics.define_metric(database, "one", {"measure": "pass_rate", "validator": "polite"})
            assert view == "flywheel_bi.metric_one"
            status = await metrics.metric_status(database)
            assert [(each.metric, each.storage) for each in status] == [("one", "rollup")]
            assert sum(each.n for each in await metrics.metric_values(database, status[0])) == 35
            assert sum(each.judged for each in await metrics.quality(database, YESTERDAY.replace(hour=0), NOW)) <= 35
            for of in ("validator", "node", "release"):
                assert sum(each.n for each in await metrics.window(database, of)) == 38
            assert [each.slice for each in await metrics.window(database, "node", "bank")] == ["search"]
            corrected = await metrics.corrected_pass_rates(database, "default")
            assert [(each.labels, each.method) for each in corrected] == [(15, "post_stratified")]
            of_all = await metrics.corrected_pass_rate(database, "polite", YESTERDAY.replace(hour=0), NOW)
            assert [each.labels for each in of_all] == [15]
            assert len(await metrics.corrected_by_week(database, "polite")) >= 1
            assert await metrics.release_comparisons(database) == []
            assert await metrics.compare_releases(database, "polite", "r1", "r2", YESTERDAY, NOW) == []
            lowest = await metrics.lowest_scores(database, "polite", YESTERDAY.replace(hour=0), NOW, 3)
            assert [each.passed for each in lowest] == [False] * 3
            assert [each.tp for each in await metrics.alignment_by_week(database)] == [8]
            bins = await metrics.score_distribution(database, "polite", YESTERDAY.replace(hour=0, minute=0), NOW)
            assert sum(each.n for each in bins) <= 30
            assert await metrics.drop_metric(database, "one")

    asyncio.run(read())
