"""The name of a judge, as commands take it."""

from __future__ import annotations

import re
from typing import Any

import click

_NUMBERED = re.compile(r"([^@]*)(?:@([1-9][0-9]{0,5}))?")


class JudgeName(click.ParamType["tuple[str, int | None]"]):
    """NAME or NAME@VERSION."""

    name = "judge"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int | None]:
        """Return the name and the version; None = the newest."""
        found = _NUMBERED.fullmatch(str(value))
        if not found:
            self.fail(f"{value} is not NAME or NAME@VERSION, as in polite@2", param, ctx)
        return found[1], int(found[2]) if found[2] else None
