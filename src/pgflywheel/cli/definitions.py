"""What the commands on validators do with definitions: apply, try, compare, print."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from pgflywheel.errors import UsageError, ValidatorNotFound

if TYPE_CHECKING:
    from pgflywheel.checks.catalogue import Entry
    from pgflywheel.db.connect import Database
    from pgflywheel.db.validators import Definition, Trial

NAMING = ("labels_of", "escalates_to")
"""Keys of a definition that name another validator."""

Named = Sequence[tuple[str, "Definition"]]


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying one definition of a file did."""

    validator: str
    version: int
    status: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What a trial asks about: a stored span, or an input and an output."""

    span_id: UUID | None
    input: str | None
    output: str | None


class Undo(Exception):
    """Ends a transaction that is not to be kept."""


def read(file: Path, schema: str) -> Named:
    """Return name and definition of each validator of a file."""
    from pgflywheel.checks.definitions import read_definitions
    from pgflywheel.judge.definition import JudgeDefinition

    found = read_definitions(file, schema)
    for name, definition in found:
        if definition.get("kind") == "judge":
            JudgeDefinition.of(name, definition)  # raises what SQL cannot know: a template, a parameter of ours
    return found


async def apply_definitions(
    database: Database, definitions: Named, activating: bool, dry_run: bool = False
) -> list[Applied]:
    """Store definitions, all or none, those that others name first; ``dry_run`` undoes it at the end."""
    applied: list[Applied] = []
    try:
        async with database.transaction() as session:
            for name, definition in _named_first(definitions):
                applied.append(await _apply_one(session, name, definition, activating))
            if dry_run:
                raise Undo
    except Undo:
        pass
    return applied


def _named_first(definitions: Named) -> Named:
    """Return definitions in an order in which each comes after those it names; a circle stays as it stands."""
    waiting, ordered = dict(definitions), []
    while waiting:
        free = (
            name for name, definition in waiting.items() if waiting.keys().isdisjoint(_names([definition]) - {name})
        )
        name = next(free, next(iter(waiting)))
        ordered.append((name, waiting.pop(name)))
    return ordered


def named_by(name: str, definitions: Named) -> Named:
    """Return a definition of a file with those of the file it names, and those they name, in the order to store."""
    known, wanted = dict(definitions), {name}
    while more := _names(known[each] for each in wanted) & known.keys() - wanted:
        wanted |= more
    return _named_first([(each, known[each]) for each in known if each in wanted])


def _names(definitions: Iterable[Definition]) -> set[str]:
    """Return the validators that definitions name."""
    return {str(definition[key]) for definition in definitions for key in NAMING if key in definition}


async def _apply_one(session: Database, name: str, definition: Definition, activating: bool) -> Applied:
    from pgflywheel.db import validators as calls

    defined = await calls.define(session, name, definition)
    if not activating or defined.status == "active":
        return Applied(name, defined.version, defined.status, defined.changed)
    active = await calls.activate(session, name, defined.version)
    return Applied(name, active.version, active.status, True)


async def ask(
    database: Database,
    name: str,
    version: int | None,
    definitions: Named | None,
    question: Question,
) -> Trial:
    """Ask a check about a span or texts; UsageError for a judge or neighbours, which are tried elsewhere."""
    from pgflywheel.db import validators as calls

    if definitions is None:
        definition = (await calls.definition(database, name, version)).definition
    else:
        definition = await calls.as_stored(database, name, _entry(definitions, name))
    if definition.get("kind") in ("judge", "neighbours"):
        judge = definition["kind"] == "judge"
        raise UsageError(
            f"validator {name} is {'a judge' if judge else 'a vote of neighbours'}",
            hint=f"Try it: pgflywheel judges test {name}."
            if judge
            else f"A worker counts its votes: pgflywheel judges align {name} shows how they agree with labels.",
        )
    if definition.get("kind") == "python":
        return await _ask_python(database, definition, question)
    if question.span_id is not None:
        return await calls.try_on_span(database, definition, question.span_id)
    return await calls.try_on_texts(database, definition, (question.input, question.output))


async def _ask_python(database: Database, definition: Definition, question: Question) -> Trial:
    from pgflywheel.cli.trial import try_python
    from pgflywheel.db import validators as calls
    from pgflywheel.worker.callables import Check

    columns = Check.of(definition).columns
    if question.span_id is not None:
        texts = await calls.column_texts(database, question.span_id, columns)
    else:
        given = {"input": question.input, "output": question.output}
        texts = [given.get(column) for column in columns]
    return await try_python(definition, question.span_id or uuid4(), texts)


async def file_pairs(database: Database, definitions: Named) -> list[dict[str, Any]]:
    """Return each definition of a file beside the newest stored version; an empty one when none is stored."""
    from pgflywheel.db import validators as calls

    pairs = []
    for name, given in definitions:
        try:
            stored = await calls.definition(database, name)
            before, label = stored.definition, f"version {stored.version}"
        except ValidatorNotFound:
            before, label = {}, "not stored"
        after = await calls.as_stored(database, name, given)
        pairs.append({"validator": name, "from": label, "to": "file", "before": before, "after": after})
    return pairs


async def version_pair(database: Database, name: str, older: int | None, newer: int | None) -> dict[str, Any]:
    """Return two versions beside each other; None = the newest, and the one before it."""
    from pgflywheel.db import validators as calls

    after = await calls.definition(database, name, newer)
    number = older or after.version - 1
    before = (await calls.definition(database, name, number)).definition if number else {}
    return {
        "validator": name,
        "from": f"version {number}" if number else "nothing",
        "to": f"version {after.version}",
        "before": before,
        "after": after.definition,
    }


def difference(pair: dict[str, Any]) -> list[str]:
    """Return the lines of a unified diff; none when nothing differs."""
    old, new = (
        [] if not side else json.dumps(side, indent=2, sort_keys=True, ensure_ascii=False).splitlines()
        for side in (pair["before"], pair["after"])
    )
    title = pair["validator"]
    return list(difflib.unified_diff(old, new, f"{title} {pair['from']}", f"{title} {pair['to']}", lineterm=""))


def _entry(definitions: Named, name: str) -> Definition:
    for known, definition in definitions:
        if known == name:
            return definition
    names = ", ".join(known for known, _ in definitions)
    raise UsageError(f"the file defines no validator {name}", hint=f"It defines {names}.")


def entry_text(entry: Entry) -> str:
    """Return a catalogue entry as a table to copy into a file, its parameters with their defaults."""
    lines = [f"# {entry.description}", "[[validator]]", f'name = "{entry.name}"', f'use = "{entry.name}"']
    if entry.parameters:
        lines.append("[validator.with]")
    for parameter in entry.parameters.values():
        lines.append(f"# {parameter.type}: {parameter.description}")
        default = "" if parameter.default is None else json.dumps(parameter.default, ensure_ascii=False)
        lines.append(f"{parameter.name} = {default}" if default else f"# {parameter.name} =")
    return "\n".join(lines)
