"""What BI tools are promised: flat views with comments, no content unless granted, a login with a time limit."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.sql.support import Connection, inline, insert, refused, rows, value

FLAT_TYPES = (
    "text",
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "double precision",
    "timestamp with time zone",
    "date",
)
COLUMNS = """
select relname::text, attname::text, format_type(atttypid, atttypmod), attnum::integer,
       col_description(attrelid, attnum)
  from pg_class join pg_attribute on attrelid = pg_class.oid
 where relnamespace = 'flywheel_bi'::regnamespace and relkind in ('v', 'm', 'r', 'p', 'f') and attnum > 0
 order by relname, attnum"""
CONTENT = "select view.name from (select unnest(flywheel._content_columns())) as view(name)"


@pytest.fixture
def login(connection: Connection) -> Iterator[str]:
    """A new login's name, which is its password too; it is dropped with the test."""
    name = f"analyst_{uuid.uuid4().hex[:12]}"
    connection.execute(f"create role {name} login password '{name}'".encode())
    yield name
    connection.execute(f"drop owned by {name}; drop role {name}".encode())


def test_every_view_begins_with_a_time_and_has_columns_any_tool_can_read(connection: Connection) -> None:
    found = rows(connection, COLUMNS)
    assert len({view for view, *_ in found}) > 35
    assert {(view, name, kind) for view, name, kind, place, _ in found if place == 1} == {
        (view, "time", "timestamp with time zone") for view, *_ in found
    }
    assert [(view, name, kind) for view, name, kind, *_ in found if kind not in FLAT_TYPES] == []
    assert [(view, name) for view, name, *_, comment in found if not comment] == []


def test_ids_are_text_and_rates_are_double_precision(connection: Connection) -> None:
    found = rows(connection, COLUMNS)
    ids = {(view, name): kind for view, name, kind, *_ in found if name.endswith("_id")}
    rates = {
        (view, name): kind for view, name, kind, *_ in found if name.endswith(("_rate", "_share", "_low", "_high"))
    }
    assert set(ids.values()) == {"text"}
    assert set(rates.values()) == {"double precision"}


def test_every_rate_with_an_interval_has_both_ends_and_n(connection: Connection) -> None:
    views: dict[str, set[str]] = {}
    for view, name, *_ in rows(connection, COLUMNS):
        views.setdefault(view, set()).add(name)
    counts = {"n", "labels", "requests", "spans", "thumbs", "turns", "judged", "n_pass", "baseline_n", "answers"}
    for view, names in views.items():
        ends = {name.removesuffix("_low") for name in names if name.endswith("_low")}
        assert ends == {name.removesuffix("_high") for name in names if name.endswith("_high")}, view
        assert not ends or names & counts, view


def test_every_public_view_has_a_flat_one_that_is_a_plain_view(connection: Connection) -> None:
    public = """select relname::text from pg_class where relnamespace = 'flywheel'::regnamespace
                  and relkind in ('v', 'm') and relname !~ '^_'"""
    flat = "select relname::text, relkind::text from pg_class where relnamespace = 'flywheel_bi'::regnamespace"
    kinds = dict(rows(connection, flat))
    renamed = {"current_scores": "scores"}
    assert {renamed.get(name, name) for (name,) in rows(connection, public)} - kinds.keys() == set()
    assert {kind for kind in kinds.values() if kind != "i"} == {"v"}


def test_a_flat_view_has_every_column_but_content_and_what_no_tool_reads(connection: Connection) -> None:
    query = """select relname::text, array_agg(attname::text) from pg_class join pg_attribute on attrelid = pg_class.oid
                where relnamespace = %s::regnamespace and relkind in ('v', 'r', 'p') and attnum > 0 and not attisdropped
                group by relname"""
    sources, flats = dict(rows(connection, query, ["flywheel"])), dict(rows(connection, query, ["flywheel_bi"]))
    content = {name for (name,) in rows(connection, CONTENT)}
    lacking = {
        (view, name)
        for view, names in flats.items()
        if view in sources and view not in ("spans", "scores")
        for name in {*sources[view]} - {*names} - content
    }
    unreadable = {("judge_calibration", "parameters"), ("validator_status", "definition"), ("calls", "shots")}
    times = {name for _, name in lacking if name.endswith("_at") or name == "started_on"}
    assert {pair for pair in lacking - unreadable if pair[1] not in times} <= {("alerts", "slice")}
    shown = {
        (view, name) for view, names in flats.items() if not view.startswith("content_") for name in {*names} & content
    }
    assert shown == {("rollup_status", "attributes")}  # names of dimensions, no content


def test_content_is_read_by_admins_and_by_whom_it_is_granted(connection: Connection, login: str) -> None:
    insert(connection, "a secret", error="it said secret")
    connection.execute(f"grant flywheel_analyst to {login}".encode())
    reads = [f"select {name} from flywheel.traces" for name in ("input", "output", "messages", "error", "attributes")]
    reads += [
        f"select * from flywheel_bi.content_{name}" for name in ("spans", "scores", "labels", "fixes", "feedback")
    ]
    reads += [
        f"select {name} from flywheel.{view}"
        for view, name in rows(
            connection,
            f"""select relname::text, attname::text from pg_class join pg_attribute on attrelid = pg_class.oid
                 where relnamespace = 'flywheel'::regnamespace and relkind = 'v' and attname in ({CONTENT})
                   and attnum > 0 and relname !~ '^_' and relname <> 'rollup_status'""",
        )
    ]
    connection.execute(f"set role {login}".encode())
    for read in reads:
        assert refused(connection, read).sqlstate == "42501", read
    assert rows(connection, "select project, node, status from flywheel.traces") == [("default", "app", "ok")]
    connection.execute("reset role")
    connection.execute(f"grant select on flywheel_bi.content_spans to {login}; set role {login}".encode())
    assert rows(connection, "select output, error from flywheel_bi.content_spans") == [("a secret", "it said secret")]
    connection.execute("reset role; set role flywheel_admin")
    assert rows(connection, "select output from flywheel_bi.content_spans") == [("a secret",)]
    connection.execute("reset role")


def test_no_function_gives_an_analyst_content(connection: Connection) -> None:
    """why() and what it calls leave out quotations for whoever may not read them. dawid_skene() returns what it got."""
    query = f"""select proname::text from pg_proc
                 where pronamespace = 'flywheel'::regnamespace
                   and has_function_privilege('flywheel_analyst', oid, 'execute')
                   and exists (select from unnest(proargnames, proargmodes) as argument(name, mode)
                                where argument.mode in ('o', 'b', 't') and argument.name in ({CONTENT}))"""
    assert {name for (name,) in rows(connection, query)} == {"why", "_explain_span_briefly", "dawid_skene"}


def test_a_member_of_the_role_that_logs_in_is_read_only_and_limited(
    connection: Connection, dsn: str, login: str
) -> None:
    connection.execute("select flywheel.make_analyst(%s, interval '200 milliseconds')", [login])
    with psycopg.connect(make_conninfo(dsn, user=login, password=login), autocommit=True) as session:
        assert value(session, "show statement_timeout") == "200ms"
        assert refused(session, "select pg_sleep(20)").sqlstate == "57014"
        assert refused(session, "create temporary table kept (n integer)").sqlstate == "25006"
        assert rows(session, "select * from flywheel_bi.spans") == []
        session.execute("set default_transaction_read_only = off")
        assert refused(session, "insert into flywheel.spans default values").sqlstate == "42501"


def test_the_limit_holds_in_this_database_only_and_can_be_changed(connection: Connection, dsn: str, login: str) -> None:
    connection.execute("select flywheel.make_analyst(%s, '1 minute')", [login])
    connection.execute("select flywheel.make_analyst(%s)", [login])
    with psycopg.connect(make_conninfo(dsn, user=login, password=login)) as session:
        assert value(session, "show statement_timeout") == "30s"
        assert value(session, "show idle_in_transaction_session_timeout") == "5min"
        assert value(session, "show work_mem") == "32MB"
        assert value(session, "show enable_partitionwise_join") == "on"
    with psycopg.connect(make_conninfo(dsn, user=login, password=login, dbname="postgres")) as session:
        assert value(session, "show statement_timeout") == "0"


def test_whoever_may_make_logins_needs_no_superuser_to_make_an_analyst(
    connection: Connection, dsn: str, login: str
) -> None:
    connection.execute(f"alter role {login} createrole; grant flywheel_analyst to {login} with admin option".encode())
    connection.execute(f"grant usage on schema flywheel to {login}".encode())
    connection.execute(f"grant execute on function flywheel.make_analyst to {login}".encode())
    made = f"{login}_made"
    with psycopg.connect(make_conninfo(dsn, user=login, password=login), autocommit=True) as session:
        session.execute(f"create role {made} login password '{made}'".encode())
        session.execute("select flywheel.make_analyst(%s, '5 seconds')", [made])
    with psycopg.connect(make_conninfo(dsn, user=made, password=made)) as session:
        assert value(session, "show statement_timeout") == "5s"
        assert value(session, "select count(*) from flywheel_bi.scores") == 0
    connection.execute(f"drop owned by {made}; drop role {made}".encode())


def test_the_role_itself_has_a_limit_for_whoever_lets_it_log_in(connection: Connection) -> None:
    query = "select unnest(setconfig) from pg_db_role_setting where setrole = 'flywheel_analyst'::regrole order by 1"
    assert rows(connection, query) == [("default_transaction_read_only=on",), ("statement_timeout=30s",)]


def test_only_a_login_without_all_rights_becomes_an_analyst(connection: Connection, login: str) -> None:
    for name in ("nobody at all", "flywheel_analyst", connection.info.user, None):
        said = refused(connection, "select flywheel.make_analyst(%s)", [name])
        assert (said.sqlstate, said.message_hint is not None) == ("WF009", True)
    assert refused(connection, "select flywheel.make_analyst(%s, '0')", [login]).sqlstate == "WF009"
    connection.execute("set role flywheel_analyst")
    assert refused(connection, "select flywheel.make_analyst(%s)", [login]).sqlstate == "42501"
    connection.execute("reset role")


def test_an_analyst_reads_every_flat_view(connection: Connection, connect: Callable[[], Connection]) -> None:
    inline(connection, "short")
    insert(connection)
    views = rows(
        connection,
        "select relname::text from pg_class where relnamespace = 'flywheel_bi'::regnamespace and relkind = 'v'"
        " and has_table_privilege('flywheel_analyst', oid, 'select')",
    )
    assert len(views) > 50
    analyst = connect()
    analyst.execute("set role flywheel_analyst")
    counts = {name: value(analyst, f"select count(*) from flywheel_bi.{name}") for (name,) in views}
    assert {
        name for name in ("spans", "scores", "traces", "validator_status", "accounts") if counts[name] != 1
    } == set()


def test_sqlalchemys_inspector_sees_views_columns_and_their_comments(connection: Connection, dsn: str) -> None:
    given = conninfo_to_dict(dsn)
    engine = sqlalchemy.create_engine("postgresql+psycopg://", connect_args=given, poolclass=sqlalchemy.NullPool)
    inspector = sqlalchemy.inspect(engine)
    views = inspector.get_view_names("flywheel_bi")
    assert {"spans", "scores", "quality_by_day"} <= set(views)
    for view in views:
        assert inspector.get_table_comment(view, "flywheel_bi")["text"], view
        columns = inspector.get_columns(view, "flywheel_bi")
        assert [column["name"] for column in columns if not column["comment"]] == [], view
        assert isinstance(columns[0]["type"], sqlalchemy.DateTime)
