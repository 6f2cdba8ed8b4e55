"""docker/worker.Dockerfile and compose.yaml: from an insert in one container to a score written by another."""

from __future__ import annotations

import json

import pytest

from tests.containers.engine import is_healthy, logs, run_in, wait_until, wait_until_healthy
from tests.containers.stack import Stack

pytestmark = [pytest.mark.container, pytest.mark.timeout(900), pytest.mark.xdist_group("containers")]

IS_JSON = "pgflywheel.checks.structured:is_json"
IN_SQL = {"kind": "sql", "target": "output", "expression": "length(span.output) < 20", "lane": "bulk"}
IN_PYTHON = {"kind": "python", "target": "output", "callable": IS_JSON, "lane": "bulk"}
IN_SERVER = {"kind": "sql", "target": "output", "function": "flywheel.check_json_in_python", "lane": "bulk"}


def activate(stack: Stack, name: str, definition: dict[str, str]) -> None:
    stack.server.value("select version from flywheel.define_validator(%s, %s)", name, json.dumps(definition))
    stack.server.value("select status from flywheel.activate_validator(%s)", name)


def insert_span(stack: Stack, output: str) -> str:
    return str(stack.server.value("insert into flywheel.spans (output) values (%s) returning span_id", output))


def verdict(stack: Stack, span_id: str, validator: str) -> bool | None:
    """Return whether the span passed; None while nothing is scored."""
    query = "select passed from flywheel.current_scores where span_id = %s and validator = %s"
    passed: bool | None = stack.server.value(query, span_id, validator)
    return passed


def cli(stack: Stack, *words: str) -> str:
    code, output = run_in(stack.container("worker"), ["pgflywheel", *words])
    assert code == 0, output
    return output


def test_migrate_ends_before_the_worker_starts(stack: Stack) -> None:
    migrate, worker = stack.container("migrate"), stack.container("worker")
    assert migrate.attrs["State"]["ExitCode"] == 0
    assert migrate.attrs["State"]["FinishedAt"][:19] <= worker.attrs["State"]["StartedAt"][:19]


def test_the_schema_is_current_on_this_release_of_postgres(stack: Stack) -> None:
    assert stack.server.value("show server_version_num").startswith("17")
    cli(stack, "db", "verify")


def test_the_worker_becomes_healthy(stack: Stack) -> None:
    wait_until_healthy(stack.container("worker"))
    assert stack.server.value("select count(*) from flywheel.worker_status") == 1


def test_doctor_finds_nothing_that_fails(stack: Stack) -> None:
    wait_until_healthy(stack.container("worker"))
    report = cli(stack, "doctor")
    assert "FAIL" not in report
    assert "a notification arrives" in report


def test_the_worker_can_do_every_chore(stack: Stack) -> None:
    packages = "import jinja2, jsonschema, openai, phonenumbers, py3langid, sklearn.cluster"
    code, said = run_in(stack.container("worker"), ["python3", "-c", packages])
    assert code == 0, said


def test_the_worker_does_not_run_as_root(stack: Stack) -> None:
    code, owner = run_in(stack.container("worker"), ["stat", "--format=%U", "/proc/1"])
    assert (code, owner.strip()) == (0, "flywheel")


def assert_scored(stack: Stack, name: str, good: str, bad: str) -> None:
    """Insert both, wait for both scores, and tell whether the validator told them apart."""
    spans = [insert_span(stack, good), insert_span(stack, bad)]
    wait_until("both are scored", lambda: None not in [verdict(stack, span, name) for span in spans])
    assert [verdict(stack, span, name) for span in spans] == [True, False]


def test_sql_checks_run_on_what_is_inserted(stack: Stack) -> None:
    activate(stack, "short", IN_SQL)
    assert_scored(stack, "short", "a short answer", "an answer that goes on and on")


def test_python_checks_run_in_the_worker(stack: Stack) -> None:
    activate(stack, "json_in_python", IN_PYTHON)
    assert_scored(stack, "json_in_python", '{"a": 1}', "{'a': 1}")


def test_a_python_check_runs_inside_the_server(stack: Stack) -> None:
    activate(stack, "json_in_python", IN_PYTHON)
    assert "flywheel.check_json_in_python" in cli(stack, "validators", "install-plpython", "json_in_python")
    activate(stack, "json_in_server", IN_SERVER)
    assert_scored(stack, "json_in_server", '{"a": 1}', "{'a': 1}")


def test_a_stopped_worker_leaves_cleanly_and_its_successor_goes_on(stack: Stack) -> None:
    worker = stack.container("worker")
    wait_until_healthy(worker)
    activate(stack, "short_after_restart", IN_SQL)
    worker.stop(timeout=60)
    worker.reload()
    assert worker.attrs["State"]["ExitCode"] == 0, logs(worker)
    assert stack.server.value("select count(*) from flywheel.worker_status") == 0
    waiting = insert_span(stack, "a short answer")
    worker.start()
    wait_until("the waiting span is scored", lambda: verdict(stack, waiting, "short_after_restart") is True)


def test_health_ends_with_the_worker(stack: Stack) -> None:
    worker = stack.container("worker")
    wait_until_healthy(worker)
    worker.kill("SIGSTOP")
    try:
        assert not is_healthy(worker)
    finally:
        worker.kill("SIGCONT")
    wait_until_healthy(worker)
