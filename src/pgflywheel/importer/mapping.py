"""Which member of a line fills which column."""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid5

from pgflywheel.errors import UsageError
from pgflywheel.importer import values
from pgflywheel.importer.paths import Path
from pgflywheel.importer.reading import MOST_LINE_BYTES
from pgflywheel.importer.rows import NODE_KINDS, STATUSES, SpanRow
from pgflywheel.importer.values import NAMESPACE, Rejected

REST_LIMIT = 1000
_IDS = ("trace_id", "span_id", "parent_span_id")
_PLACES = ("project", "environment", "release", "session_id", "user_id", "node")
_TEXTS = (*_PLACES, "input", "output", "model", "provider", "error")
_READERS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(_TEXTS, values.as_text),
    "node_kind": lambda value, column: values.as_word(value, column, NODE_KINDS),
    "status": lambda value, column: values.as_word(value, column, STATUSES),
    "input_tokens": values.as_count,
    "output_tokens": values.as_count,
    "cost_usd": values.as_number,
    "started_at": values.as_time,
    "ended_at": values.as_time,
    "messages": values.as_json,
    "documents": values.as_json,
}
MAPPABLE = (*_IDS, *_READERS)


@dataclass(frozen=True)
class Line:
    """One line of a file: its number from 1, its text, its object, and the id its content gives it."""

    number: int
    text: str
    item: dict[str, Any]


@dataclass(frozen=True)
class ColumnMap:
    """Read the columns of a span out of an object: by path, by constant, else the default of the table."""

    paths: Mapping[str, Path]
    constants: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[Path, ...] = ()
    keep_rest: bool = True
    read_elsewhere: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for column in (*self.paths, *self.constants):
            if column not in MAPPABLE:
                raise UsageError(f'spans has no column "{column}" to fill', hint=f"Use one of {', '.join(MAPPABLE)}.")
        if "span_id" in self.constants:
            raise UsageError(
                "--set span_id gives every span the same id",
                hint="Map --span-id to a member of the lines, or leave it out.",
            )
        if "parent_span_id" in self.paths and "trace_id" not in self.paths:
            raise UsageError(
                "--parent is mapped but --trace-id is not",
                "A child and its parent must be put into the same trace.",
                "Map --trace-id too.",
            )

    def columns(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the columns that have a value, checked and converted; raises Rejected."""
        found = {column: self._raw(column, item) for column in _READERS}
        read = {column: _READERS[column](value, column) for column, value in found.items() if value is not None}
        return {**read, "attributes": self._attributes(item)}

    def ids(self, item: dict[str, Any], project: str, fallback: Callable[[], UUID]) -> dict[str, Any]:
        """Return span_id, trace_id and parent_span_id; what is not mapped is derived from what ``fallback`` gives."""
        raw = {column: self._raw(column, item) for column in _IDS}
        trace_id = None if raw["trace_id"] is None else values.as_trace_id(raw["trace_id"], project)
        span, parent = (
            None if raw[column] is None else values.as_span_id(raw[column], project, trace_id) for column in _IDS[1:]
        )
        span_id = span or fallback()
        return {"span_id": span_id, "trace_id": trace_id or uuid5(span_id, "trace"), "parent_span_id": parent}

    def _raw(self, column: str, item: dict[str, Any]) -> Any:
        found = self.paths[column].find(item) if column in self.paths else None
        return self.constants.get(column) if found is None else found

    def _attributes(self, item: dict[str, Any]) -> str:
        chosen = {path.text: path.find(item) for path in self.attributes}
        rest = self._rest(item) if self.keep_rest else {}
        return values.as_json({**rest, **chosen}, "attributes") or "{}"

    def _rest(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the members no path reads, without the large ones; an id that only a UUID was made from stays."""
        read = {path.steps[0] for column, path in self.paths.items() if not self._is_made_into_uuid(column, item)}
        read |= self.read_elsewhere | {path.steps[0] for path in self.attributes}
        rest = {name: value for name, value in item.items() if name not in read and value is not None}
        return {name: value for name, value in rest.items() if len(values.dumped(value, name)) <= REST_LIMIT}

    def _is_made_into_uuid(self, column: str, item: dict[str, Any]) -> bool:
        return column in _IDS and not values.is_hexadecimal_id(self.paths[column].find(item))


class LineIds:
    """Give each line an id that depends on its content only; equal lines of one file are told apart by count.

    What was seen lies in a temporary file once it is much, so that the largest file needs no more memory than others.
    """

    def __init__(self) -> None:
        self.seen = sqlite3.connect("", isolation_level=None)
        weakref.finalize(self, self.seen.close)
        self.seen.execute("create table seen (content blob primary key, n integer) without rowid")
        self.seen.execute("begin")

    def __call__(self, line: Line, project: str) -> UUID:
        content = uuid5(NAMESPACE, f"{project}\0line\0{line.text}")
        count = self._count(content.bytes)
        return content if count == 1 else uuid5(content, str(count))

    def _count(self, content: bytes) -> int:
        """Return how often this content has come, with this time."""
        (before,) = self.seen.execute("select n from seen where content = ?", [content]).fetchone() or (0,)
        self.seen.execute("replace into seen values (?, ?)", [content, before + 1])
        return int(before) + 1


@dataclass
class SpanPerLine:
    """Make one span of each line."""

    columns: ColumnMap
    imported_at: datetime
    line_ids: LineIds = field(default_factory=LineIds)

    def __call__(self, line: Line) -> list[SpanRow]:
        """Return the line's span; raises Rejected."""
        found = self.columns.columns(line.item)
        if not any(found.get(column) is not None for column in ("input", "output", "messages", "error")):
            raise Rejected(self._nothing_found())
        project = found.get("project", "default")
        ids = self.columns.ids(line.item, project, partial(self.line_ids, line, project))
        timed = "started_at" in found
        return [SpanRow(**{"started_at": self.imported_at, **found, **ids}, timed=timed)]

    def _nothing_found(self) -> str:
        mapped = [name for name in ("input", "output") if name in self.columns.paths]
        places = [f"{self.columns.paths[name].text} ({name})" for name in mapped]
        return f"there is nothing at {' or '.join(places) or 'any path: map --input or --output'}"


def parse_line(number: int, raw: bytes) -> Line:
    """Return a line's object, or raise Rejected."""
    if len(raw) > MOST_LINE_BYTES:
        raise Rejected(f"the line is longer than {MOST_LINE_BYTES >> 20} MiB: is the file one document of JSON?")
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError as error:
        raise Rejected(f"the line is not UTF-8 at byte {error.start}") from None
    try:
        item = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise Rejected("the line is nested too deeply") from None
    except ValueError as error:
        raise Rejected(f"the line is not JSON: {error}") from None
    if not isinstance(item, dict):
        raise Rejected(f"the line is a JSON {_json_type(item)}, not an object")
    return Line(number, text, item)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _json_type(item: Any) -> str:
    return {list: "list", str: "text", bool: "boolean", type(None): "null"}.get(type(item), "number")
