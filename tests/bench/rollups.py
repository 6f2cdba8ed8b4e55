"""What the benchmarks of rollups share: spans with their dimensions, and scores ready to be inserted."""

from __future__ import annotations

from typing import LiteralString

from tests.bench import spans
from tests.bench.server import Session

SPANS: LiteralString = """
insert into flywheel.spans (node, release, environment, input, output, started_at, ended_at, input_tokens,
                            output_tokens, cost_usd)
select 'node_' || n %% 5, 'r' || n %% 3, 'production', 'question ' || n, 'answer ' || n,
       at, at + (50 + n %% 400) * interval '1 ms', 200, 80, 0.0004
  from (select n, now() - (%(days)s * n / %(count)s::float8) * interval '1 day' as at
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
  from (select spans.*, hashtext(span_id::text) %% 10 <> 0 as passed from flywheel.spans) as drawn
 cross join (select version_id from flywheel.validator_versions order by version_id limit 1) as version
"""


def store_judged(session: Session, count: int) -> None:
    """Store spans of one version, folded, and their scores in public.judged, not inserted yet."""
    spans.activate(session, "judged", kind="sql", expression="true", filter={"node": "nobody"})
    store_spans(session, count, 0.0)
    session.execute("drop table if exists public.judged")
    session.execute(JUDGED.replace("%%", "%"))
    session.execute("vacuum analyze flywheel.spans")
    session.execute("vacuum analyze public.judged")


def store_spans(session: Session, count: int, days: float) -> None:
    """Store spans spread over the last days; they are folded."""
    session.execute(SPANS, {"count": count, "days": days})
    session.execute("select flywheel._fold(1000)")
