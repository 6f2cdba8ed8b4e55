"""The reference page of errors: every class, its SQLSTATE and the command line's exit code."""

from __future__ import annotations

from collections.abc import Iterator

from pgflywheel.errors import FlywheelError

INTRODUCTION = """# Errors

Every error has a message (what is wrong, with the value), most have a detail (the fact behind it) and a hint
(what to do). In SQL the SQLSTATE tells them apart; in Python each is a class of
`pgflywheel.errors`, all of them `FlywheelError`.

An application that catches one thing catches `WF001`: a guardrail rejected the row. The name of the validator is in the
error's constraint name (`error.diag.constraint_name` in psycopg), so no message needs to be read.

| SQLSTATE | class | exit code | meaning |
|---|---|---|---|
"""
CLOSING = """
Errors of Postgres itself keep their own SQLSTATE. In Python they are `DatabaseError`, or `Unreachable` where
they say that no session could be had (classes 08 and 28, and 57P01 to 57P03, 53300, 3D000).
"""


def page() -> str:
    """Return the page: errors of the database by SQLSTATE, then those of Python alone."""
    found = sorted(_classes(FlywheelError), key=lambda kind: (kind.sqlstate or "Z", kind.exit_code, kind.__name__))
    rows = [f"| {kind.sqlstate or ''} | `{kind.__name__}` | {kind.exit_code} | {kind.__doc__} |" for kind in found]
    return INTRODUCTION + "\n".join(rows) + "\n" + CLOSING


def _classes(kind: type[FlywheelError]) -> Iterator[type[FlywheelError]]:
    for member in kind.__subclasses__():
        yield member
        yield from _classes(member)
