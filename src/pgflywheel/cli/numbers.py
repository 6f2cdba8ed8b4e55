"""Numbers on the command line: none that is not one, none too large to be stored."""

from __future__ import annotations

import math
from typing import Any

import click

COUNT = click.IntRange(1, 1_000_000)


class FiniteRange(click.FloatRange):
    """A range of numbers; nan and inf, which float() reads too, lie outside of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number
