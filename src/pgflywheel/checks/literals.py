"""Values as SQL literals that mean the same under any setting of the server."""

from __future__ import annotations

import math

from pgflywheel.errors import InvalidDefinition


def sql_literal(value: object) -> str:
    """Write a text, number, boolean or list of texts as SQL; raise InvalidDefinition for what SQL cannot hold."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _number(value)
        case str():
            return _text(value)
        case list():
            return f"array[{', '.join(map(sql_literal, value))}]::text[]"
        case _:
            raise InvalidDefinition(f"{value!r} cannot be written as SQL")


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise InvalidDefinition(f"number {value} cannot be written as SQL", "It is not finite.")
    return f"({value!r})" if value < 0 else repr(value)


def _text(value: str) -> str:
    """Double quotes and backslashes; E'' makes a backslash mean one whatever standard_conforming_strings says."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidDefinition(
            f"text {value!r} cannot be written as SQL", "Postgres stores neither NUL nor a lone surrogate."
        )
    quoted = value.replace("'", "''")
    if "\\" not in quoted:
        return f"'{quoted}'::text"
    return "E'" + quoted.replace("\\", "\\\\") + "'::text"
