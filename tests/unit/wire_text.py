"""What a text array of the wire says."""

from __future__ import annotations

from pgflywheel.db import wire


def strings(raw: bytes | None) -> list[str | None]:
    """Return the elements of a text array."""
    return [None if each is None else each.decode() for each in wire.elements(raw)]
