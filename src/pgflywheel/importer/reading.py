"""Lines of a file, plain or compressed, and the file of those that were rejected."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO

from pgflywheel.errors import UsageError

MOST_REASONS, OTHER_REASONS = 1000, "reasons that came after the first thousand; the file has them"
MOST_LINE_BYTES = 64 << 20
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


@dataclass
class Source:
    """A file being read: its lines, and how far the bytes on disk have been read."""

    name: str
    raw: io.RawIOBase
    size: int | None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line that is not blank with its number from 1; raises UsageError when the file is damaged."""
        number = 0
        try:
            with self._stream() as stream:
                for number, line in enumerate(iter(partial(_line, stream), b""), start=1):
                    whole = line.removeprefix(_BOM) if number == 1 else line
                    if whole.strip():
                        yield number, whole
        except (EOFError, OSError, zlib.error) as error:
            raise UsageError(
                f"{self.name} is damaged after line {number}",
                f"{error}. What was read up to there is loaded.",
                "Get the file again and repeat the import: what is loaded already is left as it is.",
            ) from error

    def position(self) -> int:
        """Return how many bytes of the file on disk have been read."""
        if self.size is None:
            return 0
        return self.size if self.raw.closed else self.raw.tell()

    @contextmanager
    def _stream(self) -> Iterator[io.BufferedIOBase]:
        with io.BufferedReader(self.raw) as buffered:
            yield gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == _GZIP else buffered


def _line(stream: io.BufferedIOBase) -> bytes:
    """Return the next line; of one that is too long its begin, a byte longer than a line may be."""
    line = rest = stream.readline(MOST_LINE_BYTES + 1)
    while len(rest) > MOST_LINE_BYTES and not rest.endswith(b"\n"):
        rest = stream.readline(MOST_LINE_BYTES + 1)
    return line


@contextmanager
def opened(name: str) -> Iterator[Source]:
    """Open a file, or standard input for ``-``."""
    if name == "-":
        yield Source("standard input", io.FileIO(sys.stdin.fileno(), closefd=False), None)
        return
    try:
        raw = io.FileIO(name)
    except OSError as error:
        raise UsageError(f"{name} cannot be read", error.strerror, "Name a file of JSON lines.") from error
    with raw:
        yield Source(name, raw, Path(name).stat().st_size)


@dataclass
class RejectFile:
    """Write each rejected line with its number and the reason; the file is made with the first one."""

    path: Path
    reasons: dict[str, int] = field(default_factory=dict)
    count: int = 0
    _out: TextIO | None = None

    def add(self, number: int, reason: str, content: str) -> None:
        """Write one line."""
        with self._writing():
            self._out = self._out or self.path.open("w", encoding="utf-8")
            json.dump({"line": number, "reason": reason, "content": content}, self._out)
            self._out.write("\n")
        self.count += 1
        known = reason if reason in self.reasons or len(self.reasons) < MOST_REASONS else OTHER_REASONS
        self.reasons[known] = self.reasons.get(known, 0) + 1

    def close(self) -> None:
        """Close the file, if it was made."""
        with self._writing():
            if self._out is not None:
                self._out.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written", error.strerror, "Name another file with --reject."
            ) from error
