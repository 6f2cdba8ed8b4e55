"""Superset as pgflywheel starts it: its own metadata in a file. Read after Superset's defaults."""

import os

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = f"sqlite:///{os.environ['SUPERSET_HOME']}/superset.db"
ROW_LIMIT = 10_000
SQLLAB_TIMEOUT = 30  # the analyst's statements end then anyway
