"""What the benchmarks of views share: a month of scores by ten validators, with labels, stored fast and rolled up."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString

from tests.bench.server import Session, connected, value

DAYS, CHECKS, JUDGES = 30, 8, 2
VALIDATORS = CHECKS + JUDGES
LABELS_A_DAY = 10
CHECK = {"kind": "sql", "expression": "true", "filter": {"node": "nobody"}}
JUDGE = {
    "kind": "neighbours",
    "lane": "bulk",
    "question": "Is the answer polite?",
    "pass_when": "it is",
    "fail_when": "it is rude",
    "filter": {"node": "nobody"},
}
# Times, not rows, are drawn by chance: ids rise with time, as new_id() makes them.
_SPANS: LiteralString = """
insert into flywheel.spans (span_id, trace_id, project, release, node, input, output, started_at, ended_at, cost_usd)
select ('018f0000-0000-7000-8000-' || lpad(to_hex(%(day)s::bigint * 100000000 + n), 12, '0'))::uuid,
       ('018f0000-0000-7000-9000-' || lpad(to_hex(%(day)s::bigint * 100000000 + n), 12, '0'))::uuid,
       'shop', 'r' || (%(day)s::integer / 7), 'node_' || (hashint8(n) & 3), 'question ' || n, 'answer ' || n, at,
       at + (50 + n %% 400) * interval '1 ms', 0.0004
  from (select n, date_trunc('day', now(), 'UTC') - %(day)s * interval '1 day'
                  + (n - 0.5) / %(count)s * least(interval '1 day', now() - date_trunc('day', now(), 'UTC')
                                                                   + least(%(day)s, 1) * interval '1 day') as at
          from generate_series(1, %(count)s) as n) as made
"""
_SCORES: LiteralString = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique,
                             unscored_reason, annotator_kind, cost_usd)
select span_id, 1, version_id, started_at, trace_id, project,
       case when drawn.of_100 >= 2 then drawn.of_100 <= 89 + place end,
       case when judges then (drawn.of_100 %% 20) / 20.0 end,
       case when judges then 'It answers what was asked and says where that stands.' end,
       case when drawn.of_100 < 2 then 'timed_out' end, case when judges then 'neighbours' else 'code' end,
       case when judges then 0.0003 end
  from flywheel.spans
 cross join (select version_id, row_number() over (order by name)::integer as place, kind = 'neighbours' as judges
               from flywheel.validator_versions join flywheel.validators using (validator_id)) as versions
 cross join lateral (select abs(hashint8(hashtext(span_id::text)::bigint * 31 + place)) %% 100) as drawn(of_100)
 where started_at >= date_trunc('day', now(), 'UTC') - %(day)s * interval '1 day'
   and started_at < date_trunc('day', now(), 'UTC') - (%(day)s - 1) * interval '1 day'
"""
_LABELS: LiteralString = """
insert into flywheel.labels (label_id, validator_id, span_id, started_at, revision, trace_id, project, annotator,
                             passed, critique, lane, incl_prob, stratum, group_key, split)
select flywheel.new_id(), versions.validator_id, scores.span_id, scores.started_at, 1, scores.trace_id, scores.project,
       'ann', scores.passed = (hashtext(scores.span_id::text) %% 10 <> 0), 'so', 'estimation', 0.01, 'all',
       scores.span_id::text, 'dev'
  from (select span_id, started_at from flywheel.spans
         where started_at >= date_trunc('day', now(), 'UTC') - %(day)s * interval '1 day'
           and started_at < date_trunc('day', now(), 'UTC') - (%(day)s - 1) * interval '1 day'
         limit %(labels)s) as spans
  join flywheel.scores using (span_id, started_at)
  join flywheel.validator_versions as versions using (version_id)
 where versions.kind = 'neighbours' and scores.passed is not null
"""
# What _rebuild_rollups() counts, without what it does to be right while others write.
_SLICES: LiteralString = """
insert into flywheel._slices (slice_id, project, environment, release, node, node_kind, root)
select distinct flywheel._slice_id(project, environment, release, node, node_kind, true, null, null, null),
       project, environment, release, node, node_kind, true
  from flywheel.spans
"""
_MINUTES: LiteralString = """
insert into flywheel._score_rollups
select 'minute', minute, version_id, slice_id, reason, value_bin, n, passed, failed, valued, value_sum, value_squares,
       cost_usd, priced, 0, 0, 0, 0, 0
  from (
    select flywheel._minute(spans.started_at) as minute, version_id, spans.release, spans.node,
           coalesce(unscored_reason, '') as reason, flywheel._value_bin(value) as value_bin, count(*) as n,
           count(*) filter (where passed) as passed, count(*) filter (where not passed) as failed,
           count(value) as valued, coalesce(sum(value), 0) as value_sum,
           coalesce(sum(value * value), 0) as value_squares,
           coalesce(sum(scores.cost_usd), 0) as cost_usd, count(scores.cost_usd) as priced
      from flywheel.spans
      join flywheel.scores using (span_id, started_at, revision),
           flywheel._day_span((now() at time zone 'UTC')::date - %(day)s) as day
     where spans.started_at between day.since and day.last and scores.started_at between day.since and day.last
     group by 1, 2, 3, 4, 5, 6) as counted
  join flywheel._slices as slices using (release, node)
 order by minute, version_id, slice_id, reason, value_bin
"""
_LARGER: LiteralString = """
insert into flywheel._score_rollups
select cut.grain, date_trunc(cut.grain, bucket, 'UTC'), version_id, slice_id, reason, value_bin, sum(n), sum(passed),
       sum(failed), sum(valued), sum(value_sum), sum(value_squares), sum(cost_usd), sum(priced), 0, 0, 0, 0, 0
  from flywheel._score_rollups as rolled,
       flywheel._day_span((now() at time zone 'UTC')::date - %(day)s) as day, (values ('hour'), ('day')) as cut(grain)
 where rolled.grain = 'minute' and bucket >= day.since and bucket <= day.last
 group by 1, 2, 3, 4, 5, 6
 order by 1, 2, 3, 4, 5, 6
"""
_CELLS: LiteralString = """
select flywheel._rebuild_cells(since, last) from flywheel._day_span((now() at time zone 'UTC')::date - %(day)s)
"""


def store(dsn: str, scores: int) -> None:
    """Store a month of spans with ten scores each and a few labels, roll them up, and leave all settled."""
    with connected(dsn) as session:
        _define(session)
        first = (
            "select flywheel.ensure_partitions((now() at time zone 'UTC')::date - %s, (now() at time zone 'UTC')::date)"
        )
        session.execute(first, [DAYS])
        session.execute("alter table flywheel.scores disable trigger all")
    spans = max(1, scores // VALIDATORS // DAYS)
    _each_day(dsn, lambda session, day: _store_day(session, day, spans))
    with connected(dsn) as session:
        session.execute("analyze flywheel.spans, flywheel.scores, flywheel.labels")
        session.execute(_SLICES)
    _each_day(dsn, _roll_up_day)
    with connected(dsn) as session:
        session.execute("vacuum (parallel 0) flywheel.spans, flywheel.scores, flywheel.labels")
        session.execute("vacuum (analyze) flywheel._score_rollups, flywheel._cell_rollups")
        session.execute("vacuum (analyze) flywheel._slices, flywheel._score_changes, flywheel._span_changes")
        session.execute("vacuum (analyze) flywheel._label_changes, flywheel._span_deltas")


def _define(session: Session) -> None:
    for place in range(VALIDATORS):
        definition = JUDGE if place >= CHECKS else CHECK
        session.execute("select flywheel.define_validator(%s, %s)", [f"validator_{place}", json.dumps(definition)])
    session.execute("update flywheel.validator_versions set status = 'active', approved_at = now()")


def _each_day(dsn: str, act: Callable[[Session, int], None]) -> None:
    """Do every day, two at a time."""

    def one(day: int) -> None:
        with connected(dsn) as session:
            session.execute("set session_replication_role = replica")
            session.execute("set synchronous_commit = off")
            session.execute("set work_mem = '256MB'")
            act(session, day)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(DAYS)))


def _store_day(session: Session, day: int, spans: int) -> None:
    session.execute(_SPANS, {"day": day, "count": spans})
    session.execute(_SCORES, {"day": day})
    session.execute(_LABELS, {"day": day, "labels": LABELS_A_DAY})


def _roll_up_day(session: Session, day: int) -> None:
    for statement in (_MINUTES, _LARGER, _CELLS):
        session.execute(statement, {"day": day})


def stored(session: Session) -> int:
    """Return how many scores there are."""
    return int(value(session, "select count(*) from flywheel.scores"))
