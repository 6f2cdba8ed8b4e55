"""Where sql/, migrations/, the catalogue and the sample lie, in a checkout and in a wheel."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from pgflywheel.errors import UsageError

PACKAGE = Path(__file__).parent
DEFAULT_SCHEMA = "flywheel"
VECTORS = "public"
_WORD = re.compile(r"(?<![A-Za-z0-9_])flywheel(?=_|\b)")
_VECTOR_WORDS = "halfvec|vector|halfvec_cosine_ops|halfvec_send|vector_norm|vector_dims|l2_norm|l2_normalize|sum|avg"
_VECTOR_NAME = re.compile(rf"\bpublic\.(?=(?:{_VECTOR_WORDS}|l2_distance|inner_product|cosine_distance)\b|[-<+*])")
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")


def render(sql: str, schema: str = DEFAULT_SCHEMA, vectors: str = VECTORS) -> str:
    """Rename the schema of SQL written for ``flywheel``; its roles and its channel follow the name.

    ``vectors`` is the schema pgvector lies in, quoted where it needs to be; SQL is written for ``public``.
    """
    renamed = sql if schema == DEFAULT_SCHEMA else _WORD.sub(schema, sql)
    return renamed if vectors == VECTORS else _VECTOR_NAME.sub(lambda _: f"{vectors}.", renamed)


def checked_schema(name: str) -> str:
    """Return a schema name that needs no quotes anywhere, or raise UsageError.

    48 characters at most: the longest suffix a role or schema gets fits the 63 bytes of an identifier.
    """
    if not _SCHEMA_NAME.fullmatch(name) or name.startswith("pg_") or name in ("public", "information_schema"):
        raise UsageError(
            f'schema name "{name}" cannot be used',
            "An install has a schema of its own, and its name is written without quotes in SQL.",
            "Use 1 to 48 lower-case letters, digits and underscores, not starting with a digit or pg_.",
        )
    return name


@cache
def migrations_dir() -> Path:
    """Return the folder of alembic's env.py and versions/."""
    return _root() / "migrations"


@cache
def sql_dir() -> Path:
    """Return the folder of the re-runnable SQL files."""
    return _root() / "sql"


def sql_files() -> list[Path]:
    """Return the files every upgrade applies, in order."""
    return sorted(sql_dir().glob("*.sql"))


def sql_hash() -> str:
    """Return a short hash of what sql_files() says now."""
    digest = hashlib.sha256()
    for path in sql_files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def revisions() -> list[str]:
    """Return the ids of the migrations, oldest first; each is the number its file's name begins with."""
    return [path.name.partition("_")[0] for path in sorted((migrations_dir() / "versions").glob("[0-9]*.py"))]


def catalogue_files() -> list[Path]:
    """Return the ready-made validator definitions, in order of name."""
    return sorted((PACKAGE / "catalogue").glob("*.toml"))


def sample_dir() -> Path:
    """Return the folder of the sample that quickstart loads."""
    return PACKAGE / "sample"


def _root() -> Path:
    """Prefer the checkout, which is what an editable install edits, over the copy a wheel holds."""
    checkout = PACKAGE.parent.parent
    return checkout if (checkout / "migrations" / "env.py").exists() else PACKAGE / "_assets"
