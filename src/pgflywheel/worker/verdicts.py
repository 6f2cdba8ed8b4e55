"""What a check returned, as the columns of a score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pgflywheel.db import wire
from pgflywheel.records import Verdict

DETAIL_CHARACTERS = 500
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Answer(NamedTuple):
    """One score: a verdict, or the reason why there is none."""

    passed: bool | None
    value: float | None = None
    critique: str | None = None
    reason: str | None = None
    detail: str | None = None


PASSED, FAILED = Answer(True), Answer(False)
NO_VERDICT = Answer(None, reason="no_verdict")


class TimedOut(BaseException):
    """Raised inside a check when its time is over; not an Exception, so that a check does not catch it by habit."""


def judged(said: Any) -> Answer:
    """Return the answer a check's return value stands for."""
    if said is True:
        return PASSED
    if said is False:
        return FAILED
    if said is None:
        return NO_VERDICT
    if isinstance(said, Verdict):
        return _of_verdict(said)
    return _wrong(f"the check returned {type(said).__name__}, not bool, Verdict or None")


def failed(error: BaseException) -> Answer:
    """Return the answer for a check that ended with an error."""
    if isinstance(error, TimedOut | TimeoutError):
        return unscored("timed_out", str(error) or "the check ran into a time limit of its own")
    if isinstance(error, MemoryError):
        return unscored("out_of_memory", str(error) or "the check asked for more memory than memory_limit_mb")
    return unscored("raised", f"{type(error).__name__}: {_message(error)}")


def unscored(reason: str, detail: str) -> Answer:
    """Return the answer of a span that got no verdict."""
    return Answer(None, reason=reason, detail=stored(detail)[:DETAIL_CHARACTERS])


def stored(text: str) -> str:
    """Return text without what Postgres cannot store: NUL and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "its message cannot be shown"


def _of_verdict(said: Verdict) -> Answer:
    passed, value, critique = _any(said.passed), _any(said.value), _any(said.critique)
    if passed is None:
        return NO_VERDICT
    if not isinstance(passed, bool):
        return _wrong(f"passed is {type(passed).__name__}, not bool")
    if critique is not None and not isinstance(critique, str):
        return _wrong(f"critique is {type(critique).__name__}, not str")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        return _wrong(f"value is {type(value).__name__}, not a number")
    if value is not None and not 0 <= value <= 1:  # NaN is not, either
        return _wrong(f"value is {value}, not in [0, 1]")
    return Answer(passed, None if value is None else float(value), None if critique is None else stored(critique))


def _any(given: Any) -> Any:
    """Return what a check put into a field, whatever the field's type says."""
    return given


def _wrong(detail: str) -> Answer:
    return unscored("wrong_type", detail)


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers for spans that follow each other, as elements of binary arrays; None is null for all of them."""

    count: int
    passed: bytes
    values: bytes | None = None
    critiques: bytes | None = None
    reasons: bytes | None = None
    details: bytes | None = None
    faults: int = 0
    first_fault: int = 0  # place of the first span whose answer is a fault
    reason: str = ""
    detail: str = ""

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Answers:
        """Encode answers; those without a verdict, save no_verdict, are counted as faults."""
        if all(answer is PASSED or answer is FAILED for answer in answers):
            return cls(len(answers), wire.bools(answer[0] for answer in answers))
        passed, values, critiques, reasons, details = zip(*answers, strict=True)
        at = [place for place, reason in enumerate(reasons) if reason not in (None, "no_verdict")]
        first = answers[at[0]] if at else NO_VERDICT
        return cls(
            len(answers),
            wire.bools(passed),
            wire.floats(values) if any(value is not None for value in values) else None,
            _texts(critiques),
            _texts(reasons),
            _texts(details),
            len(at),
            at[0] if at else 0,
            (first.reason or "") if at else "",
            first.detail or "",
        )


def _texts(values: Sequence[str | None]) -> bytes | None:
    return wire.texts(values) if any(value is not None for value in values) else None


class Columns(NamedTuple):
    """The arrays that _write_scores takes after the keys."""

    passed: wire.Array
    values: wire.Array | None
    critiques: wire.Array | None
    reasons: wire.Array | None
    details: wire.Array | None


def columns(parts: Sequence[Answers]) -> Columns:
    """Put the answers of neighbouring stretches of spans together."""
    total = sum(part.count for part in parts)

    def whole(name: str, element_type: int) -> wire.Array | None:
        payloads = [getattr(part, name) for part in parts]
        if all(payload is None for payload in payloads):
            return None
        filled = [part.count * wire.NULL if each is None else each for part, each in zip(parts, payloads, strict=True)]
        return wire.array(element_type, b"".join(filled), total)

    passed = whole("passed", wire.BOOL) or wire.array(wire.BOOL, b"", 0)
    return Columns(
        passed,
        whole("values", wire.FLOAT),
        *(whole(name, wire.TEXT) for name in ("critiques", "reasons", "details")),
    )
