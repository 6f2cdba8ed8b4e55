-- Judgements: what a judge reads of a span, and the act that ends it: score, job and money in one statement.

-- _parent_steps: the steps that led to a span, the first one first. A step may have begun before its parent was written.
create or replace function flywheel._parent_steps(trace_id uuid, parent_span_id uuid, started_at timestamptz) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with recursive steps as (
    select span.parent_span_id, span.node, span.node_kind, span.input, span.output, 1 as depth
      from flywheel.spans as span
     where span.span_id = _parent_steps.parent_span_id and span.trace_id = _parent_steps.trace_id
       and span.started_at between _parent_steps.started_at - interval '1 day' and _parent_steps.started_at + interval '1 day'
    union all
    select span.parent_span_id, span.node, span.node_kind, span.input, span.output, steps.depth + 1
      from steps
      join flywheel.spans as span
        on span.span_id = steps.parent_span_id and span.trace_id = _parent_steps.trace_id
       and span.started_at between _parent_steps.started_at - interval '1 day' and _parent_steps.started_at + interval '1 day'
     where steps.depth < 20                     -- also where parents form a ring
  )
  select coalesce(jsonb_agg(jsonb_build_object('node', node, 'node_kind', node_kind, 'input', input, 'output', output) order by depth desc), '[]')
    from steps
$function$;
comment on function flywheel._parent_steps is 'Internal: node, input and output of a span''s parents, up to 20, the outermost first.';

-- _session_turns: what was said before in the same conversation.
create or replace function flywheel._session_turns(span flywheel.spans, most integer) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(jsonb_agg(jsonb_build_object('input', turn.input, 'output', turn.output) order by turn.started_at), '[]')
    from (
      select earlier.input, earlier.output, earlier.started_at
        from flywheel.spans as earlier
       where earlier.session_id = span.session_id and earlier.started_at < span.started_at
         and earlier.project = span.project and earlier.parent_span_id is null and earlier.trace_id <> span.trace_id
       order by earlier.started_at desc
       limit most) as turn
$function$;
comment on function flywheel._session_turns is 'Internal: input and output of the last turns of a session before a span, the earliest first.';

-- _judgement_sql: what is read of each span. Nothing is read that was judged meanwhile: a call for it would be money lost.
-- sampled: whether the span stays when a budget makes the judge's sample smaller; a smaller share of the same traces.
-- exemplified: whether there may be an example to show, so that nothing is embedded for nothing.
create or replace function flywheel._judgement_sql(name text, version flywheel.validator_versions) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$
    select running.fence, span.span_id, span.revision, span.started_at, span.trace_id, span.project, span.node,
           span.input, span.output, span.messages, %1$s, %2$s, %3$s, coalesce(%4$s, true), %7$s
      from flywheel._running as running
      join flywheel.spans as span
        on span.span_id = running.span_ids[1] and span.started_at between running.started_from and running.started_until
     where running.fence = any ($1) and span.span_id = any ($2) and span.started_at between $3 and $4
       and not exists (select from flywheel.scores
             where (scores.span_id, scores.revision, scores.version_id, scores.started_at) = (span.span_id, span.revision, %5$L, span.started_at))
       and %6$s$code$,
    case when coalesce(asked.definition #>> '{context,documents}' = 'true', asked.definition ->> 'target' = 'span') then 'span.documents' else 'null::jsonb' end,
    case when asked.definition #>> '{context,parents}' = 'true'
         then 'flywheel._parent_steps(span.trace_id, span.parent_span_id, span.started_at)' else '''[]''::jsonb' end,
    case when (asked.definition #>> '{context,session}')::numeric > 0
         then format('flywheel._session_turns(row(span.*)::flywheel.spans, %s)', (asked.definition #>> '{context,session}')::integer) else '''[]''::jsonb' end,
    coalesce(flywheel._sample_sql(name, (asked.definition #>> '{degrade,sample}')::double precision * coalesce((asked.definition ->> 'sample')::double precision, 1)), 'true'),
    version.version_id, flywheel._eligible_sql(name, asked.definition, false),  -- whoever queued it sampled; labelled spans are judged all
    case when asked.definition #>> '{shots,shot_set}' is not null then 'true' else
      format('exists (select from flywheel.examples where examples.validator_id = %L and examples.status = ''servable'')', flywheel._question_of(version)) end)
    from (select version.definition) as asked
$function$;
comment on function flywheel._judgement_sql is 'Internal: the query that reads spans for a judge ($1 fences, $2 ids, $3 and $4 bounds).';

-- _read_judgements: like _read_calls, with what surrounds a span where the definition asks for it.
create or replace function flywheel._read_judgements(fences uuid[], version_id uuid)
returns table (
  fence uuid, span_id uuid, revision integer, started_at timestamptz, trace_id uuid, project text, node text,
  input text, output text, messages jsonb, documents jsonb, parents jsonb, session jsonb, sampled boolean, exemplified boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  work record;
  code text;
begin
  select flywheel._judgement_sql(validators.name, versions) into code
    from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
   where versions.version_id = _read_judgements.version_id;
  select * into work from flywheel._running_spans(_read_judgements.fences);
  perform flywheel._require_readable(work.span_ids, work.started_from, work.started_until, array['input', 'output']);
  return query execute code using _read_judgements.fences, work.span_ids, work.started_from, work.started_until;
end
$function$;
comment on function flywheel._read_judgements is
  'Internal: the spans of claimed calls that a judge version means and has not judged, with parents, documents and session where its context says so.';

-- _write_judgements: a score that is there already stays. What was said with an example that was revoked meanwhile is
-- not written: the span is asked about again, with others. So nobody revokes one between the look at it and the commit: who comes
-- to do so finds the score.
create or replace function flywheel._write_judgements(judgements jsonb) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select from flywheel.examples
   where example_id in (select shot.id::uuid from jsonb_array_elements(judgements) as said
                         cross join lateral jsonb_array_elements_text(case jsonb_typeof(said -> 'shots') when 'array' then said -> 'shots' else '[]' end) as shot(id))
   order by example_id for key share;
  with all_said as materialized (
    select said.*, exists (select from flywheel.examples where example_id = any (said.shots) and status = 'revoked') as misled
      from jsonb_to_recordset(judgements) as said(
             span_id uuid, revision integer, version_id uuid, started_at timestamptz, trace_id uuid, project text, passed boolean,
             value double precision, critique text, reason text, detail text, confidence double precision, latency_ms double precision,
             input_tokens integer, cached_tokens integer, output_tokens integer, cost_usd double precision, votes smallint, shots uuid[],
             request_hash text, degraded text)
  ), asked_again as (
    select flywheel._enqueue('judge', 1::smallint, array[version_id], array_agg(span_id), min(started_at), max(started_at), 'replay') as jobs
      from all_said where misled group by version_id
  ), written as (
    insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique, unscored_reason, unscored_detail,
             annotator_kind, confidence, latency_ms, input_tokens, cached_tokens, output_tokens, cost_usd, votes, shots, request_hash, degraded)
    select said.span_id, said.revision, said.version_id, said.started_at, said.trace_id, said.project, said.passed, said.value, said.critique,
           said.reason, said.detail, 'judge', said.confidence, said.latency_ms, said.input_tokens, said.cached_tokens, said.output_tokens,
           said.cost_usd, said.votes, said.shots, said.request_hash, said.degraded
      from all_said as said
     where not said.misled
        on conflict do nothing
    returning scores.version_id, scores.span_id, scores.revision, scores.started_at, scores.confidence
  )
  select (coalesce(sum(by_version.scores), 0) + 0 * (select count(asked_again.jobs) from asked_again))::integer  -- both are to be run
    from (select count(*) as scores, flywheel._hand_on(version_id, array_agg(span_id), array_agg(revision), array_agg(started_at), array_agg(confidence))
            from written group by version_id) as by_version
$function$;
comment on function flywheel._write_judgements is 'Internal: write what a judge said of some spans, and hand on what it is not sure of; returns how many scores were new.';

-- _end_judgements: the last act on claimed spans. A claim that was lost writes no score; what was paid for is settled
-- all the same. Scores come before calls, as everybody locks them.
create or replace function flywheel._end_judgements(
  worker_id uuid, fences uuid[], judgements jsonb, calls jsonb, started_at timestamptz, out jobs integer, out scores integer)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  held uuid[] := '{}';
begin
  if cardinality(_end_judgements.fences) > 0 then
    held := flywheel._lock_fences(_end_judgements.worker_id, _end_judgements.fences);
  end if;
  jobs := cardinality(held);
  scores := 0;
  if jobs > 0 then
    scores := flywheel._write_judgements((select coalesce(jsonb_agg(said), '[]') from jsonb_array_elements(_end_judgements.judgements) as said
                                           where (said ->> 'fence')::uuid = any (held)));
    perform flywheel._finish(_end_judgements.worker_id, held);
    perform flywheel._log_run(_end_judgements.worker_id, 'judge', jobs, jobs, scores, _end_judgements.started_at, 'completed', null);
  end if;
  if jsonb_array_length(_end_judgements.calls) > 0 then
    perform flywheel._end_calls(_end_judgements.calls);
  end if;
end
$function$;
comment on function flywheel._end_judgements is
  'Internal: write the scores of claims that still hold, end these, log the run and settle calls, or none of it; returns the jobs ended and the scores written.';

select flywheel._grant('flywheel_worker', 'execute on function ' || act.oid::regprocedure)
  from pg_catalog.pg_proc as act
 where act.pronamespace = 'flywheel'::regnamespace
   and act.proname in ('_read_judgements', '_write_judgements', '_end_judgements');
select flywheel._grant('flywheel_worker', 'select on flywheel.embedders');
