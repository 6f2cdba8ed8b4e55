"""Every way an application may write: insert, COPY, SQLAlchemy, a view, updates, replays, feedback."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy
from psycopg.types.json import Jsonb
from sqlalchemy.dialects.postgresql import insert as upsert

from pgflywheel.db import tables
from tests.sql.acting import acting
from tests.sql.support import Connection, activate, inline, insert, insert_many, refused, rows, scores, value, work_off

ENGINE_URL = "postgresql+psycopg://"


@pytest.fixture
def engine(connection: Connection) -> sqlalchemy.Engine:
    pool = sqlalchemy.pool.StaticPool
    return sqlalchemy.create_engine(
        ENGINE_URL, creator=lambda: connection, poolclass=pool, isolation_level="AUTOCOMMIT"
    )


def test_input_and_output_alone_are_enough(connection: Connection) -> None:
    connection.execute("insert into flywheel.spans (input, output) values ('q', 'a')")
    row = rows(
        connection,
        """select project, environment, node, node_kind, status, revision, attributes, latency_ms, cost_usd,
                  parent_span_id, tableoid::regclass::text <> 'flywheel.spans_default' from flywheel.spans""",
    )[0]
    assert row[:7] == ("default", "production", "app", "app", "ok", 1, {})
    assert row[7:10] == (None, None, None)


def test_an_empty_insert_of_defaults_is_a_span(connection: Connection) -> None:
    connection.execute("insert into flywheel.spans default values")
    assert value(connection, "select count(*) from flywheel.spans where input is null and output is null") == 1


def test_ids_are_uuids_of_version_7_in_order_of_time(connection: Connection) -> None:
    first = value(connection, "select flywheel.new_id()")
    connection.execute("select pg_sleep(0.002)")
    second = value(connection, "select flywheel.new_id()")
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first < second
    made_at = value(connection, "select flywheel._id_time(%s)", [first])
    assert abs(made_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_many_ids_of_one_statement_differ(connection: Connection) -> None:
    query = "select count(distinct flywheel.new_id()) from generate_series(1, 20000)"
    assert value(connection, query) == 20_000


def test_a_multi_row_insert_is_one_job(connection: Connection) -> None:
    activate(connection, "short")
    insert_many(connection, 50)
    assert rows(connection, "select cardinality(span_ids) from flywheel._ready") == [(50,)]


def test_copy_is_judged_like_an_insert(connection: Connection) -> None:
    inline(connection, "short")
    activate(connection, "short_too")
    with connection.cursor().copy("copy flywheel.spans (input, output, node) from stdin") as copy:
        for place in range(1_500):
            copy.write_row(("question", "a" * (place % 20), f"node {place % 3}"))
    assert work_off(connection) == 1_500
    query = (
        "select validator, count(*), count(*) filter (where passed) from flywheel.current_scores group by 1 order by 1"
    )
    assert rows(connection, query) == [("short", 1_500, 750), ("short_too", 1_500, 750)]


def test_sqlalchemy_core_inserts_one_and_many(connection: Connection, engine: sqlalchemy.Engine) -> None:
    inline(connection, "short")
    with engine.connect() as session:
        session.execute(tables.spans.insert().values(input="q", output="a", attributes={"k": [1]}))
        session.execute(tables.spans.insert(), [{"input": "q", "output": "b" * 50, "documents": None}] * 20)
        found = session.execute(sqlalchemy.select(tables.scores.c.passed, sqlalchemy.func.count()).group_by("passed"))
        assert dict(found.all()) == {True: 1, False: 20}


def test_sqlalchemy_inserts_as_a_login_that_may_only_insert(connection: Connection, engine: sqlalchemy.Engine) -> None:
    with acting(connection, "flywheel_writer"), engine.connect() as session:
        session.execute(tables.spans.insert().values(input="q", output="a"))
        session.execute(tables.feedback.insert().values(trace_id=uuid.uuid4(), kind="thumb", value=1))
    assert value(connection, "select count(*) from flywheel.spans") == 1
    assert value(connection, "select count(*) from flywheel.feedback") == 1


def test_sqlalchemy_returning_gives_ids_and_times(engine: sqlalchemy.Engine) -> None:
    with engine.connect() as session:
        statement = (
            tables.spans.insert().values(output="a").returning(tables.spans.c.span_id, tables.spans.c.started_at)
        )
        span_id, started_at = session.execute(statement).one()
    assert span_id.version == 7
    assert started_at.tzinfo is not None


def test_an_upsert_makes_a_new_revision_of_what_was_there(connection: Connection, engine: sqlalchemy.Engine) -> None:
    inline(connection, "short")
    started_at, known = datetime.now(UTC), uuid.uuid4()
    insert(connection, "old and long enough", span_id=known, started_at=started_at)
    fresh = [{"span_id": key, "started_at": started_at, "output": "new"} for key in (known, uuid.uuid4())]
    statement = upsert(tables.spans).values(fresh)
    statement = statement.on_conflict_do_update(
        index_elements=["span_id", "started_at"], set_={"output": statement.excluded.output}
    )
    with engine.connect() as session:
        session.execute(statement)
    assert scores(connection) == [("short", True, None)] * 2
    assert rows(connection, "select revision, passed from flywheel.scores where span_id = %s order by 1", [known]) == [
        (1, False),
        (2, True),
    ]


def test_the_traces_view_takes_inserts_and_shows_roots_only(connection: Connection) -> None:
    inline(connection, "short")
    connection.execute("insert into flywheel.traces (input, output) values ('q', 'a'), ('q', 'b')")
    root, trace = rows(connection, "select span_id, trace_id from flywheel.traces limit 1")[0]
    insert(connection, trace_id=trace, parent_span_id=root)
    assert value(connection, "select count(*) from flywheel.traces") == 2
    assert value(connection, "select count(*) from flywheel.spans") == 3
    assert len(scores(connection)) == 3


def test_children_may_arrive_before_their_parent(connection: Connection) -> None:
    trace, root = uuid.uuid4(), uuid.uuid4()
    insert(connection, trace_id=trace, parent_span_id=root, cost_usd=0.25, input_tokens=7)
    query = "select spans, has_root, cost_usd, input_tokens, output_tokens from flywheel.trace_summary"
    assert rows(connection, query) == [(1, False, 0.25, 7, None)]
    insert(connection, span_id=root, trace_id=trace)
    assert rows(connection, query) == [(2, True, 0.25, 7, None)]


def test_a_replay_with_the_same_ids_changes_nothing(connection: Connection) -> None:
    inline(connection, "short")
    activate(connection, "short_too")
    started_at, span_id = datetime.now(UTC), uuid.uuid4()
    replay = """insert into flywheel.spans (span_id, started_at, output) values (%s, %s, %s) on conflict do nothing"""
    for output in ("first", "second", "third"):
        connection.execute(replay, [span_id, started_at, output])
    assert rows(connection, "select output, revision from flywheel.spans") == [("first", 1)]
    assert value(connection, "select count(*) from flywheel.scores") == 1
    assert value(connection, "select count(*) from flywheel._ready") == 1


@pytest.mark.parametrize("change", ["input = 'x'", "output = 'x'", "output = null", """documents = '[{"id": "1"}]'"""])
def test_an_update_of_what_validators_read_is_a_new_revision(connection: Connection, change: str) -> None:
    activate(connection, "any", target="span", expression="span.input <> ''")
    insert(connection)
    work_off(connection)
    connection.execute(f"update flywheel.spans set {change}".encode())
    assert value(connection, "select revision from flywheel.spans") == 2
    assert value(connection, "select count(*) from flywheel.current_scores") == 0
    assert work_off(connection) == 1
    assert rows(connection, "select revision from flywheel.current_scores") == [(2,)]
    assert value(connection, "select count(*) from flywheel.score_history") == 2


@pytest.mark.parametrize(
    "change",
    [
        "output = output",
        "cost_usd = 1",
        "ended_at = now()",
        "status = 'error', error = 'x'",
        "attributes = '{\"a\": 1}'",
        "messages = '[]'",
        "revision = 7",
    ],
)
def test_an_update_of_anything_else_is_none(connection: Connection, change: str) -> None:
    activate(connection, "any", target="span", expression="span.input <> ''")
    insert(connection)
    work_off(connection)
    connection.execute(f"update flywheel.spans set {change}".encode())
    assert value(connection, "select revision from flywheel.spans") == 1
    assert value(connection, "select count(*) from flywheel._ready") == 0
    assert len(scores(connection)) == 1


def test_an_update_of_2000_spans_judges_each_once_more(connection: Connection) -> None:
    inline(connection, "short")
    activate(connection, "short_too")
    insert_many(connection, 2_000)
    work_off(connection)
    connection.execute("update flywheel.spans set output = 'better'")
    assert rows(connection, "select cardinality(span_ids) from flywheel._ready") == [(1_000,), (1_000,)]
    work_off(connection)
    query = "select validator, revision, count(*) from flywheel.score_history group by 1, 2 order by 1, 2"
    assert rows(connection, query) == [
        ("short", 1, 2_000),
        ("short", 2, 2_000),
        ("short_too", 1, 2_000),
        ("short_too", 2, 2_000),
    ]
    assert scores(connection) == [("short", True, None)] * 2_000 + [("short_too", True, None)] * 2_000


def test_an_update_that_matches_nothing_is_fine(connection: Connection) -> None:
    inline(connection, "short")
    activate(connection, "short_too")
    connection.execute("update flywheel.spans set output = 'x' where false")
    connection.execute("insert into flywheel.spans (output) select 'x' where false")
    assert value(connection, "select count(*) from flywheel._ready") == 0


@pytest.mark.parametrize("change", ["span_id = flywheel.new_id()", "started_at = started_at + interval '1 day'"])
def test_the_identity_of_a_span_cannot_be_changed(connection: Connection, change: str) -> None:
    span_id = insert(connection)
    said = refused(connection, f"update flywheel.spans set {change}")
    assert said.sqlstate == "WF006"
    assert said.message_primary == f"span_id and started_at of span {span_id} cannot be changed"
    assert said.message_hint


def test_a_started_at_of_another_zone_is_the_same_instant(connection: Connection) -> None:
    connection.execute("set timezone = 'Asia/Kolkata'")
    connection.execute("select flywheel.ensure_partitions('2026-02-01', '2026-02-02')")
    insert(connection, started_at="2026-02-02 03:00:00")
    assert value(connection, "select tableoid::regclass::text from flywheel.spans") == "flywheel.spans_20260201"
    assert value(connection, "select started_at from flywheel.spans") == datetime(2026, 2, 1, 21, 30, tzinfo=UTC)


def test_latency_is_generated_in_milliseconds(connection: Connection) -> None:
    connection.execute("insert into flywheel.spans (started_at, ended_at) values (now(), now() + interval '1.5 s')")
    assert value(connection, "select latency_ms from flywheel.spans") == 1500


@pytest.mark.parametrize("ended_at", ["2024-04-30 23:59:59+00", "infinity", None])
def test_a_latency_that_clocks_cannot_mean_is_unknown(connection: Connection, ended_at: str | None) -> None:
    connection.execute(
        "insert into flywheel.spans (started_at, ended_at) values ('2024-05-01 00:00+00', %s)", [ended_at]
    )
    assert value(connection, "select latency_ms from flywheel.spans") is None


def test_a_revision_leaves_room_for_the_next(connection: Connection) -> None:
    said = refused(connection, "insert into flywheel.spans (revision) values (2147483647)")
    assert said.constraint_name == "span_revision_is_a_count"


@pytest.mark.parametrize(
    ("column", "given", "rule"),
    [
        ("node_kind", "robot", "span_node_kind_is_known"),
        ("status", "fine", "span_status_is_known"),
        ("input_tokens", -1, "span_tokens_are_not_negative"),
        ("cost_usd", -0.01, "span_cost_is_not_negative"),
        ("revision", 0, "span_revision_is_a_count"),
    ],
)
def test_a_value_no_span_has_is_refused_by_a_named_rule(
    connection: Connection, column: str, given: object, rule: str
) -> None:
    said = refused(connection, f"insert into flywheel.spans ({column}) values (%s)", [given])
    assert (said.sqlstate, said.constraint_name) == ("23514", rule)


def test_feedback_is_kept_for_a_span_or_a_trace(connection: Connection) -> None:
    span_id = insert(connection)
    connection.execute("insert into flywheel.feedback (span_id, kind, value) values (%s, 'thumb', 1)", [span_id])
    connection.execute(
        "insert into flywheel.feedback (trace_id, kind, comment, attributes) values (%s, 'correction', 'no', %s)",
        [uuid.uuid4(), Jsonb({"by": "us"})],
    )
    assert rows(connection, "select kind, value, comment from flywheel.feedback order by kind") == [
        ("correction", None, "no"),
        ("thumb", 1.0, None),
    ]


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ("(kind) values ('thumb')", "feedback_names_a_trace_or_span"),
        ("(span_id, kind) values (gen_random_uuid(), '')", "feedback_kind_is_named"),
    ],
)
def test_feedback_about_nothing_is_refused(connection: Connection, columns: str, rule: str) -> None:
    assert refused(connection, f"insert into flywheel.feedback {columns}").constraint_name == rule


def test_a_transaction_that_rolls_back_leaves_no_job_and_no_score(connection: Connection) -> None:
    inline(connection, "short")
    activate(connection, "short_too")
    with connection.transaction(force_rollback=True):
        insert_many(connection, 10)
        assert value(connection, "select count(*) from flywheel.scores") == 10
    counts = "select (select count(*) from flywheel.scores), (select count(*) from flywheel._ready)"
    assert rows(connection, counts) == [(0, 0)]


def test_deleting_a_span_leaves_its_job_harmless(connection: Connection) -> None:
    activate(connection, "short")
    span_id = insert(connection)
    insert(connection)
    connection.execute("delete from flywheel.spans where span_id = %s", [span_id])
    assert work_off(connection) == 1
    assert value(connection, "select count(*) from flywheel._running") == 0
