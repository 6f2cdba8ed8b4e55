"""The spans every benchmark uses: 1 KB of input and 1 KB of output in words that hardly compress."""

from __future__ import annotations

import json
import random
import string
from functools import lru_cache
from typing import Any, LiteralString

from tests.bench.server import Session

BYTES = 1024
_VOCABULARY = 20_000
_COPY: LiteralString = "copy flywheel.spans (input, output) from stdin"
BLOCK_ROWS = 500


def text(choose: random.Random) -> str:
    """Return one text of BYTES characters."""
    words = choose.choices(_words(), k=BYTES // 4)
    return " ".join(words)[:BYTES]


@lru_cache(maxsize=1)
def _words() -> list[str]:
    choose = random.Random(7)
    return ["".join(choose.choices(string.ascii_lowercase, k=choose.randint(3, 11))) for _ in range(_VOCABULARY)]


@lru_cache(maxsize=2)
def blocks(spans: int) -> list[bytes]:
    """Return the rows of a COPY in blocks, the same ones for every repetition."""
    choose = random.Random(11)
    rows = (f"{text(choose)}\t{text(choose)}\n" for _ in range(spans))
    return ["".join(block).encode() for block in _chunks(list(rows))]


def _chunks(rows: list[str]) -> list[list[str]]:
    return [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]


def copy(session: Session, rows: list[bytes]) -> None:
    """Load spans with one COPY statement."""
    with session.cursor().copy(_COPY) as target:
        for block in rows:
            target.write(block)


def activate(session: Session, name: str, **definition: Any) -> None:
    """Define a validator and let it judge."""
    session.execute("select flywheel.define_validator(%s, %s)", [name, json.dumps(definition)])
    session.execute("select flywheel.activate_validator(%s)", [name])


def activate_sql(session: Session, count: int, lane: str) -> None:
    """Activate the first ``count`` of EXPRESSIONS in a lane."""
    for name, expression in list(EXPRESSIONS.items())[:count]:
        activate(session, name, kind="sql", target="output", lane=lane, expression=expression)


EXPRESSIONS = {
    "not_empty": "span.output <> ''",
    "short_enough": "length(span.output) <= 4000",
    "no_secret_word": "position('confidential' in span.output) = 0",
    "long_enough": "length(span.output) >= 20",
    "in_time": "span.latency_ms is null or span.latency_ms < 10000",
}
