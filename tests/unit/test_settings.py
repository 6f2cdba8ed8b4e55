"""Which database: every spelling, in the order --dsn, PGFLYWHEEL_DSN, DATABASE_URL, PG*."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgflywheel import settings
from pgflywheel.db import schema
from pgflywheel.errors import UsageError


def test_the_first_that_is_set_wins() -> None:
    environ = {"PGFLYWHEEL_DSN": "postgres://two", "DATABASE_URL": "postgres://three", "PGHOST": "four"}
    assert settings.resolve_dsn("postgresql://one", environ) == "postgresql://one"
    assert settings.resolve_dsn(None, environ) == "postgresql://two"
    del environ["PGFLYWHEEL_DSN"]
    assert settings.resolve_dsn(None, environ) == "postgresql://three"
    del environ["DATABASE_URL"]
    assert settings.resolve_dsn(None, environ) == ""


def test_no_database_named_is_wrong_use_with_a_hint() -> None:
    with pytest.raises(UsageError, match="no database is named") as raised:
        settings.resolve_dsn(None, {})
    assert "--dsn" in str(raised.value.hint)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg", "POSTGRES"])
def test_every_scheme_becomes_libpqs(scheme: str) -> None:
    assert settings.normalised_dsn(f"{scheme}://u:p@h:1/d") == "postgresql://u:p@h:1/d"


@pytest.mark.parametrize("dsn", ["mysql://u:secret@h/d", "secret", "file.db"])
def test_what_is_not_postgres_is_refused_without_repeating_a_password(dsn: str) -> None:
    with pytest.raises(UsageError) as raised:
        settings.normalised_dsn(dsn)
    assert "secret" not in f"{raised.value} {raised.value.detail} {raised.value.hint}"


def test_every_spelling_reaches_the_same_server(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    query = "&".join(f"{name}={value.replace('%', '%25')}" for name, value in parts.items())
    for spelling in (dsn, f"postgres://?{query}", f"postgresql+psycopg://?{query}"):
        assert schema.status(settings.resolve_dsn(spelling)).current
    for name, value in parts.items():
        monkeypatch.setenv({"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"), value)
    for name in ("PGFLYWHEEL_DSN", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert schema.status(settings.resolve_dsn()).current
    with psycopg.connect(settings.resolve_dsn()) as session:
        assert session.info.dbname == parts["dbname"]


def test_the_data_directory_can_be_named() -> None:
    assert settings.data_dir({"PGFLYWHEEL_DATA_DIR": "/srv/flywheel"}) == Path("/srv/flywheel")
    assert settings.data_dir({}).name == "pgflywheel"


def test_the_schema_is_the_option_then_the_environment_then_flywheel() -> None:
    assert settings.schema_name("a", {"PGFLYWHEEL_SCHEMA": "b"}) == "a"
    assert settings.schema_name(None, {"PGFLYWHEEL_SCHEMA": "b"}) == "b"
    assert settings.schema_name(None, {}) == "flywheel"
