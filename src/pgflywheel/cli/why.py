"""pgflywheel why: short for `pgflywheel scores why`."""

from __future__ import annotations

from pgflywheel.cli.scores import why

__all__ = ["why"]
