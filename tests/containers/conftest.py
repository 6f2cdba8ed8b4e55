"""The two images, built once per run, and the three services of compose.yaml."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core.image import DockerImage

from tests.containers import engine
from tests.containers.engine import ROOT, Server
from tests.containers.stack import Stack, started_stack

WORKER_SOURCES = ("LICENSE", "README.md", "docker", "migrations", "pyproject.toml", "sql", "src")


@pytest.fixture(scope="session", autouse=True)
def docker_api() -> None:
    if not engine.engine_answers():
        pytest.skip("no Docker API answers")


@pytest.fixture(scope="session")
def database_image(docker_api: None) -> str:
    """Build docker/Dockerfile; the tag is the one compose.yaml names."""
    DockerImage(ROOT / "docker", tag="pgflywheel-postgres", clean_up=False).build().get_docker_client().client.close()
    return "pgflywheel-postgres"


@pytest.fixture(scope="session")
def worker_image(docker_api: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build docker/worker.Dockerfile the offline way: the wheels come from this machine's package index."""
    context = tmp_path_factory.mktemp("context")
    for name in WORKER_SOURCES:
        copy(ROOT / name, context / name)
    fill_wheels(context)
    image = DockerImage(context, tag="pgflywheel", dockerfile_path="docker/worker.Dockerfile", clean_up=False)
    image.build().get_docker_client().client.close()
    return "pgflywheel"


@pytest.fixture(scope="session")
def server(database_image: str) -> Iterator[Server]:
    with engine.database_server(database_image) as started:
        yield started


@pytest.fixture(scope="session")
def stack(database_image: str, worker_image: str) -> Iterator[Stack]:
    """Start compose.yaml: the database, the finished migration, the worker."""
    with started_stack() as started:
        yield started


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.whl"))
    else:
        shutil.copy2(source, target)


def fill_wheels(context: Path) -> None:
    script = context / "docker" / "wheelhouse.sh"
    result = subprocess.run(
        ["bash", str(script)], env=environment_of_this_python(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def environment_of_this_python() -> dict[str, str]:
    import os

    return dict(os.environ) | {"PYTHON": sys.executable}
