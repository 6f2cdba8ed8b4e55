"""Each test of a fault tells a count; all of them stand together at the end of the run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.faults.scale import FULL, FULL_SECONDS
from tests.faults.servers import OwnServer
from tests.faults.workers import WorkerProcess

_PROPERTY = "fault"
Tell = Callable[[str], None]
Started = Callable[..., WorkerProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of this folder their mark, and the time a full run takes."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.faults)
            if FULL:
                item.add_marker(pytest.mark.timeout(FULL_SECONDS))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests counted."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    told = [
        line
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, line in report.user_properties
        if name == _PROPERTY
    ]
    if told:
        terminalreporter.section("faults")
        for line in told:
            terminalreporter.write_line(f"faults: {line}")


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Say a count: at once with -s, and at the end of the run."""

    def say(line: str) -> None:
        print(f"faults: {line}")
        record_property(_PROPERTY, line)

    return say


@pytest.fixture
def start_worker(dsn: str, tmp_path: Path) -> Iterator[Started]:
    """Start workers on the test's database; all are ended after it."""
    with _starting(dsn, tmp_path) as start:
        yield start


def _starting(dsn: str, folder: Path) -> AbstractContextManager[Started]:
    @contextmanager
    def starting() -> Iterator[Started]:
        started: list[WorkerProcess] = []

        def start(*options: str, dsn: str = dsn) -> WorkerProcess:
            started.append(WorkerProcess.start(dsn, folder / f"worker-{len(started)}.log", *options))
            return started[-1]

        yield start
        for worker in started:
            worker.kill()

    return starting()


@pytest.fixture(scope="session")
def own_server(run_dir: Path) -> Iterator[OwnServer]:
    """A server with default durability that tests may kill."""
    server = OwnServer(run_dir / f"own-{uuid.uuid4().hex[:8]}")
    server.start()
    yield server
    server.stop()
