"""Files of validators: TOML with one ``[[validator]]`` table each, reviewable in Git."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from pgflywheel.checks import catalogue
from pgflywheel.errors import InvalidDefinition

_SQL_KEYS = ("expression", "function", "where")
_SET_BY_ENTRY = ("kind", "expression", "function", "callable", "parameters", "columns")
_FREE = (
    *("target", "lane", "action", "sample", "filter", "where", "severity", "description"),
    *("time_limit_ms", "memory_limit_mb"),
)
_OF_JUDGES = (
    *("question", "pass_when", "fail_when", "template", "provider", "model", "model_parameters", "votes", "confidence"),
    *("shots", "context", "degrade", "labels_of", "runs", "escalates_to", "selective"),
)
KEYS = (*_SET_BY_ENTRY, *_FREE, *_OF_JUDGES)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def read_definitions(path: Path, schema: str = "flywheel") -> list[tuple[str, dict[str, Any]]]:
    """Read name and definition of each validator of a file, in its order, for an install in a schema.

    Raise InvalidDefinition, which names file, validator and key.
    """
    read: dict[str, dict[str, Any]] = {}
    for place, table in enumerate(_tables(path), start=1):
        name = _name(path, place, table)
        where = f"{path}: validator {name}"
        if name in read:
            raise InvalidDefinition(f"{where} is defined twice", hint="Give one of the two another name.")
        try:
            read[name] = _definition(table, schema)
        except InvalidDefinition as error:
            raise InvalidDefinition(f"{where}: {error.message}", error.detail, error.hint) from error
    return list(read.items())


def _tables(path: Path) -> list[dict[str, Any]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidDefinition(f"{path} cannot be read", str(error), "Name a TOML file of validators.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidDefinition(f"{path} is not TOML", str(error)) from error
    tables = document.pop("validator", [])
    if document:
        raise InvalidDefinition(
            f'{path}: key "{next(iter(document))}" is not known', hint="Each validator is a [[validator]] table."
        )
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InvalidDefinition(f"{path} holds no validators", hint="Each validator is a [[validator]] table.")
    return tables


def _name(path: Path, place: int, table: dict[str, Any]) -> str:
    name = table.pop("name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidDefinition(
            f"{path}: name of validator {place} is {'missing' if name is None else repr(name)}",
            "A name is 1 to 63 lower-case letters, digits and underscores, and starts with a letter.",
        )
    return name


def _definition(table: dict[str, Any], schema: str) -> dict[str, Any]:
    used, arguments = table.pop("use", None), table.pop("with", None)
    _require_known(table)
    own = {key: catalogue.in_schema(value, schema) if _is_sql(key, value) else value for key, value in table.items()}
    if used is None:
        if arguments is not None:
            raise InvalidDefinition("key with needs key use", "It gives the parameters of a catalogue entry.")
        return _as_json(own)
    _require_form(used, arguments, own)
    return _as_json(catalogue.definition(used, arguments, own.get("target"), schema) | own)


def _is_sql(key: str, value: object) -> bool:
    return key in _SQL_KEYS and isinstance(value, str)


def _require_known(table: dict[str, Any]) -> None:
    for key in table:
        if key not in KEYS:
            raise InvalidDefinition(
                f'key "{key}" is not known',
                f"A validator has name, use, with, {', '.join(KEYS)}.",
                catalogue.closest(key, ("name", "use", "with", *KEYS)),
            )


def _require_form(used: object, arguments: object, own: dict[str, Any]) -> None:
    if not isinstance(used, str):
        raise InvalidDefinition(f"key use is {used!r}, not the name of a catalogue entry")
    if arguments is not None and not isinstance(arguments, dict):
        raise InvalidDefinition(f"key with is {arguments!r}, not a table of parameters")
    for key in _SET_BY_ENTRY:
        if key in own:
            raise InvalidDefinition(
                f"key {key} cannot stand beside use", f"Catalogue entry {used} sets it.", "Leave out one of the two."
            )


def _as_json(definition: dict[str, Any]) -> dict[str, Any]:
    """Refuse what TOML knows and JSON does not: dates, times, nan and inf."""
    for key, value in definition.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidDefinition(f"key {key} holds a value JSON cannot hold", str(error)) from error
    return definition
