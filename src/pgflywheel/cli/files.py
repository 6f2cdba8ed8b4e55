"""Files that commands read and write: what is wrong with one is said with its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pgflywheel.errors import InvalidArgument, UsageError

TOML_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def read_toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file holds; raises InvalidArgument."""
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read", error.strerror, "Name a file of TOML.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file} is not TOML", str(error), "Mend the file, as UTF-8.") from error


def require_names(file: Path, kind: str, tables: object) -> list[dict[str, Any]]:
    """Return the tables of a kind; raises InvalidArgument where they are no tables, or one has no name."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InvalidArgument(f"{file}: {kind} is no list of tables", hint=f"Write [[{kind}]].")
    for place, table in enumerate(tables, 1):
        if not isinstance(table.get("name"), str):
            raise InvalidArgument(f"{file}: {kind} {place} has no name", hint=f'Write name = "..." below [[{kind}]].')
    return tables


def write_text(file: Path, text: str) -> None:
    """Write a file; raises UsageError."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written", error.strerror, "Name another file.") from error
