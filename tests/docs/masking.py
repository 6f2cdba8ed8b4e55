"""What may differ between two runs: ids, times, durations, paths, and the widths that follow from them."""

from __future__ import annotations

import re

MASKS = [
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?"), "TIME"),
    (re.compile(r"\d+ characters beginning with .*"), "TEXT"),
    (re.compile(r"\b\d+(?:\.\d+)?(?= (?:ms|s|seconds|minutes)\b)"), "N"),
    (re.compile(r"\b\d+\.\d{3,}\b"), "N"),
    (re.compile(r"\S*/psql\b"), "psql"),
    (re.compile(r"(?:postgresql://|/)[^\s'\"]*/[^\s'\",]*"), "PATH"),
    (re.compile(r"[\w.-]+:\d+"), "HOST:N"),
    (re.compile(r"[-─━]{3,}"), "---"),
    (re.compile(r"[ \t]+"), " "),
]
ANYTHING = "..."


def masked(text: str) -> str:
    """Return text with everything that may differ replaced."""
    for pattern, name in MASKS:
        text = pattern.sub(name, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


def same(shown: str, actual: str) -> bool:
    """Tell whether a run says what the page shows; a line ``...`` stands for any lines."""
    parts = [re.escape(part) for part in re.split(r"^\.\.\.$\n?", masked(shown), flags=re.MULTILINE)]
    return re.fullmatch(".*".join(parts), masked(actual), re.DOTALL) is not None
