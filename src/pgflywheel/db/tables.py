"""The public tables for applications that speak SQLAlchemy Core.

``insert(spans).values(input=..., output=...)`` is enough: ids, times, project and node have defaults. What an
insert made is not read back unless ``returning`` asks for it: an application that may only insert is the usual case.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Computed,
    DateTime,
    Double,
    FetchedValue,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

from pgflywheel.assets import DEFAULT_SCHEMA, checked_schema

Kind = TypeEngine[Any] | type[TypeEngine[Any]]
_LATENCY = (
    "case when ended_at >= started_at and isfinite(ended_at) and isfinite(started_at)"
    " then extract(epoch from (ended_at - started_at))::double precision * 1000 end"
)
_TIME = DateTime(timezone=True)


def metadata_for(schema: str = DEFAULT_SCHEMA) -> MetaData:
    """Return the tables of one install; find them as ``metadata.tables["<schema>.spans"]``."""
    metadata = MetaData(schema=checked_schema(schema))
    for make in (_spans, _feedback, _scores, _validators, _validator_versions):
        make(metadata)
    return metadata


def _given(name: str, kind: Kind, *, key: bool = False) -> Column[Any]:
    """Return a column that must be given."""
    return Column(name, kind, primary_key=key, nullable=False)


def _defaulted(name: str, kind: Kind, *, key: bool = False) -> Column[Any]:
    """Return a column the server fills when it is left out."""
    return Column(name, kind, primary_key=key, nullable=False, server_default=FetchedValue())


def _open(name: str, kind: Kind) -> Column[Any]:
    """Return a column that may be null: not known, or not there."""
    return Column(name, kind, nullable=True)


def _spans(metadata: MetaData) -> None:
    Table(
        "spans",
        metadata,
        _defaulted("span_id", Uuid, key=True),
        _defaulted("trace_id", Uuid),
        _open("parent_span_id", Uuid),
        _defaulted("project", Text),
        _defaulted("environment", Text),
        _open("release", Text),
        _open("session_id", Text),
        _open("user_id", Text),
        _defaulted("node", Text),
        _defaulted("node_kind", Text),
        _open("input", Text),
        _open("output", Text),
        _open("messages", JSONB(none_as_null=True)),
        _open("documents", JSONB(none_as_null=True)),
        _open("model", Text),
        _open("provider", Text),
        _open("input_tokens", Integer),
        _open("output_tokens", Integer),
        _open("cost_usd", Double),
        _defaulted("status", Text),
        _open("error", Text),
        _defaulted("started_at", _TIME, key=True),
        _open("ended_at", _TIME),
        Column("latency_ms", Double, Computed(_LATENCY, persisted=True), nullable=True),
        _defaulted("attributes", JSONB),
        _defaulted("revision", Integer),
        _defaulted("ingested_at", _TIME),
        implicit_returning=False,
    )


def _feedback(metadata: MetaData) -> None:
    Table(
        "feedback",
        metadata,
        _defaulted("feedback_id", Uuid, key=True),
        _open("trace_id", Uuid),
        _open("span_id", Uuid),
        _defaulted("project", Text),
        _given("kind", Text),
        _open("value", Double),
        _open("comment", Text),
        _open("user_id", Text),
        _defaulted("attributes", JSONB),
        _defaulted("created_at", _TIME),
        implicit_returning=False,
    )


def _scores(metadata: MetaData) -> None:
    Table(
        "scores",
        metadata,
        _given("span_id", Uuid, key=True),
        _given("revision", Integer, key=True),
        _given("version_id", Uuid, key=True),
        _given("started_at", _TIME, key=True),
        _given("trace_id", Uuid),
        _given("project", Text),
        _open("passed", Boolean),
        _open("value", Double),
        _open("critique", Text),
        _open("unscored_reason", Text),
        _open("unscored_detail", Text),
        _defaulted("annotator_kind", Text),
        _defaulted("scored_at", _TIME),
        _open("confidence", Double),
        _open("latency_ms", Double),
        _open("input_tokens", Integer),
        _open("cached_tokens", Integer),
        _open("output_tokens", Integer),
        _open("cost_usd", Double),
        _open("votes", SmallInteger),
        _open("shots", ARRAY(Uuid)),
        _open("request_hash", Text),
        _open("degraded", Text),
    )


def _validators(metadata: MetaData) -> None:
    Table(
        "validators",
        metadata,
        _given("validator_id", Uuid, key=True),
        _given("name", Text),
        _defaulted("created_at", _TIME),
    )


def _validator_versions(metadata: MetaData) -> None:
    Table(
        "validator_versions",
        metadata,
        _given("version_id", Uuid, key=True),
        _given("validator_id", Uuid),
        _given("version", Integer),
        _given("definition", JSONB),
        _given("content_hash", Text),
        _given("kind", Text),
        _given("target", Text),
        _given("lane", Text),
        _given("action", Text),
        _given("severity", Text),
        _given("sample", Double),
        _defaulted("status", Text),
        _open("paused_reason", Text),
        _open("paused_detail", Text),
        _defaulted("created_by", Text),
        _defaulted("created_at", _TIME),
        _open("approved_by", Text),
        _open("approved_at", _TIME),
        _defaulted("changed_at", _TIME),
    )


metadata = metadata_for()
spans = metadata.tables["flywheel.spans"]
feedback = metadata.tables["flywheel.feedback"]
scores = metadata.tables["flywheel.scores"]
validators = metadata.tables["flywheel.validators"]
validator_versions = metadata.tables["flywheel.validator_versions"]
