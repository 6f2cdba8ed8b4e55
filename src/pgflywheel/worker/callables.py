"""Python checks: find the callable a definition names, and give it what it reads of a span."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import islice
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


def load_coroutine(check: Check) -> Callable[[Any], Awaitable[Any]]:
    """Import the coroutine function of a check of the judge lane, with its parameters; raise MissingCallable."""
    found = load(check.path)
    if not inspect.iscoroutinefunction(found) and not inspect.iscoroutinefunction(type(found).__call__):
        raise MissingCallable(f"{check.path} is not a coroutine function, as the judge lane needs")
    return partial(found, **check.parameters)


def arguments(check: Check, keys: bytes, texts: bytes | None, start: int, stop: int) -> Iterator[Any]:
    """Yield what the callable gets for each span from start up to stop: a text, a Span, or why it cannot be read.

    ``texts`` is column by column, as _read_spans gives it.
    """
    spans = wire.count(keys)
    if check.takes_text:
        yield from _stretch(texts, start, stop)
        return
    make = SpanMaker(check.columns)
    read = [list(_stretch(texts, place * spans + start, place * spans + stop)) for place in range(len(check.columns))]
    for key, *row in zip(islice(wire.elements(keys), start, stop), *read, strict=True):
        try:
            yield make(wire.span_id(key or b""), row)
        except (ValueError, ArithmeticError, RecursionError) as error:  # JSON nested too deeply for Python
            yield error


def span(span_id: UUID, columns: Sequence[str], texts: Sequence[str | None]) -> Span:
    """Return the Span with the declared columns read from their text form."""
    return SpanMaker(columns)(span_id, texts)


class SpanMaker:
    """Make Spans of some columns, faster than their constructor, which sets all 26 fields one by one in Python."""

    def __init__(self, columns: Sequence[str]) -> None:
        wanted = [name for name in columns if name != "span_id"]
        self.identify = _setter("span_id")
        self.blank = [_setter(field.name) for field in fields(Span) if field.name not in ("span_id", *wanted)]
        self.read = [(place, _READERS.get(name), _setter(name)) for place, name in enumerate(columns) if name in wanted]

    def __call__(self, span_id: UUID, texts: Sequence[str | None]) -> Span:
        """Return the Span with the columns read from their text form."""
        made = object.__new__(Span)
        self.identify(made, span_id)
        for blank in self.blank:
            blank(made, None)
        for place, reader, put in self.read:
            text = texts[place]
            put(made, text if reader is None or text is None else reader(text))
        return made


def _setter(name: str) -> Callable[[Span, Any], None]:
    """Return what sets a field of the frozen Span; its slots do."""
    put: Callable[[Span, Any], None] = getattr(Span, name).__set__
    return put


def _stretch(raw: bytes | None, start: int, stop: int) -> Iterator[str | None]:
    for each in islice(wire.elements(raw), start, stop):
        yield None if each is None else each.decode()
