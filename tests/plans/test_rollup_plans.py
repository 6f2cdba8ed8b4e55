"""Counts are read from the rollups of the time asked for, and what is not folded by its key."""

from __future__ import annotations

import pytest

from tests.plans.test_plans import days, reads, whole
from tests.sql.support import Connection, inline, rows


@pytest.fixture
def counted(connection: Connection) -> Connection:
    """Sixty days of counts, folded, of one version and two nodes."""
    inline(connection, "short")
    connection.execute("select flywheel.ensure_partitions(current_date - 61, current_date)")
    connection.execute(
        """insert into flywheel.spans (output, node, started_at)
           select 'yes', 'node_' || n % 2, now() - n * interval '3 minutes' from generate_series(1, 28800) as n"""
    )
    connection.execute("select flywheel._fold(100)")
    connection.execute("vacuum analyze flywheel._score_rollups")
    connection.execute("vacuum analyze flywheel._span_rollups")
    connection.execute("vacuum analyze flywheel._slices")
    return connection


@pytest.mark.parametrize("counts", ["score", "span"])
@pytest.mark.parametrize("only", ["", "and project = 'default' and node = 'node_1'"])
def test_a_page_reads_the_rollups_of_its_time_and_no_raw_row(counted: Connection, counts: str, only: str) -> None:
    since = "now() - interval '1 day'"
    query = f"select sum(n) from flywheel._{counts}_counts where grain = 'hour' and bucket >= {since} {only}"
    found = reads(counted, query)
    assert not days(found, "spans") | days(found, "scores")
    assert found[f"_{counts}_rollups"].rows <= 60
    assert not found[f"_{counts}_rollups"].whole


def test_what_is_not_folded_is_found_by_key_in_its_own_day(counted: Connection) -> None:
    counted.execute("insert into flywheel.spans (output) select 'yes' from generate_series(1, 50)")
    found = reads(counted, "select sum(n) from flywheel._score_counts where grain = 'day'")
    assert len(days(found, "spans")) == 1
    assert sum(read.rows for name, read in found.items() if name.startswith(("spans_", "scores_"))) <= 100
    assert not {name for name in whole(found) if name.startswith(("spans_", "scores_"))}


def test_a_fold_reads_no_partition_from_end_to_end(counted: Connection) -> None:
    some = "(select span_id from flywheel.spans order by span_id limit 20) as chosen"
    counted.execute(f"select flywheel.record_label(span_id, 'short', true, 'ada') from {some}".encode())
    counted.execute("update flywheel.spans set node = 'other' where span_id in (select span_id from flywheel.labels)")
    found = reads(counted, "select flywheel._fold()")
    assert not {name for name in whole(found) if name.startswith(("spans_", "scores_"))}
    assert rows(counted, "select * from flywheel.verify_rollups(now() - interval '2 days')") == []
