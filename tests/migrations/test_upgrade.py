"""db upgrade: one transaction, safe twice, safe by many at once, several installs side by side."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgflywheel import assets
from pgflywheel.db import extension, schema
from pgflywheel.errors import DatabaseError, ExtensionMissing, SchemaNewer, UsageError
from tests.migrations.catalogue import dump


def test_running_it_twice_changes_nothing(dsn: str) -> None:
    before = dump(dsn)
    assert not schema.upgrade(dsn).changed
    assert dump(dsn) == before


def test_applying_sql_twice_gives_the_same_catalogue(dsn: str) -> None:
    before = dump(dsn)
    assert schema.upgrade(dsn, reapply=True).changed
    assert dump(dsn) == before


def test_base_to_head_to_base_to_head_gives_the_same_catalogue(dsn: str) -> None:
    at_head = dump(dsn)
    assert schema.downgrade(dsn, "base").after is None
    left = {line.split(" | ")[1] for line in dump(dsn) if not line.startswith(("type", "schema", "default"))}
    assert left == {"flywheel.alembic_version", "flywheel.alembic_version_pkc"}
    assert schema.upgrade(dsn).before is None
    assert dump(dsn) == at_head


def test_three_installs_in_one_database_are_equal_and_do_not_touch_each_other(dsn: str) -> None:
    first = dump(dsn)
    for name in ("acme", "flywheel_trial"):
        schema.upgrade(dsn, name)
        assert dump(dsn, name) == sorted(assets.render(line, name) for line in first)
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("insert into acme.spans (input, output) values ('a', 'b')")
        counts = session.execute(
            "select (select count(*) from acme.spans), (select count(*) from flywheel.spans), "
            "(select count(*) from flywheel_trial.spans)"
        ).fetchone()
    assert counts == (1, 0, 0)
    schema.drop(dsn, "acme")
    assert dump(dsn) == first
    assert schema.status(dsn, "flywheel_trial").current


def test_twenty_upgrades_at_once_make_one_install(empty_dsn: str) -> None:
    command = [sys.executable, "-m", "pgflywheel", "db", "upgrade", "--dsn", empty_dsn]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(20)]
    outputs = [process.communicate()[0].decode() for process in running]
    assert [process.returncode for process in running] == [0] * 20, outputs
    assert sum("was not installed" in output for output in outputs) == 1
    assert schema.verify(empty_dsn) == assets.revisions()


def test_three_installs_at_once_by_threads_of_one_process(empty_dsn: str) -> None:
    names = ["one", "two", "three"]
    with ThreadPoolExecutor(3) as pool:
        changes = list(pool.map(lambda name: schema.upgrade(empty_dsn, name), names))
    assert [change.after for change in changes] == [assets.revisions()[-1]] * 3


def test_the_printed_sql_makes_the_same_install(empty_dsn: str, dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute(schema.script().encode())
    assert dump(empty_dsn) == dump(dsn)
    assert not schema.upgrade(empty_dsn).changed


def test_the_printed_sql_names_only_the_schema_asked_for() -> None:
    text = schema.script("acme")
    assert re.search(r"(?<!pg)flywheel[._]", text) is None
    assert "create table acme.spans (" in text


def test_a_locked_table_stops_the_upgrade_and_nothing_is_changed(dsn: str, connection: psycopg.Connection) -> None:
    before = dump(dsn)
    with connection.transaction():
        connection.execute("lock table flywheel.spans in access exclusive mode")
        with pytest.raises(DatabaseError, match="lock timeout"):
            schema.upgrade(dsn, reapply=True, lock_timeout_seconds=0.1)
    assert dump(dsn) == before


def test_a_failing_file_undoes_the_whole_upgrade(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "99_broken.sql"
    broken.write_text("select 1;\nselect no_such_column;\n")
    files = [*assets.sql_files(), broken]
    monkeypatch.setattr(assets, "sql_files", lambda: files)
    with pytest.raises(DatabaseError, match=r"99_broken\.sql line 2: column"):
        schema.upgrade(empty_dsn)
    assert schema.status(empty_dsn).revision is None
    assert dump(empty_dsn) == []


def test_a_function_this_release_no_longer_has_is_dropped(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(dsn)
    files = assets.sql_files()
    extra = tmp_path / "99_extra.sql"
    extra.write_text("create or replace view flywheel.extra as select 1 as one;")
    monkeypatch.setattr(assets, "sql_files", lambda: [*files, extra])
    assert schema.upgrade(dsn).changed
    assert any("flywheel.extra" in line for line in dump(dsn))
    monkeypatch.setattr(assets, "sql_files", lambda: files)
    assert schema.upgrade(dsn).changed
    assert dump(dsn) == before


def test_a_view_whose_columns_changed_is_made_anew(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = assets.sql_files()
    extra = tmp_path / "99_extra.sql"
    monkeypatch.setattr(assets, "sql_files", lambda: [*files, extra])
    extra.write_text("create or replace view flywheel.extra as select 1 as one;")
    schema.upgrade(dsn)
    extra.write_text("create or replace view flywheel.extra as select 'two' as two;")
    schema.upgrade(dsn)
    with psycopg.connect(dsn) as session:
        assert session.execute("select two from flywheel.extra").fetchone() == ("two",)
    assert schema.verify(dsn) == assets.revisions()


def test_objects_of_users_are_kept_by_an_upgrade(dsn: str, connection: psycopg.Connection) -> None:
    connection.execute("create function flywheel.mine() returns integer language sql return 1")
    connection.execute("create view public.mine as select span_id from flywheel.spans")
    schema.upgrade(dsn, reapply=True)
    assert connection.execute("select flywheel.mine(), (select count(*) from public.mine)").fetchone() == (1, 0)


def test_an_install_of_a_later_release_is_left_alone(dsn: str, connection: psycopg.Connection) -> None:
    connection.execute("update flywheel.alembic_version set version_num = '9999'")
    before = dump(dsn)
    with pytest.raises(SchemaNewer, match="newer than this package"):
        schema.upgrade(dsn)
    assert dump(dsn) == before


def test_a_schema_of_another_application_is_not_taken(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute("create schema shop; create table shop.orders (id integer primary key)")
    with pytest.raises(UsageError, match="used by something else"):
        schema.upgrade(empty_dsn, "shop")


def test_a_role_that_may_not_create_pgvector_is_told_whom_to_ask(empty_dsn: str) -> None:
    name = "plain_" + empty_dsn.rpartition("test_")[2][:16]
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute(f"create role {name} login password 'secret'".encode())
        try:
            with pytest.raises(ExtensionMissing, match="may not create it") as raised:
                schema.upgrade(make_conninfo(empty_dsn, user=name, password="secret"))
        finally:
            session.execute(f"drop role {name}".encode())
    assert "create extension vector" in str(raised.value.hint)


def test_a_server_without_pgvector_is_told_its_package(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "NAME", "no_such_extension")
    with pytest.raises(ExtensionMissing, match="does not have its files") as raised:
        schema.upgrade(empty_dsn)
    with psycopg.connect(empty_dsn) as session:
        major = session.info.server_version // 10000
    assert f"postgresql-{major}-pgvector" in str(raised.value.hint)


def test_a_function_of_an_older_release_with_other_arguments_is_replaced(
    dsn: str, connection: psycopg.Connection
) -> None:
    connection.execute(
        "create function flywheel._wake(lane text) returns void language sql volatile security invoker as 'select'"
    )
    connection.execute(
        'update flywheel.settings set value = value || \'[["routine", "flywheel._wake(text)"]]\''
        " where name = 'sql_objects'"
    )
    schema.upgrade(dsn, reapply=True)
    kept = connection.execute("select oid::regprocedure::text from pg_proc where proname = '_wake'").fetchall()
    assert kept == [("flywheel._wake()",)]
