"""What an install is, as sorted lines: every object of its schemas with definition, comment and grants."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

_SPACES = "(select oid from pg_namespace where nspname::text in (%(schema)s::text, %(schema)s::text || '_bi'))"

_QUERIES = (
    # tables, views, indexes
    f"""select relkind, oid::regclass, coalesce(reloptions::text, ''), coalesce(relacl::text, ''),
               coalesce(obj_description(oid, 'pg_class'), '')
          from pg_class where relnamespace in {_SPACES}""",
    f"""select 'view', oid::regclass, pg_get_viewdef(oid) from pg_class
         where relnamespace in {_SPACES} and relkind in ('v', 'm')""",
    f"""select 'index', indexrelid::regclass, pg_get_indexdef(indexrelid) from pg_index
          join pg_class on pg_class.oid = indexrelid where relnamespace in {_SPACES}""",
    f"""select 'column', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attstorage,
               coalesce(pg_get_expr(adbin, adrelid), ''), coalesce(attacl::text, ''),
               coalesce(col_description(attrelid, attnum), '')
          from pg_attribute join pg_class on pg_class.oid = attrelid
          left join pg_attrdef on adrelid = attrelid and adnum = attnum
         where relnamespace in {_SPACES} and attnum > 0 and not attisdropped""",
    f"""select 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid)
          from pg_constraint where connamespace in {_SPACES}""",
    f"""select 'function', oid::regprocedure, pg_get_functiondef(oid), coalesce(proacl::text, ''),
               coalesce(obj_description(oid, 'pg_proc'), '')
          from pg_proc where pronamespace in {_SPACES} and prokind <> 'a'""",
    f"""select 'trigger', pg_get_triggerdef(pg_trigger.oid), tgenabled
          from pg_trigger join pg_class on pg_class.oid = tgrelid
         where relnamespace in {_SPACES} and not tgisinternal""",
    f"""select 'type', oid::regtype, coalesce(obj_description(oid, 'pg_type'), '')
          from pg_type where typnamespace in {_SPACES}""",
    f"""select 'schema', nspname, coalesce(nspacl::text, ''), coalesce(obj_description(oid, 'pg_namespace'), '')
          from pg_namespace where oid in {_SPACES}""",
    "select 'default grants', defaclnamespace::regnamespace, defaclobjtype, defaclacl::text from pg_default_acl",
)


def dump(dsn: str, schema: str = "flywheel") -> list[str]:
    """Return one line for each object, so that two installs are equal when their dumps are."""
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("set search_path = ''")
        lines = [
            " | ".join(map(str, row))
            for query in _QUERIES
            for row in session.execute(query.encode(), {"schema": schema})
        ]
    return sorted(lines)
