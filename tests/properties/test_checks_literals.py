"""A value written as an SQL literal is read back as that value, and as nothing else."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgflywheel.checks.literals import sql_literal

Connection = psycopg.Connection[tuple[Any, ...]]
storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
hostile = st.one_of(storable, st.text("'\\;-$\"E{}% \n"))
generous = settings(max_examples=150)


@pytest.mark.parametrize("conforming", ["on", "off"])
@generous
@given(value=st.one_of(hostile, st.lists(hostile, min_size=1, max_size=4), st.booleans(), st.integers(-(10**9), 10**9)))
def test_a_literal_means_its_value_under_either_string_setting(
    connection: Connection, conforming: str, value: object
) -> None:
    connection.execute(f"set standard_conforming_strings = {conforming}".encode())
    connection.execute("set escape_string_warning = off")
    assert connection.execute(f"select {sql_literal(value)}".encode()).fetchone() == (value,)


@generous
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_value(connection: Connection, value: float) -> None:
    assert connection.execute(f"select ({sql_literal(value)})::float8".encode()).fetchone() == (value,)
