"""Superset's assets against an install; python -m tests.bi.superset imports them into Superset itself."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import psycopg
import pytest

from tests.bi import assets
from tests.conftest import Connection


@pytest.fixture(scope="module")
def views(analyst_dsn: str) -> list[assets.View]:
    """What the analyst finds in the catalogue."""
    with psycopg.connect(analyst_dsn) as session:
        return assets.flat_views(session)


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, Any]]:
    """The files of docker/superset/assets."""
    return assets.read()


def test_the_files_are_those_of_the_views(views: list[assets.View]) -> None:
    made = assets.files(views)
    if os.environ.get("PGFLYWHEEL_WRITE_ASSETS"):
        shutil.rmtree(assets.FOLDER, ignore_errors=True)
        for path, text in made.items():
            (assets.FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
            (assets.FOLDER / path).write_text(text, "utf-8")
    found = {str(path.relative_to(assets.FOLDER)): path for path in assets.FOLDER.rglob("*.yaml")}
    assert found.keys() == made.keys(), "a view came or went: write the assets anew"
    assert [path for path in made if found[path].read_text("utf-8") != made[path]] == [], "write the assets anew"


def test_every_chart_of_a_flat_view_gets_rows(analyst: Connection, kept: dict[str, dict[str, Any]]) -> None:
    datasets = {asset["uuid"]: asset for path, asset in kept.items() if path.startswith("datasets/")}
    charts = [asset for path, asset in kept.items() if path.startswith("charts/")]
    empty = []
    for chart in charts:
        for query in json.loads(chart["query_context"])["queries"]:
            sql = assets.chart_sql(datasets[chart["dataset_uuid"]], query)
            if not analyst.execute(sql.encode()).fetchall():
                empty.append(chart["slice_name"])
    assert len(charts) == len(datasets) > 50
    assert empty == []


def test_every_id_names_something_that_is_there(kept: dict[str, dict[str, Any]]) -> None:
    ids = [asset["uuid"] for path, asset in kept.items() if path != "metadata.yaml"]
    assert len(set(ids)) == len(ids)
    for path, asset in kept.items():
        assert asset["version"] == "1.0.0"
        assert {asset[key] for key in ("database_uuid", "dataset_uuid") if key in asset} <= set(ids), path
    position = kept["dashboards/pgflywheel.yaml"]["position"]
    placed = {item["meta"]["uuid"] for item in position.values() if isinstance(item, dict) and item["type"] == "CHART"}
    assert placed == {asset["uuid"] for path, asset in kept.items() if path.startswith("charts/")}


def test_the_database_is_read_only_and_holds_no_password(kept: dict[str, dict[str, Any]]) -> None:
    database = kept[assets.DATABASE_FILE]
    assert not any(database[name] for name in ("allow_ctas", "allow_cvas", "allow_dml", "allow_csv_upload"))
    assert ":XXXXXXXXXX@" in database["sqlalchemy_uri"]
