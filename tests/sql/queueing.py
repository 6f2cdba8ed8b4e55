"""What the tests of the labelling queue share: claims, draws, labels, and what is stored of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import pytest

from tests.sql.support import Connection, activate, rows, value

DRAW = "select flywheel.draw_labels('polite', %s, '-infinity', 'infinity', %s)"
RECORD = "select flywheel.record_label(%s, 'polite', %s, %s, %s)"


@pytest.fixture
def polite(connection: Connection) -> uuid.UUID:
    """A validator to label for, which passes all but answers that end in 0."""
    return activate(connection, "polite", expression="span.output !~ '0$'", description="Is the answer polite?")


def claim(connection: Connection, reviewer: str = "ada", n: int = 10, lane: str | None = None) -> list[uuid.UUID]:
    """Claim and return ids of spans."""
    query = "select span_id from flywheel.claim_labels('polite', %s, %s, %s)"
    return [span_id for (span_id,) in rows(connection, query, [reviewer, n, lane])]


def record(connection: Connection, span_id: uuid.UUID, passed: bool = True, annotator: str = "ada") -> uuid.UUID:
    made: uuid.UUID = value(connection, RECORD, [span_id, passed, annotator, None if passed else "rude"])
    return made


def items(connection: Connection, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
    return rows(connection, f"select {columns} from flywheel._label_items where {where} order by item_id")


def distinct(connection: Connection, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
    return rows(connection, f"select distinct {columns} from flywheel._label_items where {where}")


def judge(
    connection: Connection, verdicts: Iterable[tuple[uuid.UUID, bool, float | None]], name: str = "polite"
) -> None:
    """Write what a judge said: span, verdict, confidence."""
    for span_id, passed, confidence in verdicts:
        connection.execute(
            """insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed,
                      confidence, annotator_kind, critique)
               select span_id, revision, version_id, started_at, trace_id, project, %s, %s, 'judge', 'so it is'
                 from flywheel.spans, flywheel.validator_status where span_id = %s and validator = %s""",
            [passed, confidence, span_id, name],
        )
