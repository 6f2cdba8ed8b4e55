"""People: under which name a login acts."""

from __future__ import annotations

from pgflywheel.db.connect import Database


async def login_name(database: Database) -> str | None:
    """Return the login of the session where names of people are logins; None where any name may be given."""
    found: str | None = await database.value("select flywheel._login_name()")
    return found
