"""What superset.py runs in Superset's environment: its own API, as its web pages use it."""

from __future__ import annotations

import json
import sys
from typing import Any

import superset.app  # type: ignore[import-not-found]


def main() -> int:
    """Print what was found; return 1 when something is not shown."""
    client = superset.app.create_app().test_client()
    given = {"username": "admin", "password": "admin", "provider": "db", "refresh": False}
    token = client.post("/api/v1/security/login", json=given).json["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/", headers=headers).json["result"]

    def get(path: str, **parameters: Any) -> Any:
        query = {"q": json.dumps(parameters)} if parameters.pop("as_q", False) else parameters
        reply = client.get(path, query_string=query, headers=headers)
        if reply.status_code != 200:
            raise RuntimeError(f"{path} {parameters}: {reply.status_code} {reply.text[:600]}")
        return reply.json

    database = get("/api/v1/database/")["result"][0]["id"]
    asked = {"database_id": database, "sql": "select output from flywheel_bi.content_spans", "client_id": "content"}
    refused = client.post("/api/v1/sqllab/execute/", json=asked, headers=headers).text
    problems = [] if "permission denied" in refused else [f"content is shown: {refused[:300]}"]
    problems += _views(get, database) + _charts(get)
    print("\n".join(problems) or "every view has its descriptions, and every chart has rows")
    return 1 if problems else 0


def _views(get: Any, database: int) -> list[str]:
    """Return what is wrong with the list of views and their descriptions."""
    tables = get(f"/api/v1/database/{database}/tables/", as_q=True, schema_name="flywheel_bi", force=True)["result"]
    names = [table["value"] for table in tables]
    print(f"{len(names)} views of flywheel_bi are listed")
    problems: list[str] = []
    for name in names:
        told = get(f"/api/v1/database/{database}/table_metadata/", name=name, schema="flywheel_bi")
        problems += [] if told["comment"] else [f"{name} has no description"]
        problems += [f"{name}.{column['name']} has none" for column in told["columns"] if not column.get("comment")]
    return problems if len(names) > 50 else [*problems, "hardly any view is listed"]


def _charts(get: Any) -> list[str]:
    """Return which charts fail or have no rows."""
    charts = get("/api/v1/chart/", as_q=True, page_size=200)["result"]
    dashboard = get("/api/v1/dashboard/pgflywheel")["result"]
    problems = []
    for chart in charts:
        (answer,) = get(f"/api/v1/chart/{chart['id']}/data/", force="true")["result"]
        if answer["status"] != "success" or not answer["data"]:
            problems.append(f"chart {chart['slice_name']}: {answer['status']}, {answer.get('error')}")
    print(f"{len(charts)} charts on the dashboard {dashboard['dashboard_title']} were run")
    return problems if len(charts) > 50 else [*problems, "hardly any chart was imported"]


if __name__ == "__main__":
    sys.exit(main())
