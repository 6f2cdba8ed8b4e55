"""The services of compose.yaml, started by `docker compose` where it is installed, else one by one as it would."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import yaml
from docker.models.containers import Container
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.containers import engine
from tests.containers.engine import ROOT, Server
from tests.ports import free_port

COMPOSE_FILE = ROOT / "docker" / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<rule>[-?])(?P<text>[^}]*))?\}")


@dataclass(frozen=True)
class Stack:
    """A running compose project."""

    project: str
    client: docker.DockerClient
    server: Server

    def container(self, service: str) -> Container:
        (found,) = find(self.client, self.project, service)
        return found


def find(client: docker.DockerClient, project: str, service: str) -> list[Container]:
    """Return a service's containers, by the labels that compose gives them."""
    labels = [f"com.docker.compose.project={project}", f"com.docker.compose.service={service}"]
    return list(client.containers.list(all=True, filters={"label": labels}))


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """Replace ${NAME}, ${NAME:-default} and ${NAME:?message} as compose does."""
    if isinstance(value, dict):
        return {key: interpolated(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, variables) for inner in value]
    return _VARIABLE.sub(lambda found: replacement(found, variables), value) if isinstance(value, str) else value


def replacement(found: re.Match[str], variables: Mapping[str, str]) -> str:
    given = variables.get(found["name"], "")
    if not given and found["rule"] == "?":
        raise LookupError(found["text"])
    return given or found["text"] or ""


def compose_services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = interpolated(yaml.safe_load(COMPOSE_FILE.read_text()), variables)["services"]
    return services


def in_order(services: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the services so that each comes after those it depends on."""
    ordered: list[str] = []
    while len(ordered) < len(services):
        ready = [name for name in services if name not in ordered and set(depends_on(services[name])) <= set(ordered)]
        assert ready, "services depend on one another"
        ordered += ready
    return ordered


def depends_on(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: rule["condition"] for name, rule in service.get("depends_on", {}).items()}


def wait_for(container: Container, condition: str) -> None:
    if condition == "service_healthy":
        engine.wait_until_healthy(container)
    else:
        assert condition == "service_completed_successfully"
        assert engine.wait_for_exit(container) == 0, engine.logs(container)


def start_service(name: str, service: Mapping[str, Any], project: str, network: Network) -> DockerContainer:
    container = DockerContainer(service["image"]).with_envs(**service.get("environment", {}))
    container.with_network(network).with_network_aliases(name)
    for published in service.get("ports", []):
        *_, host_port, container_port = published.split(":")
        container.with_bind_ports(int(container_port), int(host_port))
    if "command" in service:
        container.with_command(service["command"])
    container.with_kwargs(labels={"com.docker.compose.project": project, "com.docker.compose.service": name})
    return container.start()


def start_one_by_one(project: str, variables: Mapping[str, str], client: docker.DockerClient, end: ExitStack) -> None:
    """Start each service once those it depends on are as far as its conditions say."""
    services = compose_services(variables)
    network = end.enter_context(Network())
    for name in in_order(services):
        for other, condition in depends_on(services[name]).items():
            wait_for(find(client, project, other)[0], condition)
        end.callback(start_service(name, services[name], project, network).stop)


def compose(project: str, variables: Mapping[str, str], *command: str) -> None:
    words = ["docker", "compose", "--project-name", project, "--file", str(COMPOSE_FILE), *command]
    result = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def compose_is_installed() -> bool:
    try:
        return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def start_all(project: str, variables: Mapping[str, str], client: docker.DockerClient, end: ExitStack) -> None:
    if compose_is_installed():
        end.callback(compose, project, variables, "down", "--volumes", "--timeout", "60")
        compose(project, variables, "up", "--detach", "--no-build")
    else:
        start_one_by_one(project, variables, client, end)


@contextmanager
def started_stack() -> Iterator[Stack]:
    """Start the images already built, under a project name and a port of their own."""
    project, port = f"pgflywheel-{uuid.uuid4().hex[:8]}", free_port()
    variables = {"POSTGRES_PASSWORD": engine.PASSWORD, "POSTGRES_PORT": str(port)}
    with closing(docker.from_env()) as client, ExitStack() as end:
        start_all(project, variables, client, end)
        (database,) = find(client, project, "database")
        yield Stack(project, client, Server(database, engine.host_of_ports(), port))
