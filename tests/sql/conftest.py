"""Fixtures of the SQL tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.sql.support import Connection


@pytest.fixture(scope="session")
def calculator(server_dsn: str, template: str) -> Iterator[Connection]:
    """A connection for tests that only compute: they write nothing, so they share one database."""
    name = sql.Identifier(f"calculator_{uuid.uuid4().hex[:16]}")
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("create database {} template {}").format(name, sql.Identifier(template)))
        with psycopg.connect(server_dsn, dbname=name.as_string().strip('"'), autocommit=True) as opened:
            yield opened
        session.execute(sql.SQL("drop database {} with (force)").format(name))
