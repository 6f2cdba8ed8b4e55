"""Re-apply sql/: functions, triggers, views and grants, and remember which of them are ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import psycopg
from psycopg import sql

from pgflywheel import __version__, assets
from pgflywheel.db import extension
from pgflywheel.db.connect import Session
from pgflywheel.errors import DatabaseError, WrongStatus, kind_of

Made = tuple[str, str]  # ('routine' | 'view', identity)

# Dropped and made again only when `create or replace` cannot: it would lose what users granted on them.
_CANNOT_REPLACE = ("42P13", "42P16", "2BP01", "42725")  # 42725: an older one with other arguments stands beside it

_TOUCHED = """
select 'routine', (pg_identify_object('pg_proc'::regclass, oid, 0)).identity
  from pg_proc where pronamespace = any (%(spaces)s::regnamespace[]) and age(xmin) <= 0
 union all
select 'view', (pg_identify_object('pg_class'::regclass, ev_class, 0)).identity
  from pg_rewrite join pg_class on pg_class.oid = ev_class
 where relnamespace = any (%(spaces)s::regnamespace[]) and relkind = 'v' and age(pg_rewrite.xmin) <= 0
"""
_EXISTING = _TOUCHED.replace(" and age(xmin) <= 0", "").replace(" and age(pg_rewrite.xmin) <= 0", "")

_FOREIGN_VIEWS = """
select distinct (pg_identify_object('pg_class'::regclass, ev_class, 0)).identity
  from pg_depend join pg_rewrite on classid = 'pg_rewrite'::regclass and objid = pg_rewrite.oid
 where refobjid <> ev_class
   and (refobjid in (select oid from pg_class where relkind = 'v' and relnamespace = any (%(spaces)s::regnamespace[]))
     or refobjid in (select oid from pg_proc where pronamespace = any (%(spaces)s::regnamespace[])))
"""

# Of metrics declared by name: sql/ makes them anew from their table, so what it makes by itself does not list them.
_METRICS = """
select unnest(array['flywheel_bi.metric_' || name, 'flywheel._metric_' || name]) from flywheel.metrics
"""


def apply(session: Session, schema: str) -> None:
    """Apply every file of sql/, drop what an earlier release made and this one does not, and record the rest."""
    before = recorded(session, schema)
    try:
        with session.transaction():
            _run_files(session, schema)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) not in _CANNOT_REPLACE or not before:
            raise
        drop(session, schema, before)
        _run_files(session, schema)
    drop(session, schema, before - touched(session, schema))
    _record(session, schema, touched(session, schema))  # asked again: a flat view goes with the view it is of


def run_file(session: Session, schema: str, path: Path) -> None:
    """Run one SQL file; an error names the file and the line."""
    text = assets.render(path.read_text(encoding="utf-8"), schema, extension.schema(session))
    try:
        session.execute(text.encode())
    except psycopg.Error as error:
        position = int(error.diag.statement_position or error.diag.internal_position or 0)
        line = text.count("\n", 0, position) + 1
        where = f"{path.name} line {line}" if position else path.name
        raise kind_of(error.sqlstate or "XX000")(
            f"{where}: {error.diag.message_primary or error}",
            error.diag.message_detail or error.diag.context,
            error.diag.message_hint,
        ) from error


def recorded(session: Session, schema: str) -> set[Made]:
    """Return what the last apply() made."""
    query = assets.render("select value from flywheel.settings where name = 'sql_objects'", schema)
    row = session.execute(query.encode()).fetchone()
    return {(kind, identity) for kind, identity in row[0]} if row else set()


def lost(session: Session, schema: str) -> list[str]:
    """Return what the last apply() made and is no longer there."""
    gone = recorded(session, schema) - _objects(session, _EXISTING, schema)
    return sorted(f"{kind} {identity}" for kind, identity in gone)


def touched(session: Session, schema: str) -> set[Made]:
    """Return the functions and views made or replaced in this transaction."""
    return _objects(session, _TOUCHED, schema)


def drop(session: Session, schema: str, objects: set[Made]) -> None:
    """Drop functions and views with their triggers; raise WrongStatus when a user's own view would go too."""
    if not objects:
        return
    foreign = _foreign_views(session, schema)
    if foreign:
        raise WrongStatus(
            f"views outside schema {schema} depend on it: {', '.join(foreign)}",
            "They would be dropped with the views and functions they read.",
            "Drop them, run the command again, and create them anew.",
        )
    for kind, identity in sorted(objects, reverse=True):  # views before routines
        session.execute(f"drop {kind} if exists {identity} cascade".encode())


def _run_files(session: Session, schema: str) -> None:
    for path in assets.sql_files():
        run_file(session, schema, path)


def _foreign_views(session: Session, schema: str) -> list[str]:
    made = recorded(session, schema) | touched(session, schema)
    ours = {identity for kind, identity in made if kind == "view"} | _metric_views(session, schema)
    found = session.execute(_FOREIGN_VIEWS.encode(), {"spaces": _spaces(session, schema)})
    return sorted({str(identity) for (identity,) in found} - ours)


def _objects(session: Session, query: str, schema: str) -> set[Made]:
    rows: Iterable[tuple[str, str]] = session.execute(query.encode(), {"spaces": _spaces(session, schema)})
    metrics = _metric_views(session, schema)
    return {(kind, identity) for kind, identity in rows if identity not in metrics}


def _metric_views(session: Session, schema: str) -> set[str]:
    if session.execute("select to_regclass(%s)", [f"{schema}.metrics"]).fetchone() == (None,):
        return set()
    return {str(name) for (name,) in session.execute(assets.render(_METRICS, schema).encode())}


def _spaces(session: Session, schema: str) -> list[str]:
    names = [schema, f"{schema}_bi"]
    rows = session.execute("select nspname from pg_namespace where nspname = any (%s)", [names])
    return [str(name) for (name,) in rows]


def _record(session: Session, schema: str, made: set[Made]) -> None:
    upsert = sql.SQL(
        "insert into {}.settings (name, value, description) values (%s, %s, %s) "
        "on conflict (name) do update set value = excluded.value, description = excluded.description"
    ).format(sql.Identifier(schema))
    for name, value, description in (
        ("sql_hash", assets.sql_hash(), "Internal: hash of the sql/ files last applied."),
        ("installed_by", __version__, "Internal: version of pgflywheel that applied them."),
        ("sql_objects", sorted(made), "Internal: functions and views they made."),
    ):
        session.execute(upsert, [name, json.dumps(value), description])
