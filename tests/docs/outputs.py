"""Write what really comes out of every block into the pages.

python -m tests.docs.outputs [PAGE...]     read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.blocks import BEGIN_WITH_QUICKSTART, ROOT, Block, blocks, pages
from tests.docs.masking import same
from tests.docs.running import Reader
from tests.docs.server import database, quickstart, server


def rewritten(markdown: str, reader: Reader) -> str:
    """Return a page with the outputs that its blocks give now; those that still hold stay as they are."""
    changes: list[tuple[tuple[int, int], str]] = []
    for block in blocks(markdown):
        actual = reader.output(block)
        place, shown = expectation(block)
        if place and shown is not None and actual is not None and not same(shown, actual):
            changes.append((place, _kept(shown, actual)))
    for (start, end), actual in reversed(changes):
        markdown = markdown[:start] + actual + markdown[end:]
    return markdown


def expectation(block: Block) -> tuple[tuple[int, int] | None, str | None]:
    """Return where a page shows what a block says, and what; a console block shows it itself."""
    if block.language == "console":
        return block.span, block.text
    return block.expected_span, block.expected


def _kept(shown: str, actual: str) -> str:
    """Return what is said now, with those commands of a console left alone whose output holds."""
    before, now = (re.split(r"^(?=\$ )", text, flags=re.MULTILINE) for text in (shown, actual))
    if len(before) != len(now):
        return actual
    return "".join(old if same(old, new) else new for old, new in zip(before, now, strict=True))


def main() -> None:
    """Write the pages named, or all."""
    named = [ROOT / name for name in sys.argv[1:]] or pages()
    with server() as server_dsn:
        for page in named:
            with tempfile.TemporaryDirectory() as folder, _reader(page, server_dsn, Path(folder)) as reader:
                before = page.read_text(encoding="utf-8")
                after = rewritten(before, reader)
                page.write_text(after, encoding="utf-8")
                print(page.relative_to(ROOT), "changed" if after != before else "holds")


@contextmanager
def _reader(page: Path, server_dsn: str, folder: Path) -> Iterator[Reader]:
    if str(page.relative_to(ROOT)) not in BEGIN_WITH_QUICKSTART:
        with database(server_dsn) as dsn:
            yield Reader(dsn, folder)
        return
    data = Path(tempfile.gettempdir()) / f"pgflywheel-quickstart-{os.getpid()}"
    with quickstart(data) as dsn:
        yield Reader(dsn, folder, {"PGFLYWHEEL_DATA_DIR": str(data)})


if __name__ == "__main__":
    main()
