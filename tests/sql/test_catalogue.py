"""What every object owes its reader: a comment, declared security, no way in for PUBLIC."""

from __future__ import annotations

from tests.sql.support import Connection, activate, inline, rows

SPACES = "('flywheel'::regnamespace, 'flywheel_bi'::regnamespace)"
SHORT_LIST = "coalesce(array_agg(what order by what), '{}')"


def offenders(connection: Connection, query: str) -> list[str]:
    return [what for (what,) in rows(connection, query)]


def test_every_table_and_view_has_a_comment(connection: Connection) -> None:
    assert not offenders(
        connection,
        f"""select oid::regclass::text from pg_class
             where relnamespace in {SPACES} and relkind in ('r', 'p', 'v') and not (relispartition and relname
                 ~ '_[0-9]{{8}}$')
               and coalesce(obj_description(oid, 'pg_class'), '') = ''""",
    )


def test_every_column_has_a_comment(connection: Connection) -> None:
    assert not offenders(
        connection,
        f"""select attrelid::regclass || '.' || attname from pg_attribute join pg_class on pg_class.oid = attrelid
             where relnamespace in {SPACES} and relkind in ('r', 'p', 'v') and not relispartition
               and attnum > 0 and not attisdropped and coalesce(col_description(attrelid, attnum), '') = ''""",
    )


def test_every_function_and_type_has_a_comment(connection: Connection) -> None:
    assert not offenders(
        connection,
        f"""select oid::regprocedure::text from pg_proc
             where pronamespace in {SPACES} and coalesce(obj_description(oid, 'pg_proc'), '') = ''""",
    )
    assert not offenders(
        connection,
        f"""select typname from pg_type join pg_class on pg_class.oid = typrelid
             where typnamespace in {SPACES} and relkind = 'c' and coalesce(obj_description(pg_type.oid,
                 'pg_type'), '') = ''""",
    )


def test_every_function_fixes_its_search_path_or_is_begin_atomic(connection: Connection) -> None:
    assert not offenders(
        connection,
        f"""select oid::regprocedure::text from pg_proc
             where pronamespace in {SPACES} and prosqlbody is null
               and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)""",
    )


def test_generated_functions_keep_to_the_same_rules(connection: Connection) -> None:
    inline(connection, "one")
    activate(connection, "two")
    query = """select proname, prosecdef, proconfig, obj_description(oid, 'pg_proc') like 'Internal, generated%'
                 from pg_proc where proname in ('_guard', '_dispatch_insert', '_dispatch_update') order by 1"""
    assert rows(connection, query) == [
        (name, True, ["search_path=pg_catalog, pg_temp"], True)
        for name in ("_dispatch_insert", "_dispatch_update", "_guard")
    ]


def test_names_with_an_underscore_are_said_to_be_internal(connection: Connection) -> None:
    query = f"""select oid::regprocedure::text from pg_proc
                 where pronamespace in {SPACES} and proname like '\\_%'
                   and obj_description(oid, 'pg_proc') not like 'Internal%'"""
    allowed = {"_heartbeat", "_leave", "_claim", "_claim_calls", "_complete", "_run_sql_checks"}
    assert {name.split("(")[0].removeprefix("flywheel.") for name in offenders(connection, query)} <= allowed


def test_changes_without_a_key_can_be_published(connection: Connection) -> None:
    """They are appended in the writer's statement and deleted together: a key would cost and serve nobody."""
    identities = rows(
        connection,
        "select relname::text, relreplident::text from pg_class where relnamespace = 'flywheel'::regnamespace"
        " and relname in ('_score_changes', '_span_changes', '_span_deltas', '_label_changes') order by 1",
    )
    assert [identity for _, identity in identities] == ["f"] * 4


def test_every_table_has_a_primary_key_and_no_sequence(connection: Connection) -> None:
    assert not offenders(
        connection,
        f"""select oid::regclass::text from pg_class
             where relnamespace in {SPACES} and relkind in ('r', 'p')
               and not exists (select from pg_index where indrelid = pg_class.oid and indisprimary)
               and relname !~ '^_(score|span|label)_(changes|deltas)$'""",
    )
    assert not offenders(
        connection, f"select oid::regclass::text from pg_class where relnamespace in {SPACES} and relkind = 'S'"
    )


def test_foreign_keys_stay_inside_the_schema(connection: Connection) -> None:
    query = f"""select conname::text from pg_constraint join pg_class on pg_class.oid = confrelid
                 where connamespace in {SPACES} and contype = 'f' and relnamespace <> connamespace"""
    assert not offenders(connection, query)


def test_no_constraint_has_a_made_up_name(connection: Connection) -> None:
    query = f"""select conname::text from pg_constraint join pg_class on pg_class.oid = conrelid
                 where connamespace in {SPACES} and contype in ('c', 'f') and conname ~ '_(check|fkey)[0-9]*$'"""
    assert not offenders(connection, query)
