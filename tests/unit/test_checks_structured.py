"""JSON and JSON Schema: hostile documents get a verdict, never an exception."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable

from pgflywheel.checks.structured import is_json, matches_schema

INTENT: dict[str, Any] = {
    "type": "object",
    "required": ["intent"],
    "properties": {"intent": {"enum": ["return", "refund"]}, "mail": {"type": "string", "format": "email"}},
}


@pytest.mark.parametrize(
    "text", ["{}", " [1, 2] ", '"x"', "null", "-0.5e10", '"\\ud800"', "1" * 5000, "[" * 50 + "]" * 50]
)
def test_every_json_value_is_json(text: str) -> None:
    assert is_json(text)


@pytest.mark.parametrize(
    "text", ["", "{", "{'a': 1}", "NaN", "Infinity", "01", "[1,]", '"\n"', "```json\n{}\n```", "\ufeff{}"]
)
def test_what_only_some_parsers_take_is_no_json(text: str) -> None:
    assert not is_json(text)


@pytest.mark.parametrize("text", ["[" * 1_000_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000])
def test_bottomless_json_is_none(text: str) -> None:
    assert not is_json(text)
    assert not matches_schema(text, {}).passed


def test_a_document_that_satisfies_its_schema_passes() -> None:
    assert matches_schema('{"intent": "refund", "mail": "a@example.com"}', INTENT).passed


@pytest.mark.parametrize(
    ("text", "critique"),
    [
        ("{", "not JSON: Expecting property name"),
        ("{}", "at $: 'intent' is a required property"),
        ('{"intent": "poem"}', "at $.intent: 'poem' is not one of ['return', 'refund']"),
        ('{"intent": "return", "mail": "nobody"}', "at $.mail: 'nobody' is not a 'email'"),
    ],
)
def test_the_critique_says_what_is_wrong_and_where(text: str, critique: str) -> None:
    verdict = matches_schema(text, INTENT)
    assert not verdict.passed
    assert (verdict.critique or "").startswith(critique)


def test_a_number_of_any_length_is_a_number() -> None:
    assert matches_schema("1" * 5000, {"type": "number"}).passed


def test_a_critique_stays_short_whatever_the_document() -> None:
    assert len(matches_schema(f'"{"x" * 100_000}"', {"type": "integer"}).critique or "") <= 500


def test_recursion_of_schema_and_document_ends_in_a_verdict() -> None:
    deep = "[" * 900 + "]" * 900
    assert matches_schema(deep, {"items": {"$ref": "#"}}).critique == "the JSON is nested too deeply"


def test_a_schema_elsewhere_is_never_fetched() -> None:
    with pytest.raises(Unresolvable):
        matches_schema("1", {"$ref": "http://schemas.example/x.json"})


def test_a_schema_that_is_none_raises() -> None:
    with pytest.raises(SchemaError):
        matches_schema("1", {"type": "nonsense"})
