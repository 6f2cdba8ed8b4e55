"""Days: made ahead, made late, dropped whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest

from tests.sql.support import Connection, accounts, activate, inline, insert, refused, rows, value, work_off

RELATIONS = ("spans", "scores", "run_log", "calls", "span_embeddings")
STANDINGS = "select flywheel._refresh_standings()"
LONG_AGO = datetime(2024, 5, 6, 12, tzinfo=UTC)


def partitions(connection: Connection) -> set[tuple[str, date]]:
    return {(relation, day) for relation, day in rows(connection, "select relation, day from flywheel._partitions")}


def home(connection: Connection, relation: str = "spans") -> list[str]:
    query = f"select distinct tableoid::regclass::text from flywheel.{relation} order by 1"
    return [name for (name,) in rows(connection, query)]


def test_each_day_is_made_once_for_all_that_is_cut_into_days(connection: Connection) -> None:
    assert value(connection, "select flywheel.ensure_partitions('2024-05-05', '2024-05-07')") == 3 * len(RELATIONS)
    assert value(connection, "select flywheel.ensure_partitions('2024-05-05', '2024-05-07')") == 0
    days = {date(2024, 5, day) for day in (5, 6, 7)}
    assert partitions(connection) >= {(name, day) for name in RELATIONS for day in days}


def test_days_ahead_are_made_from_yesterday_on(connection: Connection) -> None:
    connection.execute("select flywheel._maintain_partitions()")
    assert value(connection, "select flywheel._maintain_partitions()") == 0
    query = """select min(day) <= (now() at time zone 'UTC')::date - 1, max(day) = (now() at time zone 'UTC')::date + 7
                 from flywheel._partitions where relation = 'spans'"""
    assert rows(connection, query) == [(True, True)]
    insert(connection)
    assert home(connection) != ["flywheel.spans_default"]


def test_rows_of_a_day_without_partition_move_when_it_is_made(connection: Connection) -> None:
    inline(connection, "short")
    activate(connection, "short_too")
    span_id = insert(connection, started_at=LONG_AGO, ended_at=LONG_AGO, attributes='{"a": 1}')
    work_off(connection)
    before = rows(connection, "select * from flywheel.spans")
    assert home(connection) == ["flywheel.spans_default"]
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')")
    assert home(connection) == ["flywheel.spans_20240506"]
    assert home(connection, "scores") == ["flywheel.scores_20240506"]
    assert rows(connection, "select * from flywheel.spans") == before
    assert value(connection, "select count(*) from flywheel._ready") == 0
    assert accounts(connection, "short") == {"eligible": 1, "scored": 1}
    connection.execute("update flywheel.spans set output = 'new' where span_id = %s", [span_id])
    assert value(connection, "select revision from flywheel.spans") == 2


def test_a_job_queued_before_the_move_finds_its_span_after_it(connection: Connection) -> None:
    activate(connection, "short")
    insert(connection, started_at=LONG_AGO)
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')")
    assert work_off(connection) == 1


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/Los_Angeles", "Pacific/Kiritimati"])
@pytest.mark.parametrize("style", ["ISO, MDY", "SQL, DMY", "Postgres, MDY", "German"])
def test_days_are_utc_days_whatever_the_session_says(connection: Connection, zone: str, style: str) -> None:
    connection.execute("select set_config('timezone', %s, false), set_config('datestyle', %s, false)", [zone, style])
    connection.execute("select flywheel.ensure_partitions('2024-02-03'::date, '2024-02-04'::date)")
    for moment in ("2024-02-03 00:00:00+00", "2024-02-03 23:59:59.999999+00"):
        connection.execute("insert into flywheel.spans (started_at) values (%s::timestamptz)", [moment])
    assert home(connection) == ["flywheel.spans_20240203"]


def test_a_partition_has_the_defaults_and_rules_of_its_table(connection: Connection) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')")
    connection.execute("insert into flywheel.spans_20240506 (started_at, output) values (%s, 'a')", [LONG_AGO])
    row = rows(connection, "select span_id is not null, trace_id is not null, node, revision from flywheel.spans")
    assert row == [(True, True, "app", 1)]
    said = refused(
        connection, "insert into flywheel.spans_20240506 (started_at, node_kind) values (%s, '')", [LONG_AGO]
    )
    assert said.constraint_name == "span_node_kind_is_known"


def test_eleven_years_of_partitions_are_refused(connection: Connection) -> None:
    said = refused(connection, "select flywheel.ensure_partitions('2015-01-01', '2026-01-01')")
    assert said.sqlstate == "WF009"
    assert "2015-01-01 to 2026-01-01" in (said.message_primary or "")


def test_purge_drops_whole_days_and_keeps_the_day_it_names(connection: Connection) -> None:
    inline(connection, "short")
    connection.execute("select flywheel.ensure_partitions('2024-05-05', '2024-05-07')")
    for day in (5, 6, 7):
        insert(connection, started_at=datetime(2024, 5, day, 12, tzinfo=UTC))
    dropped = rows(connection, "select relation, day from flywheel.purge('2024-05-06 18:00+00')")
    assert sorted(dropped) == [(name, date(2024, 5, 5)) for name in sorted(RELATIONS)]
    assert value(connection, "select count(*) from flywheel.spans") == 2
    assert value(connection, "select count(*) from flywheel.scores") == 2


def test_purge_clears_the_default_partition_and_feedback_to_the_instant(connection: Connection) -> None:
    inline(connection, "short")
    for hour in (11, 13):
        moment = datetime(2024, 5, 6, hour, tzinfo=UTC)
        span_id = insert(connection, started_at=moment)
        connection.execute(
            "insert into flywheel.feedback (span_id, kind, created_at) values (%s, 'thumb', %s)", [span_id, moment]
        )
    assert rows(connection, "select * from flywheel.purge(%s)", [LONG_AGO]) == []
    for relation in ("spans", "scores", "feedback"):
        assert value(connection, f"select count(*) from flywheel.{relation}") == 1


def test_purge_with_jobs_queued_leaves_jobs_that_end_with_no_score(connection: Connection) -> None:
    activate(connection, "short")
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')")
    insert(connection, started_at=LONG_AGO)
    insert(connection)
    connection.execute("select flywheel.purge('2024-06-01 00:00+00')")
    assert work_off(connection) == 1
    assert accounts(connection, "short") == {"eligible": 1, "scored": 1}
    assert value(connection, "select count(*) from flywheel._running") == 0


def test_a_writer_and_the_maker_of_its_day_do_not_block_each_other_for_ever(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    """The writer holds the default partition of spans and then needs the one of scores: both must take them so."""
    inline(connection, "short", filter={"node": "judged"})
    maker = connect()
    with connection.transaction():
        insert(connection, started_at=LONG_AGO, node="other")
        making = threading.Thread(
            target=maker.execute, args=("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')",)
        )
        making.start()
        _wait_for_lock(connection)
        insert(connection, started_at=LONG_AGO, node="judged")
    making.join()
    assert home(connection) == ["flywheel.spans_20240506"]
    assert home(connection, "scores") == ["flywheel.scores_20240506"]


def test_a_writer_and_a_purge_do_not_block_each_other_for_ever(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    insert(connection)
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')")
    inline(connection, "short")
    keeper = connect()
    with connection.transaction():
        connection.execute("update flywheel.spans set user_id = 'me'")
        purging = threading.Thread(target=keeper.execute, args=("select flywheel.purge('2024-06-01 00:00+00')",))
        purging.start()
        _wait_for_lock(connection)
        insert(connection)
    purging.join()
    assert value(connection, "select count(*) from flywheel.scores") == 1


@pytest.mark.parametrize(
    "reading",
    [
        "select * from flywheel.current_scores",
        "select * from flywheel_bi.scores",
        "select * from flywheel.accounts",
        "select flywheel.reconcile('2024-05-06', now())",
        "select flywheel.plan_backfill('short', '2024-05-06')",
        "select flywheel.advance_backfill((select backfill_id from flywheel._backfills))",
        "select flywheel._lock_fences(gen_random_uuid(), '{}')",
    ],
)
def test_whoever_reads_spans_and_scores_waits_for_spans_first(
    connection: Connection, connect: Callable[[], Connection], reading: str
) -> None:
    """A purge, or the maker of a day, holds spans and then takes scores: it would wait for ever for such a reader."""
    activate(connection, "short")
    insert(connection)
    connection.execute("select flywheel.start_backfill('short', now() - interval '1 day')")
    reader = connect()
    with connection.transaction():
        connection.execute("lock table only flywheel.spans, only flywheel.spans_default in access exclusive mode")
        thread = threading.Thread(target=reader.execute, args=(reading.encode(),))
        thread.start()
        _wait_for_lock(connection)
        connection.execute("lock table only flywheel.scores in access exclusive mode nowait")
        connection.execute("lock table only flywheel.scores_default in access exclusive mode nowait")
    thread.join()


def test_a_backfill_holds_the_default_day_of_spans_before_that_of_scores(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    activate(connection, "short")
    insert(connection)
    backfill = value(connection, "select flywheel.start_backfill('short', now() - interval '1 day')")
    reader = connect()
    with connection.transaction():
        connection.execute("lock table only flywheel.spans_default in access exclusive mode")
        thread = threading.Thread(target=reader.execute, args=(b"select flywheel.advance_backfill(%s)", [backfill]))
        thread.start()
        _wait_for_lock(connection)
        connection.execute("lock table only flywheel.scores_default in access exclusive mode nowait")
    thread.join()


@pytest.mark.parametrize("read", ["table flywheel.alignment", "table flywheel.judge_disagreements", STANDINGS])
def test_readers_of_alignment_lock_spans_before_scores_as_purge_does(
    connection: Connection, connect: Callable[[], Connection], read: str
) -> None:
    reader = connect()
    with connection.transaction():
        connection.execute("lock table only flywheel.spans in access exclusive mode")
        thread = threading.Thread(target=reader.execute, args=(read.encode(),))
        thread.start()
        _wait_for_lock(connection)
        connection.execute("lock table only flywheel.scores in access exclusive mode nowait")
    thread.join()


def test_a_purge_never_makes_a_statement_that_reads_scores_before_spans_the_victim_of_a_deadlock(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')")
    activate(connection, "short")
    keeper, user = connect(), connect()
    keeper.execute("set deadlock_timeout = '1min'")  # else purge might find the deadlock first
    with user.transaction():
        user.execute("lock table flywheel.scores in row exclusive mode")
        purging = threading.Thread(target=keeper.execute, args=(b"select flywheel.purge('2024-06-01 00:00+00')",))
        purging.start()
        _wait_for_lock(connection)
        for _ in range(5):
            user.execute("insert into flywheel.spans (input, output) values ('q', 'a')")
            user.execute(
                """insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
                   select span_id, revision, version_id, started_at, trace_id, project, true
                     from flywheel.spans cross join flywheel.validator_versions on conflict do nothing"""
            )
    purging.join()
    assert value(connection, "select count(*) from flywheel.scores") == 5
    assert value(connection, "select to_regclass('flywheel.scores_20240506')") is None


def test_a_purge_that_gets_no_lock_says_what_to_do_and_drops_nothing(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-06')")
    connection.execute("update flywheel.settings set value = '1' where name = 'purge_wait_seconds'")
    user = connect()
    with user.transaction():
        user.execute("select count(*) from flywheel.scores")
        said = refused(connection, "select flywheel.purge('2024-06-01 00:00+00')")
        assert said.sqlstate == "55P03"
        assert said.message_primary == "the days cannot be dropped while spans or scores are in use"
        assert "pg_stat_activity" in (said.message_hint or "")
        connection.execute("insert into flywheel.spans (input, output) values ('q', 'a')")
    assert value(connection, "select to_regclass('flywheel.spans_20240506') is not null")
    assert value(connection, "show lock_timeout") == "0"


def test_a_purge_takes_dead_jobs_of_its_days_along(connection: Connection) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-06', '2024-05-07')")
    for day in ("2024-05-06", "2024-05-07"):
        activate(connection, f"asked_{day[-1]}", kind="python", callable="a:b", lane="judge")
        insert(connection, started_at=f"{day} 12:00+00")
    connection.execute(
        """insert into flywheel._dead (lane, priority, job_id, version_ids, span_ids, started_from, started_until,
                                       attempt, origin, reason)
           select lane, priority, job_id, version_ids, span_ids, started_from, started_until, 5, origin, 'gone'
             from flywheel._ready"""
    )
    assert value(connection, "select count(*) from flywheel._dead") == 3
    connection.execute("select flywheel.purge('2024-05-07 18:00+00')")
    days = "select distinct started_from::date::text from flywheel._dead"
    assert rows(connection, days) == [("2024-05-07",)]


def test_two_purges_at_once_drop_each_day_once(connection: Connection, connect: Callable[[], Connection]) -> None:
    connection.execute("select flywheel.ensure_partitions('2024-05-01', '2024-05-03')")
    dropped: list[tuple[str, ...]] = []
    other = connect()
    purge = "select partition from flywheel.purge('2024-06-01 00:00+00')"
    with connection.transaction():
        first = rows(connection, purge)
        purging = threading.Thread(target=lambda: dropped.extend(rows(other, purge)))
        purging.start()
        _wait_for_lock(connection)
    purging.join()
    assert (len(first), dropped) == (3 * len(RELATIONS), [])


def _wait_for_lock(connection: Connection) -> None:
    """Return once another session waits for a lock."""
    here = "select oid from pg_database where datname = current_database()"
    while not value(connection, f"select count(*) from pg_locks where not granted and database = ({here})"):
        connection.execute("select pg_sleep(0.01)")
