"""Validators: define, change their status, read them, and try them on a text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflywheel.db.connect import Database
from pgflywheel.errors import SpanNotFound, ValidatorNotFound

Definition = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Defined:
    """The version a definition is stored as; ``changed`` is False when it was there already."""

    validator: str
    version: int
    status: str
    content_hash: str
    changed: bool


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A version and the status it has now."""

    validator: str
    version: int
    status: str


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """A row of flywheel.validator_status."""

    validator: str
    version: int
    status: str
    kind: str
    target: str
    lane: str
    action: str
    severity: str
    sample: float
    description: str | None
    paused_reason: str | None
    paused_detail: str | None
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class StoredDefinition:
    """A version's whole definition, with defaults filled in."""

    validator: str
    version: int
    status: str
    definition: Definition


@dataclass(frozen=True, slots=True)
class Trial:
    """What a definition says of one span; nothing was written."""

    eligible: bool | None
    passed: bool | None
    value: float | None
    critique: str | None
    unscored_reason: str | None
    detail: str | None


async def define(database: Database, name: str, definition: Definition) -> Defined:
    """Store a definition as a new draft; the same one again changes nothing."""
    found = await database.row(
        Defined, "select * from flywheel.define_validator(%s, %s)", [name, json.dumps(definition, default=str)]
    )
    assert found is not None  # the function returns one row or raises
    return found


async def approve(database: Database, name: str, version: int | None = None) -> VersionStatus:
    """Approve a draft."""
    return await _act(database, "select * from flywheel.approve_validator(%s, %s::integer)", name, version)


async def activate(database: Database, name: str, version: int | None = None) -> VersionStatus:
    """Let a version judge new spans."""
    return await _act(database, "select * from flywheel.activate_validator(%s, %s::integer)", name, version)


async def shadow(database: Database, name: str, version: int | None = None) -> VersionStatus:
    """Let a version judge new spans for show."""
    return await _act(database, "select * from flywheel.shadow_validator(%s, %s::integer)", name, version)


async def pause(database: Database, name: str, reason: str) -> VersionStatus:
    """Stop the active version and hold its queued jobs."""
    return await _act(database, "select * from flywheel.pause_validator(%s, %s)", name, reason)


async def retire(database: Database, name: str) -> list[VersionStatus]:
    """End every version of a validator."""
    return await database.rows(VersionStatus, "select * from flywheel.retire_validator(%s)", [name])


async def listed(database: Database, every_version: bool) -> list[ListedVersion]:
    """Return validators by name: the version that runs, or else the newest; or every version."""
    query = """
        select distinct on (validator, case when %(every)s then version end)
               validator, version, status, kind, target, lane, action, severity, sample, description,
               paused_reason, paused_detail, changed_at
          from flywheel.validator_status
         order by validator, case when %(every)s then version end,
                  status in ('active', 'paused') desc, status = 'shadow' desc, version desc
    """
    return await database.rows(ListedVersion, query, {"every": every_version})


async def require(database: Database, name: str) -> None:
    """Raise ValidatorNotFound unless there is a validator of this name."""
    if not await database.value("select exists (select from flywheel.validator_status where validator = %s)", [name]):
        raise ValidatorNotFound(f"there is no validator {name}", hint="List them: pgflywheel validators list.")


async def definition(database: Database, name: str, version: int | None = None) -> StoredDefinition:
    """Return one version's definition, the newest unless numbered; raises ValidatorNotFound."""
    query = """
        select validator, version, status, definition from flywheel.validator_status
         where validator = %s and (%s::integer is null or version = %s)
         order by status = 'retired', version desc limit 1
    """
    found = await database.row(StoredDefinition, query, [name, version, version])
    if found is None:
        wanted = name if version is None else f"{name} version {version}"
        raise ValidatorNotFound(f"there is no validator {wanted}", hint="List them: pgflywheel validators list.")
    return found


class _Undo(Exception):
    """Ends a transaction that is not to be kept."""


async def as_stored(database: Database, name: str, given: Definition) -> Definition:
    """Return a definition as it would be stored, with defaults filled in; raises InvalidDefinition."""
    try:
        async with database.transaction() as session:
            defined = await define(session, name, given)
            stored = await definition(session, name, defined.version)
            raise _Undo
    except _Undo:
        return stored.definition


async def try_on_span(database: Database, tried: Definition, span_id: UUID) -> Trial:
    """Ask a sql definition about a stored span, in a transaction that can write nothing."""
    return await _try(database, "select * from flywheel.test_validator(%s::jsonb, %s::uuid)", tried, [span_id])


async def try_on_texts(database: Database, tried: Definition, texts: tuple[str | None, str | None]) -> Trial:
    """Ask a sql definition about an input and an output, in a transaction that can write nothing."""
    query = "select * from flywheel.test_validator(%s::jsonb, %s::text, %s::text)"
    return await _try(database, query, tried, list(texts))


async def column_texts(database: Database, span_id: UUID, columns: tuple[str, ...]) -> list[str | None]:
    """Return columns of a span in their text form, as a worker reads them; raises SpanNotFound."""
    query = """
        select array(select to_jsonb(span) ->> wanted.name
                       from unnest(%s::text[]) with ordinality as wanted(name, place) order by wanted.place)
          from flywheel.spans as span where span.span_id = %s
    """
    texts: list[str | None] | None = await database.value(query, [list(columns), span_id])
    if texts is None:
        raise SpanNotFound(f"there is no span {span_id}", hint="Find one: pgflywheel traces list.")
    return texts


async def _act(database: Database, query: str, name: str, argument: int | str | None) -> VersionStatus:
    changed = await database.row(VersionStatus, query, [name, argument])
    assert changed is not None  # the functions return one row or raise
    return changed


async def _try(database: Database, query: str, tried: Definition, rest: list[Any]) -> Trial:
    async with database.transaction() as session:
        await session.execute("set transaction read only")
        found = await session.row(Trial, query, [json.dumps(tried, default=str), *rest])
    assert found is not None  # the function returns one row or raises
    return found
