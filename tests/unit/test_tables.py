"""SQLAlchemy's tables say what the live catalogue says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import dialect

from pgflywheel.db import schema, tables


@pytest.fixture
def engine(dsn: str) -> Iterator[sa.Engine]:
    made = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    yield made
    made.dispose()


def described(columns: sa.ColumnCollection[str, sa.Column[object]]) -> list[tuple[str, str, bool, bool]]:
    spelling: sa.Dialect = dialect()  # type: ignore[no-untyped-call]
    return [
        (column.name, column.type.compile(spelling), bool(column.nullable), column.server_default is not None)
        for column in columns
    ]


@pytest.mark.parametrize("name", [table.name for table in tables.metadata.sorted_tables])
def test_names_types_nullability_and_defaults_match_the_database(engine: sa.Engine, name: str) -> None:
    ours = tables.metadata.tables[f"flywheel.{name}"]
    live = sa.Table(name, sa.MetaData(schema="flywheel"), autoload_with=engine)
    assert described(ours.columns) == described(live.columns)
    assert [column.name for column in ours.primary_key] == [column.name for column in live.primary_key]


def test_two_values_are_enough_for_a_span(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        made = connection.execute(
            sa.insert(tables.spans).values(input="i", output="o").returning(tables.spans.c.span_id)
        ).scalar_one()
        found = connection.execute(sa.select(tables.spans).where(tables.spans.c.span_id == made)).one()
    assert isinstance(made, uuid.UUID)
    assert (found.project, found.node, found.revision, found.attributes) == ("default", "app", 1, {})


def test_many_rows_and_json_go_in_one_insert(engine: sa.Engine) -> None:
    rows = [{"input": str(n), "messages": [{"role": "user", "content": "x"}], "documents": None} for n in range(50)]
    with engine.begin() as connection:
        connection.execute(sa.insert(tables.spans), rows)
        counted = sa.select(sa.func.count(), sa.func.count(tables.spans.c.documents)).select_from(tables.spans)
        assert connection.execute(counted).one() == (50, 0)


def test_another_installs_tables_carry_its_name(dsn: str, engine: sa.Engine) -> None:
    schema.upgrade(dsn, "acme")
    spans = tables.metadata_for("acme").tables["acme.spans"]
    with engine.begin() as connection:
        connection.execute(sa.insert(spans).values(output="x"))
        assert connection.execute(sa.select(sa.func.count()).select_from(spans)).scalar_one() == 1
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.spans)).scalar_one() == 0
