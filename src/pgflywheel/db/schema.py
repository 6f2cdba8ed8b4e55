"""Install, upgrade, check and remove one install: migrations run once, sql/ is applied after them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy.pool import NullPool

from pgflywheel import __version__, assets
from pgflywheel.db import extension, functions
from pgflywheel.db.connect import Session, connection_string, mapped_errors
from pgflywheel.db.version import INSTALLED, Installed, missing, newer
from pgflywheel.errors import CheckFailed, ServerTooOld, UsageError
from pgflywheel.records import InstallStatus

LOCK_TIMEOUT_SECONDS = 5.0
MINIMUM_MAJOR = 16
_NOTHING = Installed(None, None, None)

# alembic's `op` and `context` are one per process, so two threads may not migrate at once
_one_migration = threading.Lock()


@dataclass(frozen=True, slots=True)
class Change:
    """The revision before and after; ``changed`` is False when there was nothing to do."""

    schema: str
    before: str | None
    after: str | None
    changed: bool


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One transaction on one install: SQLAlchemy's connection for alembic, psycopg's for the rest."""

    schema: str
    connection: sqlalchemy.Connection
    session: Session


def upgrade(
    dsn: str,
    schema: str = assets.DEFAULT_SCHEMA,
    *,
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
    reapply: bool = False,
) -> Change:
    """Bring the install to this package's version, in one transaction; nothing happens when it is there.

    Many at once are safe: they wait for one another. ``reapply`` runs sql/ even when nothing changed.
    """
    with _locked(dsn, assets.checked_schema(schema), lock_timeout_seconds) as work:
        _refuse_too_old(work.session)
        before = _installed(work.session, schema)
        head = assets.revisions()[-1]
        _refuse_newer(before, schema)
        if before.revision == head and before.sql_hash == assets.sql_hash() and not reapply:
            return Change(schema, before.revision, head, changed=False)
        _refuse_taken(work.session, schema, before)
        extension.ensure(work.session)
        work.session.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
        command.upgrade(_config(schema, connection=work.connection), "head")
        work.session.execute(assets.render(_COMMENTS, schema).encode())
        functions.apply(work.session, schema)
        return Change(schema, before.revision, head, changed=True)


def downgrade(
    dsn: str,
    revision: str,
    schema: str = assets.DEFAULT_SCHEMA,
    *,
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
) -> Change:
    """Undo migrations down to a revision ("base": all of them).

    Functions and views are dropped first and not made again: the release that goes with
    the older tables brings its own, with its `db upgrade`.
    """
    if revision not in ("base", *assets.revisions()):
        raise UsageError(f'revision "{revision}" is not known', hint=f"Known: base, {', '.join(assets.revisions())}.")
    with _locked(dsn, schema, lock_timeout_seconds) as work:
        before = _installed(work.session, schema)
        _require_known(before, schema)
        if before.revision == revision:
            return Change(schema, before.revision, revision, changed=False)
        functions.drop(work.session, schema, functions.recorded(work.session, schema))
        command.downgrade(_config(schema, connection=work.connection), revision)
        after = _installed(work.session, schema).revision
        return Change(schema, before.revision, after, changed=True)


def verify(dsn: str, schema: str = assets.DEFAULT_SCHEMA) -> list[str]:
    """Run each applied revision's verify() and look for lost functions and views; return what was checked.

    Raises CheckFailed with everything that is wrong. Changes nothing.
    """
    with _locked(dsn, schema, LOCK_TIMEOUT_SECONDS) as work:
        installed = _installed(work.session, schema)
        _require_known(installed, schema)
        applied = assets.revisions()[: assets.revisions().index(str(installed.revision)) + 1]
        problems = [problem for name in applied if (problem := _verify_revision(work, name))]
        problems += [f"{lost} is missing" for lost in functions.lost(work.session, schema)]
        if problems:
            raise CheckFailed(
                f'schema "{schema}" is damaged: {problems[0]}',
                "\n".join(problems),
                f"Run `pgflywheel db upgrade --reapply --schema {schema}` for functions and views.",
            )
        return applied


def status(dsn: str, schema: str = assets.DEFAULT_SCHEMA) -> InstallStatus:
    """Return what is installed beside what this package would install."""
    with _session(dsn) as session:
        installed = _installed(session, schema)
        return InstallStatus(
            schema=schema,
            revision=installed.revision,
            head=assets.revisions()[-1],
            sql_hash=installed.sql_hash,
            sql_hash_expected=assets.sql_hash(),
            installed_by=installed.installed_by,
            package=__version__,
            server_version=session.info.parameter_status("server_version") or "",
            pgvector_version=extension.version(session),
        )


def drop(dsn: str, schema: str = assets.DEFAULT_SCHEMA) -> bool:
    """Drop the install with all its data; roles stay, other databases may use them. False: it was not there."""
    with _locked(dsn, assets.checked_schema(schema), LOCK_TIMEOUT_SECONDS) as work:
        if not _schema_exists(work.session, schema):
            return False
        for name in (f"{schema}_bi", schema):
            work.session.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(name)))
        return True


def script(schema: str = assets.DEFAULT_SCHEMA) -> str:
    """Return, without any database, the whole SQL that makes a new install."""
    assets.checked_schema(schema)
    output = io.StringIO()
    with _one_migration:
        command.upgrade(_config(assets.DEFAULT_SCHEMA, output=output), "head", sql=True)
    parts = ["begin;", "create extension if not exists vector schema public;", "create schema if not exists flywheel;"]
    parts += [output.getvalue().strip(), _COMMENTS.strip()]
    parts += [f"-- {path.name}\n{path.read_text(encoding='utf-8').strip()}" for path in assets.sql_files()]
    parts += [_RECORD.format(hash=assets.sql_hash(), version=__version__), "commit;"]
    return assets.render("\n\n".join(parts) + "\n", schema)


_COMMENTS = """
comment on schema flywheel is 'An install of pgflywheel: spans, validators, scores and the queue between them.';
comment on table flywheel.alembic_version is 'Internal: the last migration that ran.';
comment on column flywheel.alembic_version.version_num is 'Number of that migration.';
"""
_RECORD = """insert into flywheel.settings (name, value, description) values
  ('sql_hash', '"{hash}"', 'Internal: hash of the sql/ files last applied.'),
  ('installed_by', '"{version}"', 'Internal: version of pgflywheel that applied them.');"""


@contextmanager
def _session(dsn: str) -> Iterator[Session]:
    with mapped_errors(), psycopg.connect(connection_string(dsn), prepare_threshold=None) as session:
        yield session


@contextmanager
def _locked(dsn: str, schema: str, lock_timeout_seconds: float) -> Iterator[Upgrade]:
    """Hold the one transaction in which this install may be changed; it commits unless the block raises."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(connection_string(dsn), prepare_threshold=None),
        poolclass=NullPool,
    )
    sqlalchemy.event.listen(engine, "before_cursor_execute", _renamer(schema), retval=True)
    with _one_migration, _alembic_errors(schema), engine.begin() as connection:
        session: Session = connection.connection.driver_connection  # type: ignore[assignment]
        session.execute("select set_config('lock_timeout', '0', true)")  # wait for another upgrade, however long
        session.execute("select pg_advisory_xact_lock(hashtext('pgflywheel'), hashtext(%s))", [schema])
        session.execute("select set_config('lock_timeout', %s, true)", [f"{round(lock_timeout_seconds * 1000)}ms"])
        yield Upgrade(schema, connection, session)


@contextmanager
def _alembic_errors(schema: str) -> Iterator[None]:
    """Unwrap what SQLAlchemy wraps, so that every error is one of ours."""
    with mapped_errors(schema):
        try:
            yield
        except sqlalchemy.exc.DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise error.orig from error
            raise


def _renamer(schema: str) -> Any:
    """Return the event handler that renames the schema in the text of migrations, and there only.

    What alembic composes for its version table has the install's name already.
    """

    def rename(
        connection: Any, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool
    ) -> tuple[str, Any]:
        from_migration = isinstance(getattr(context, "invoked_statement", None), sqlalchemy.TextClause)
        if not from_migration:
            return statement, parameters
        vectors = extension.schema(connection.connection.driver_connection)
        return assets.render(statement, schema, vectors), parameters

    return rename


def _config(schema: str, **attributes: Any) -> Config:
    config = Config()
    config.set_main_option("script_location", str(assets.migrations_dir()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(attributes, schema=schema)
    return config


def _installed(session: Session, schema: str) -> Installed:
    """Return what is installed; all None for a schema that is missing, or downgraded to base."""
    tables = session.execute(
        "select to_regclass(%s) is not null, to_regclass(%s) is not null",
        [f"{schema}.alembic_version", f"{schema}.settings"],
    ).fetchone()
    if not tables or not tables[0]:
        return _NOTHING
    query = INSTALLED if tables[1] else "select version_num, null, null from flywheel.alembic_version"
    row = session.execute(assets.render(query, schema).encode()).fetchone()
    return Installed(*row) if row else _NOTHING


def _schema_exists(session: Session, schema: str) -> bool:
    found = session.execute("select from pg_namespace where nspname in (%s, %s)", [schema, f"{schema}_bi"])
    return found.fetchone() is not None


def _refuse_too_old(session: Session) -> None:
    major = session.info.server_version // 10000
    if major < MINIMUM_MAJOR:
        raise ServerTooOld(
            f"Postgres {major} is older than {MINIMUM_MAJOR}, the oldest this package works with",
            hint=f"Upgrade the server, or name one of version {MINIMUM_MAJOR} or later with --dsn.",
        )


def _refuse_newer(installed: Installed, schema: str) -> None:
    known = assets.revisions()
    if installed.revision is not None and installed.revision not in known:
        raise newer(schema, f"revision {installed.revision}", f"revision {known[-1]}")


_STRANGERS = """
select relname from pg_class
 where relnamespace = to_regnamespace(%s) and relkind in ('r', 'p', 'v', 'm') and relname <> 'alembic_version'
"""


def _refuse_taken(session: Session, schema: str, installed: Installed) -> None:
    """Raise UsageError when a schema of this name holds something else than an install."""
    found = session.execute(_STRANGERS, [schema]).fetchone() if installed.revision is None else None
    if found:
        raise UsageError(
            f'schema "{schema}" is used by something else',
            f'It holds "{found[0]}" and no version of pgflywheel.',
            "Choose another name with --schema.",
        )


def _require_known(installed: Installed, schema: str) -> None:
    if installed.revision is None:
        raise missing(schema)
    _refuse_newer(installed, schema)


def _verify_revision(work: Upgrade, name: str) -> str | None:
    """Run one revision's verify() under a savepoint; return what is wrong, or None."""
    module = ScriptDirectory.from_config(_config(work.schema)).get_revision(name).module
    context = MigrationContext.configure(work.connection)
    with work.connection.begin_nested() as savepoint, Operations.context(context):
        try:
            module.verify()
        except sqlalchemy.exc.DBAPIError as error:
            savepoint.rollback()
            return f"revision {name}: {str(error.orig).splitlines()[0]}"
    return None
