"""Binary arrays are what the server would send."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgflywheel.db.queue  # noqa: F401, registers how an array is sent
from pgflywheel.db import wire
from tests.unit.wire_text import strings

Connection = psycopg.Connection[tuple[object, ...]]
storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
together = settings(max_examples=30)


def read(connection: Connection, array: wire.Array, type_name: str) -> object:
    row = connection.execute(f"select %s::{type_name}".encode(), [array]).fetchone()
    return row[0] if row else None


@together
@given(values=st.lists(st.one_of(st.none(), st.booleans())))
def test_the_server_reads_booleans_back(connection: Connection, values: list[bool | None]) -> None:
    assert read(connection, wire.array(wire.BOOL, wire.bools(values), len(values)), "boolean[]") == values


@together
@given(values=st.lists(st.one_of(st.none(), st.floats(0, 1))))
def test_the_server_reads_numbers_back(connection: Connection, values: list[float | None]) -> None:
    assert read(connection, wire.array(wire.FLOAT, wire.floats(values), len(values)), "double precision[]") == values


@together
@given(values=st.lists(st.one_of(st.none(), storable)))
def test_the_server_reads_texts_back(connection: Connection, values: list[str | None]) -> None:
    array = wire.array(wire.TEXT, wire.texts(values), len(values))
    assert read(connection, array, "text[]") == values
    assert strings(array) == values


@given(values=st.lists(storable), data=st.data())
def test_cut_gives_the_same_elements_as_a_slice(values: list[str], data: st.DataObject) -> None:
    array = wire.array(wire.TEXT, wire.texts(values), len(values))
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    assert strings(wire.cut(array, start, stop)) == values[start:stop]


@given(first=st.lists(storable, min_size=1), second=st.lists(storable))
def test_merged_arrays_hold_the_elements_of_both(first: list[str], second: list[str]) -> None:
    both = [wire.array(wire.TEXT, wire.texts(values), len(values)) for values in (first, second)]
    assert strings(wire.merged(both)) == first + second


@pytest.mark.parametrize("empty", [None, b"", wire.array(wire.TEXT, b"", 0)])
def test_nothing_has_no_elements(empty: bytes | None) -> None:
    assert wire.count(empty) == 0
    assert list(wire.elements(empty)) == []


def test_the_id_of_a_key_is_its_spans(connection: Connection) -> None:
    span_id = UUID("01234567-89ab-7def-8123-456789abcdef")
    cursor = connection.cursor(binary=True)
    row = cursor.execute(
        "select array[row(%s, 1, now(), %s, 'default')::flywheel._span_key]", [span_id, span_id]
    ).fetchone()
    assert row
    assert wire.first_span_id(row[0]) == span_id  # type: ignore[arg-type]
