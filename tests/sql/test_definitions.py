"""Definitions: what is stored, and what is refused and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.support import Connection, activate, define, insert, refused, rows, scores, value, work_off

PYTHON = {"kind": "python", "callable": "shop.checks:polite"}


def test_a_definition_is_stored_once_whatever_the_order_of_its_keys(connection: Connection) -> None:
    first = define(connection, "short", expression="span.output <> ''", severity="high")
    again = define(connection, "short", severity="high", expression="span.output <> ''")
    spelled = define(connection, "short", expression="span.output <> ''", severity="high", lane="bulk", sample=1)
    assert first[:3] == ("short", 1, "draft")
    assert first[4] is True
    assert again == spelled == (*first[:4], False)
    assert value(connection, "select count(*) from flywheel.validator_versions") == 1


def test_another_definition_is_the_next_version(connection: Connection) -> None:
    define(connection, "short", severity="low")
    assert define(connection, "short", severity="high")[1] == 2
    assert define(connection, "short", severity="low")[1:5:3] == (1, False)
    assert define(connection, "other", severity="low")[1] == 1


def test_what_a_definition_leaves_out_is_filled_in(connection: Connection) -> None:
    define(connection, "short", expression="true")
    stored = value(connection, "select definition from flywheel.validator_status")
    assert stored == {
        "kind": "sql",
        "expression": "true",
        "target": "output",
        "lane": "bulk",
        "action": "flag",
        "sample": 1,
        "filter": {},
        "severity": "medium",
        "description": "",
    }


def test_a_null_is_the_same_as_a_missing_key(connection: Connection) -> None:
    first = define(connection, "short", expression="true")
    assert define(connection, "short", expression="true", function=None, where=None)[3:] == (first[3], False)


@pytest.mark.parametrize(
    "column",
    [
        "definition = '{}'",
        "content_hash = 'x'",
        "version = 9",
        "kind = 'python'",
        "target = 'input'",
        "lane = 'inline'",
        "action = 'block'",
        "severity = 'low'",
        "sample = 0.5",
        "validator_id = gen_random_uuid()",
        "version_id = gen_random_uuid()",
    ],
)
def test_no_part_of_a_version_can_be_changed(connection: Connection, column: str) -> None:
    define(connection, "short")
    said = refused(connection, f"update flywheel.validator_versions set {column}")
    assert said.sqlstate == "WF008"
    assert said.message_primary == "version 1 of validator short cannot be changed"
    assert "define_validator" in (said.message_hint or "")


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "kind is missing, not one of sql, python"),
    ({"kind": "lua", "expression": "true"}, "kind is lua, not one of sql, python"),
    ({"kind": "sql"}, "kind sql needs either expression or function"),
    ({"kind": "sql", "expression": "true", "function": "f"}, "kind sql needs either expression or function"),
    ({"kind": "sql", "expression": "true", "target": "trace"}, "target trace is reserved"),
    ({"kind": "sql", "expression": "true", "target": "session"}, "target session is reserved"),
    ({"kind": "sql", "expression": "true", "target": "prompt"}, "target is prompt, not one of input, output, span"),
    ({"kind": "sql", "expression": "true", "lane": "slow"}, "lane is slow, not one of inline, bulk, judge"),
    ({"kind": "sql", "expression": "true", "lane": "judge"}, "a sql check runs in lane inline or bulk, not judge"),
    ({"kind": "sql", "expression": "true", "action": "drop"}, "action is drop, not one of flag, block"),
    ({"kind": "sql", "expression": "true", "action": "block"}, "action block needs lane inline"),
    ({"kind": "sql", "expression": "true", "severity": "awful"}, "severity is awful, not one of info, low"),
    ({"kind": "sql", "expression": "true", "regex": "x"}, "key regex is not one of kind, target"),
    ({"kind": "sql", "expression": "true", "sample": 0}, "sample is 0, not a share above 0 and up to 1"),
    ({"kind": "sql", "expression": "true", "sample": -0.5}, "sample is -0.5, not a share"),
    ({"kind": "sql", "expression": "true", "sample": 1.01}, "sample is 1.01, not a share"),
    ({"kind": "sql", "expression": "true", "sample": "0.5"}, 'sample is "0.5", not a number'),
    ({"kind": "sql", "expression": "true", "filter": "shop"}, 'filter is "shop", not an object'),
    ({"kind": "sql", "expression": "true", "filter": {"user": "a"}}, "filter.user is not one of project, environment"),
    ({"kind": "sql", "expression": "true", "filter": {"node": 3}}, "filter.node is 3, neither a text nor a list"),
    ({"kind": "sql", "expression": "true", "filter": {"node": []}}, "filter.node is [], neither a text nor a list"),
    ({"kind": "sql", "expression": "true", "filter": {"node": ["a", 1]}}, 'filter.node is ["a", 1], neither'),
    ({"kind": "sql", "expression": "true", "filter": {"node": {"a": 1}}}, 'filter.node is {"a": 1}, neither'),
    ({"kind": "sql", "expression": "true", "callable": "a:b"}, "callable is for kind python"),
    ({"kind": "sql", "expression": "length(span.output"}, "syntax error"),
    ({"kind": "sql", "expression": "true; drop table flywheel.spans"}, "syntax error"),
    ({"kind": "sql", "expression": ""}, "syntax error"),
    ({"kind": "sql", "expression": "span.outptu <> ''"}, "column span.outptu does not exist"),
    ({"kind": "sql", "expression": "no_such(span.output)"}, "function no_such(text) does not exist"),
    ({"kind": "sql", "expression": "length(span.output)"}, "it gives integer"),
    ({"kind": "sql", "expression": "'true'"}, "it gives text"),
    ({"kind": "sql", "expression": "null"}, "it gives text"),
    ({"kind": "sql", "expression": "row(true, 0.5, 'fine')"}, "it gives record"),
    ({"kind": "sql", "expression": "array[true]"}, "it gives boolean[]"),
    ({"kind": "sql", "expression": "count(*) > 0"}, "aggregate function calls"),
    ({"kind": "sql", "expression": "generate_series(1, 2) > 1"}, "set-returning functions are not allowed"),
    ({"kind": "sql", "expression": "row_number() over () > 0"}, "window function"),
    ({"kind": "sql", "expression": "true /* never ended"}, "unterminated /* comment"),
    ({"kind": "sql", "expression": "span.output ~ '('"}, "parentheses () not balanced"),
    ({"kind": "sql", "expression": "1 / 0 = 1"}, "division by zero"),
    ({"kind": "sql", "expression": "true", "where": "span.cost"}, "column span.cost does not exist"),
    ({"kind": "sql", "expression": "true", "where": "span.cost_usd"}, "double precision"),
    ({"kind": "sql", "expression": "true", "where": "span.output = 'a"}, "unterminated quoted string"),
    ({"kind": "sql", "function": "no_such"}, "function no_such takes neither a flywheel.spans nor a text"),
    ({"kind": "sql", "function": "no such!"}, "function no such! takes neither"),
    ({"kind": "sql", "function": "a.b.c.d"}, "too many dotted names): a.b.c.d"),
    ({"kind": "sql", "function": "pg_catalog.upper"}, "it gives text"),
    ({"kind": "python"}, "callable is missing, not module:function"),
    ({"kind": "python", "callable": "os.system"}, "callable is os.system, not module:function"),
    ({"kind": "python", "callable": "os:system('x')"}, "callable is os:system('x'), not module:function"),
    (PYTHON | {"lane": "inline"}, "a python check runs in lane bulk or judge, not inline"),
    (PYTHON | {"action": "block"}, "action block needs lane inline"),
    (PYTHON | {"expression": "true"}, "expression is for kind sql"),
    (PYTHON | {"columns": "output"}, 'columns is "output", not a list'),
    (PYTHON | {"columns": ["output", "price"]}, "columns names price, which spans does not have"),
    (PYTHON | {"parameters": [1]}, "parameters is [1], not an object"),
    (PYTHON | {"time_limit_ms": 0}, "time_limit_ms is 0, not a positive number"),
    (PYTHON | {"time_limit_ms": "1s"}, 'time_limit_ms is "1s", not a positive number'),
    (PYTHON | {"memory_limit_mb": -1}, "memory_limit_mb is -1, not a positive number"),
    (PYTHON | {"where": "span.cost"}, "column span.cost does not exist"),
]


@pytest.mark.parametrize(
    ("definition", "words"), BAD, ids=[f"{place}: {words}" for place, (_, words) in enumerate(BAD)]
)
def test_a_bad_definition_is_refused_with_key_and_value(
    connection: Connection, definition: dict[str, Any], words: str
) -> None:
    said = refused(connection, "select flywheel.define_validator('bad_one', %s)", [Jsonb(definition)])
    assert said.sqlstate == "WF003", said.message_primary
    assert (said.message_primary or "").startswith("definition of validator bad_one is not valid: ")
    assert words in (said.message_primary or "")
    assert said.message_hint
    assert value(connection, "select count(*) from flywheel.validators") == 0


@pytest.mark.parametrize("definition", ["null", "[]", "3", '"text"', "[1]", None])
def test_a_definition_that_is_no_object_is_refused(connection: Connection, definition: str | None) -> None:
    said = refused(connection, "select flywheel.define_validator('bad_one', %s::jsonb)", [definition])
    assert said.sqlstate == "WF003"
    assert "it is not an object" in (said.message_primary or "")


@pytest.mark.parametrize("name", ["", "Upper", "1st", "_x", "with space", "dash-ed", "a" * 64, "über", None, "a'b"])
def test_a_name_that_needs_quotes_is_refused(connection: Connection, name: str | None) -> None:
    said = refused(
        connection, "select flywheel.define_validator(%s, %s)", [name, Jsonb({"kind": "sql", "expression": "true"})]
    )
    assert said.sqlstate == "WF003"
    assert "name is not lower-case letters" in (said.message_primary or "")


def test_a_check_may_read_any_column_and_need_no_alias(connection: Connection) -> None:
    activate(connection, "cheap", target="span", expression="cost_usd < 1 and latency_ms is null and attributes ? 'a'")
    insert(connection, cost_usd=0.5, attributes='{"a": 1}')
    work_off(connection)
    assert scores(connection) == [("cheap", True, None)]


def test_a_function_over_a_span_or_a_text_gives_boolean_or_verdict(connection: Connection) -> None:
    connection.execute("create schema shop")
    connection.execute("create function shop.polite(text) returns boolean language sql as 'select $1 ~ ''please'''")
    connection.execute(
        """create function shop.graded(span flywheel.spans) returns flywheel.verdict language plpgsql as
           $$begin return (length(span.output) > 3, 0.25::double precision, 'of ' || span.node); end$$"""
    )
    for lane in ("inline", "bulk"):
        activate(connection, f"polite_{lane}", function="shop.polite", lane=lane)
        activate(connection, f"graded_{lane}", function="shop.graded", lane=lane, target="span")
    insert(connection, "yes please")
    work_off(connection)
    found = rows(connection, "select validator, passed, value, critique from flywheel.current_scores order by 1")
    assert found == [
        ("graded_bulk", True, 0.25, "of app"),
        ("graded_inline", True, 0.25, "of app"),
        ("polite_bulk", True, None, None),
        ("polite_inline", True, None, None),
    ]


def test_a_python_definition_needs_no_importable_module_here(connection: Connection) -> None:
    assert define(connection, "polite", **PYTHON, columns=["output", "node"], parameters={"limit": 3})[4]


def test_test_validator_answers_and_writes_nothing(connection: Connection) -> None:
    span_id = insert(connection, "short")
    query = "select eligible, passed, value, critique, unscored_reason, detail from flywheel.test_validator(%s, %s)"

    def told(**definition: Any) -> tuple[Any, ...]:
        return rows(connection, query, [Jsonb({"kind": "sql", **definition}), span_id])[0]

    assert told(expression="length(span.output) < 10") == (True, True, None, None, None, None)
    assert told(expression="false", filter={"node": "other"})[:2] == (False, False)
    assert told(expression="null::boolean") == (True, None, None, None, "no_verdict", None)
    assert told(expression="1 / (length(span.output) - 5) = 1")[4:] == ("raised", "division by zero")
    assert told(expression="row(true, 7, 'x')::flywheel.verdict")[1:] == (
        None,
        None,
        "x",
        "wrong_type",
        "value is 7, not in [0, 1]",
    )
    counts = "select (select count(*) from flywheel.scores), (select count(*) from flywheel.validators)"
    assert rows(connection, counts) == [(0, 0)]


def test_test_validator_takes_texts_instead_of_a_span(connection: Connection) -> None:
    query = "select eligible, passed from flywheel.test_validator(%s, %s, %s)"
    definition = Jsonb({"kind": "sql", "target": "input", "expression": "span.input <> span.output"})
    assert rows(connection, query, [definition, "a", "b"]) == [(True, True)]
    assert rows(connection, query, [definition, None, "b"]) == [(False, None)]


def test_test_validator_refuses_what_it_cannot_run(connection: Connection) -> None:
    query = "select flywheel.test_validator(%s, gen_random_uuid())"
    assert refused(connection, query, [Jsonb({"kind": "sql", "expression": "true"})]).sqlstate == "WF010"
    said = refused(connection, "select flywheel.test_validator(%s, 'a', 'b')", [Jsonb(PYTHON)])
    assert (said.sqlstate, "kind python" in (said.message_primary or "")) == ("WF003", True)


def test_a_null_leaves_a_key_out_but_is_a_value_inside_of_parameters(connection: Connection) -> None:
    parameters = {"schema": {"const": None}}
    define(
        connection,
        "empty",
        kind="python",
        callable="shop:check",
        sample=None,
        filter={"node": None},
        parameters=parameters,
    )
    query = "select definition -> 'parameters', sample, definition -> 'filter' from flywheel.validator_status"
    assert rows(connection, query) == [(parameters, 1.0, {})]
