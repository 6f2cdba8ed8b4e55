"""What the tests of rollups share: what is counted, and what differs from a recount."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.sql.support import (
    Connection,
    inline,
    rows,
    value,
)

FOLD = "select flywheel._fold(1000)"
SCORE = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, cost_usd)
select span_id, revision, %s, started_at, trace_id, project, %s, 0.5 from flywheel.spans where span_id = %s"""
LABEL = "select flywheel.record_label(%s, 'short', %s, %s, 'why')"
PASSES = "select coalesce(sum(passed), 0) from flywheel._score_counts where grain = 'day'"
CELLS = "select coalesce(sum(tp + fp + fn + tn), 0)::integer from flywheel._cell_counts where grain = 'hour'"


def differences(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, "select * from flywheel.verify_rollups()")


def rebuild_all(connection: Connection) -> None:
    while value(connection, "select flywheel._rebuild_asked()"):
        pass


@pytest.fixture
def short(connection: Connection) -> uuid.UUID:
    """A version that judges each span as it comes; returns its id."""
    return inline(connection, "short")
