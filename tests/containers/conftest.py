"""The two images, built once per run, and the three services of compose.yaml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    return engine.build_database_image()


@pytest.fixture(scope="session")
def worker_image(docker_api: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build docker/worker.Dockerfile the offline way: the wheels come from this machine's package index."""
    context = tmp_path_factory.mktemp("context")
    for name in WORKER_SOURCES:
        copy(ROOT / name, context / name)
    fill_wheels(context)
    return engine.build_image(context, "pgflywheel", "docker/worker.Dockerfile")


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
    return dict(os.environ) | {"PYTHON": sys.executable}
