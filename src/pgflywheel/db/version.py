"""Is the install in a database the one this package works with? Light enough to ask at every start."""

from __future__ import annotations

from dataclasses import dataclass

from pgflywheel import __version__, assets
from pgflywheel.db.connect import Database
from pgflywheel.errors import DatabaseError, SchemaBehind, SchemaMissing, SchemaNewer

_NOT_PERMITTED = "42501"
INSTALLED = """
select (select version_num from flywheel.alembic_version) as revision,
       (select value #>> '{}' from flywheel.settings where name = 'sql_hash') as sql_hash,
       (select value #>> '{}' from flywheel.settings where name = 'installed_by') as installed_by
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an upgrade left behind; None where it did not run."""

    revision: str | None
    sql_hash: str | None
    installed_by: str | None


async def require_current(database: Database) -> None:
    """Raise SchemaMissing, SchemaBehind or SchemaNewer unless the install is of this package's version."""
    try:
        installed = await database.row(Installed, INSTALLED)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) == _NOT_PERMITTED:
            return  # an analyst or writer may not read it, and gets a clear error from what is missing
        raise
    check_versions(installed or Installed(None, None, None), database.schema)


def check_versions(installed: Installed, schema: str) -> None:
    """Raise unless this package knows the revision, and the functions are those of its version.

    Functions that differ under the same version number are a developer's, and taken as they are.
    """
    known, revision = assets.revisions(), installed.revision
    if revision is None:
        raise missing(schema)
    if revision not in known:
        raise newer(schema, f"revision {revision}", f"revision {known[-1]}")
    if revision != known[-1]:
        raise _behind(schema, f"revision {revision}", f"revision {known[-1]}")
    by = installed.installed_by or "0"
    if by != __version__ and installed.sql_hash != assets.sql_hash():
        raise (newer if _number(by) > _number(__version__) else _behind)(schema, by, __version__)


def missing(schema: str) -> SchemaMissing:
    """Return the error for a database without the install."""
    return SchemaMissing(
        f'schema "{schema}" is not installed in this database',
        hint=f"Run `pgflywheel db upgrade --schema {schema}`.",
    )


def newer(schema: str, theirs: str, ours: str) -> SchemaNewer:
    """Return the error for an install made by a later release."""
    return SchemaNewer(
        f'schema "{schema}" is newer than this package',
        f"It is of {theirs}; this package knows {ours}.",
        "Install the newer pgflywheel: pip install --upgrade pgflywheel.",
    )


def _behind(schema: str, theirs: str, ours: str) -> SchemaBehind:
    return SchemaBehind(
        f'schema "{schema}" is older than this package',
        f"It is of {theirs}; this package needs {ours}.",
        f"Run `pgflywheel db upgrade --schema {schema}`.",
    )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
