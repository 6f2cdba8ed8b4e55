"""What the benchmarks of rollups share: spans with their dimensions, and scores of them."""

from __future__ import annotations

from typing import LiteralString

from tests.bench import spans
from tests.bench.server import Session

SPANS: LiteralString = """
insert into flywheel.spans (node, release, environment, input, output, started_at, ended_at, input_tokens,
                            output_tokens, cost_usd)
select 'node_' || n %% 5, 'r' || n %% 3, 'production', 'question ' || n, 'answer ' || n,
       at, at + (50 + n %% 400) * interval '1 ms', 200, 80, 0.0004
  from (select n, now() - (%(days)s::float8 * n / %(count)s) * interval '1 day' as at
          from generate_series(1, %(count)s) as n) as made
"""
JUDGED: LiteralString = """
create table public.judged as
select span_id, revision, version_id, started_at, trace_id, project, passed,
       case when passed then .9 else .2 end as value,
       case when passed then 'It answers what was asked and says where that stands.'
            else 'It promises a refund that the policy in the passage does not know.' end as critique,
       640.0 as latency_ms, 900 as input_tokens, 60 as output_tokens, 0.0003 as cost_usd,
       md5(span_id::text) as request_hash
  from (select spans.*, hashtext(span_id::text) % 10 <> 0 as passed from flywheel.spans) as drawn
 cross join (select version_id from flywheel.validator_versions order by version_id limit 1) as version
"""
SCORES: LiteralString = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, cost_usd)
select span_id, revision, version_id, started_at, trace_id, project,
       uuid_hash(span_id) %% 100 < 85 + uuid_hash(version_id) %% 10, 0.0003
  from flywheel.spans cross join flywheel.validator_versions
 where started_at >= %s and not exists (select from flywheel.scores where scores.span_id = spans.span_id)
"""


def activate(session: Session, versions: int) -> None:
    """Make validators that judge nothing by themselves."""
    for number in range(versions):
        spans.activate(session, f"judged_{number}", kind="sql", expression="true", filter={"node": "nobody"})


def store_judged(session: Session, count: int) -> None:
    """Store spans, folded, and their scores in public.judged, not inserted yet."""
    activate(session, 1)
    store_spans(session, count, 0.0)
    session.execute("select flywheel._fold(1000)")
    session.execute(JUDGED)
    session.execute("vacuum analyze flywheel.spans")
    session.execute("vacuum analyze public.judged")


def store_spans(session: Session, count: int, days: float) -> None:
    """Store spans spread over the last days."""
    session.execute(SPANS, {"count": count, "days": days})


def store_history(session: Session, scores: int, days: int, versions: int = 10) -> None:
    """Store scores of so many days as a restore does, past the triggers, and count them set by set."""
    activate(session, versions)
    session.execute("select flywheel.ensure_partitions(current_date - %s, current_date + 1)", [days + 1])
    session.execute("set session_replication_role = replica")
    store_spans(session, scores // versions, days)
    session.execute(SCORES, ["-infinity"])
    session.execute("reset session_replication_role")
    session.execute("vacuum analyze flywheel.spans")
    session.execute("vacuum analyze flywheel.scores")
    session.execute("select flywheel.rebuild_rollups()")
    while (session.execute("select flywheel._rebuild_asked()").fetchone() or (0,))[0]:
        pass


def write_fresh(session: Session, scores: int, versions: int = 10) -> None:
    """Insert new spans of this minute and their scores, as writers do."""
    (moment,) = session.execute("select clock_timestamp()").fetchone() or (None,)
    store_spans(session, scores // versions, 0.0)
    session.execute(SCORES, [moment])
