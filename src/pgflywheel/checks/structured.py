"""Checks of JSON; is_json is the twin of the SQL function in 25_checks.sql."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Protocol

from pgflywheel.records import Verdict

_DIGITS_OF_INT = 4_000  # int() refuses more than 4,300
_TOO_DEEP = Verdict(False, critique="the JSON is nested too deeply")


class _Validator(Protocol):
    def iter_errors(self, instance: Any) -> Any: ...


def is_json(text: str) -> bool:
    """Tell whether a text is one JSON value (RFC 8259); nested deeper than the interpreter's stack it is none."""
    try:
        _parsed(text)
    except (ValueError, RecursionError):
        return False
    return True


def matches_schema(text: str, schema: dict[str, Any] | bool) -> Verdict:
    """Pass a text that is JSON and satisfies a JSON Schema, its formats included; the critique names the place.

    Nothing is fetched: a ``$ref`` to another document raises. So does a schema that is none.
    """
    try:
        instance = json.loads(text, parse_constant=_no_constant, parse_int=_integer)
    except ValueError as error:
        return Verdict(False, critique=f"not JSON: {error}"[:500])
    except RecursionError:
        return _TOO_DEEP
    return _judged(_validator(json.dumps(schema, sort_keys=True)), instance)


def _parsed(text: str) -> None:
    """Parse and drop the numbers: one of 5,000 digits is JSON, and too large for int()."""
    json.loads(text, parse_constant=_no_constant, parse_int=_ignored, parse_float=_ignored)


def _ignored(number: str) -> None:
    return None


def _integer(number: str) -> float:
    return int(number) if len(number) < _DIGITS_OF_INT else float(number)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _judged(validator: _Validator, instance: Any) -> Verdict:
    from jsonschema.exceptions import best_match

    try:
        worst = best_match(validator.iter_errors(instance))
    except RecursionError:
        return _TOO_DEEP
    if worst is None:
        return Verdict(True)
    return Verdict(False, critique=f"at {worst.json_path}: {worst.message}"[:500])


@lru_cache(maxsize=64)
def _validator(schema_text: str) -> _Validator:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    schema = json.loads(schema_text)
    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    made: _Validator = kind(schema, registry=Registry(), format_checker=kind.FORMAT_CHECKER)
    return made
