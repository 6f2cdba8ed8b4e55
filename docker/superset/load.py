"""Load the assets beside this file into the Superset this runs in; again, it brings them up to date.

PGFLYWHEEL_BI_URI names the database, as an analyst: postgresql+psycopg2://analyst:password@host:5432/name.
The user admin has to be there; what is loaded belongs to it.
"""

from __future__ import annotations

import os
from pathlib import Path

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


def load(uri: str) -> None:
    """Import everything in the application's context."""
    from superset.commands.importers.v1.assets import ImportAssetsCommand
    from superset.extensions import security_manager

    g.user = security_manager.find_user("admin")
    ImportAssetsCommand(contents(uri)).run()


if __name__ == "__main__":
    with create_app().app_context():
        load(os.environ["PGFLYWHEEL_BI_URI"])
