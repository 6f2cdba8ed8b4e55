"""Verdicts real judges once gave are given again by a fake; alignment is what scikit-learn says it is."""

from __future__ import annotations

import gzip
import json
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.types.json import Jsonb

from pgflywheel.cli.alignment import align
from tests.fakes.openai import serving
from tests.sql.reference import cases as reference
from tests.sql.reference import close

from .conftest import DATA

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of recorded data is not beside the checkout")
Connection = psycopg.Connection[tuple[Any, ...]]
Line = dict[str, Any]

PASS = {
    "xstest": "full_compliance",
    "faithbench": "faithful",
    "llmbar": "a",
    "pandalm": "a",
}
JUDGE = {
    "kind": "judge",
    "lane": "judge",
    "question": "Would people pass this?",
    "pass_when": "they would",
    "fail_when": "they would not",
    "provider": "recorded",
    "model": "recorded",
    "shots": {"strategy": "none"},
}


def lines(name: str) -> list[Line]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def people_pass(dataset: str, human: Line) -> bool:
    return not human["unfaithful"] if dataset == "faithbench" else human["label"] == PASS[dataset]


def verdicts(dataset: str, given: Line) -> dict[str, Line]:
    """Return what the fake answers where it finds the id of an item; prose where it had none."""
    wanted = (given["judge"], given["strategy"], given["order"])
    said = {
        line["item_id"]: line["verdict"]
        for line in lines(f"{dataset}_judgments")
        if (line["judge"], line["strategy"], line["order"]) == wanted
    }
    return {
        f"{item['id']}|": {
            "verdict": "pass" if said.get(item["id"]) == PASS[dataset] else "fail",
            "content": None if said.get(item["id"]) else "I would rather not say.",
        }
        for item in lines(f"{dataset}_items")
    }


def store(connection: Connection, dataset: str) -> None:
    """Insert the items as spans, and what people said of them as labels."""
    with connection.cursor() as cursor, connection.transaction():
        for item in lines(f"{dataset}_items"):
            cursor.execute(
                """insert into flywheel.spans (input, output, attributes, project) values (%s, %s, %s, %s)
                   returning span_id""",
                [f"{item['id']}|", "an answer", Jsonb({"group_key": item["group"]}), dataset],
            )
            (span_id,) = cursor.fetchone() or (None,)
            cursor.execute(
                "select flywheel.record_label(%s, 'people', %s, 'recorded', 'as recorded')",
                [span_id, people_pass(dataset, item["human"])],
            )


def aligned(dsn: str, split: str) -> dict[str, Line]:
    command = ["people", "--split", split, "--dsn", dsn, "--json"]
    result = CliRunner().invoke(align, command, catch_exceptions=False)
    return {row["split"]: row for row in json.loads(result.stdout)["alignment"]}


@pytest.mark.parametrize("dataset", sorted(PASS))
def test_alignment_with_recorded_judges_equals_scikit_learn(dsn: str, connection: Connection, dataset: str) -> None:
    known = [case.values[0] for case in reference("recorded_judges", f"{dataset} ")]
    with serving(verdicts=verdicts(dataset, known[0]["input"])) as fake:
        provider = {"base_url": fake.url, "max_in_flight": 64, "time_limit_ms": 30000, "models": {"recorded": {}}}
        connection.execute("select flywheel.set_provider('recorded', %s)", [Jsonb(provider)])
        connection.execute("select flywheel.define_validator('people', %s)", [Jsonb(JUDGE)])
        store(connection, dataset)
        found = aligned(dsn, "all") | aligned(dsn, "test")
    assert len(known) == 3
    for case in known:
        row = found[case["input"]["split"]]
        assert {name: row[name] for name in case["expected"]} == close(case["expected"]), case["name"]
    rated = connection.execute("select count(*) from flywheel.test_reads").fetchone()
    assert rated == (1,)
