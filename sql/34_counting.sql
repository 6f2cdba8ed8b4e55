-- Counting of new spans, as code that the dispatch of an insert carries along: a trigger call of its own costs a statement
-- of one span more than half of what counting does.

-- _count_sql: in the application's insert, so nothing is grouped here: starting an aggregation costs one span more than
-- a row each costs a hundred thousand. A span that was deleted before may meet its scores again, so it is noted by itself;
-- any other one has no scores yet that were folded.
create or replace function flywheel._count_sql() returns text
language sql immutable security invoker parallel safe
set search_path = pg_catalog, pg_temp
as $function$
  select $code$
  insert into flywheel._span_deltas
  select flywheel._minute(span.started_at), span.project, span.environment, span.release, span.node, span.node_kind, span.parent_span_id is null,
         flywheel._attribute_1(span.attributes, span.model, span.provider), flywheel._attribute_2(span.attributes, span.model, span.provider),
         flywheel._attribute_3(span.attributes, span.model, span.provider), flywheel._latency_bin(span.latency_ms),
         1, (span.status = 'error')::integer, (span.status = 'running')::integer,
         coalesce(span.input_tokens, 0), coalesce(span.output_tokens, 0), (coalesce(span.input_tokens, span.output_tokens) is not null)::integer,
         coalesce(flywheel._summable(span.cost_usd), 0), (flywheel._summable(span.cost_usd) is not null)::integer,
         coalesce(span.latency_ms, 0), coalesce(span.latency_ms * span.latency_ms, 0), (span.latency_ms is not null)::integer
    from new_spans as span;
  if exists (select from flywheel._lost_spans) then
    insert into flywheel._span_changes
    select span.span_id, span.started_at, span.revision, 1, span.project, span.environment, span.release, span.node, span.node_kind, span.parent_span_id is null,
           flywheel._attribute_1(span.attributes, span.model, span.provider), flywheel._attribute_2(span.attributes, span.model, span.provider),
           flywheel._attribute_3(span.attributes, span.model, span.provider)
      from new_spans as span
      join flywheel._lost_spans as lost on (lost.span_id, lost.started_at) = (span.span_id, span.started_at);
  end if;$code$
$function$;
comment on function flywheel._count_sql is 'Internal: code that counts the spans of an insert for the next fold.';
