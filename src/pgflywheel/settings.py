"""The environment: which database, which folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pgflywheel.errors import UsageError

_SCHEME = re.compile(r"(?:postgres|postgresql)(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_CONNINFO = re.compile(r"\s*[a-z_]+\s*=", re.IGNORECASE)
_LIBPQ = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGPORT", "PGUSER")


def resolve_dsn(option: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return what libpq connects with: the option, PGFLYWHEEL_DSN, DATABASE_URL or (as "") the PG* variables.

    Raises UsageError when none of them names a database, or when the spelling is not one libpq knows.
    """
    for given in (option, environ.get("PGFLYWHEEL_DSN"), environ.get("DATABASE_URL")):
        if given:
            return normalised_dsn(given)
    if any(environ.get(name) for name in _LIBPQ):
        return ""
    raise UsageError(
        "no database is named",
        "Neither --dsn nor PGFLYWHEEL_DSN, DATABASE_URL or PGHOST is set.",
        "Pass --dsn postgresql://user@host/database, or run `pgflywheel quickstart` for a database of its own.",
    )


def normalised_dsn(dsn: str) -> str:
    """Return a libpq URI or conninfo string for any spelling of a Postgres DSN, drivers' own ones included."""
    dsn = dsn.strip()
    if _SCHEME.match(dsn):
        return _SCHEME.sub("postgresql://", dsn, count=1)
    if _CONNINFO.match(dsn):
        return dsn
    scheme, has_scheme, _ = dsn.partition("://")
    raise UsageError(
        "the DSN is not one of Postgres",
        f'Its scheme is "{scheme}".' if has_scheme else "It has neither a scheme nor name=value pairs.",
        "Write postgresql://user@host/database or host=… dbname=….",
    )


def schema_name(option: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the install's schema: the option, PGFLYWHEEL_SCHEMA or ``flywheel``."""
    return option or environ.get("PGFLYWHEEL_SCHEMA") or "flywheel"


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the embedded server: PGFLYWHEEL_DATA_DIR, or one under the user's data directory.

    For root it is under /var/lib: the server then runs as a system user, who could only
    reach a folder below /root if that were opened to everyone.
    """
    given = environ.get("PGFLYWHEEL_DATA_DIR")
    if given:
        return Path(given).expanduser()
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/pgflywheel")
    import platformdirs  # here, so that a command with a DSN does not load it

    return Path(platformdirs.user_data_dir("pgflywheel", appauthor=False))
