"""Scores and labels as the tests of numbers need them: many at once, through the triggers, at a time of their own."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.sql.support import Connection, define, version_id

NOW = datetime.now(UTC)
YESTERDAY = NOW - timedelta(days=1)
LONG_AGO = NOW - timedelta(days=90)
NEIGHBOURS = {
    "kind": "neighbours",
    "lane": "bulk",
    "question": "Is the answer polite?",
    "pass_when": "it is",
    "fail_when": "it is rude",
}

_SCORES = """
with written as (
  insert into flywheel.spans (project, environment, release, node, input, output, started_at)
  select %(project)s, %(environment)s, %(release)s, %(node)s, 'q', 'a', %(at)s + n * interval '1 microsecond'
    from generate_series(1, %(count)s) as n
  returning span_id, trace_id, started_at, project
), scored as (
  insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value,
                               unscored_reason, annotator_kind)
  select span_id, 1, %(version_id)s, started_at, trace_id, project, %(passed)s, %(value)s,
         case when %(passed)s::boolean is null then 'timed_out' end, 'neighbours'
    from written
)
select count(*) from written
"""
_LABELS = """
insert into flywheel.labels (label_id, validator_id, span_id, started_at, revision, trace_id, project, annotator,
                             passed, critique, lane, incl_prob, stratum, group_key, split)
select flywheel.new_id(), versions.validator_id, scores.span_id, scores.started_at, 1, scores.trace_id, scores.project,
       'ann', %(human)s, 'so', %(lane)s, case %(lane)s when 'estimation' then %(chance)s end, %(stratum)s,
       scores.span_id::text, 'dev'
  from flywheel.scores
  join flywheel.validator_versions as versions using (version_id)
  join flywheel.spans on (spans.span_id, spans.started_at) = (scores.span_id, scores.started_at)
 where scores.version_id = %(version_id)s and scores.passed = %(passed)s
   and spans.release is not distinct from %(release)s and spans.node = %(node)s
   and scores.started_at >= %(at)s and scores.started_at < %(at)s::timestamptz + interval '1 second'
   and not exists (select from flywheel.labels as other where other.span_id = scores.span_id)
 order by scores.started_at
 limit %(count)s
"""


def judge(connection: Connection, name: str = "polite", status: str = "active", **definition: Any) -> uuid.UUID:
    """Define a further version of a judge that needs no provider, and give it a status; return its id."""
    _, version, *_ = define(connection, name, **{**NEIGHBOURS, **definition})
    made = version_id(connection, name, version)
    if status in ("active", "paused"):
        connection.execute(
            "update flywheel.validator_versions as older set status = 'retired' from flywheel.validator_versions as new"
            " where new.version_id = %s and older.validator_id = new.validator_id and older.status = 'active'",
            [made],
        )
    connection.execute(
        "update flywheel.validator_versions set status = %s, approved_at = now() where version_id = %s", [status, made]
    )
    return made


@dataclass(frozen=True)
class Spot:
    """Where and when spans are."""

    at: datetime = YESTERDAY
    project: str = "default"
    environment: str = "production"
    release: str | None = None
    node: str = "app"

    def score(
        self, connection: Connection, version: uuid.UUID, count: int, passed: bool | None, value: float | None = None
    ) -> None:
        """Write spans with one score each."""
        given = {"version_id": version, "count": count, "passed": passed, "value": value, **vars(self)}
        connection.execute(_SCORES.encode(), given)

    def label(
        self,
        connection: Connection,
        version: uuid.UUID,
        *cells: int,
        lane: str = "estimation",
        stratified: bool = False,
        chance: float = 0.1,
    ) -> None:
        """Label spans, drawn with this chance, so that a version has these cells: tp, fp, fn, tn."""
        verdicts = [(True, True), (True, False), (False, True), (False, False)]
        for (passed, human), count in zip(verdicts, cells, strict=True):
            stratum = {True: "pass", False: "fail"}[passed] if stratified else "all"
            cell = {"version_id": version, "passed": passed, "human": human, "count": count}
            drawn = {"lane": lane, "chance": chance, "stratum": stratum if lane == "estimation" else None}
            written = connection.execute(_LABELS.encode(), {**cell, **drawn, **vars(self)})
            assert written.rowcount == count
