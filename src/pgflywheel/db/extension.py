"""pgvector: the one extension an install needs."""

from __future__ import annotations

import psycopg

from pgflywheel import assets
from pgflywheel.db.connect import Session
from pgflywheel.errors import ExtensionMissing

NAME = "vector"
_LOCK = "select pg_advisory_xact_lock(hashtext('pgflywheel'), hashtext('extension'))"


def version(session: Session) -> str | None:
    """Return the version of pgvector in this database, wherever it lies; None when it is not created."""
    row = session.execute("select extversion from pg_extension where extname = %s", [NAME]).fetchone()
    return str(row[0]) if row else None


def schema(session: Session) -> str:
    """Return the schema pgvector lies in, quoted where it needs to be."""
    row = session.execute(
        "select quote_ident(nspname) from pg_extension join pg_namespace on pg_namespace.oid = extnamespace"
        " where extname = %s",
        [NAME],
    ).fetchone()
    return str(row[0]) if row else assets.VECTORS


def ensure(session: Session) -> None:
    """Create pgvector unless it is there; raise ExtensionMissing with what to do when that is impossible."""
    if version(session) is not None:
        return
    session.execute(_LOCK)  # `if not exists` alone fails when two installs create it at once
    try:
        with session.transaction():
            session.execute(f"create extension if not exists {NAME} schema public".encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise _missing(session, "this role may not create it", _ASK) from error
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        raise _missing(session, "the server does not have its files", _install_hint(session)) from error


_ASK = "Let a superuser, or the owner of the database, run: create extension vector schema public;"


def _install_hint(session: Session) -> str:
    major = session.info.server_version // 10000
    return (
        f"On Debian or Ubuntu: apt install postgresql-{major}-pgvector. On managed Postgres: allow the extension "
        "`vector` in the server's parameters (Azure: azure.extensions) or take an engine version that has it."
    )


def _missing(session: Session, why: str, hint: str) -> ExtensionMissing:
    return ExtensionMissing(
        f'the extension "{NAME}" cannot be created in database "{session.info.dbname}": {why}',
        "pgflywheel keeps embeddings beside the rows; it is the only extension it needs.",
        hint,
    )
