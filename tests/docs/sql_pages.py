"""Reference pages that are read from the catalogue of a migrated database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

RELATIONS = """
select n.nspname || '.' || c.relname, c.relname,
       case c.relkind when 'c' then obj_description(c.reltype, 'pg_type')
         else concat_ws(' ', obj_description(c.oid),
                        'Partitioned by ' || lower(pg_get_partkeydef(c.oid)) || ', a day each.')
       end, c.oid
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any (%s) and c.relkind = any (%s) and not c.relispartition and c.relname <> 'alembic_version'
 order by n.nspname, c.relname
"""
COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       case when a.attgenerated = 's' then 'generated' else pg_get_expr(d.adbin, d.adrelid) end,
       col_description(a.attrelid, a.attnum)
  from pg_attribute a left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
 where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
 order by a.attnum
"""
RULES = """
select conname, pg_get_constraintdef(oid) from pg_constraint
 where conrelid = %s and contype in ('c', 'p', 'u', 'f') order by array_position('{p,u,f,c}', contype::text), conname
"""
KNOWN_ROLES = "(values ('admin'), ('analyst'), ('reviewer'), ('worker'), ('writer')) as role(name)"
ROLES = f"""
select array(select role.name from {KNOWN_ROLES}
              where has_any_column_privilege('flywheel_' || role.name, %(oid)s::oid, act.name) order by 1)
  from (values (1, 'select'), (2, 'insert'), (3, 'update')) as act(place, name)
 order by act.place
"""
FUNCTIONS = f"""
select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), p.provolatile, p.prosecdef,
       obj_description(p.oid),
       array(select role.name from {KNOWN_ROLES}
              where has_function_privilege('flywheel_' || role.name, p.oid, 'execute') order by 1)
  from pg_proc p
 where p.pronamespace = 'flywheel'::regnamespace and p.prorettype <> 'trigger'::regtype
 order by p.proname, pg_get_function_arguments(p.oid)
"""
SETTINGS = """
select name, value #>> '{}', description from flywheel.settings
 where description not like 'Internal%%' order by name
"""
VOLATILITY = {"i": "immutable", "s": "stable", "v": "volatile"}
INTERNAL = "Names that begin with `_` are the machine room: they may change in any release; only workers use them."


def tables(connection: Connection) -> str:
    """Return the page of tables: those people use with every column, the others by name."""
    found = connection.execute(RELATIONS, [["flywheel"], ["r", "p"]]).fetchall()
    parts = ["# Tables", "What an application writes and an analyst may read. " + INTERNAL]
    parts += [_relation(connection, *row) for row in found if not row[1].startswith("_")]
    parts += ["## Types", "What checks return, and what the functions on validators tell."]
    types = connection.execute(RELATIONS, [["flywheel"], ["c"]]).fetchall()
    parts += [_type(connection, *row) for row in types if not row[1].startswith("_")]
    parts += ["## Internal tables", _grid(["table", "what it holds"], _internal(found))]
    return "\n\n".join(parts)


def views(connection: Connection) -> str:
    """Return the page of views, with every column."""
    found = connection.execute(RELATIONS, [["flywheel", "flywheel_bi"], ["v", "m"]]).fetchall()
    parts = ["# Views", "What people and programs read. Columns are only ever appended."]
    parts += [_view(connection, *row) for row in found if not row[1].startswith("_")]
    parts += ["## Internal views", _grid(["view", "what it shows"], _internal(found))]
    return "\n\n".join(parts)


def functions(connection: Connection) -> str:
    """Return the page of functions: public ones with arguments and grants, internal ones by name."""
    found = connection.execute(FUNCTIONS).fetchall()
    parts = ["# Functions", "What a session may call, with every argument and its default. " + INTERNAL]
    parts += [_function(*row) for row in found if not row[0].startswith("_")]
    internal = sorted({(f"`{row[0]}`", row[5]) for row in found if row[0].startswith("_")})
    parts += ["## Internal functions", _grid(["function", "what it does"], internal)]
    return "\n\n".join(parts)


def settings(connection: Connection) -> str:
    """Return the page of settings: those of an install, then the environment's."""
    kept = [(f"`{name}`", f"`{value}`", text) for name, value, text in connection.execute(SETTINGS)]
    return "\n\n".join(
        [
            "# Settings",
            "## Of an install",
            "Rows of `flywheel.settings`. An `update` takes effect at once: the triggers are generated anew.",
            "```sql\nupdate flywheel.settings set value = '2000' where name = 'chunk_spans';\n```",
            _grid(["setting", "default", "meaning"], kept),
            "## Of the command line",
            _grid(["variable", "meaning"], ENVIRONMENT),
        ]
    )


ENVIRONMENT = [
    ("`PGFLYWHEEL_DSN`", "Which database, unless `--dsn` says so: a URI or key=value pairs."),
    ("`DATABASE_URL`", "The same, asked next. SQLAlchemy's spellings such as `postgresql+psycopg://` are understood."),
    ("`PGHOST`, `PGSERVICE`, …", "libpq's own variables, asked last."),
    ("`PGFLYWHEEL_SCHEMA`", "Which install, unless `--schema` says so; `flywheel` without both."),
    ("`PGFLYWHEEL_DATA_DIR`", "Where `quickstart` keeps its server; else the user's data directory."),
    ("`PGFLYWHEEL_REVIEWER`", "Who labels, where `--reviewer` is not given; else your login."),
]


def _relation(connection: Connection, full: str, _name: str, comment: str, oid: int) -> str:
    rows = [
        (f"`{name}`", kind, "" if default is None else f"`{default}`", "" if required else "yes", text)
        for name, kind, required, default, text in connection.execute(COLUMNS, [oid])
    ]
    rules = [(f"`{name}`", f"`{rule}`") for name, rule in connection.execute(RULES, [oid])]
    grid = _grid(["column", "type", "default", "null", "meaning"], rows)
    return f"## {full}\n\n{comment} {_roles(connection, oid)}\n\n{grid}\n\n{_grid(['rule', 'says'], rules)}"


def _type(connection: Connection, full: str, _name: str, comment: str, oid: int) -> str:
    fields = ", ".join(f"{name} {kind}" for name, kind, *_ in connection.execute(COLUMNS, [oid]))
    return f"`{full}` ({fields}): {comment}"


def _view(connection: Connection, full: str, _name: str, comment: str, oid: int) -> str:
    rows = [(f"`{name}`", kind, text) for name, kind, _required, _default, text in connection.execute(COLUMNS, [oid])]
    return f"## {full}\n\n{comment} {_roles(connection, oid)}\n\n{_grid(['column', 'type', 'meaning'], rows)}"


def _roles(connection: Connection, oid: int) -> str:
    """Return who may do what with a relation."""
    acts = ("Read by", "inserted into by", "updated by")
    found = zip(acts, connection.execute(ROLES, {"oid": oid}), strict=True)
    said = [f"{act} {', '.join(roles)}" for act, (roles,) in found if roles]
    return f"{'; '.join(said)}." if said else ""


def _function(
    name: str, arguments: str, result: str, volatility: str, definer: bool, comment: str, roles: list[str]
) -> str:
    heading = f"## {name}({', '.join(_names(arguments))})"
    listed = "\n  " + ",\n  ".join(_arguments(arguments)) if len(arguments) > 70 else arguments
    call = f"flywheel.{name}({listed})\nreturns {result}"
    who = f"May be called by: {', '.join(roles) or 'the owner'}."
    how = f"{VOLATILITY[volatility].capitalize()}, runs as {'the owner' if definer else 'the caller'}."
    return f"{heading}\n\n{comment}\n\n```text\n{call}\n```\n\n{how} {who}"


def _arguments(arguments: str) -> list[str]:
    return re.split(r", (?![^(]*\))", arguments) if arguments else []


def _names(arguments: str) -> list[str]:
    taken = [argument for argument in _arguments(arguments) if not argument.startswith("OUT ")]
    return [argument.removeprefix("INOUT ").split()[0].strip('"') for argument in taken]


def _internal(found: Sequence[tuple[Any, ...]]) -> list[tuple[str, str]]:
    return [(f"`{row[1]}`", row[2].removeprefix("Internal: ")) for row in found if row[1].startswith("_")]


def _grid(names: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")
