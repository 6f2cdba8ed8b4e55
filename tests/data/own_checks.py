"""A check as an operator writes it: a plain function in a module of their own."""

from __future__ import annotations

from pgflywheel.records import Verdict


def code_fences_are_closed(text: str) -> Verdict:
    """Pass when the marks of code blocks come in pairs."""
    marks = sum(line.lstrip().startswith("```") for line in text.splitlines())
    return Verdict(marks % 2 == 0, None, None if marks % 2 == 0 else f"{marks} marks of code blocks")
