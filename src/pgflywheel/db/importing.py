"""Load the lines of a file in batches: what cannot be loaded is set aside, with the reason, and the rest goes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pgflywheel.db import spans
from pgflywheel.db.connect import Database
from pgflywheel.errors import FlywheelError, InvalidArgument
from pgflywheel.importer.mapping import Line, parse_line
from pgflywheel.importer.rows import SpanRow
from pgflywheel.importer.values import Rejected

BATCH_SPANS = 5_000
BATCH_CHARACTERS = 32_000_000
_ABOUT_A_ROW = ("22", "23", "54")  # data, constraint, program limit: SQLSTATE classes that one row can cause

Reject = Callable[[int, str, str], None]
ToSpans = Callable[[Line], list[SpanRow]]


@dataclass(frozen=True)
class LineSpans:
    """A line and the spans it becomes; they are loaded together or not at all."""

    line: Line
    rows: list[SpanRow]


@dataclass
class ImportCounts:
    """What became of the lines and spans so far."""

    lines: int = 0
    loaded: int = 0
    already_there: int = 0
    rejected: int = 0


@dataclass
class Import:
    """Load lines one batch a transaction; repeating an import loads what is missing and changes nothing else."""

    database: Database
    to_spans: ToSpans
    reject: Reject
    counts: ImportCounts = field(default_factory=ImportCounts)

    async def run(self, lines: Iterable[tuple[int, bytes]], report: Callable[[ImportCounts], None]) -> ImportCounts:
        """Load every line and report after each batch."""
        for batch in _batches(self._readable(lines)):
            await self._load(batch)
            report(self.counts)
        return self.counts

    def _readable(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[LineSpans]:
        for number, raw in lines:
            self.counts.lines += 1
            try:
                line = parse_line(number, raw)
                yield LineSpans(line, self.to_spans(line))
            except Rejected as problem:
                self._set_aside(number, str(problem), raw.decode(errors="backslashreplace").rstrip("\r\n"))

    async def _load(self, batch: Sequence[LineSpans]) -> None:
        """Load a batch; when a row of it is refused, load its halves, down to the line at fault."""
        rows = [row for line in batch for row in line.rows]
        try:
            loaded = await spans.load(self.database, rows)
        except FlywheelError as error:
            if not _is_about_a_row(error):
                raise
            await self._load_in_parts(batch, error)
            return
        self.counts.loaded += loaded
        self.counts.already_there += len(rows) - loaded

    async def _load_in_parts(self, batch: Sequence[LineSpans], error: FlywheelError) -> None:
        if len(batch) == 1:
            reason = f"{error.message} ({error.detail})" if error.detail else error.message
            self._set_aside(batch[0].line.number, reason, batch[0].line.text)
            return
        middle = len(batch) // 2
        await self._load(batch[:middle])
        await self._load(batch[middle:])

    def _set_aside(self, number: int, reason: str, content: str) -> None:
        self.counts.rejected += 1
        self.reject(number, reason, content)


def _batches(lines: Iterable[LineSpans]) -> Iterator[list[LineSpans]]:
    batch: list[LineSpans] = []
    span_count = characters = 0
    for line in lines:
        batch.append(line)
        span_count += len(line.rows)
        characters += len(line.line.text)
        if span_count >= BATCH_SPANS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, span_count, characters = [], 0, 0
    if batch:
        yield batch


def _is_about_a_row(error: FlywheelError) -> bool:
    state = getattr(error.__cause__, "sqlstate", None) or ""
    return state == "WF001" or state.startswith(_ABOUT_A_ROW) or isinstance(error, InvalidArgument)
