"""Print results: hostile text made harmless, tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

if TYPE_CHECKING:
    from rich.console import Console

# Terminal control characters, marks that reorder text, halves of surrogate pairs, and letters that nobody sees though
# a model reads them (tags, annotations). Tab and newline may stay.
_HOSTILE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NUMBERS = (int, float, Decimal, type(None))
_PIPE_WIDTH = 200


def clean(value: object) -> str:
    """Return text that cannot move the cursor, recolour or reorder what a terminal shows; escapes stay visible."""
    return _HOSTILE.sub(lambda match: f"\\x{ord(match[0]):02x}", "" if value is None else str(value))


def one_line(value: object, width: int = 100) -> str:
    """Return clean text on one line, cut to ``width`` characters with an ellipsis."""
    text = " ".join(clean(str(value)[: width * 4] if value is not None else None).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def at(time: datetime | None) -> str:
    """Return a time in UTC to the second, whatever zone the server speaks of; empty for none."""
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def to_json(value: Any) -> str:
    """Return JSON of records, ids and times, safe to show in a terminal."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, indent=2)
    return _HOSTILE.sub(_json_escape, text)


def echo(value: Any, as_json: bool, text: str) -> None:
    """Print a result on stdout: ``value`` as JSON for a program, or ``text`` for a person."""
    click.echo(to_json(value) if as_json else clean(text))


def echo_rows(rows: Sequence[Any], as_json: bool, columns: Sequence[str] = (), empty: str = "nothing") -> None:
    """Print records as JSON, or as a table of ``columns`` (all, unless named); ``empty`` when there are none."""
    if as_json:
        click.echo(to_json(list(rows)))
    elif not rows:
        click.echo(clean(empty))
    else:
        first = _fields(rows[0])
        names = columns or list(first)
        echo_table(names, ([_fields(row)[name] for name in names] for row in rows))


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table on stdout; numbers stand to the right. In a terminal too narrow for it each row is a block."""
    names = [name.replace("_", " ") for name in columns]
    kept = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in kept]
    console = stdout_console()
    if sys.stdout.isatty() and _least_width(names, cells) > console.width:
        _print_blocks(console, names, cells, title)
        return
    numeric = [all(isinstance(row[place], _NUMBERS) for row in kept) for place in range(len(names))]
    _print_table(console, names, cells, numeric if kept else [False] * len(names), title)


def _print_table(
    console: Console, names: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], title: str | None
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(names):
        whole = any(_ID.fullmatch(row[place]) for row in cells)  # an id that is cut cannot be copied
        table.add_column(name, justify="right" if numeric[place] else "left", overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_blocks(console: Console, names: Sequence[str], cells: Sequence[Sequence[str]], title: str | None) -> None:
    """Print the cells of a row one below the other, without those that are empty, and a blank line between rows."""
    from rich.table import Table
    from rich.text import Text

    if title:
        console.print(Text(title))
    for place, row in enumerate(cells):
        if place:
            console.print()
        block = Table.grid(padding=(0, 2, 0, 0))
        block.add_column(style="bold", no_wrap=True)
        block.add_column(overflow="fold")
        for name, cell in zip(names, row, strict=True):
            if cell:
                block.add_row(Text(name), Text(cell))
        console.print(block)


def _least_width(names: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Return the width below which a table is hard to read: words are folded, ids are not."""
    columns = zip(names, *cells, strict=True)
    return sum(max(_shortest(name, 4), *(_shortest(cell, 8) for cell in rest), 0) + 2 for name, *rest in columns) - 2


def _shortest(text: str, least: int) -> int:
    """Return how narrow a cell may be: its longest word, of which ``least`` stay together, and a quarter of a text."""
    words = text.split()
    longest = max((len(word) if _ID.fullmatch(word) else min(len(word), least) for word in words), default=0)
    return max(longest, min(len(text) // 4, 20) if len(words) > 1 else 0)


def stdout_console() -> Console:
    """Return a console for results: plain and wide in a pipe."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def stderr_console() -> Console:
    """Return a console for progress and logs."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False)


def note(text: str) -> None:
    """Say on stderr what is going on."""
    click.echo(clean(text), err=True)


def _json_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(match[0])[1:-1]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return at(value)
    if isinstance(value, float):
        if 0 < abs(value) < 0.01:  # little is not nothing, and 0.0006 is not 0.001
            return f"{value:.2g}"
        if 0.9995 <= abs(value) < 1:  # nor are nearly all of them all
            return f"{value:.6f}".rstrip("0").rstrip(".")
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else clean(value)


def _fields(row: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(row):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return dict(row)


def _plain(value: Any) -> Any:
    """Return what JSON can hold for what it cannot."""
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, date):  # datetime too
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    return str(value) if isinstance(value, UUID) else list(value) if isinstance(value, set | frozenset) else str(value)
