"""Install a Python check as a function of the database, where the server has plpython3u."""

from __future__ import annotations

from pgflywheel.checks.plpython import plpython_function
from pgflywheel.db.connect import Database
from pgflywheel.db.validators import definition
from pgflywheel.errors import ExtensionMissing, InvalidDefinition

LANGUAGE = "plpython3u"


async def install(database: Database, name: str) -> str:
    """Make function check_NAME(text) of a validator's Python check; return its whole name.

    Raises ExtensionMissing where the server has no plpython3u, or this role may not create it.
    """
    stored = await definition(database, name)
    if stored.definition["kind"] != "python":
        raise InvalidDefinition(f"validator {name} is of kind sql", "It runs in the database already.")
    function = f"check_{name}"
    sql = plpython_function(
        function, stored.definition["callable"], stored.definition.get("parameters"), database.schema
    )
    await _require_language(database)
    async with database.connection() as connection, connection.transaction():
        await connection.execute(sql.encode())  # not rendered: the check's source says what it says
    return f"{database.schema}.{function}"


async def _require_language(database: Database) -> None:
    if await database.value("select true from pg_language where lanname = %s", [LANGUAGE]):
        return
    available = await database.value("select true from pg_available_extensions where name = %s", [LANGUAGE])
    superuser = await database.value("select rolsuper from pg_roles where rolname = current_user")
    if available and superuser:
        await database.execute(f"create extension if not exists {LANGUAGE}")
        return
    raise ExtensionMissing(
        f"this database has no language {LANGUAGE}",
        "The server's files are there." if available else "The server does not have its files.",
        f"Let a superuser run: create extension {LANGUAGE};"
        if available
        else "On Debian: apt install postgresql-plpython3-18. Managed Postgres rarely has it: workers need it nowhere.",
    )
