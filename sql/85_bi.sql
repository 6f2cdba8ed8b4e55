-- Flat views for BI tools: first column time, ids as text, no jsonb, no arrays, no content.

create schema if not exists flywheel_bi;
comment on schema flywheel_bi is 'Flat views of pgflywheel for BI tools.';

create or replace view flywheel_bi.spans as
  select started_at as time, span_id::text, trace_id::text, parent_span_id::text, project, environment, release, session_id, node, node_kind,
         model, provider, input_tokens, output_tokens, cost_usd, status, latency_ms, revision, ingested_at
    from flywheel.spans;
comment on view flywheel_bi.spans is 'Every span without its texts.';

create or replace view flywheel_bi.scores as
  select started_at as time, span_id::text, trace_id::text, project, environment, release, node, node_kind, validator, version, severity,
         passed, case when passed then 1.0::double precision when not passed then 0.0 end as pass, value, unscored_reason, annotator_kind, scored_at, provisional
    from flywheel.current_scores;
comment on view flywheel_bi.scores is 'Every current score without its critique. avg(pass) is the pass rate of what was judged; unscored rows have pass null.';
