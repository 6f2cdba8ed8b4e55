"""Examples: look at them, sign, release, revoke and freeze them, retrieve some; the vote of neighbours."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pgflywheel.db import wire
from pgflywheel.db.connect import Database
from pgflywheel.errors import ExampleNotFound


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled or fixed span of the train split."""

    example_id: UUID
    status: str
    kind: str
    validator: str | None
    project: str
    node: str
    span_id: UUID
    user_id: str | None
    input: str | None
    output: str | None
    corrected_output: str | None
    passed: bool | None
    critique: str | None
    author: str
    trust: float
    disagreed: bool
    tokens: int
    reason: str | None
    detail: str | None
    signers: list[str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Shot:
    """An example as it is shown, with every component of its rank; similarity is None without its vector."""

    example_id: UUID
    rank: int
    kind: str
    input: str | None
    output: str | None
    corrected_output: str | None
    passed: bool
    critique: str
    similarity: float | None
    recency: float
    disagreement: float
    trust: float
    relevance: float
    penalty: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Use:
    """A score for which a judge was shown an example."""

    validator: str
    version: int
    span_id: UUID
    started_at: datetime
    revision: int
    passed: bool | None
    scored_at: datetime


_EXAMPLES = """
select example_id, status, kind, validators.name as validator, project, node, span_id, user_id, input, output, corrected_output,
       passed, critique, author, trust, disagreed, tokens, coalesce(revoked_reason, quarantined_reason) as reason,
       quarantined_detail as detail, examples.created_at,
       array(select signer from flywheel.sign_offs where sign_offs.example_id = examples.example_id order by signed_at) as signers
  from flywheel.examples left join flywheel.validators using (validator_id)
"""  # noqa: E501


async def find(
    db: Database, validator: str | None = None, project: str | None = None, status: str | None = None, limit: int = 50
) -> list[Example]:
    """Return examples, the newest first."""
    return await db.rows(
        Example,
        _EXAMPLES + " where (%(validator)s::text is null or validators.name = %(validator)s)"
        "   and (%(project)s::text is null or project = %(project)s)"
        "   and (%(status)s::text is null or status = %(status)s)"
        " order by examples.created_at desc, example_id limit %(limit)s",
        {"validator": validator, "project": project, "status": status, "limit": limit},
    )


async def one(db: Database, example_id: UUID) -> Example:
    """Return one example; raises ExampleNotFound."""
    found = await db.row(Example, _EXAMPLES + " where example_id = %s", [example_id])
    if found is None:
        raise ExampleNotFound(f"there is no example {example_id}", None, "List them: pgflywheel examples list.")
    return found


async def uses(db: Database, example_id: UUID) -> list[Use]:
    """Return the scores an example was shown for, the newest first."""
    return await db.rows(Use, "select * from flywheel.example_uses(%s)", [example_id])


async def sign(db: Database, example_id: UUID, signer: str, note: str | None) -> str:
    """Sign an example and return its status."""
    status: str = await db.value("select flywheel.sign_example(%s, %s, %s)", [example_id, signer, note])
    return status


async def release(db: Database, example_id: UUID, signer: str, note: str) -> str:
    """Let an example out of quarantine and return its status."""
    status: str = await db.value("select flywheel.release_example(%s, %s, %s)", [example_id, signer, note])
    return status


async def revoke(db: Database, example_id: UUID, reason: str, *, requeue: bool) -> int:
    """Never show an example again; return how many scores it touched."""
    touched: int = await db.value("select flywheel.revoke_example(%s, %s, %s)", [example_id, reason, requeue])
    return touched


async def set_policy(db: Database, project: str, sign_off: str, max_per_user: int) -> int:
    """Say who signs the examples of a project; return how many become servable by it."""
    served: int = await db.value("select flywheel.set_example_policy(%s, %s, %s)", [project, sign_off, max_per_user])
    return served


async def freeze(
    db: Database, name: str, validator: str, example_ids: Sequence[UUID], signer: str, note: str | None
) -> str:
    """Sign a set of examples in this order and return the hash of their content."""
    content: str = await db.value(
        "select flywheel.freeze_shots(%s, %s, %s, %s, %s)", [name, validator, list(example_ids), signer, note]
    )
    return content


async def retrieve(
    db: Database,
    project: str,
    node: str,
    text: str,
    *,
    k: int = 6,
    strategy: str = "similar",
    validator: str | None = None,
    vector: array[float] | None = None,
) -> list[Shot]:
    """Return examples for an application's prompt, the most relevant last."""
    embedding = None if vector is None else wire.reals([vector])
    return await db.rows(
        Shot,
        "select * from flywheel.retrieve_examples(%s, %s, %s, %s, %s, %s, %s::real[])",
        [project, node, text, k, strategy, validator, embedding],
    )


async def write_neighbours(
    db: Database, version_id: UUID, keys: wire.Array, vectors: wire.Array | None, dimensions: int
) -> int:
    """Let the neighbours of spans vote under one version; return how many scores were new."""
    written: int = await db.value(
        "select flywheel._write_neighbours(%s, %s::flywheel._span_key[], %s::real[], %s)",
        [version_id, keys, vectors, dimensions],
    )
    return written
