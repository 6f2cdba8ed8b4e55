"""Run a Python check on one span here, under the limits it has in a worker."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pgflywheel.db import wire
from pgflywheel.db.validators import Trial
from pgflywheel.worker.callable_calls import answer_of, asked
from pgflywheel.worker.callables import Check, load_coroutine, span
from pgflywheel.worker.child import Request
from pgflywheel.worker.pool import Pool
from pgflywheel.worker.verdicts import Answer, Answers

_KEY_HEAD = 12  # bytes before the span's id in the binary form of a _span_key


async def try_python(definition: dict[str, Any], span_id: UUID, texts: Sequence[str | None]) -> Trial:
    """Return what a Python check says of a span, given its declared columns as text; writes nothing."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a worker looks for an operator's checks, too
    check = Check.of(definition)
    judge = definition.get("lane") == "judge"
    answer = await (_call(check, span_id, texts) if judge else _in_pool(check, span_id, texts))
    return Trial(None, answer.passed, answer.value, answer.critique, answer.reason, answer.detail)


async def _in_pool(check: Check, span_id: UUID, texts: Sequence[str | None]) -> Answer:
    key = bytes(_KEY_HEAD) + span_id.bytes
    keys = wire.joined(0, [key])
    pool = Pool(size=1)
    try:
        return _decoded(
            await pool.ask(Request(check, keys, wire.array(wire.TEXT, wire.texts(texts), len(texts)), 0, 1))
        )
    finally:
        await pool.close()


async def _call(check: Check, span_id: UUID, texts: Sequence[str | None]) -> Answer:
    async def call() -> Any:
        return await load_coroutine(check)(texts[0] if check.takes_text else span(span_id, check.columns, texts))

    return answer_of(await asked(check, call))


def _decoded(answers: Answers) -> Answer:
    """Return the only answer in binary arrays of one."""
    passed, value = _first(answers.passed), _first(answers.values)
    critique, reason, detail = (
        None if (raw := _first(payload)) is None else raw.decode()
        for payload in (answers.critiques, answers.reasons, answers.details)
    )
    number = None if value is None else struct.unpack("!d", value)[0]
    return Answer(None if passed is None else passed == b"\1", number, critique, reason, detail)


def _first(payload: bytes | None) -> bytes | None:
    return None if payload is None else next(wire.elements(wire.array(0, payload, 1)))
