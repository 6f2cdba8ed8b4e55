"""db verify, status, downgrade and drop."""

from __future__ import annotations

import psycopg
import pytest

from pgflywheel import assets
from pgflywheel.db import schema
from pgflywheel.errors import CheckFailed, SchemaMissing, UsageError, WrongStatus


def test_a_fresh_install_is_whole(dsn: str) -> None:
    assert schema.verify(dsn) == assets.revisions()


def test_a_lost_column_is_named(dsn: str, connection: psycopg.Connection) -> None:
    connection.execute("alter table flywheel.feedback rename column comment to remark")
    with pytest.raises(CheckFailed, match='column "comment" does not exist'):
        schema.verify(dsn)


def test_a_lost_function_is_named_and_reapply_brings_it_back(dsn: str, connection: psycopg.Connection) -> None:
    connection.execute("drop function flywheel.new_id() cascade")
    with pytest.raises(CheckFailed, match=r"routine flywheel\.new_id\(\) is missing"):
        schema.verify(dsn)
    schema.upgrade(dsn, reapply=True)
    assert schema.verify(dsn) == assets.revisions()
    connection.execute("insert into flywheel.spans (input) values ('a')")


def test_verify_changes_nothing(dsn: str, connection: psycopg.Connection) -> None:
    query = "select count(*), max(xmin::text::bigint) from pg_class"
    before = connection.execute(query).fetchone()
    schema.verify(dsn)
    assert connection.execute(query).fetchone() == before


def test_status_tells_what_is_installed_where(dsn: str) -> None:
    found = schema.status(dsn)
    assert found.current
    assert found.revision == found.head == assets.revisions()[-1]
    assert found.pgvector_version is not None


def test_status_of_an_empty_database_has_no_revision(empty_dsn: str) -> None:
    found = schema.status(empty_dsn)
    assert (found.revision, found.sql_hash, found.current) == (None, None, False)


def test_verify_and_downgrade_of_nothing_say_how_to_install(empty_dsn: str) -> None:
    with pytest.raises(SchemaMissing) as raised:
        schema.verify(empty_dsn)
    assert "db upgrade" in str(raised.value.hint)
    with pytest.raises(SchemaMissing):
        schema.downgrade(empty_dsn, "base")


def test_an_unknown_revision_is_wrong_use(dsn: str) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        schema.downgrade(dsn, "nonsense")


def test_downgrade_does_not_drop_a_view_of_the_users_own(dsn: str, connection: psycopg.Connection) -> None:
    connection.execute("create view public.mine as select * from flywheel.current_scores")
    with pytest.raises(WrongStatus, match=r"public\.mine"):
        schema.downgrade(dsn, "base")
    assert schema.verify(dsn) == assets.revisions()


def test_drop_removes_both_schemas_and_nothing_else(dsn: str, connection: psycopg.Connection) -> None:
    schema.upgrade(dsn, "trial")
    assert schema.drop(dsn, "trial")
    assert not schema.drop(dsn, "trial")
    left = connection.execute("select nspname::text from pg_namespace where nspname ~ 'flywheel|trial' order by 1")
    assert [name for (name,) in left] == ["flywheel", "flywheel_bi"]
