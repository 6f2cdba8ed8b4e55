"""compose.bi.yaml names what is there, and the login it makes can be used."""

from __future__ import annotations

import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.conninfo import make_conninfo

from pgflywheel.db import embedded
from tests.conftest import POSTGRES_VERSION, Connection

DOCKER = Path(__file__).parents[2] / "docker"
VARIABLE = re.compile(r"\bPGFLYWHEEL_BI_[A-Z]+\b")


def services() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.bi.yaml").read_text("utf-8"))["services"])


def test_everything_mounted_and_built_is_there() -> None:
    mounts = [mount for service in services().values() for mount in service.get("volumes", ()) if mount.startswith(".")]
    builds = [service["build"]["context"] for service in services().values() if "build" in service]
    assert len(mounts) == 3
    assert [
        path for path in (*(mount.partition(":")[0] for mount in mounts), *builds) if not (DOCKER / path).exists()
    ] == []


def test_every_variable_of_the_assets_is_set_by_compose() -> None:
    read = {
        "grafana": (DOCKER / "grafana/provisioning/datasources/pgflywheel.yaml").read_text("utf-8"),
        "superset": (DOCKER / "superset/start.sh").read_text("utf-8"),
        "analyst": str(services()["analyst"]["command"]),
    }
    for name, text in read.items():
        assert set(VARIABLE.findall(text)) <= services()[name]["environment"].keys(), name


def test_analyst_sql_makes_a_login_and_can_be_run_again(connection: Connection, dsn: str) -> None:
    login, password = f"a{uuid.uuid4().hex[:8]}'\" x", 'it\'s "secret"'
    command = [str(embedded.psql(POSTGRES_VERSION)), dsn, "--quiet", "--file", str(DOCKER / "analyst.sql")]
    given = ["--set", f"login={login}", "--set", f"password={password}"]
    for _ in range(2):
        subprocess.run([*command, *given], check=True, capture_output=True)
    try:
        with psycopg.connect(make_conninfo(dsn, user=login, password=password)) as session:
            assert session.execute("show statement_timeout").fetchone() == ("30s",)
            assert session.execute("select count(*) from flywheel_bi.spans").fetchone() == (0,)
    finally:
        named = psycopg.sql.Identifier(login)
        connection.execute(psycopg.sql.SQL("drop owned by {}; drop role {}").format(named, named))
