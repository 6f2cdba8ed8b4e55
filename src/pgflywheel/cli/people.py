"""Who acts: the option that names a person, and what its absence means."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pgflywheel.errors import UsageError

if TYPE_CHECKING:
    from pgflywheel.db.connect import Database

Command = TypeVar("Command", bound=Callable[..., Any])


def person_option(option: str, said: str) -> Callable[[Command], Command]:
    """Make the option that names who acts."""
    text = f"{said}; else PGFLYWHEEL_REVIEWER, else your login."
    return click.option(option, metavar="NAME", callback=_given, help=text)


def _given(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    return value or (None if context.resilient_parsing else os.environ.get("PGFLYWHEEL_REVIEWER"))


async def person(database: Database, given: str | None) -> str:
    """Return who acts: the name given, else the database's login where names are logins, else this machine's."""
    from pgflywheel.db.people import login_name

    return given or await login_name(database) or _login_here()


def _login_here() -> str:
    """Return this machine's name for the user; raises UsageError where it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        hint = "Give a name with --reviewer or --by, or set PGFLYWHEEL_REVIEWER."
        raise UsageError("nobody says who acts", "This machine has no name for its user.", hint) from error
