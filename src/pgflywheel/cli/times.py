"""Times on the command line: ISO 8601, or how long ago; and how long something lasts."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"([0-9]{1,9})\s*([smhdw])")


class TimeType(click.ParamType["datetime"]):
    """Take 2026-03-01, 2026-03-01T12:00:00+01:00 (UTC where no zone is given), now, or 90m, 2h, 7d, 4w ago."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return a time in UTC, or fail with the spellings that are known."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            if text == "now":
                return datetime.now(UTC)
            if length := _length(text.removesuffix(" ago")):
                return datetime.now(UTC) - length
            time = datetime.fromisoformat(text)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f'"{text}" is not a time; write 2026-03-01, 2026-03-01T12:00:00Z, 90m, 2h or 7d', param, ctx)


class DurationType(click.ParamType["timedelta"]):
    """Take 90m, 4h, 2d or 1w."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return how long, or fail with the spellings that are known."""
        try:
            length = _length(str(value).strip())
        except OverflowError:
            length = None
        return length or self.fail(f'"{value}" is not a duration; write 90m, 4h, 2d or 1w', param, ctx)


TIME, DURATION = TimeType(), DurationType()


def since_option(text: str, **more: Any) -> Callable[[Command], Command]:
    """Make the option that says when a time begins."""
    return click.option("--since", type=TIME, callback=_in_order, metavar="TIME", help=text, **more)


def until_option(text: str, name: str = "until", **more: Any) -> Callable[[Command], Command]:
    """Make the option that says when a time ends; every command takes it by both of its names."""
    return click.option("--until", "--before", name, type=TIME, callback=_in_order, metavar="TIME", help=text, **more)


def now() -> datetime:
    """Return the time, for a default."""
    return datetime.now(UTC)


def ago(length: timedelta) -> Callable[[], datetime]:
    """Return a default that is as long ago."""
    return lambda: now() - length


def _length(text: str) -> timedelta | None:
    found = _LENGTH.fullmatch(text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def _in_order(context: click.Context, parameter: click.Parameter, value: datetime | None) -> datetime | None:
    """Refuse a time that ends before it begins, whichever end is given first."""
    known = {**context.params, parameter.name: value}
    since, until = known.get("since"), known.get("until") or known.get("before")
    if since and until and since >= until:
        times = f"{since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC"
        raise click.BadParameter(f"nothing lies in the time from {times}; --since is its begin", context, parameter)
    return value
