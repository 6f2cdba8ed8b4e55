"""One database with a shop's fortnight in it, and a login that is an analyst of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.bi import shop
from tests.conftest import Connection, _database


@pytest.fixture(scope="session")
def shop_dsn(server_dsn: str, template: str) -> Iterator[str]:
    """DSN of the owner of a filled install; nobody writes to it."""
    with _database(server_dsn, template) as made:
        with psycopg.connect(made, autocommit=True) as session:
            shop.fill(session)
        yield made


@pytest.fixture(scope="session")
def analyst_dsn(shop_dsn: str) -> Iterator[str]:
    """DSN of a login that make_analyst() made."""
    name = f"bi_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(shop_dsn, autocommit=True) as session:
        session.execute(f"create role {name} login".encode())
        session.execute("select flywheel.make_analyst(%s)", [name])
        yield make_conninfo(shop_dsn, user=name)
        session.execute(f"drop owned by {name}; drop role {name}".encode())


@pytest.fixture
def analyst(analyst_dsn: str) -> Iterator[Connection]:
    """A session of the analyst."""
    with psycopg.connect(analyst_dsn, autocommit=True) as opened:
        yield opened
