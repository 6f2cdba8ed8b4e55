"""What the container tests share: commands in containers, their health, and waiting for them."""

from __future__ import annotations

import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import psycopg
from docker.models.containers import Container
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = 's3cret "quoted" $5'
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A database server in a container, as an application reaches it."""

    container: Container
    host: str
    port: int

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        given: dict[str, Any] = {"user": "postgres", "dbname": "postgres", "password": PASSWORD, "connect_timeout": 5}
        return psycopg.connect(host=self.host, port=self.port, autocommit=True, **given | options)

    def value(self, query: str, *parameters: object) -> Any:
        """Return the first column of the first row."""
        with self.connect() as connection:
            row = connection.execute(query.encode(), parameters).fetchone()
        return row[0] if row else None


def wait_until(claim: str, holds: Callable[[], bool]) -> None:
    """Return once it holds; fail with the claim when it never does."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up, f"never true: {claim}"
        time.sleep(0.2)


def status(container: Container) -> str:
    container.reload()
    return str(container.status)


def run_in(container: Container, command: Sequence[str], user: str = "") -> tuple[int, str]:
    """Return the exit code and the output of a command in a running container."""
    result = container.exec_run(list(command), user=user)
    assert isinstance(result.output, bytes)  # an iterator only when asked to stream
    return int(result.exit_code or 0), result.output.decode(errors="replace")


def health_command(container: Container) -> list[str]:
    """Return the check that the image declares, as the engine would run it."""
    kind, *words = container.attrs["Config"]["Healthcheck"]["Test"]
    return ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words


def is_healthy(container: Container) -> bool:
    """Run the declared check once: not every engine has the timer that runs it in the background."""
    return status(container) == "running" and run_in(container, health_command(container))[0] == 0


def wait_until_healthy(container: Container) -> None:
    def healthy() -> bool:
        assert status(container) in ("created", "running"), f"it stopped:\n{logs(container)}"
        return is_healthy(container)

    wait_until(f"{container.name} is healthy", healthy)


def logs(container: Container) -> str:
    text = container.logs()
    assert isinstance(text, bytes)  # an iterator only when asked to follow
    return text.decode(errors="replace")


def wait_for_exit(container: Container) -> int:
    wait_until(f"{container.name} has ended", lambda: status(container) in ("exited", "stopped"))
    return int(container.attrs["State"]["ExitCode"])


def stop(container: Container) -> int:
    """Stop as `docker stop` does, with the image's stop signal, and return the exit code."""
    container.stop(timeout=60)
    return wait_for_exit(container)


@contextmanager
def running(container: DockerContainer) -> Iterator[Container]:
    with container:
        yield container.get_wrapped_container()


@contextmanager
def database_server(image: str, *arguments: str, in_memory: bool = False, **environment: str) -> Iterator[Server]:
    """Start a database image with PASSWORD, and Postgres with the arguments; yield it once it is healthy."""
    container = DockerContainer(image).with_exposed_ports(5432).with_envs(POSTGRES_PASSWORD=PASSWORD, **environment)
    container.with_command(list(arguments))
    if in_memory:
        container.with_tmpfs_mount("/var/lib/postgresql")
    with running(container) as wrapped:
        wait_until_healthy(wrapped)
        yield Server(wrapped, container.get_container_host_ip(), int(container.get_exposed_port(5432)))


def build_image(context: Path, tag: str, dockerfile: str = "Dockerfile") -> str:
    """Build an image that stays, so that the next run finds its layers; return the tag."""
    image = DockerImage(context, tag=tag, dockerfile_path=dockerfile, clean_up=False).build()
    image.get_docker_client().client.close()
    return tag


def build_database_image() -> str:
    """Build docker/Dockerfile under the name compose.yaml has for it."""
    return build_image(ROOT / "docker", "pgflywheel-postgres")


def engine_answers() -> bool:
    """Tell whether a Docker API answers; the client leaves open the socket it could not connect."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with closing(docker.from_env()) as client:
                return bool(client.ping())
        except docker.errors.DockerException:
            pass
        gc.collect()
    return False


def host_of_ports() -> str:
    return os.environ.get("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
