-- Answers of batches: every line is answered and paid once, every span ended once, with its score or its way back.

-- _answer_lines: a line is answered once, and paid for once; call_id beside what _end_calls() takes.
create or replace function flywheel._answer_lines(batch_id uuid, answers jsonb) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  ended jsonb;
begin
  with said as (
    select distinct on (call_id) (answer.value ->> 'call_id')::uuid as call_id, answer.value as answer
      from jsonb_array_elements(_answer_lines.answers) as answer order by call_id
  ), fresh as (
    update flywheel._batch_lines as lines set answer = said.answer - 'call_id'
      from said where lines.call_id = said.call_id and lines.batch_id = _answer_lines.batch_id and lines.answer is null
    returning lines.call_id, jsonb_build_object('rung', lines.rung, 'shots', to_jsonb(lines.shots)) || said.answer as call
  )
  select coalesce(jsonb_agg(fresh.call order by fresh.call_id), '[]') into ended from fresh;
  if jsonb_array_length(ended) > 0 then
    perform flywheel._end_calls(ended);
    update flywheel._batches as batches
       set answered = batches.answered + (select count(*) from jsonb_array_elements(ended) as call where call ->> 'http_status' is not null)
     where batches.batch_id = _answer_lines.batch_id;
  end if;
  return jsonb_array_length(ended);
end
$function$;
comment on function flywheel._answer_lines is 'Internal: note what came of lines and settle their calls; returns how many were new.';

-- _miss_lines: the batch has ended, and these lines with it.
create or replace function flywheel._miss_lines(batch_id uuid, detail text) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._answer_lines(_miss_lines.batch_id, (
    select coalesce(jsonb_agg(jsonb_build_object('call_id', lines.call_id, 'outcome', 'expired', 'detail', _miss_lines.detail)), '[]')
      from flywheel._batch_lines as lines where lines.batch_id = _miss_lines.batch_id and lines.answer is null))
$function$;
comment on function flywheel._miss_lines is 'Internal: end the lines of a batch that nothing came back for; returns how many.';

-- _answered_spans: a page of what a batch brought, span by span. trace_id is null where the span is gone.
create or replace function flywheel._answered_spans(batch_id uuid, most integer)
returns table (version_id uuid, span_id uuid, revision integer, started_at timestamptz, trace_id uuid, project text, attempt smallint,
               request_hash text, degraded text, answers jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select answered.version_id, answered.span_id, answered.revision, answered.started_at, span.trace_id, span.project, answered.attempt,
         answered.request_hash, answered.degraded, answered.answers
    from (
      select lines.version_id, lines.span_id, lines.revision, lines.started_at, max(lines.attempt) as attempt,
             (array_agg(lines.request_hash order by lines.vote))[1] as request_hash, max(lines.degraded) as degraded,
             jsonb_agg(lines.answer || jsonb_build_object('shots', lines.shots) order by lines.vote) as answers
        from flywheel._batch_lines as lines
       where lines.batch_id = _answered_spans.batch_id
       group by lines.version_id, lines.span_id, lines.revision, lines.started_at
       order by lines.version_id, lines.span_id
       limit _answered_spans.most) as answered
    left join flywheel.spans as span on (span.span_id, span.started_at) = (answered.span_id, answered.started_at)
$function$;
comment on function flywheel._answered_spans is 'Internal: up to so many spans of a batch with the answers of all their votes.';

-- _end_lines: the last act on lines: whoever takes them writes their scores, or queues their spans again. ends: version_id,
-- span_id, revision, and score (as for _write_judgements) or lane (batch, judge, dead) with reason and detail, or neither.
create or replace function flywheel._end_lines(
  worker_id uuid, batch_id uuid, ends jsonb, began_at timestamptz, out spans integer, out scores integer)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  ended jsonb;
begin
  lock table only flywheel.spans, only flywheel.spans_default in access share mode;  -- before scores, as everybody does
  with gone as (
    delete from flywheel._batch_lines as lines
     using jsonb_to_recordset(ends) as said(version_id uuid, span_id uuid, revision integer)
     where lines.batch_id = _end_lines.batch_id
       and (lines.version_id, lines.span_id, lines.revision) = (said.version_id, said.span_id, said.revision)
    returning lines.version_id, lines.span_id, lines.revision, lines.started_at, lines.attempt, lines.origin
  ), taken as (
    select distinct on (version_id, span_id, revision) * from gone order by version_id, span_id, revision
  )
  select coalesce(jsonb_agg(said.value || to_jsonb(taken)), '[]') into ended
    from taken
    join jsonb_array_elements(ends) as said
      on ((said.value ->> 'version_id')::uuid, (said.value ->> 'span_id')::uuid, (said.value ->> 'revision')::integer) = (taken.version_id, taken.span_id, taken.revision);
  spans := jsonb_array_length(ended);
  scores := flywheel._write_judgements((
    select coalesce(jsonb_agg(each -> 'score'), '[]') from jsonb_array_elements(ended) as each
     where jsonb_typeof(each -> 'score') = 'object'
       and exists (select from flywheel.spans as span where (span.span_id, span.started_at) = ((each ->> 'span_id')::uuid, (each ->> 'started_at')::timestamptz))));
  perform flywheel._put_back(back.version_id, array_agg(back.span_id), min(back.started_at), max(back.started_at), back.attempt, back.origin,
      back.lane, 0, back.reason, max(back.detail))
     from jsonb_to_recordset(ended) as back(version_id uuid, span_id uuid, started_at timestamptz, attempt smallint, origin text, lane text, reason text, detail text)
    where back.lane is not null
    group by back.version_id, back.attempt, back.origin, back.lane, back.reason;
  if spans > 0 then
    perform flywheel._log_run(_end_lines.worker_id, 'batch', spans, spans, scores, _end_lines.began_at, 'completed', null);
    perform flywheel._wake();
  end if;
end
$function$;
comment on function flywheel._end_lines is 'Internal: write the scores of spans of a batch or queue them again, and end their lines; returns the spans that were still in it, and new scores.';

-- _return_batch: nothing of it was judged, so nothing of it is paid; its spans are queued again. costs: whether it counts as a try.
create or replace function flywheel._return_batch(
  batch_id uuid, lane text, delay_seconds double precision, reason text, detail text, costs boolean default true)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  returned integer;
begin
  perform from flywheel._batches as batches where batches.batch_id = _return_batch.batch_id and batches.closed_at is null for update;
  if not found then
    return 0;
  end if;
  perform flywheel._release_calls(array(select lines.call_id from flywheel._batch_lines as lines where lines.batch_id = _return_batch.batch_id));
  with gone as (
    delete from flywheel._batch_lines as lines where lines.batch_id = _return_batch.batch_id
    returning lines.version_id, lines.span_id, lines.started_at, lines.attempt - (not _return_batch.costs)::integer as attempt, lines.origin
  ), back as (
    select gone.version_id, array_agg(distinct gone.span_id) as span_ids, min(gone.started_at) as started_from, max(gone.started_at) as started_until,
           gone.attempt::smallint as attempt, gone.origin
      from gone group by gone.version_id, gone.attempt, gone.origin
  )
  select coalesce(sum(cardinality(back.span_ids)), 0) into returned
    from back
   cross join lateral flywheel._put_back(back.version_id, back.span_ids, back.started_from, back.started_until, back.attempt, back.origin,
      _return_batch.lane, _return_batch.delay_seconds, _return_batch.reason, _return_batch.detail);
  update flywheel._batches as batches
     set status = 'failed', detail = left(_return_batch.detail, 2000), closed_at = clock_timestamp(), worker_id = null, next_poll_at = null
   where batches.batch_id = _return_batch.batch_id;
  perform flywheel._wake();
  return returned;
end
$function$;
comment on function flywheel._return_batch is 'Internal: close a batch of which nothing was judged and queue its spans again; returns how many.';

-- _close_batch: false = lines are left in it.
create or replace function flywheel._close_batch(batch_id uuid, status text, detail text) returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with closed as (
    update flywheel._batches as batches
       set status = _close_batch.status, detail = left(_close_batch.detail, 2000), closed_at = clock_timestamp(), worker_id = null, next_poll_at = null
     where batches.batch_id = _close_batch.batch_id and batches.closed_at is null
       and not exists (select from flywheel._batch_lines as lines where lines.batch_id = batches.batch_id)
    returning 1
  )
  select exists (select from closed)
$function$;
comment on function flywheel._close_batch is 'Internal: close a batch that is accounted for; returns whether it was open and empty.';

create or replace view flywheel.batch_status as
  select batches.batch_id, batches.provider, batches.model, batches.remote_id, batches.status, batches.lines, batches.answered, batches.detail,
         batches.submitted_at, batches.polled_at, batches.next_poll_at, batches.closed_at,
         (select coalesce(sum(reserved.usd), 0) from flywheel._batch_lines as lines
            join flywheel._reservations as reserved using (call_id) where lines.batch_id = batches.batch_id) as reserved_usd
    from flywheel._batches as batches;
comment on view flywheel.batch_status is 'Files of requests handed to batch endpoints, and how far they are.';
comment on column flywheel.batch_status.batch_id is 'Id of the batch; the endpoint has it in the metadata of its own.';
comment on column flywheel.batch_status.provider is 'The provider.';
comment on column flywheel.batch_status.model is 'The model asked for.';
comment on column flywheel.batch_status.remote_id is 'The endpoint''s id of it; null = not handed in.';
comment on column flywheel.batch_status.status is 'As the endpoint says; submitting = on its way there, failed = nothing of it was judged.';
comment on column flywheel.batch_status.lines is 'Requests in it.';
comment on column flywheel.batch_status.answered is 'Requests that came back with an answer or an error of their own.';
comment on column flywheel.batch_status.detail is 'What the endpoint said, where something went wrong.';
comment on column flywheel.batch_status.submitted_at is 'When it was made.';
comment on column flywheel.batch_status.polled_at is 'When the endpoint was last asked.';
comment on column flywheel.batch_status.next_poll_at is 'When it will be asked again; null = closed.';
comment on column flywheel.batch_status.closed_at is 'When everything in it was accounted for; null = open.';
comment on column flywheel.batch_status.reserved_usd is 'Dollars set aside for what has not come back; null prices count as 0.';

select flywheel._grant('flywheel_worker', 'execute on function ' || act.oid::regprocedure)
  from pg_catalog.pg_proc as act
 where act.pronamespace = 'flywheel'::regnamespace
   and act.proname in ('_answer_lines', '_miss_lines', '_answered_spans', '_end_lines', '_return_batch', '_close_batch');
select flywheel._grant(role, 'select on flywheel.batch_status') from unnest(array['flywheel_worker', 'flywheel_analyst', 'flywheel_admin']) as role;
