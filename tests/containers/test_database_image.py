"""docker/Dockerfile: Postgres with pgvector and plpython3u, and what its entrypoint promises."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import docker
import psycopg
import pytest
from docker.models.containers import Container
from docker.models.volumes import Volume
from testcontainers.core.container import DockerContainer

from tests.containers.engine import (
    PASSWORD,
    Server,
    database_server,
    health_command,
    is_healthy,
    logs,
    run_in,
    running,
    stop,
    wait_for_exit,
    wait_until_healthy,
)

pytestmark = [pytest.mark.container, pytest.mark.timeout(900), pytest.mark.xdist_group("containers")]
DATA = "/var/lib/postgresql"


@contextmanager
def volume() -> Iterator[str]:
    with closing(docker.from_env()) as client:
        made: Volume = client.volumes.create(f"pgflywheel-{uuid.uuid4().hex[:8]}")
        try:
            yield str(made.name)
        finally:
            made.remove(force=True)


def on_volume(image: str, name: str) -> DockerContainer:
    return DockerContainer(image).with_env("POSTGRES_PASSWORD", PASSWORD).with_volume_mapping(name, DATA, "rw")


def sql_in(container: Container, query: str) -> str:
    code, output = run_in(container, ["psql", "-U", "postgres", "-Atqc", query])
    assert code == 0, output
    return output.strip()


def test_vector_is_there_from_the_start(server: Server) -> None:
    assert server.value("select '[1,2]'::vector <-> '[4,6]'::vector") == 5


def test_python_functions_run_in_the_server(server: Server) -> None:
    with server.connect() as connection:
        connection.execute("create extension plpython3u")
        connection.execute(
            "create function shout(words text) returns text language plpython3u as 'return words.upper()'"
        )
    assert server.value("select shout('loud')") == "LOUD"


def test_the_server_is_the_documented_release(server: Server) -> None:
    assert server.value("show server_version_num").startswith("17")


@pytest.mark.parametrize("password", ["wrong", ""])
def test_nobody_connects_without_the_password(server: Server, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        server.connect(password=password)


def test_the_password_is_kept_as_scram(server: Server) -> None:
    assert server.value("select rolpassword from pg_authid where rolname = 'postgres'").startswith("SCRAM-SHA-256$")


def test_without_a_password_the_container_does_not_start(database_image: str) -> None:
    with running(DockerContainer(database_image)) as container:
        assert wait_for_exit(container) == 1
        assert "no password was given" in logs(container)
        assert "Set POSTGRES_PASSWORD" in logs(container)


def test_trust_has_to_be_asked_for_by_name(database_image: str) -> None:
    asked = DockerContainer(database_image).with_env("POSTGRES_HOST_AUTH_METHOD", "trust").with_exposed_ports(5432)
    with running(asked) as container:
        wait_until_healthy(container)
        open_to_all = Server(container, asked.get_container_host_ip(), int(asked.get_exposed_port(5432)))
        with open_to_all.connect(password="") as connection:
            assert connection.execute("select current_user").fetchone() == ("postgres",)


def test_user_and_database_have_the_names_asked_for(database_image: str) -> None:
    with (
        database_server(database_image, POSTGRES_USER="acme", POSTGRES_DB="Ac me") as named,
        named.connect(user="acme", dbname="Ac me") as connection,
    ):
        row = connection.execute("select current_database(), count(*) from pg_extension where extname = 'vector'")
        assert row.fetchone() == ("Ac me", 1)


def test_arguments_are_settings_of_the_server(database_image: str) -> None:
    with database_server(database_image, "-c", "work_mem=5MB", "--max-connections=42") as tuned:
        assert (tuned.value("show work_mem"), tuned.value("show max_connections")) == ("5MB", "42")


def test_the_server_does_not_run_as_root(server: Server) -> None:
    code, owner = run_in(server.container, ["stat", "--format=%U", "/proc/1"])
    assert (code, owner.strip()) == (0, "postgres")


def test_health_follows_the_server(database_image: str) -> None:
    with running(DockerContainer(database_image).with_command("sleep infinity")) as idle:
        assert not is_healthy(idle)
    with database_server(database_image) as started:
        assert is_healthy(started.container)
        assert health_command(started.container)[-1].startswith("pg_isready")


def test_data_outlives_the_container(database_image: str) -> None:
    with volume() as name:
        with running(on_volume(database_image, name)) as first:
            wait_until_healthy(first)
            sql_in(first, "create table kept as select 42 as answer")
            assert stop(first) == 0
        with running(on_volume(database_image, name)) as second:
            wait_until_healthy(second)
            assert sql_in(second, "select answer from kept") == "42"


def test_data_outlives_a_kill(database_image: str) -> None:
    with database_server(database_image) as started:
        sql_in(started.container, "create table kept as select 42 as answer")
        started.container.kill()
        wait_for_exit(started.container)
        started.container.start()
        wait_until_healthy(started.container)
        assert sql_in(started.container, "select answer from kept") == "42"


def test_stop_ends_open_sessions_and_shuts_down_cleanly(database_image: str) -> None:
    with database_server(database_image) as started, started.connect() as session:
        session.execute("select 1")
        assert stop(started.container) == 0
        assert "database system is shut down" in logs(started.container).splitlines()[-1]


def test_a_first_start_that_was_cut_short_begins_again(database_image: str) -> None:
    with volume() as name:
        leave_half = f"mkdir {DATA}/data.new; touch {DATA}/data.new/PG_VERSION; chown -R postgres {DATA}/data.new"
        half = on_volume(database_image, name).with_command(["bash", "-c", leave_half])
        with running(half) as container:
            assert wait_for_exit(container) == 0
        with running(on_volume(database_image, name)) as container:
            wait_until_healthy(container)
            assert sql_in(container, "select count(*) from pg_extension where extname = 'vector'") == "1"


def archive(**files: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("__", "."))
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def test_init_files_run_once_in_name_order(database_image: str) -> None:
    files = archive(
        a__sql="create table steps (step text); insert into steps values ('a')",
        b__sh="psql -qc \"insert into steps values ('b')\"",
        c__sql="insert into steps values ('c')",
    )
    with closing(docker.from_env()) as client:
        container = client.containers.create(database_image, environment={"POSTGRES_PASSWORD": PASSWORD})
        try:
            container.put_archive("/docker-entrypoint-initdb.d", files)
            container.start()
            wait_until_healthy(container)
            assert stop(container) == 0
            container.start()
            wait_until_healthy(container)
            assert sql_in(container, "select string_agg(step, '') from steps") == "abc"
        finally:
            container.remove(force=True, v=True)
