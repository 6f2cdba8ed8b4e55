"""Times on the command line: ISO 8601, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d{1,9})\s*([smhdw])")


class TimeType(click.ParamType["datetime"]):
    """Take 2026-03-01, 2026-03-01T12:00:00+01:00 (UTC where no zone is given), now, or 90m, 2h, 7d, 4w ago."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware time, or fail with the spellings that are known."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        ago = _AGO.fullmatch(text.removesuffix(" ago"))
        try:
            if text == "now":
                return datetime.now(UTC)
            if ago:
                return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            time = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            self.fail(f'"{text}" is not a time; write 2026-03-01, 2026-03-01T12:00:00Z, 90m, 2h or 7d', param, ctx)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


TIME = TimeType()
