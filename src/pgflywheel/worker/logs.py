"""Structured logs on stderr: key=value for people, JSON lines for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_QUOTED = set(' "=')
_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(log_format: str = "text", level: int = logging.INFO) -> None:
    """Send the log of this package, and what its libraries warn of, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else KeyValue())
    for name in ("pgflywheel", "psycopg", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    logging.getLogger("pgflywheel").setLevel(level)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what ``extra`` added to a record."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


class KeyValue(logging.Formatter):
    """2026-01-31T12:00:00.000Z info message key=value."""

    def format(self, record: logging.LogRecord) -> str:
        said = [f"{name}={_shown(value)}" for name, value in fields(record).items()]
        line = " ".join([_time(record), record.levelname.lower(), _visible(record.getMessage()), *said])
        return f"{line}\n{_visible(self.formatException(record.exc_info))}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | fields(record), default=str)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and text and not set(text) & _QUOTED else json.dumps(text)


def _visible(text: str) -> str:
    """Return text whose lines stay lines, and in which nothing steers a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
