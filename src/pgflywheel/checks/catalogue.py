"""The catalogue: ready-made definitions, kept as data, whose parameters a validator fills in."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pgflywheel import assets
from pgflywheel.checks.literals import sql_literal
from pgflywheel.errors import InvalidDefinition

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_TYPES: dict[str, Callable[[object], bool]] = {
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "text": lambda value: isinstance(value, str),
    "list of text": lambda value: isinstance(value, list) and value != [] and all(isinstance(v, str) for v in value),
    "object": lambda value: isinstance(value, dict),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a validator may say of an entry; a default of None makes it compulsory."""

    name: str
    type: str
    description: str
    default: Any = None
    minimum: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One ready-made definition; ``{text}`` in its SQL is the target, other placeholders are its parameters."""

    name: str
    description: str
    definition: dict[str, Any]
    parameters: dict[str, Parameter]


@cache
def entries() -> dict[str, Entry]:
    """Return the whole catalogue by name."""
    return {path.stem: _entry(path.stem, tomllib.loads(path.read_text("utf-8"))) for path in assets.catalogue_files()}


def entry(name: str) -> Entry:
    """Return one entry, or raise InvalidDefinition with the names there are."""
    found = entries().get(name)
    if found is None:
        raise InvalidDefinition(
            f'the catalogue has no entry "{name}"', f"It has {', '.join(entries())}.", closest(name, entries())
        )
    return found


def definition(
    name: str, arguments: Mapping[str, Any] | None = None, target: str | None = None, schema: str = "flywheel"
) -> dict[str, Any]:
    """Return the definition an entry stands for with these arguments, in an install's schema.

    ``target`` replaces the entry's own. In SQL arguments become literals; a Python check gets them as parameters.
    """
    chosen = entry(name)
    values = _values(chosen, arguments or {})
    made = {"description": chosen.description, **chosen.definition}
    if target is not None:
        made["target"] = target
    if made["kind"] == "python":
        return made | ({"parameters": values} if values else {})
    return made | {"expression": _filled(chosen, in_schema(made["expression"], schema), values, made["target"])}


def in_schema(sql: str, schema: str) -> str:
    """Point SQL that names the schema ``flywheel`` at an install with another name."""
    return re.sub(r"(?<![\w.])flywheel(?=\.)", schema, sql)


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return a hint at the known name that was probably meant, if one is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]}?" if near else None


def _entry(name: str, document: dict[str, Any]) -> Entry:
    parameters = {key: Parameter(key, **facts) for key, facts in document.get("parameters", {}).items()}
    return Entry(name, document["description"], document["definition"], parameters)


def _filled(chosen: Entry, template: str, values: dict[str, Any], target: str) -> str:
    def fill(found: re.Match[str]) -> str:
        if found[1] == "text":
            return _column(chosen, target)
        return sql_literal(values[found[1]])

    return _PLACEHOLDER.sub(fill, template)


def _column(chosen: Entry, target: str) -> str:
    if target not in ("input", "output"):
        raise InvalidDefinition(
            f'target of catalogue entry {chosen.name} is "{target}", not input or output', "It judges a text."
        )
    return f"span.{target}"


def _values(chosen: Entry, arguments: Mapping[str, Any]) -> dict[str, Any]:
    for name in arguments:
        if name not in chosen.parameters:
            known = ", ".join(chosen.parameters)
            raise InvalidDefinition(
                f'catalogue entry {chosen.name} has no parameter "{name}"',
                f"Its parameters are {known}." if known else "It has none.",
                closest(name, chosen.parameters),
            )
    return {key: _value(chosen, facts, arguments.get(key)) for key, facts in chosen.parameters.items()}


def _value(chosen: Entry, parameter: Parameter, given: object) -> Any:
    value: Any = parameter.default if given is None else given
    what = f"parameter {parameter.name} of catalogue entry {chosen.name}"
    if value is None:
        raise InvalidDefinition(f"{what} is missing", f"It is of type {parameter.type}: {parameter.description}")
    if not _TYPES[parameter.type](value):
        raise InvalidDefinition(f"{what} is {value!r}, not of type {parameter.type}", parameter.description)
    if parameter.minimum is not None and not value >= parameter.minimum:
        raise InvalidDefinition(f"{what} is {value!r}, below {parameter.minimum}", parameter.description)
    return value
