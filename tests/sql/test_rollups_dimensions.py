"""Dimensions of one's own, and how many there may be."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

import pytest

from tests.sql.counting import CELLS, FOLD, PASSES, differences, rebuild_all, short
from tests.sql.support import (
    Connection,
    define,
    insert,
    refused,
    rows,
    value,
)

__all__ = ["short"]


SCORE_BY_ALL = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
select span_id, revision, version_id, started_at, trace_id, project, true
  from flywheel.validator_versions cross join flywheel.spans"""
PLANS = """
insert into flywheel.spans (output, attributes)
select 'yes', jsonb_build_object('tenant', jsonb_build_object('plan', n)) from generate_series(%s::int, %s::int) as n"""
PLANS_NAMED = """
select count(distinct attribute_1), (sum(n) filter (where attribute_1 = '(other)'))::integer
  from flywheel._span_counts where grain = 'day'"""


def test_two_hundred_versions_of_a_validator_are_counted_apart(connection: Connection) -> None:
    for number in range(200):
        define(connection, "asked", expression=f"length(span.output) < {number + 2}")
    span = insert(connection, "yes")
    connection.execute("select flywheel.record_label(%s, 'asked', true, 'ada')", [span])
    connection.execute(SCORE_BY_ALL)
    for _ in range(2):
        assert value(connection, PASSES) == 200
        assert value(connection, CELLS) == 200
        assert differences(connection) == []
        connection.execute(FOLD)


def test_of_ten_thousand_values_some_have_names_and_the_others_count_together(
    connection: Connection, short: uuid.UUID
) -> None:
    connection.execute("select flywheel.set_rollup_attributes('{tenant.plan}')")
    connection.execute("update flywheel.settings set value = '20' where name = 'rollup_attribute_values'")
    connection.execute(PLANS, [1, 15])
    connection.execute(FOLD)
    connection.execute(PLANS, [1, 10_000])
    assert differences(connection) == []
    connection.execute(FOLD)
    assert rows(connection, PLANS_NAMED) == [(21, 9980)]
    connection.execute("update flywheel.settings set value = '30' where name = 'rollup_attribute_values'")
    connection.execute(PLANS, [1, 30])
    assert differences(connection) == []
    connection.execute(FOLD)
    assert differences(connection) == []


@pytest.mark.parametrize("path", ["tenant plan", "a'b", "a.", "", "a..b", "}", 'a"', "x" * 201, "a\nb", "ä"])
def test_a_dimension_that_is_no_path_is_refused(connection: Connection, path: str) -> None:
    said = refused(connection, "select flywheel.set_rollup_attributes(%s)", [[path]])
    assert said.sqlstate == "WF009"
    assert (said.message_primary or "").startswith("own dimension")


def test_four_dimensions_are_refused_and_none_is_all_of_none(connection: Connection) -> None:
    assert refused(connection, "select flywheel.set_rollup_attributes('{a,b,c,d}')").sqlstate == "WF009"
    assert refused(connection, "select flywheel.set_rollup_attributes(array[null])").sqlstate == "WF009"
    for wrong, problem in (
        ("{{a,b}}", "own dimensions are lists of lists"),
        ("{a,null}", "own dimension null is no path"),
    ):
        said = refused(connection, "select flywheel.set_rollup_attributes(%s::text[])", [wrong])
        assert (said.sqlstate, (said.message_primary or "").startswith(problem)) == ("WF009", True)
    connection.execute("select flywheel.set_rollup_attributes(null)")
    assert value(connection, "select attributes from flywheel.rollup_status") == ""


def test_who_writes_with_former_dimensions_is_let_through_first(
    connection: Connection, connect: Callable[[], Connection], short: uuid.UUID
) -> None:
    writer, admin = connect(), connect()
    with writer.transaction():
        insert(writer, "yes", model="small")
        setting = threading.Thread(target=admin.execute, args=["select flywheel.set_rollup_attributes('{model}')"])
        setting.start()
        query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%set_rollup%'"
        while not value(connection, query):
            time.sleep(0.01)
    setting.join()
    rebuild_all(connection)
    insert(writer, "yes", model="large")
    assert differences(connection) == []
    found = rows(connection, "select attribute_1 from flywheel._span_counts where grain = 'day' order by 1")
    assert found == [("large",), ("small",)]


def test_own_dimensions_outlive_an_upgrade(dsn: str, connection: Connection) -> None:
    from pgflywheel.db import schema

    connection.execute("select flywheel.set_rollup_attributes('{model}')")
    schema.upgrade(dsn, reapply=True)
    insert(connection, model="small")
    assert value(connection, "select attribute_1 from flywheel._span_counts where grain = 'day'") == "small"
