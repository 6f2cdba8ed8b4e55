"""Dotted paths into JSON: ``input.prompt``, ``choices[0].message.content``, ``meta["a.b"]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pgflywheel.errors import UsageError

_STEP = re.compile(r"""(?:^|\.)(?P<name>[^.\[\]"]+)|\[(?P<index>-?\d+)\]|\["(?P<quoted>[^"]*)"\]""")


@dataclass(frozen=True)
class Path:
    """Where a value lies in a JSON object; a number is an index where it meets a list."""

    text: str
    steps: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Path:
        """Read a path, or raise UsageError."""
        steps, end = [], 0
        for match in _STEP.finditer(text):
            if match.start() != end:
                break
            steps.append(match["name"] or match["index"] or match["quoted"] or "")
            end = match.end()
        if not steps or end != len(text):
            raise UsageError(
                f'path "{text}" cannot be read',
                f"It is clear up to character {end}.",
                'Write names with dots between: input.prompt, messages[0].content or meta["a.b"].',
            )
        return cls(text, tuple(steps))

    def find(self, item: Any) -> Any:
        """Return the value there, or None when any step of the way is missing."""
        for step in self.steps:
            item = _member(item, step)
            if item is None:
                return None
        return item


def _member(item: Any, step: str) -> Any:
    if isinstance(item, dict):
        return item.get(step)
    if isinstance(item, list) and re.fullmatch(r"-?\d{1,9}", step):
        place = int(step)
        return item[place] if -len(item) <= place < len(item) else None
    return None
