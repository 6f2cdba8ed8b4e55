"""Python checks: find the callable a definition names, and give it what it reads of a span."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pgflywheel.db import wire
from pgflywheel.records import Span

DEFAULT_COLUMNS = {"input": ("input",), "output": ("output",), "span": ("input", "output")}
SPAN_LIMIT_MS, CALL_LIMIT_MS = 1000, 60_000  # in the process pool; of a call in the judge lane
MEMORY_LIMIT_MB = 512
_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("trace_id", "parent_span_id"), UUID),
    **dict.fromkeys(("messages", "documents", "attributes"), json.loads),
    **dict.fromkeys(("input_tokens", "output_tokens", "revision"), int),
    **dict.fromkeys(("started_at", "ended_at"), datetime.fromisoformat),
    "cost_usd": Decimal,
    "latency_ms": float,
}


@dataclass(frozen=True, slots=True)
class Check:
    """What a definition says of its Python check."""

    path: str
    target: str
    columns: tuple[str, ...]
    parameters: Mapping[str, Any]
    time_limit_ms: float
    memory_limit_mb: float

    @classmethod
    def of(cls, definition: Mapping[str, Any]) -> Check:
        """Read a definition of kind python."""
        target = definition["target"]
        return cls(
            definition["callable"],
            target,
            tuple(definition.get("columns", DEFAULT_COLUMNS[target])),
            definition.get("parameters", {}),
            definition.get("time_limit_ms", CALL_LIMIT_MS if definition.get("lane") == "judge" else SPAN_LIMIT_MS),
            definition.get("memory_limit_mb", MEMORY_LIMIT_MB),
        )

    @property
    def takes_text(self) -> bool:
        """Tell whether the callable gets its target's text; otherwise it gets a Span."""
        return self.columns == (self.target,)


class MissingCallable(Exception):
    """The callable cannot be imported here."""


def load(path: str) -> Callable[..., Any]:
    """Import ``module:function``; raise MissingCallable with the reason when that fails.

    The standard library holds no checks, and much of it acts on a text in ways nobody wants
    (``os:system``): it is refused.
    """
    module_name, _, name = path.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise MissingCallable(f"{module_name} is a module of Python itself, not one that holds checks")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # a module may raise anything while it is imported
        raise MissingCallable(f"{path}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise MissingCallable(f"{path} is {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def arguments(check: Check, keys: bytes, texts: bytes | None, start: int, stop: int) -> Iterator[Any]:
    """Yield what the callable gets for each span from start up to stop: a text, a Span, or why it cannot be read.

    ``texts`` is column by column, as _read_spans gives it.
    """
    spans = wire.count(keys)
    if check.takes_text:
        yield from _stretch(texts, start, stop)
        return
    read = [list(_stretch(texts, place * spans + start, place * spans + stop)) for place in range(len(check.columns))]
    ids = [wire.span_id(key or b"") for key in _stretch_raw(keys, start, stop)]
    for place, span_id in enumerate(ids):
        try:
            yield span(span_id, check.columns, [column[place] for column in read])
        except (ValueError, ArithmeticError, RecursionError) as error:  # JSON nested too deeply for Python
            yield error


def span(span_id: UUID, columns: Sequence[str], texts: Sequence[str | None]) -> Span:
    """Return the Span with the declared columns read from their text form."""
    read = zip(columns, texts, strict=True)
    values: dict[str, Any] = {name: None if text is None else _READERS.get(name, str)(text) for name, text in read}
    return Span(**values | {"span_id": span_id})


def _stretch(raw: bytes | None, start: int, stop: int) -> Iterator[str | None]:
    for each in _stretch_raw(raw, start, stop):
        yield None if each is None else each.decode()


def _stretch_raw(raw: bytes | None, start: int, stop: int) -> Iterator[bytes | None]:
    for place, each in enumerate(wire.elements(raw)):
        if place >= stop:
            return
        if place >= start:
            yield each
