"""Other libraries that judge with a model, each in an environment of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """A library, where it is installed, and the script that drives it."""

    name: str
    version: str
    python: Path
    script: Path

    def seconds(self, url: str, prompts: Path, concurrency: int) -> float:
        raise NotImplementedError


def available(notes: list[str]) -> list[Peer]:
    """Install the peers where that is possible; a note says which version, or that one is left out."""
    return []
