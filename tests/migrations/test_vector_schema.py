"""pgvector may lie in any schema: managed Postgres often has one of its own for extensions."""

from __future__ import annotations

import psycopg
import pytest

from pgflywheel.db import schema


@pytest.mark.parametrize("name", ["extensions", "My Extensions"])
def test_an_install_works_with_pgvector_in_another_schema(empty_dsn: str, name: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute(f'create schema "{name}"; create extension vector schema "{name}"'.encode())
    schema.upgrade(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute("update flywheel.settings set value = '100' where name = 'split_train_percent'")
        session.execute("insert into flywheel.spans (input, output) values ('Hi', 'Go away.')")
        session.execute("select flywheel.record_fix(span_id, 'Hello!', 'ann') from flywheel.spans")
        types = session.execute(
            "select distinct atttypid::regtype::text from pg_attribute"
            " where attrelid = 'flywheel._example_embeddings'::regclass and attname = 'embedding'"
        ).fetchall()
    assert types == [(f'"{name}".halfvec' if " " in name else f"{name}.halfvec",)]
