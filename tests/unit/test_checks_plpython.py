"""A check as a plpython3u function: its text, and its body run as the server's Python would run it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from pgflywheel.checks.plpython import plpython_function
from pgflywheel.errors import InvalidDefinition


def _body(sql: str) -> str:
    quote = sql.split("\nas ")[1].split("\n")[0]
    return sql.split(quote)[1]


def _run(sql: str, texts: list[str], isolated: bool) -> list[Any]:
    """Call the body in a Python of its own, as PL/Python does: text is a global, GD lives for the session."""
    program = "import json, sys\n"
    if isolated:  # as on a server that has no pgflywheel
        program += (
            "sys.meta_path.insert(0, type('Absent', (), {'find_spec': staticmethod(lambda name, *_: absent(name))}))\n"
        )
        program += "def absent(name):\n    if name.split('.')[0] == 'pgflywheel':\n        raise ImportError(name)\n"
    program += "GD = {}\ndef call():\n" + textwrap.indent(_body(sql), "\t", lambda line: True)
    program += "\nanswers = []\nfor text in json.load(sys.stdin):\n    answers.append(call())\n"
    program += "print(json.dumps([answers, len(GD)]))\n"
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(texts), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers, made = json.loads(done.stdout)
    assert made == 1, "the module is made once a session"
    return list(answers)


@pytest.mark.parametrize("isolated", [True, False])
def test_a_boolean_check_travels_whole(isolated: bool) -> None:
    sql = plpython_function("has_card", "pgflywheel.checks.personal:contains_card")
    answers = _run(sql, ["4111 1111 1111 1111", "no card"], isolated)
    assert answers == [[True, None, None], [False, None, None]]


@pytest.mark.parametrize("isolated", [True, False])
def test_a_verdict_and_its_parameters_travel_too(isolated: bool) -> None:
    parameters = {"schema": {"type": "object", "description": "it's $check$ \\ \n"}}
    sql = plpython_function("is_object", "pgflywheel.checks.structured:matches_schema", parameters)
    assert _run(sql, ["{}", "[]"], isolated) == [
        [True, None, None],
        [False, None, "at $: [] is not of type 'object'"],
    ]


def test_no_verdict_stays_null() -> None:
    sql = plpython_function("english", "pgflywheel.checks.language:is_language", {"languages": ["en"]})
    assert _run(sql, ["ok", "The kettle boils and the tea is ready."], isolated=True)[0] is None


def test_the_function_is_hardened_and_commented() -> None:
    sql = plpython_function("has_card", "pgflywheel.checks.personal:contains_card", schema="acme")
    assert sql.startswith(
        "create or replace function acme.has_card(text text) returns acme.verdict\nlanguage plpython3u"
    )
    assert "security invoker\nset search_path = pg_catalog, pg_temp\n" in sql
    assert "comment on function acme.has_card(text) is 'Tell whether a text holds a payment card number" in sql


def test_the_quote_never_ends_inside_the_body() -> None:
    sql = plpython_function("f", "pgflywheel.checks.language:is_language", {"languages": ["$check$", "$check_$"]})
    assert sql.count("$check__$") == 2


@pytest.mark.parametrize("name", ["", "Has", "1st", "a b", "a;drop", "x" * 64])
def test_a_name_that_needs_quotes_is_refused(name: str) -> None:
    with pytest.raises(InvalidDefinition, match="function name"):
        plpython_function(name, "pgflywheel.checks.personal:contains_card")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nonsense", "is not module:function"),
        ("pgflywheel.checks.nowhere:check", "cannot be imported"),
        ("pgflywheel.checks.personal:nothing", "cannot be imported"),
        ("pgflywheel.checks.structured:Verdict", "cannot be installed in the database"),
        ("pgflywheel.checks.text:lru_cache", "cannot be installed in the database"),
    ],
)
def test_a_check_that_cannot_travel_is_refused(path: str, message: str) -> None:
    with pytest.raises(InvalidDefinition, match=message):
        plpython_function("f", path)
