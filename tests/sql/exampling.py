"""What tests of examples say often: a question, labels on spans of a split, vectors, and what is retrieved."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Any

from tests.sql.support import Connection, activate, insert, rows, value

POLITE = {"kind": "neighbours", "question": "Is it polite?", "pass_when": "it is", "fail_when": "it is not"}
DIMENSIONS = 384


def polite(connection: Connection, name: str = "polite", **definition: Any) -> uuid.UUID:
    """Activate a vote of neighbours whose examples are asked about; return the id of its version."""
    return activate(connection, name, **{**POLITE, **definition})


def group_of(connection: Connection, split: str, number: int = 0) -> str:
    """Return the name of a group that falls into a split; another number, another group."""
    query = """select 'group ' || n from generate_series(1, 400 + 40 * %s) as n
                where flywheel._split('group ' || n) = %s order by n offset %s limit 1"""
    found = value(connection, query, [number, split, number])
    assert found is not None, f"no group {number} of {split} was found"
    return str(found)


def span(connection: Connection, split: str = "train", number: int = 0, **columns: Any) -> uuid.UUID:
    """Insert a span of a group of its own in a split."""
    return insert(connection, **{"session_id": group_of(connection, split, number), **columns})


def label(connection: Connection, span_id: uuid.UUID, passed: bool = True, **given: Any) -> uuid.UUID:
    """Label a span, and return the id of the label."""
    query = "select flywheel.record_label(%s, %s, %s, %s, %s)"
    critique = given.get("critique", None if passed else "it is rude")
    found: uuid.UUID = value(
        connection, query, [span_id, given.get("validator", "polite"), passed, given.get("by", "ada"), critique]
    )
    return found


def example(connection: Connection, number: int, passed: bool = True, **columns: Any) -> uuid.UUID:
    """Label a span of the train split and return the id of its example."""
    span_id = span(connection, "train", number, **columns)
    label(connection, span_id, passed)
    return example_of(connection, span_id)


def example_of(connection: Connection, span_id: uuid.UUID) -> uuid.UUID:
    """Return the id of the newest example of a span."""
    query = (
        "select example_id from flywheel.examples where span_id = %s order by created_at desc, example_id desc limit 1"
    )
    found: uuid.UUID = value(connection, query, [span_id])
    return found


def unit(*numbers: float) -> list[float]:
    """Return a unit vector that begins with these numbers."""
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers] + [0.0] * (DIMENSIONS - len(numbers))


def at(cosine: float, number: int) -> list[float]:
    """Return a unit vector with this cosine to unit(1); of two numbers, two directions."""
    return [cosine, *[0.0] * number, math.sqrt(1 - cosine * cosine)]


def embed(connection: Connection, example_id: uuid.UUID, *numbers: float) -> None:
    """Give an example the vector that begins with these numbers, for both its parts."""
    query = """
      insert into flywheel._example_embeddings
             (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
      select example_id, embedder_id, part, validator_id, examples.status = 'servable', content_hash,
             %s::real[]::halfvec
        from flywheel.examples, flywheel.embedders, unnest('{item,input}'::text[]) as part
       where example_id = %s and embedders.status = 'serving'"""
    connection.execute(query, [unit(*numbers), example_id])


def shots(
    connection: Connection, version_id: uuid.UUID, span_id: uuid.UUID, vector: Sequence[float] | None = None
) -> list[uuid.UUID]:
    """Return the ids of the examples a judge is shown for a span, the most relevant last."""
    query = """
      select shot.example_id
        from flywheel.spans, flywheel._shots_for(%s, array[span_id], array[started_at], %s::real[], %s) as shot
       where span_id = %s"""
    given = [version_id, None if vector is None else list(vector), DIMENSIONS, span_id]
    return [found for (found,) in rows(connection, query, given)]


def status(connection: Connection, example_id: uuid.UUID) -> tuple[str, str | None]:
    """Return the status of an example and why it has it."""
    query = "select status, coalesce(revoked_reason, quarantined_reason) from flywheel.examples where example_id = %s"
    found = rows(connection, query, [example_id])[0]
    return found[0], found[1]
