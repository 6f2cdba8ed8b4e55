"""The sample: whole traces, always the same, that hold the mistakes its validators look for."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from typing import Any

import pytest

from pgflywheel import assets
from pgflywheel.checks import personal
from pgflywheel.checks.definitions import read_definitions
from pgflywheel.sample import build

ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (assets.sample_dir() / "support.jsonl").read_text("utf-8").splitlines()
]
VALIDATORS = dict(read_definitions(assets.sample_dir() / "validators.toml"))


def test_the_file_is_what_its_source_expands_to() -> None:
    assert list(build.spans()) == ROWS


def test_every_span_has_an_id_of_its_own_and_every_child_its_root() -> None:
    roots = {row["span_id"]: row["trace_id"] for row in ROWS if row["parent_span_id"] is None}
    assert len({row["span_id"] for row in ROWS}) == len(ROWS)
    assert len(set(roots.values())) == len(roots) == len({row["trace_id"] for row in ROWS}) > 80
    assert all(roots[row["parent_span_id"]] == row["trace_id"] for row in ROWS if row["parent_span_id"])


def test_steps_lie_within_their_trace_and_all_of_it_in_the_past() -> None:
    ends = {row["span_id"]: row["offset_seconds"] + row["latency_ms"] / 1000 for row in ROWS}
    starts = {row["span_id"]: row["offset_seconds"] for row in ROWS}
    assert max(ends.values()) < 0
    for row in ROWS:
        root = row["parent_span_id"] or row["span_id"]
        assert starts[root] <= starts[row["span_id"]]
        assert ends[row["span_id"]] <= ends[root]


def test_the_sample_has_releases_environments_nodes_and_errors_to_compare() -> None:
    for column in ("release", "environment"):
        assert len({row[column] for row in ROWS}) == 2
    assert Counter(row["node"] for row in ROWS).keys() == {
        *("support", "classify", "retrieve", "lookup_order", "answer", "escalate")
    }
    assert all(row["error"] for row in ROWS if row["status"] == "error")
    assert sum(row["status"] == "error" for row in ROWS) > 3


def test_addresses_are_of_example_domains() -> None:
    words = {word.strip("\",.'?") for row in ROWS for word in f"{row['input']} {row['output']}".split() if "@" in word}
    assert words
    assert all(word.endswith((".example", "example.com", "example.org")) for word in words)
    assert all(personal.contains_email(word) for word in words)


@pytest.mark.parametrize(("name", "least"), [("classification_is_valid", 5), ("answers_in_english", 3)])
def test_python_validators_find_mistakes_and_pass_most(name: str, least: int) -> None:
    definition = VALIDATORS[name]
    module, _, function = definition["callable"].partition(":")
    check = getattr(importlib.import_module(module), function)
    texts = [row["output"] for row in ROWS if row["node"] == definition["filter"]["node"] and row["output"] is not None]
    verdicts = [check(text, **definition["parameters"]) for text in texts]
    failed = sum(verdict is not None and not verdict.passed for verdict in verdicts)
    assert least <= failed < len(texts) / 4
