"""Chores and those who change what they go by, at the same moment."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.sql import clustering, drifting, exampling
from tests.sql.alerting import NOW, channel, opened, rule
from tests.sql.blocking import meanwhile
from tests.sql.counting import differences, rebuild_all, short
from tests.sql.paying import judge, provider
from tests.sql.support import Connection, inline, insert, insert_past_triggers, rows, value

__all__ = ["short"]
Connect = Callable[[], Connection]
REBUILD = "select flywheel.rebuild_rollups()"
EVALUATE = "select flywheel._evaluate_alerts(%s)"
DROP = "select flywheel.drop_alert_channel('team')"
TEST = "select flywheel.test_alert_channel('team')"
CLAIM = "select delivery_id from flywheel._claim_deliveries(60)"
CHOOSE = "select flywheel.choose_sentinels('polite', 4)"
DEAD = """
insert into flywheel._dead (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt,
                            origin, reason)
values ('bulk', 1, gen_random_uuid(), array[gen_random_uuid()], array[gen_random_uuid()], now(), now(), 3,
        'live', 'raised')"""


def test_days_asked_for_while_they_are_counted_anew_are_counted_again(
    connection: Connection, connect: Connect, short: uuid.UUID
) -> None:
    insert(connection)
    connection.execute(REBUILD)
    other, worker, asking = connect(), connect(), connect()
    other.execute("begin")
    other.execute("lock table flywheel._label_changes in share mode")  # spans and scores are counted before
    with meanwhile(connection, worker, "select flywheel._rebuild_asked()"):
        insert_past_triggers(connection, 3)
        with meanwhile(connection, asking, REBUILD) as asked:
            other.execute("commit")
    assert asked.result() == [(1,)]
    rebuild_all(connection)
    assert differences(connection) == []


def test_an_embedder_is_served_while_another_is_changed(connection: Connection, connect: Connect) -> None:
    connection.execute("select flywheel.add_embedder('second', 'hashing', parameters => '{\"switch\": true}')")
    other, admin, worker = connect(), connect(), connect()
    other.execute("begin")
    other.execute("select from flywheel.embedders where name = 'second' for share")
    with (
        meanwhile(connection, worker, "select flywheel._queue_embeddings()"),
        meanwhile(connection, admin, "select flywheel.sample_embedder('hashing', 10)") as sampled,
    ):
        other.execute("commit")
    assert sampled.exception() is None
    assert value(connection, "select name from flywheel.embedders where status = 'serving'") == "second"


def test_a_rule_changed_while_others_are_looked_at_is_looked_at_as_it_is(
    connection: Connection, connect: Connect
) -> None:
    connection.execute(DEAD)
    for number in range(12):
        rule(connection, f"rule{number:02}", metric="dead_spans", threshold=1 if number == 11 else 1000)
    other, worker = connect(), connect()
    other.execute("begin")
    other.execute("lock table flywheel._alert_states in share mode")
    with meanwhile(connection, worker, EVALUATE, [NOW]):
        assert rule(connection, "rule11", metric="dead_spans", threshold=1000)
        other.execute("commit")
    assert opened(connection) == []


def test_a_channel_dropped_while_a_rule_names_it_stays(connection: Connection, connect: Connect) -> None:
    channel(connection)
    naming, dropping = connect(), connect()
    naming.execute("begin")
    rule(naming, "dead", metric="dead_spans", channels=["team"])
    with meanwhile(connection, dropping, DROP) as dropped:
        naming.execute("commit")
    assert "channel team is named by rules" in str(dropped.exception())
    assert value(connection, "select channel from flywheel.alert_channels") == "team"


def test_a_rule_cannot_name_a_channel_that_is_being_dropped(connection: Connection, connect: Connect) -> None:
    channel(connection)
    naming, dropping = connect(), connect()
    dropping.execute("begin")
    dropping.execute(DROP)
    query = """select flywheel.set_alert_rule('dead', '{"metric": "dead_spans", "channels": ["team"]}')"""
    with meanwhile(connection, naming, query) as named:
        dropping.execute("commit")
    assert "channels holds" in str(named.exception())


def test_a_channel_gets_one_message_at_a_time(connection: Connection, connect: Connect) -> None:
    channel(connection)
    channel(connection, "others")
    for name in ("team", "team", "others"):
        connection.execute("select flywheel.test_alert_channel(%s)", [name])
    one, two = connect(), connect()
    one.execute("begin")
    assert len(rows(one, CLAIM)) == 2
    with meanwhile(connection, two, CLAIM) as claimed:
        one.execute("commit")
    assert claimed.result() == []
    assert rows(two, CLAIM) == []


@pytest.fixture
def sampled(connection: Connection) -> None:
    """Let every trace be of the sample."""
    connection.execute("update flywheel.embedders set span_permille = 1000")


def test_a_vector_written_while_the_former_is_placed_is_placed_next(
    connection: Connection, connect: Connect, sampled: None
) -> None:
    span = clustering.ask(connection, [1, 0])
    started_at = value(connection, "select started_at from flywheel.spans")
    writing = connect()
    writing.execute("begin")
    clustering.embed(writing, span, started_at, [0, 1])
    clustering.assign(connection)
    writing.execute("commit")
    clustering.assign(connection)
    query = """select members.embedding = vectors.embedding from flywheel._cluster_members as members
                 join flywheel.span_embeddings as vectors using (span_id, started_at, embedder_id, part)"""
    assert rows(connection, query) == [(True,)]


def test_an_embedder_serves_until_what_was_taken_of_it_is_placed(
    connection: Connection, connect: Connect, sampled: None
) -> None:
    connection.execute("select flywheel.add_embedder('second', 'hashing')")
    clustering.ask(connection, [1, 0])
    other, worker, admin = connect(), connect(), connect()
    other.execute("begin")
    other.execute("lock table flywheel._cluster_members in share mode")
    with (
        meanwhile(connection, worker, "select flywheel._assign_clusters()") as assigned,
        meanwhile(connection, admin, "select flywheel.serve_embedder('second')"),
    ):
        other.execute("commit")
    assert assigned.result() == [(1,)]
    assert value(connection, "select count(*) from flywheel._cluster_members") == 1


def test_no_monitor_of_former_slices_is_left(connection: Connection, connect: Connect) -> None:
    inline(connection, "short")
    drifting.judged(connection, datetime.now(UTC), [True, False])
    worker, admin = connect(), connect()
    worker.execute("begin")
    assert drifting.advance(worker) > 0
    with meanwhile(connection, admin, "select flywheel.watch_by('{node}')"):
        worker.execute("commit")
    assert value(connection, "select count(*) from flywheel._monitors where node is null") == 0


def test_two_who_choose_sentinels_choose_the_same(connection: Connection, connect: Connect) -> None:
    provider(connection)
    judge(connection)
    for number in range(8):
        exampling.label(connection, exampling.span(connection, "dev", number), number % 2 == 0)
    one, two = connect(), connect()
    one.execute("begin")
    assert value(one, CHOOSE) == 4
    with meanwhile(connection, two, CHOOSE) as chosen:
        one.execute("commit")
    assert chosen.result() == [(4,)]
