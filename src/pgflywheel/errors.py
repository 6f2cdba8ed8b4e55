"""One error tree: a SQLSTATE of the database, or a fact about the installation, becomes one class."""

from __future__ import annotations

from typing import ClassVar


class FlywheelError(Exception):
    """Say what is wrong, the fact behind it, and what to do about it."""

    exit_code: ClassVar[int] = 1
    sqlstate: ClassVar[str | None] = None

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint


class DatabaseError(FlywheelError):
    """Any other error the database reported."""


class CheckFailed(FlywheelError):
    """A verification was made and its answer is no."""


class UsageError(FlywheelError):
    """The command or function was called wrongly."""

    exit_code = 2


class Unreachable(FlywheelError):
    """No connection could be made, or it was lost."""

    exit_code = 3


class SchemaMismatch(FlywheelError):
    """The install in the database is not the one this package works with."""

    exit_code = 4


class SchemaMissing(SchemaMismatch):
    """The schema was never installed in this database."""


class SchemaBehind(SchemaMismatch):
    """The schema is older than this package."""


class SchemaNewer(SchemaMismatch):
    """The schema is newer than this package."""


class ExtensionMissing(FlywheelError):
    """The server has no pgvector, or this role may not create it."""

    exit_code = 4


class ServerTooOld(FlywheelError):
    """The server is of a Postgres version that is not supported."""

    exit_code = 4


class Blocked(FlywheelError):
    """A validator with the action block rejected the row."""

    sqlstate = "WF001"


class ValidatorNotFound(FlywheelError):
    """No validator, or no such version of it, has this name."""

    sqlstate = "WF002"


class InvalidDefinition(FlywheelError):
    """A validator's definition breaks a rule."""

    sqlstate = "WF003"


class WrongStatus(FlywheelError):
    """The object is not in a status that allows this."""

    sqlstate = "WF004"


class TooSlow(FlywheelError):
    """A validator took longer than an inline check may."""

    sqlstate = "WF005"


class IdentityChanged(FlywheelError):
    """A span's identity (span_id, started_at) cannot be updated."""

    sqlstate = "WF006"


class JobNotFound(FlywheelError):
    """No job has this id."""

    sqlstate = "WF007"


class VersionImmutable(FlywheelError):
    """A validator version never changes once written."""

    sqlstate = "WF008"


class InvalidArgument(FlywheelError):
    """A function's argument is outside its range."""

    sqlstate = "WF009"


class SpanNotFound(FlywheelError):
    """No span has this id."""

    sqlstate = "WF010"


class LabelRefused(FlywheelError):
    """A label, a claim of one, or an act in somebody else's name is not allowed."""

    sqlstate = "WF011"


class ExampleNotFound(FlywheelError):
    """No example has this id."""

    sqlstate = "WF012"


class ProviderNotFound(FlywheelError):
    """No provider has this name."""

    sqlstate = "WF013"


class TestSplitRead(FlywheelError):
    """The test split was read by this judge version before."""

    sqlstate = "WF014"


class Later(Exception):
    """Raise it in a check of the judge lane to be asked again after a time; it costs no attempt.

    For a limit the provider sets (HTTP 429), not for a failure.
    """

    def __init__(self, delay_seconds: float, reason: str = "asked to wait") -> None:
        super().__init__(reason)
        self.delay_seconds = delay_seconds
        self.reason = reason


BY_SQLSTATE: dict[str, type[FlywheelError]] = {
    kind.sqlstate: kind for kind in FlywheelError.__subclasses__() if kind.sqlstate is not None
}

_CONNECTION_CLASSES = ("08", "28")
_SHUTDOWN = ("57P01", "57P02", "57P03", "53300", "3D000")


def kind_of(sqlstate: str) -> type[FlywheelError]:
    """Return the class an error the database reports with this SQLSTATE becomes."""
    if sqlstate in _SHUTDOWN or sqlstate.startswith(_CONNECTION_CLASSES):
        return Unreachable
    return BY_SQLSTATE.get(sqlstate, DatabaseError)
