"""Values of JSON as values of a column, or the reason why not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

NAMESPACE = UUID("6f0c1a3e-6a0e-5a51-9b53-7d2f6c9d4b10")
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
INTEGER_MAX = 2**31 - 1
_EPOCH = re.compile(r"-?\d+(?:\.\d+)?")
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


class Rejected(ValueError):
    """This line cannot become a span; the message is the reason."""


def as_text(value: Any, column: str) -> str | None:
    """Return text as it is and any other JSON value as compact JSON."""
    if value is None:
        return None
    return storable(value if isinstance(value, str) else dumped(value, column), column)


def as_json(value: Any, column: str) -> str | None:
    """Return a value as JSON that jsonb takes, or None."""
    if value is None:
        return None
    for text in _texts(value):
        storable(text, column)
    return dumped(value, column)


def storable(text: str, column: str) -> str:
    """Return the text, or raise Rejected where it holds what Postgres cannot store."""
    place = text.find("\0")
    if place >= 0:
        raise Rejected(f"{column} holds the character U+0000 at position {place}, which Postgres cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise Rejected(
            f"{column} holds the lone surrogate U+{code:04X} at position {error.start}, which is half a character"
        ) from None
    return text


def dumped(value: Any, column: str) -> str:
    """Return compact JSON, or raise Rejected."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise Rejected(f"{column} is nested too deeply") from None
    except ValueError as error:
        raise Rejected(f"{column} holds a number that is no JSON: {error}") from None


def as_time(value: Any, column: str) -> datetime | None:
    """Return a time from ISO 8601 or seconds, ms, µs or ns since 1970; UTC where no zone is given."""
    if value is None:
        return None
    time = _time(value, column)
    if not EARLIEST <= time < LATEST:
        raise Rejected(f"{column} is {time.isoformat()}, outside the years 2000 to 2099")
    return time


def _time(value: Any, column: str) -> datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_epoch(value, column)
    if not isinstance(value, str):
        raise Rejected(f"{column} is {_shown(value)}, not a time")
    if _EPOCH.fullmatch(value.strip()):
        return _from_epoch(float(value), column)
    try:
        time = datetime.fromisoformat(value.strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Rejected(f"{column} is {_shown(value)}, not a time") from None


def _from_epoch(number: float, column: str) -> datetime:
    """Tell the unit by size: no time of an LLM application lies in 1973 or in the year 5000."""
    unit = next((unit for limit, unit in ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6)) if abs(number) < limit), 1e9)
    try:
        return _UNIX + timedelta(seconds=number / unit)
    except (OverflowError, ValueError):
        raise Rejected(f"{column} is {number}, not a time") from None


def as_count(value: Any, column: str) -> int | None:
    """Return a whole number that fits an integer column."""
    number = as_number(value, column)
    if number is None:
        return None
    if number != int(number) or number > INTEGER_MAX:
        raise Rejected(f"{column} is {_shown(value)}, not a whole number up to {INTEGER_MAX}")
    return int(number)


def as_number(value: Any, column: str) -> float | None:
    """Return a number of zero or more."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise Rejected(f"{column} is {_shown(value)}, not a number of zero or more")
    return number


def as_word(value: Any, column: str, allowed: tuple[str, ...]) -> str | None:
    """Return one of the allowed words."""
    if value is not None and value not in allowed:
        raise Rejected(f"{column} is {_shown(value)}, not one of {', '.join(allowed)}")
    return None if value is None else str(value)


def as_trace_id(value: Any, project: str) -> UUID:
    """Return a UUID or 32 hexadecimal digits as they are, and any other id as a UUID made from it."""
    text = _id_text(value, "trace_id")
    try:
        return UUID(text)
    except ValueError:
        return uuid5(NAMESPACE, f"{project}\0trace\0{text}")


def as_span_id(value: Any, project: str, trace_id: UUID | None) -> UUID:
    """Return a span id; 16 hexadecimal digits (OpenTelemetry) follow the first 8 bytes of their trace's id."""
    text = _id_text(value, "span_id")
    if trace_id and re.fullmatch(r"[0-9a-fA-F]{16}", text):
        return UUID(bytes=trace_id.bytes[:8] + bytes.fromhex(text))
    try:
        return UUID(text)
    except ValueError:
        return uuid5(trace_id or NAMESPACE, f"{project}\0span\0{text}")


def is_hexadecimal_id(value: Any) -> bool:
    """Tell whether an id is stored as it is: a UUID, or one of OpenTelemetry's."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{16}|[0-9a-fA-F-]{32,36}", value) is not None


def _id_text(value: Any, column: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise Rejected(f"{column} is {_shown(value)}, not an id")
    return storable(str(value), column)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, names included, without recursion."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
