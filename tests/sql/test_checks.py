"""sql/25_checks.sql in the server: null for null, any text, linear time, and inlined where it promises to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgflywheel import assets
from pgflywheel.checks import catalogue
from pgflywheel.checks.definitions import read_definitions

Connection = psycopg.Connection[tuple[Any, ...]]
CALLS = [
    *("is_blank(example)", "word_count(example)", "is_json(example)", "is_refusal(example)", "passes_luhn(example)"),
    *("contains_card(example)", "contains_ssn(example)", "contains_email(example)", "contains_iban(example)"),
    *("contains_phone(example)", "contains_any_word(example, array['delve', 'a testament to'])"),
]
LOOPS = ("passes_luhn",)  # plpgsql, and called only for what looks like a number
TEN_MEGABYTES = 10_000_000
HOSTILE = {
    "one letter": "a",
    "digits": "1",
    "almost cards": "4111 1111 1111 1112, ",
    "almost accounts": "DE89 3704 0044 0532 0130 01 ",
    "almost addresses": "a@a.",
    "almost numbers": "+1 (",
    "open brackets": '[{"a":',
    "quotes": '\\"',
    "words": "I can't delv e 🚀 ",
}


def _value(connection: Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def test_null_in_is_null_out(connection: Connection) -> None:
    for call in [*CALLS, "contains_any_word('delve', example::text[])"]:
        assert _value(connection, f"select flywheel.{call} from (select null::text) as texts (example)") is None, call


@pytest.mark.parametrize("name", HOSTILE)
def test_ten_megabytes_of_hostile_text_get_an_answer(connection: Connection, name: str) -> None:
    text = (HOSTILE[name] * TEN_MEGABYTES)[:TEN_MEGABYTES]
    calls = ", ".join(f"flywheel.{call}" for call in CALLS)
    row = connection.execute(f"select {calls} from (select %s::text) as texts (example)".encode(), (text,)).fetchone()
    assert row is not None
    assert None not in row


@pytest.mark.parametrize("depth", [900, 2_000, 1_000_000])
def test_nested_json_gets_an_answer_at_any_depth(connection: Connection, depth: int) -> None:
    answer = _value(connection, "select flywheel.is_json(repeat('[', %s) || repeat(']', %s))", depth, depth)
    assert answer is (depth < 1_000_000)


def test_wide_json_is_json_however_many_brackets_it_has(connection: Connection) -> None:
    assert _value(connection, "select flywheel.is_json(%s)", json.dumps([{"a": []}] * 50_000))


def test_every_outer_function_is_inlined_into_the_query(connection: Connection) -> None:
    for call in CALLS:
        name = call.split("(")[0]
        query = f"explain verbose select flywheel.{call} from (select output from flywheel.spans) as texts (example)"
        plan = " ".join(line for (line,) in connection.execute(query.encode()).fetchall())
        assert (f"flywheel.{name}(" in plan) is (name in LOOPS), name


def test_constant_words_become_a_pattern_when_the_query_is_planned(connection: Connection) -> None:
    query = "explain verbose select flywheel.contains_any_word(output, array['delve']) from flywheel.spans"
    assert "_word_pattern" not in " ".join(line for (line,) in connection.execute(query).fetchall())


def test_no_word_is_a_pattern_that_raises(connection: Connection) -> None:
    for words in [["a)|(b"], ["***=x"], ["[["], ["\\"], ["(?i)"], [None, "", "x{9999}"], []]:
        assert _value(connection, "select flywheel.contains_any_word('plain', %s::text[])", words) is False, words


def test_every_function_is_immutable_and_commented(connection: Connection) -> None:
    functions = [
        line.split("flywheel.")[1].split("(")[0]
        for line in (assets.sql_dir() / "25_checks.sql").read_text().splitlines()
        if line.startswith("create or replace function")
    ]
    query = """
      select count(*) from pg_proc
       where pronamespace = 'flywheel'::regnamespace and proname = any (%s) and provolatile = 'i'
         and not prosecdef and obj_description(oid, 'pg_proc') is not null"""
    assert _value(connection, query, functions) == len(functions) > 10


def test_every_sql_entry_of_the_catalogue_is_a_boolean_over_a_span(connection: Connection) -> None:
    for name, entry in catalogue.entries().items():
        if entry.definition["kind"] == "sql":
            expression = catalogue.definition(name, {"pattern": "it's \\d"} if name.startswith("regex") else {})[
                "expression"
            ]
            query = (
                f"select pg_typeof({expression})::text from (select) as one left join flywheel.spans as span on false"
            )
            assert _value(connection, query) == "boolean", name


@pytest.fixture
def sample(connection: Connection) -> Connection:
    """A connection to a database that holds the sample's spans."""
    insert = sql.SQL("""
      insert into flywheel.spans ({names}, started_at, ended_at)
      select {columns}, now() + span.offset_seconds * interval '1 second',
             now() + (span.offset_seconds + span.latency_ms / 1000) * interval '1 second'
        from (select (jsonb_populate_record(null::flywheel.spans, row)).*,
                     (row ->> 'offset_seconds')::float8 as offset_seconds
                from jsonb_array_elements(%s) as row) as span""")
    rows = [json.loads(line) for line in (assets.sample_dir() / "support.jsonl").read_text("utf-8").splitlines()]
    names = [name for name in rows[0] if name not in ("offset_seconds", "latency_ms")]
    statement = insert.format(
        names=sql.SQL(", ").join(map(sql.Identifier, names)),
        columns=sql.SQL(", ").join(sql.Identifier("span", name) for name in names),
    )
    connection.execute(statement, (json.dumps(rows),))
    return connection


def _sample_validators() -> dict[str, dict[str, Any]]:
    path: Path = assets.sample_dir() / "validators.toml"
    return {name: made for name, made in read_definitions(path) if made["kind"] == "sql"}


def test_every_sql_validator_of_the_sample_finds_mistakes_and_passes_most(sample: Connection) -> None:
    for name, made in _sample_validators().items():
        nodes = made.get("filter", {}).get("node")
        query = f"""
          select count(*) filter (where passed), count(*) filter (where not passed)
            from (select {made["expression"]} as passed from flywheel.spans as span
                   where $1::text[] is null or node = any ($1)) as judged"""
        with psycopg.RawCursor(sample) as cursor:
            row = cursor.execute(query.encode(), ([nodes] if isinstance(nodes, str) else nodes,)).fetchone()
        assert row is not None
        assert 0 < row[1] < row[0] / 4, name
