"""Who may do what: the whole matrix against a golden file, and what nobody may.

PGFLYWHEEL_WRITE_GOLDEN=1 writes the file anew; read the difference before committing it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pgflywheel.db import schema
from tests.sql.acting import SPACES, acting
from tests.sql.support import (
    Connection,
    activate,
    inline,
    insert,
    refused,
    rows,
    scores,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "privileges.txt"
ROLES = ("public", "flywheel_writer", "flywheel_worker", "flywheel_reviewer", "flywheel_analyst", "flywheel_admin")
RELATIONS = f"""
select format('%s %s', case relkind when 'v' then 'view' else 'table' end, oid::regclass), role,
       array_to_string(array(select privilege from unnest(array['select', 'insert', 'update', 'delete',
           'truncate', 'references', 'trigger']) as privilege
                              where has_table_privilege(role, pg_class.oid, privilege)), '+'),
       (select string_agg(attname, ',' order by attname) from pg_attribute
         where attrelid = pg_class.oid and attnum > 0 and not attisdropped and has_column_privilege(role,
             attrelid, attnum, 'update')
           and not has_table_privilege(role, pg_class.oid, 'update'))
  from pg_class cross join unnest(%s::text[]) as role
 where relnamespace in {SPACES} and relkind in ('r', 'p', 'v') and relname !~ '_[0-9]{{8}}$'"""
FUNCTIONS = f"""
select format('function %s', oid::regprocedure), role, case when has_function_privilege(role, oid, 'execute')
    then 'execute' end, null
  from pg_proc cross join unnest(%s::text[]) as role where pronamespace in {SPACES}"""
SCHEMAS = """
select format('schema %s', nspname), role,
       array_to_string(array(select privilege from unnest(array['usage', 'create']) as privilege
                              where has_schema_privilege(role, pg_namespace.oid, privilege)), '+'), null
  from pg_namespace cross join unnest(%s::text[]) as role where nspname in ('flywheel', 'flywheel_bi')"""


def matrix(connection: Connection) -> list[str]:
    """Return a line for each object that says which role may do what with it."""
    allowed: dict[str, list[str]] = {}
    query = f"({SCHEMAS}) union all ({RELATIONS}) union all ({FUNCTIONS})".replace("%s %s", "%%s %%s")
    for name in ("schema", "function"):
        query = query.replace(f"'{name} %s'", f"'{name} %%s'")
    for what, role, privileges, columns in rows(connection, query, [list(ROLES)] * 3):
        said = allowed.setdefault(what, [])
        told = "+".join(filter(None, [privileges, columns and f"update({columns})"]))
        if told:
            said.append(f"{role.removeprefix('flywheel_')}={told}")
    return [f"{what}: {' '.join(sorted(said)) or 'nobody'}" for what, said in sorted(allowed.items())]


def test_every_privilege_is_as_the_golden_file_says(connection: Connection) -> None:
    found = "\n".join(matrix(connection)) + "\n"
    if os.environ.get("PGFLYWHEEL_WRITE_GOLDEN"):
        GOLDEN.write_text(found)
    assert found.splitlines() == GOLDEN.read_text().splitlines()


def test_public_has_nothing(connection: Connection) -> None:
    assert not [line for line in matrix(connection) if "public=" in line]


def test_what_is_made_later_stays_closed(dsn: str, connection: Connection) -> None:
    """Generated functions are replaced, partitions made, sql/ applied again: none of it opens anything."""
    before = matrix(connection)
    inline(connection, "one")
    activate(connection, "two", kind="python", callable="a:b", lane="judge")
    connection.execute("select flywheel.ensure_partitions('2024-05-05', '2024-05-06')")
    schema.upgrade(dsn, reapply=True)
    assert matrix(connection) == before
    query = f"""select relname, role from pg_class cross join unnest(%s::text[]) as role
                 where relnamespace in {SPACES} and relname ~ '_[0-9]{{8}}$' and relkind = 'r'
                   and has_any_column_privilege(role, pg_class.oid, 'select, insert, update, references')"""
    assert rows(connection, query, [list(ROLES)]) == []


def test_every_read_a_role_is_granted_works(connection: Connection) -> None:
    """A view may call a function that its reader may not."""
    inline(connection, "short")
    activate(connection, "queued")
    insert(connection)
    connection.execute("select flywheel.pause_lane('bulk', 'x')")
    query = f"""select role, oid::regclass::text from pg_class cross join unnest(%s::text[]) as role
                 where relnamespace in {SPACES} and relkind in ('r', 'p', 'v') and has_table_privilege(role,
                     pg_class.oid, 'select')"""
    granted = rows(connection, query, [list(ROLES[1:])])
    assert len(granted) > 20
    for role, name in granted:
        with acting(connection, role):
            connection.execute(f"select * from {name}".encode())


def test_an_author_gains_no_rights_by_being_called(connection: Connection) -> None:
    """Trigger functions may not be called by hand, and nobody can plant a function in the schema."""
    for role in ROLES[1:]:
        with acting(connection, role):
            said = refused(connection, "create function flywheel.mine() returns integer language sql return 1")
            assert said.sqlstate == "42501"
            assert refused(connection, "create table flywheel_bi.mine ()").sqlstate == "42501"


HIJACK = """
create function pg_temp.taken(said {type}) returns boolean language plpgsql as $$
begin
  if current_user <> session_user then raise exception 'runs as %', current_user; end if;
  return true;
end $$;
create domain pg_temp.{name} as {type} check (pg_temp.taken(value))"""


@pytest.mark.parametrize("name", ["timestamptz", "uuid", "text", "jsonb"])
def test_a_type_of_the_callers_own_is_never_the_one_the_owners_code_means(
    connect: Callable[[], Connection], name: str
) -> None:
    """Temporary objects come first unless search_path names their schema: a domain's check would run as the owner."""
    owner = connect()
    inline(owner, "short")
    writer = connect()
    writer.execute("set session authorization flywheel_writer")
    writer.execute(HIJACK.format(name=name, type=f"pg_catalog.{name}").encode())
    writer.execute("insert into flywheel.spans (input, output) values ('question', 'answer')")
    writer.execute("select * from flywheel.guard('project', 'node', 'output', 'answer')")
    assert scores(owner) == [("short", True, None)]


@pytest.mark.parametrize("name", ["sql_objects", "sql_hash", "installed_by"])
def test_an_admin_cannot_change_what_the_installer_believes(connection: Connection, name: str) -> None:
    """The next upgrade drops what sql_objects names, with the rights of whoever runs it."""
    with acting(connection, "flywheel_admin"):
        change = 'update flywheel.settings set value = \'[["schema", "public"]]\' where name = %s'
        assert refused(connection, change, [name]).message_primary == f"setting {name} cannot be changed"


@pytest.mark.parametrize("role", ROLES[1:])
def test_no_role_can_log_in_or_do_more_than_its_grants(connection: Connection, role: str) -> None:
    query = """select rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication,
                      exists (select from pg_auth_members where member = pg_roles.oid) from pg_roles where
                          rolname = %s"""
    assert rows(connection, query, [role]) == [(False,) * 7]
