"""The fenced blocks of a page: what to run, and what the page says comes out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (\S[^\n]*) -->\n\Z")
NAMED_FILE = re.compile(r"# (?P<name>[\w./-]+\.(?:py|toml|jsonl))\n")
BEGIN_WITH_QUICKSTART = {"README.md", "docs/quickstart.md"}
RUN_ELSEWHERE = {"docs/how-to/containers.md"}  # tests/containers builds and starts what it shows


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; ``expected`` is the text block right after it, and its place in the page."""

    language: str
    text: str
    line: int
    span: tuple[int, int]
    end: int
    runs: bool
    expected: str | None = None
    expected_span: tuple[int, int] | None = None

    @property
    def file_name(self) -> str | None:
        """Return the file this block is the content of, as its first line says; None when it is run."""
        found = NAMED_FILE.match(self.text)
        return found["name"] if found else None


def pages() -> list[Path]:
    """Return README and every page of docs that people wrote, with nothing that is run elsewhere."""
    written = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in written if str(page.relative_to(ROOT)) not in RUN_ELSEWHERE]


def blocks(markdown: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page; a text block that follows another one is its output."""
    previous: Block | None = None
    for found in FENCE.finditer(markdown):
        block = _block(markdown, found)
        if previous and block.language == "text" and not markdown[previous.end : found.start()].strip():
            yield replace(previous, expected=block.text, expected_span=found.span(3))
            previous = None
            continue
        if previous:
            yield previous
        previous = block
    if previous:
        yield previous


def _block(markdown: str, found: re.Match[str]) -> Block:
    before = markdown[: found.start()]
    text = re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
    return Block(found[2], text, before.count("\n") + 1, found.span(3), found.end(), NOT_RUN.search(before) is None)
