"""The name of a judge, as commands take it."""

from __future__ import annotations

from typing import Any

import click


class JudgeName(click.ParamType["tuple[str, int | None]"]):
    """NAME or NAME@VERSION."""

    name = "judge"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int | None]:
        """Return the name and the version; None = the newest."""
        name, at, number = str(value).partition("@")
        if at and not number.isdigit():
            self.fail(f"{value} is not NAME or NAME@VERSION, as in polite@2", param, ctx)
        return name, int(number) if at else None
