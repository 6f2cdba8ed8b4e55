"""What the tests of alerts share: rules, channels, scores of a time, and what opened."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.support import Connection, activate, rows, value

NOW = datetime.now(UTC).replace(microsecond=0)
Slice = dict[str, str]


def rule(connection: Connection, name: str, **definition: Any) -> bool:
    changed: bool = value(connection, "select flywheel.set_alert_rule(%s, %s)", [name, Jsonb(definition)])
    return changed


def channel(connection: Connection, name: str = "team", **definition: Any) -> bool:
    given = {"url": "https://hooks.example/x", **definition}
    changed: bool = value(connection, "select flywheel.set_alert_channel(%s, %s)", [name, Jsonb(given)])
    return changed


def evaluate(connection: Connection, at: datetime = NOW) -> int:
    """Look at every rule at a time."""
    connection.execute("update flywheel._alert_evaluations set next_at = '-infinity'")
    told: int = value(connection, "select flywheel._evaluate_alerts(%s)", [at])
    return told


def scored(
    connection: Connection, passed: int, failed: int, at: datetime = NOW, check: str = "polite", **columns: Any
) -> None:
    """Insert spans of one moment with scores of a check that are already there."""
    given = {"environment": "production", "node": "writer", "release": None, **columns}
    connection.execute(
        """
        with made as (
          insert into flywheel.spans (span_id, started_at, input, output, environment, node, release)
          select gen_random_uuid(), %(at)s, 'in', case when n <= %(passed)s then 'good' else 'bad' end,
                 %(environment)s, %(node)s, %(release)s
            from generate_series(1, %(passed)s + %(failed)s) as n
          returning span_id, started_at, trace_id, project, revision, output)
        insert into flywheel.scores
               (span_id, revision, version_id, started_at, trace_id, project, passed, annotator_kind)
        select made.span_id, made.revision, status.version_id, made.started_at, made.trace_id, made.project,
               made.output = 'good', 'code'
          from made, flywheel.validator_status as status where status.validator = %(check)s and status.status = 'active'
        """,
        {"at": at, "passed": passed, "failed": failed, "check": check, **given},
    )


def opened(connection: Connection) -> list[tuple[str, Slice]]:
    return rows(
        connection, "select rule, slice from flywheel.alerts where closed_at is null order by rule, slice::text"
    )


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A check that judges no span by itself."""
    return activate(connection, "polite", filter={"project": "nowhere"})


@pytest.fixture
def floor(connection: Connection, polite: uuid.UUID) -> None:
    """A rule with a floor, and spans far below it."""
    rule(connection, "floor", metric="pass_rate", threshold=0.9)
    scored(connection, 50, 50, NOW - timedelta(minutes=5))
