"""CSV for spreadsheets: RFC 4180, and no cell that a spreadsheet would calculate."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import click

from pgflywheel.cli.text import clean

# What spreadsheets take as the begin of a formula, in full width too; blanks before it are skipped.
_FORMULA = tuple("=+-@＝＋－＠")

csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV for spreadsheets.")


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a header and a line for each row; text like a formula gets an apostrophe before it, numbers never."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def echo_csv(rows: Sequence[Any], model: type[Any]) -> None:
    """Print records of a dataclass as CSV; without any the header alone."""
    columns = list(model.__dataclass_fields__)
    click.echo(to_csv(columns, ([getattr(row, name) for name in columns] for row in rows)), nl=False)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    if isinstance(value, date):
        return value.isoformat()
    text = clean(json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
