"""Views of quality read what they show, not what is stored: counted by the server itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from tests.plans.test_plans import reads
from tests.sql.measured import NOW, Spot, judge
from tests.sql.support import Connection, rows

RELEASES, NODES, DAYS, MINUTES = 2, 3, 40, 30
# One version, 3 nodes, 2 releases: what a day holds is so many rows of rollups, however many scores it has.
ROWS_A_DAY = NODES * RELEASES * 2


@pytest.fixture(scope="module")
def month(server_dsn: str, template: str) -> Iterator[Connection]:
    """Forty days of scores in many minutes, folded, and nobody writes."""
    name = sql.Identifier(f"month_{uuid.uuid4().hex[:16]}")
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("create database {} template {}").format(name, sql.Identifier(template)))
        with psycopg.connect(server_dsn, dbname=name.as_string().strip('"'), autocommit=True) as opened:
            fill(opened)
            yield opened
        session.execute(sql.SQL("drop database {} with (force)").format(name))


def fill(connection: Connection) -> None:
    version = judge(connection)
    today = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    connection.execute("select flywheel.ensure_partitions(%s, %s)", [(NOW - timedelta(days=DAYS)).date(), NOW.date()])
    connection.execute(
        """with written as (
             insert into flywheel.spans (release, node, input, output, started_at)
             select 'r' || release, 'n' || node, 'q', 'a', %s - day * interval '1 day' + minute * interval '47 minutes'
               from generate_series(1, %s) as release, generate_series(1, %s) as node, generate_series(1, %s) as day,
                    generate_series(0, %s - 1) as minute
             returning span_id, trace_id, started_at, project)
           insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed,
                                        annotator_kind)
           select span_id, 1, %s, started_at, trace_id, project, hashtext(span_id::text) %% 5 <> 0, 'neighbours'
             from written""",
        [today, RELEASES, NODES, DAYS, MINUTES, version],
    )
    Spot(today - timedelta(days=1, seconds=-1), release="r1", node="n1").score(connection, version, 20, True)
    Spot(today - timedelta(days=1, seconds=-1), release="r1", node="n1").label(connection, version, 8, 2, 0, 0)
    while rows(connection, "select flywheel._fold(100000)")[0][0]:
        pass
    connection.execute("vacuum analyze")


@pytest.mark.parametrize(
    "name", ["quality_by_validator", "quality_by_node", "quality_by_release", "release_comparisons"]
)
def test_a_view_over_the_window_reads_its_days_and_no_minutes(month: Connection, name: str) -> None:
    found = reads(month, f"select * from flywheel.{name}")
    assert 0 < found["_score_rollups"].rows <= 30 * ROWS_A_DAY
    assert not found["_score_rollups"].whole
    assert "scores" not in " ".join(key for key in found if not key.startswith("_"))


def test_corrected_rates_read_days_and_the_few_labelled_ones(month: Connection) -> None:
    found = reads(month, "select * from flywheel.corrected_pass_rates")
    assert found["_score_rollups"].rows <= 30 * ROWS_A_DAY
    assert not any(key.startswith(("scores_2", "spans_2")) for key in found)


@pytest.mark.parametrize(("grain", "most"), [("day", ROWS_A_DAY), ("hour", 24 * ROWS_A_DAY)])
def test_a_day_of_a_series_reads_that_day(month: Connection, grain: str, most: int) -> None:
    given = [NOW - timedelta(days=3), NOW - timedelta(days=2)]
    found = reads(month, f"select * from flywheel.quality_by_{grain} where time >= %s and time < %s", given)
    assert 0 < found["_score_rollups"].rows <= most
    assert not found["_score_rollups"].whole


def test_any_time_reads_whole_days_and_minutes_only_at_its_ends(month: Connection) -> None:
    given = [NOW - timedelta(days=20, minutes=11), NOW - timedelta(days=1, minutes=7)]
    found = reads(month, "select * from flywheel.quality(%s, %s, '{node}')", given)
    hours_and_minutes = 2 * (24 + 60) * NODES * RELEASES * 2
    assert found["_score_rollups"].rows <= 20 * ROWS_A_DAY + hours_and_minutes
    assert not found["_score_rollups"].whole


def test_a_metric_from_rollups_reads_no_raw_row_and_a_kept_one_only_itself(month: Connection) -> None:
    with month.transaction(force_rollback=True):
        for storage in ("rollup", "materialized"):
            definition = f'{{"measure": "pass_rate", "validator": "polite", "by": ["node"], "storage": "{storage}"}}'
            month.execute("select flywheel.define_metric(%s, %s)", [storage, definition])
        rolled = reads(month, "select * from flywheel_bi.metric_rollup")
        kept = reads(month, "select * from flywheel_bi.metric_materialized")
    assert rolled["_score_rollups"].rows <= 30 * ROWS_A_DAY
    assert not any(key.startswith(("scores_2", "spans_2")) for key in rolled)
    assert "_score_rollups" not in kept
