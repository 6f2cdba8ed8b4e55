"""A line of a file becomes a span, or there is a reason why not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflywheel.errors import UsageError
from pgflywheel.importer.mapping import ColumnMap, SpanPerLine, parse_line
from pgflywheel.importer.paths import Path
from pgflywheel.importer.rows import SpanRow
from pgflywheel.importer.values import Rejected, as_span_id, as_time, as_trace_id, storable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def span(item: dict[str, Any], constants: dict[str, str] | None = None, **paths: str) -> SpanRow:
    columns = ColumnMap({column: Path.parse(path) for column, path in paths.items()}, constants or {})
    (row,) = SpanPerLine(columns, NOW)(parse_line(1, json.dumps(item).encode()))
    return row


def ids(items: list[dict[str, Any]]) -> list[UUID]:
    convert = SpanPerLine(ColumnMap({"input": Path.parse("input"), "span_id": Path.parse("id")}), NOW)
    return [row.span_id for item in items for row in convert(parse_line(1, json.dumps(item).encode()))]


def test_equal_lines_of_a_file_have_ids_of_their_own_and_the_same_ones_the_next_time() -> None:
    lines = [{"input": "a"}, {"input": "a"}, {"input": "b"}, {"input": "a"}, {"input": "a", "id": TRACE}]
    assert len(set(ids(lines))) == 5
    assert ids(lines) == ids(lines)
    assert ids(lines)[0] == ids(lines[2:])[1]


def test_one_id_for_every_span_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="--set span_id"):
        ColumnMap({}, {"span_id": TRACE})


def reason(item: dict[str, Any], **paths: str) -> str:
    with pytest.raises(Rejected) as rejected:
        span(item, None, **{"input": "input", **paths})
    return str(rejected.value)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b", 1),
        ("a.list[0].x", "first"),
        ("a.list.1.x", "last"),
        ("a.list[-1].x", "last"),
        ('a["dot.ted"]', 2),
        ("a.3", "three"),
        ("a.list[2].x", None),
        ("a.b.c", None),
        ("nothing", None),
    ],
)
def test_a_path_finds_members_and_list_items(path: str, found: object) -> None:
    item = {"a": {"b": 1, "list": [{"x": "first"}, {"x": "last"}], "dot.ted": 2, "3": "three"}}
    assert Path.parse(path).find(item) == found


@pytest.mark.parametrize("text", ["", ".", "a..b", "a[", "a[x]", "a.", "[0", 'a["b'])
def test_a_path_that_cannot_be_read_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Path.parse(text)


def test_text_stays_text_and_other_values_become_json() -> None:
    row = span({"q": {"a": 1}, "o": "ä"}, input="q", output="o")
    assert (row.input, row.output) == ('{"a":1}', "ä")


def test_small_members_no_path_reads_are_kept_in_attributes() -> None:
    row = span({"q": "x", "human": {"good": True}, "large": "y" * 2000, "none": None}, input="q")
    assert json.loads(row.attributes) == {"human": {"good": True}}


def test_an_id_that_is_no_uuid_can_be_found_in_attributes() -> None:
    kept = span({"q": "x", "id": "run 7"}, input="q", trace_id="id")
    assert json.loads(kept.attributes) == {"id": "run 7"}
    assert json.loads(span({"q": "x", "id": TRACE}, input="q", trace_id="id").attributes) == {}


def test_a_constant_stands_where_no_path_has_a_value() -> None:
    constants = {"node": "answer", "started_at": "2024-05-15", "input_tokens": "7"}
    row = span({"q": "x"}, constants, input="q", node="node", started_at="ts")
    assert (row.node, row.input_tokens, row.started_at) == ("answer", 7, datetime(2024, 5, 15, tzinfo=UTC))
    assert span({"q": "x", "node": "own"}, constants, input="q", node="node").node == "own"


@pytest.mark.parametrize(
    "value",
    [
        *("2024-05-15T13:00:00Z", "2024-05-15T15:00:00+02:00", "2024-05-15 13:00:00"),
        *(1715778000, 1715778000.0, "1715778000", 1715778000_000, 1715778000_000_000, 1715778000_000_000_000),
    ],
)
def test_a_time_is_read_from_iso_and_from_every_epoch_unit(value: object) -> None:
    assert as_time(value, "started_at") == datetime(2024, 5, 15, 13, tzinfo=UTC)


@pytest.mark.parametrize("value", ["yesterday", True, [], "1969-07-20", "2300-01-01", 1e300, "9" * 400, float("inf")])
def test_what_is_no_plausible_time_is_rejected(value: object) -> None:
    with pytest.raises(Rejected, match="started_at is"):
        as_time(value, "started_at")


@pytest.mark.parametrize(
    ("item", "paths", "said"),
    [
        ({"input": "a\0b"}, {}, "input holds the character U+0000 at position 1"),
        ({"input": "a\ud800"}, {}, "input holds the lone surrogate U+D800 at position 1"),
        ({"input": "a", "more": {"deep": ["\0"]}}, {}, "attributes holds the character U+0000"),
        ({"input": "a", "more": {"\udfff": 1}}, {}, "attributes holds the lone surrogate U+DFFF"),
        ({"input": "a", "kind": "chain"}, {"node_kind": "kind"}, "node_kind is 'chain', not one of app"),
        ({"input": "a", "n": -1}, {"input_tokens": "n"}, "input_tokens is -1, not a number of zero or more"),
        ({"input": "a", "n": 1.5}, {"input_tokens": "n"}, "input_tokens is 1.5, not a whole number"),
        ({"input": "a", "n": 2**31}, {"output_tokens": "n"}, "output_tokens is 2147483648"),
        ({"input": "a", "n": "x"}, {"cost_usd": "n"}, "cost_usd is 'x'"),
        ({"input": "a", "id": ["x"]}, {"span_id": "id"}, "span_id is ['x'], not an id"),
        ({"other": "a"}, {}, "there is nothing at input (input)"),
    ],
)
def test_a_bad_value_is_a_reason_that_names_column_and_value(
    item: dict[str, Any], paths: dict[str, str], said: str
) -> None:
    assert said in reason(item, **paths)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a":', "the line is not JSON"),
        (b"[1]", "the line is a JSON list, not an object"),
        (b"null", "the line is a JSON null"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": "\xff"}', "the line is not UTF-8 at byte 7"),
        (b'{"a":' + b"[" * 100_000, "the line is nested too deeply"),
    ],
)
def test_a_line_that_is_no_object_is_rejected_with_the_reason(raw: bytes, said: str) -> None:
    with pytest.raises(Rejected) as rejected:
        parse_line(1, raw)
    assert said in str(rejected.value)


def test_opentelemetry_ids_map_one_to_one() -> None:
    trace_id = as_trace_id(TRACE, "default")
    assert trace_id == UUID(TRACE)
    assert as_span_id("b7ad6b7169203331", "default", trace_id) == UUID("0af7651916cd43ddb7ad6b7169203331")


def test_a_parent_gets_the_id_its_own_line_gets() -> None:
    paths = {"trace_id": "t", "span_id": "s", "parent_span_id": "p", "input": "q"}
    root = span({"t": "run 1", "s": 1, "p": None, "q": "x"}, None, **paths)
    child = span({"t": "run 1", "s": 2, "p": 1, "q": "x"}, None, **paths)
    other = span({"t": "run 2", "s": 1, "p": None, "q": "x"}, None, **paths)
    assert (child.parent_span_id, child.trace_id) == (root.span_id, root.trace_id)
    assert len({root.span_id, child.span_id, other.span_id}) == 3


def test_a_parent_without_a_trace_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="--trace-id is not"):
        ColumnMap({"parent_span_id": Path.parse("p")})


def test_a_column_that_does_not_exist_is_wrong_use() -> None:
    with pytest.raises(UsageError, match='no column "colour"'):
        ColumnMap({}, {"colour": "red"})


def test_without_ids_equal_lines_of_one_file_stay_apart_and_a_second_import_gets_the_same_ids() -> None:
    columns = ColumnMap({"input": Path.parse("q")})
    lines = [parse_line(number, b'{"q": "same"}') for number in (1, 2, 3)]

    def ids() -> list[UUID]:
        convert = SpanPerLine(columns, NOW)
        return [convert(line)[0].span_id for line in lines]

    first = ids()
    assert len(set(first)) == 3
    assert ids() == first


def test_a_span_without_a_time_is_marked_as_having_none() -> None:
    assert not span({"q": "x"}, input="q").timed
    assert span({"q": "x", "ts": NOW.isoformat()}, input="q", started_at="ts").timed


@given(st.text(st.characters(codec=None)))
def test_text_is_taken_exactly_when_postgres_can_store_it(text: str) -> None:
    can_be_stored = not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)
    if can_be_stored:
        assert storable(text, "input") == text
    else:
        with pytest.raises(Rejected, match="input holds"):
            storable(text, "input")


@given(st.text(min_size=1).filter(lambda text: "\0" not in text), st.text(min_size=1), st.text(min_size=1))
def test_ids_depend_on_project_and_text_only(text: str, one: str, other: str) -> None:
    assert as_trace_id(text, one) == as_trace_id(text, one)
    if one != other and as_trace_id(text, one) != _as_given(text):
        assert as_trace_id(text, one) != as_trace_id(text, other)


def _as_given(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
