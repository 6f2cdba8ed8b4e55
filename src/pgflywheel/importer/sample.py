"""The sample: its spans, as if they had happened in the days before now, and what a person says of some."""

from __future__ import annotations

import json
import tomllib
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgflywheel import assets
from pgflywheel.importer.rows import COLUMNS, SpanRow
from pgflywheel.sample.build import span_id

_IDS = ("span_id", "trace_id", "parent_span_id")


def sample_labels() -> list[dict[str, Any]]:
    """Return what a person says of some of the customers' messages, as `labels import` reads it."""
    said = tomllib.loads((assets.sample_dir() / "labels.toml").read_text(encoding="utf-8"))
    critiques: dict[str, str | None] = {**dict.fromkeys(said["passes"]), **said["fails"]}
    return [
        {
            "span_id": str(span_id(turn, "support")),
            "validator": said["validator"],
            "annotator": said["annotator"],
            "passed": critique is None,
            "critique": critique,
        }
        for turn, critique in critiques.items()
    ]


def sample_rows(now: datetime) -> list[SpanRow]:
    """Return the spans; like lines without a time of their own, they are there already whenever their ids are."""
    lines = (assets.sample_dir() / "support.jsonl").read_text(encoding="utf-8").splitlines()
    return [_row(json.loads(line), now) for line in lines]


def _row(item: dict[str, object], now: datetime) -> SpanRow:
    started_at = now + timedelta(seconds=float(str(item["offset_seconds"])))
    latency = item["latency_ms"]
    columns = {name: value for name, value in item.items() if name in COLUMNS and value is not None}
    columns |= {name: UUID(str(columns[name])) for name in _IDS if name in columns}
    columns |= {name: json.dumps(columns[name]) for name in ("documents", "messages", "attributes") if name in columns}
    ended_at = None if latency is None else started_at + timedelta(milliseconds=float(str(latency)))
    return SpanRow(**{**columns, "started_at": started_at, "ended_at": ended_at}, timed=False)  # type: ignore[arg-type]
