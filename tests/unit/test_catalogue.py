"""The catalogue and files of definitions: what they give, and how they refuse what they cannot."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgflywheel.checks import catalogue
from pgflywheel.checks.definitions import read_definitions
from pgflywheel.errors import InvalidDefinition

SHORT = {"use": "maximum_length"}
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of validators and return its path."""

    def write_file(text: str) -> Path:
        path = tmp_path / "validators.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def _arguments(entry: catalogue.Entry) -> dict[str, Any]:
    """Return a value for each compulsory parameter."""
    samples = {"text": "^a+$", "object": {"type": "object"}}
    return {key: samples[facts.type] for key, facts in entry.parameters.items() if facts.default is None}


@pytest.mark.parametrize("name", catalogue.entries())
def test_every_entry_gives_a_whole_definition(name: str) -> None:
    entry = catalogue.entry(name)
    made = catalogue.definition(name, _arguments(entry))
    assert made["kind"] in ("sql", "python")
    assert made["description"].endswith(".")
    assert all(facts.description.endswith(".") for facts in entry.parameters.values())
    assert ("expression" in made) == (made["kind"] == "sql")
    assert "{" not in made.get("expression", "")


@pytest.mark.parametrize("name", [n for n, e in catalogue.entries().items() if e.definition["kind"] == "python"])
def test_every_python_entry_names_a_callable_that_takes_its_parameters(name: str) -> None:
    made = catalogue.definition(name, _arguments(catalogue.entry(name)))
    module, _, function = made["callable"].partition(":")
    signature = inspect.signature(getattr(importlib.import_module(module), function))
    signature.bind("text", **made["parameters"])


def test_parameters_take_their_defaults_or_what_is_given() -> None:
    assert catalogue.definition("maximum_length")["expression"] == "char_length(span.output) <= 4000"
    assert catalogue.definition("maximum_length", {"limit": 9})["expression"] == "char_length(span.output) <= 9"


def test_the_target_moves_the_check_to_another_text() -> None:
    made = catalogue.definition("valid_json", target="input")
    assert (made["target"], made["expression"]) == ("input", "flywheel.is_json(span.input)")


def test_the_functions_of_another_install_are_called_and_the_users_words_are_kept() -> None:
    made = catalogue.definition("forbidden_words", {"words": ["flywheel.x", "{text}"]}, schema="acme")
    expected = "not acme.contains_any_word(span.output, array['flywheel.x'::text, '{text}'::text]::text[])"
    assert made["expression"] == expected


def test_text_becomes_one_literal_whatever_it_holds() -> None:
    made = catalogue.definition("regex_present", {"pattern": r"it's \d+'; drop table x; --"})
    assert made["expression"] == r"span.output ~ E'it''s \\d+''; drop table x; --'::text"


@pytest.mark.parametrize(
    ("name", "arguments", "message", "hint"),
    [
        ("maximum_lenght", {}, 'the catalogue has no entry "maximum_lenght"', "Did you mean maximum_length?"),
        ("maximum_length", {"limt": 3}, 'entry maximum_length has no parameter "limt"', "Did you mean limit?"),
        ("maximum_length", {"limit": "3"}, "parameter limit of .* is '3', not of type integer", None),
        ("maximum_length", {"limit": True}, "is True, not of type integer", None),
        ("maximum_length", {"limit": -1}, "is -1, below 0", None),
        ("forbidden_words", {"words": []}, "is \\[\\], not of type list of text", None),
        ("forbidden_words", {"words": ["a", 1]}, "is \\['a', 1\\], not of type list of text", None),
        ("latency_limit", {"limit_ms": float("inf")}, "number inf cannot be written as SQL", None),
        ("regex_present", {}, "parameter pattern of catalogue entry regex_present is missing", None),
        ("regex_present", {"pattern": "a\0"}, "cannot be written as SQL", None),
        ("regex_present", {"pattern": "\ud800"}, "cannot be written as SQL", None),
        ("valid_json", {"strict": True}, 'entry valid_json has no parameter "strict"', None),
    ],
)
def test_a_wrong_argument_is_refused_with_its_value(
    name: str, arguments: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(InvalidDefinition, match=message) as raised:
        catalogue.definition(name, arguments)
    assert raised.value.detail
    assert raised.value.hint == hint


def test_a_text_check_has_no_target_span() -> None:
    with pytest.raises(InvalidDefinition, match='target of catalogue entry not_empty is "span", not input or output'):
        catalogue.definition("not_empty", target="span")


def test_a_file_gives_names_and_definitions_in_its_order(write: Write) -> None:
    path = write("""
        [[validator]]
        name = "short_answers"
        use = "maximum_length"
        with = { limit = 2000 }
        filter = { node = "answer" }
        action = "flag"

        [[validator]]
        name = "cheap"
        kind = "sql"
        target = "span"
        expression = "span.cost_usd < 1 and flywheel.is_json(span.output)"
        """)
    (first, short), (second, cheap) = read_definitions(path, "acme")
    assert (first, second) == ("short_answers", "cheap")
    assert short["expression"] == "char_length(span.output) <= 2000"
    assert (short["filter"], short["action"], short["kind"]) == ({"node": "answer"}, "flag", "sql")
    assert cheap["expression"] == "span.cost_usd < 1 and acme.is_json(span.output)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not TOML"),
        ("", "holds no validators"),
        ("[[validators]]\nname='a'", 'key "validators" is not known'),
        ("validator = 3", "holds no validators"),
        ("[[validator]]\nuse='ssn'", "name of validator 1 is missing"),
        ("[[validator]]\nname='A b'", "name of validator 1 is 'A b'"),
        ("[[validator]]\nname='a'\nuse='nothing'", 'validator a: the catalogue has no entry "nothing"'),
        ("[[validator]]\nname='a'\nuse=3", "validator a: key use is 3"),
        ("[[validator]]\nname='a'\nuse='not_empty'\nwith=3", "validator a: key with is 3"),
        ("[[validator]]\nname='a'\nkind='sql'\nwith={x=1}", "validator a: key with needs key use"),
        ("[[validator]]\nname='a'\nuse='not_empty'\nkind='sql'", "validator a: key kind cannot stand beside use"),
        ("[[validator]]\nname='a'\nkind='sql'\nfilters={}", 'validator a: key "filters" is not known'),
        ("[[validator]]\nname='a'\nkind='sql'\nsample=nan", "validator a: key sample holds a value JSON cannot hold"),
        ("[[validator]]\nname='a'\nkind='sql'\nparameters={d=2025-01-01}", "validator a: key parameters holds a value"),
        ("[[validator]]\nname='a'\nuse='not_empty'\n[[validator]]\nname='a'", "validator a is defined twice"),
    ],
)
def test_a_wrong_file_is_refused_with_file_validator_and_key(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(InvalidDefinition) as raised:
        read_definitions(path)
    assert raised.value.message.startswith(str(path))
    assert message in raised.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match="cannot be read"):
        read_definitions(tmp_path / "nothing.toml")
