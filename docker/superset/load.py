"""Load the assets beside this file into the Superset this runs in; again, it brings them up to date.

PGFLYWHEEL_BI_ADDRESS (host:port), _DATABASE, _USER, _PASSWORD and _SSLMODE name the database and the analyst.
The user admin has to be there; what is loaded belongs to it.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import yaml
from flask import g
from superset.app import create_app

FOLDER = Path(__file__).parent / "assets"


def contents(uri: str) -> dict[str, str]:
    """Return the text of each file by its path, with the address of the database in its place."""
    found = {str(path.relative_to(FOLDER)): path.read_text("utf-8") for path in FOLDER.rglob("*.yaml")}
    name = "databases/pgflywheel.yaml"
    found[name] = yaml.safe_dump({**yaml.safe_load(found[name]), "sqlalchemy_uri": uri})
    return found


def address() -> str:
    """Return where the database is, as SQLAlchemy writes it."""
    given = {name: os.environ[f"PGFLYWHEEL_BI_{name.upper()}"] for name in ("address", "database", "user", "password")}
    user, password, database = (quote(given[name], safe="") for name in ("user", "password", "database"))
    mode = os.environ.get("PGFLYWHEEL_BI_SSLMODE", "prefer")
    return f"postgresql+psycopg2://{user}:{password}@{given['address']}/{database}?sslmode={mode}"


def load(uri: str) -> None:
    """Import everything in the application's context."""
    from superset.commands.importers.v1.assets import ImportAssetsCommand
    from superset.extensions import security_manager

    g.user = security_manager.find_user("admin")
    ImportAssetsCommand(contents(uri)).run()


if __name__ == "__main__":
    with create_app().app_context():
        load(address())
