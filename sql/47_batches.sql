-- Batches: spans of lane batch go to an endpoint as lines of a file, and come back hours later at a lower price.
--
--   _ready (lane batch) --claim--> _running --_begin_lines--> _batch_lines --_answer_lines--> answered --_end_lines--> scores
--                                                                  |                             `--> _ready, _dead
--                                                                  `--_return_batch (never handed in, or failed)--> _ready, _later, _dead
--
-- A line stands for its span from before the file is handed in: whatever becomes of the worker, the batch is found at
-- the endpoint by its id, or its lines go back.

-- _claim_lines: like _claim, but one row and one fence a span, as in lane judge: a span leaves for the file by itself. Jobs
-- are taken whole, until max_spans are there: those that were put off have one span each.
create or replace function flywheel._claim_lines(priority smallint, worker_id uuid, max_spans integer, after uuid default null)
returns table (fence uuid, job_id uuid, version_ids uuid[], span_count integer, attempt smallint, origin text)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with held as materialized (
    select flywheel._held_versions() as version_ids
  ), runnable as materialized (
    select ready.lane, ready.priority, ready.job_id, cardinality(ready.span_ids) as spans
      from flywheel._ready as ready
     where ready.lane = 'batch' and ready.priority = _claim_lines.priority
       and ready.job_id > coalesce(_claim_lines.after, '00000000-0000-0000-0000-000000000000')
       and flywheel._lane_runs('batch') and not ready.version_ids && (select held.version_ids from held)
     order by ready.lane, ready.priority, ready.job_id
     limit _claim_lines.max_spans
       for update skip locked
  ), counted as (
    select runnable.*, sum(runnable.spans) over (order by runnable.job_id) - runnable.spans as before from runnable
  ), taken as (
    delete from flywheel._ready as ready
     using counted
     where (ready.lane, ready.priority, ready.job_id) = (counted.lane, counted.priority, counted.job_id) and counted.before < _claim_lines.max_spans
    returning ready.*
  )
  insert into flywheel._running as running
         (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, fence, worker_id)
  select taken.lane, taken.priority, flywheel.new_id(), taken.version_ids, array[line.span_id], taken.started_from,
         taken.started_until, taken.attempt + 1, taken.origin, gen_random_uuid(), _claim_lines.worker_id
    from taken cross join unnest(taken.span_ids) as line(span_id)
  returning running.fence, running.job_id, running.version_ids, 1, running.attempt, running.origin
$function$;
comment on function flywheel._claim_lines is 'Internal: claim jobs of lane batch with about max_spans spans for worker_id, one row and one fence for each span.';

-- _put_back: spans go to the queue again; what a batch did not bring in two tries the judge lane asks at once, and what
-- had all its attempts is dead.
create or replace function flywheel._put_back(
  version_id uuid, span_ids uuid[], started_from timestamptz, started_until timestamptz, attempt smallint, origin text,
  lane text, delay_seconds double precision, reason text, detail text)
returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with job as materialized (
    select case when _put_back.lane = 'batch' and _put_back.attempt >= 2 then 'judge' when _put_back.lane = 'judge' then 'judge' else 'batch' end as lane,
           _put_back.lane = 'dead' or _put_back.attempt >= flywheel._setting('max_attempts') as given_up,
           flywheel.new_id() as job_id, part.span_ids
      from (select flywheel._setting('chunk_spans')::integer as spans) as size
     cross join lateral generate_series(1, cardinality(_put_back.span_ids), size.spans) as chunk(first)
     cross join lateral (select _put_back.span_ids[chunk.first : chunk.first + size.spans - 1] as span_ids) as part
  ), buried as (
    insert into flywheel._dead (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, reason, detail)
    select job.lane, 2, job.job_id, array[_put_back.version_id], job.span_ids, _put_back.started_from, _put_back.started_until,
           _put_back.attempt, _put_back.origin, _put_back.reason, left(_put_back.detail, 2000)
      from job where job.given_up
  ), delayed as (
    insert into flywheel._later (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, run_at, reason, detail)
    select job.lane, 2, job.job_id, array[_put_back.version_id], job.span_ids, _put_back.started_from, _put_back.started_until,
           _put_back.attempt, _put_back.origin, clock_timestamp() + make_interval(secs => _put_back.delay_seconds), _put_back.reason, left(_put_back.detail, 2000)
      from job where not job.given_up and _put_back.delay_seconds > 0
  )
  insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin)
  select job.lane, 2, job.job_id, array[_put_back.version_id], job.span_ids, _put_back.started_from, _put_back.started_until,
         _put_back.attempt, _put_back.origin
    from job where not job.given_up and _put_back.delay_seconds <= 0
$function$;
comment on function flywheel._put_back is 'Internal: queue spans of a batch again in a lane (batch, judge or dead), at once or after delay_seconds.';

-- _release_calls: calls that were never sent leave no row of calls, and their money goes back.
create or replace function flywheel._release_calls(call_ids uuid[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  held uuid[];
begin
  held := array(select reserved.call_id from flywheel._reservations as reserved
                 where reserved.call_id = any (_release_calls.call_ids) order by reserved.call_id for update);
  perform flywheel._settle_budgets(held, array_fill(0::double precision, array[cardinality(held)]));
  delete from flywheel._reservations as reserved where reserved.call_id = any (held);
  return cardinality(held);
end
$function$;
comment on function flywheel._release_calls is 'Internal: give back what calls had set aside that were never sent; returns how many.';

-- _lines_there: claims whose span has a line already, as after a second backfill of the same time: one answer is enough.
create or replace function flywheel._lines_there(calls jsonb) returns uuid[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(array_agg(distinct said.fence), '{}')
    from jsonb_to_recordset(calls) as said(fence uuid, version_id uuid, span_id uuid, revision integer)
   where exists (select from flywheel._batch_lines as lines
                  where (lines.version_id, lines.span_id, lines.revision) = (said.version_id, said.span_id, said.revision))
$function$;
comment on function flywheel._lines_there is 'Internal: the fences of calls whose span is in a batch already.';

-- _enter_lines: what enters a batch; a vote whose answer is known is kept beside those that are asked.
create or replace function flywheel._enter_lines(batch_id uuid, calls jsonb, known jsonb, fences uuid[]) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with entered as (
    insert into flywheel._batch_lines (call_id, batch_id, version_id, span_id, revision, started_at, vote, attempt, origin, request_hash, rung, shots, model,
             degraded, answer)
    select said.call_id, _enter_lines.batch_id, said.version_id, said.span_id, said.revision, said.started_at, said.vote, running.attempt, running.origin,
           said.request_hash, said.rung, said.shots, said.model, said.degraded,
           case begun.decision when 'cached' then jsonb_build_object('outcome', 'answered', 'reply', begun.reply, 'cost_usd', 0,
             'input_tokens', 0, 'cached_tokens', 0, 'output_tokens', 0) end
      from jsonb_to_recordset(calls) as said(call_id uuid, fence uuid, version_id uuid, span_id uuid, revision integer, started_at timestamptz,
             vote smallint, request_hash text, rung text, shots uuid[], model text, degraded text)
      join jsonb_to_recordset(known) as begun(call_id uuid, decision text, reply jsonb) using (call_id)
      join flywheel._running as running using (fence)
     where said.fence = any (fences)
    returning 1
  )
  select count(*)::integer from entered
$function$;
comment on function flywheel._enter_lines is 'Internal: make lines of the calls of some claims; returns how many.';

-- _begin_lines: spans leave their claims for a batch, with the money of all their votes set aside, or they do not.
-- decision: line (to be written into the file), kept (a vote that is known), cached (all votes of the span are known: it is
-- still claimed), twice (another batch has the span: its claim is ended), released, wait, over_budget or void.
create or replace function flywheel._begin_lines(worker_id uuid, batch_id uuid, provider text, model text, calls jsonb)
returns table (call_id uuid, decision text, wait_seconds double precision, detail text, reply jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  held uuid[] := flywheel._lock_fences(_begin_lines.worker_id, array(select distinct (call ->> 'fence')::uuid from jsonb_array_elements(_begin_lines.calls) as call));
  twice uuid[] := flywheel._lines_there(_begin_lines.calls);
  known jsonb;
  entered uuid[];
begin
  select coalesce(jsonb_agg(to_jsonb(begun) || jsonb_build_object('fence', call.value ->> 'fence')), '[]') into known
    from flywheel._begin_calls(_begin_lines.worker_id,
           (select coalesce(jsonb_agg(each), '[]') from jsonb_array_elements(_begin_lines.calls) as each where (each ->> 'fence')::uuid <> all (twice))) as begun
    join jsonb_array_elements(_begin_lines.calls) as call on (call.value ->> 'call_id')::uuid = begun.call_id;
  entered := array(select said.fence from jsonb_to_recordset(known) as said(fence uuid, decision text)
                    where said.fence = any (held)
                    group by said.fence having bool_and(said.decision in ('go', 'cached')) and bool_or(said.decision = 'go'));
  if cardinality(entered) > 0 then
    insert into flywheel._batches (batch_id, provider, model, worker_id, next_poll_at)
    values (_begin_lines.batch_id, _begin_lines.provider, _begin_lines.model, _begin_lines.worker_id, now()) on conflict do nothing;
    perform flywheel._enter_lines(_begin_lines.batch_id, _begin_lines.calls, known, entered);
  end if;
  perform flywheel._release_calls(array(select said.call_id from jsonb_to_recordset(known) as said(call_id uuid, fence uuid, decision text)
                                         where said.decision = 'go' and said.fence <> all (entered)));
  perform flywheel._finish(_begin_lines.worker_id, entered || twice);
  return query
    select said.call_id,
           case when said.fence = any (twice) then 'twice'
                when said.fence = any (entered) then case begun.decision when 'go' then 'line' else 'kept' end
                when begun.decision = 'go' then 'released' else begun.decision end,
           begun.wait_seconds, begun.detail, begun.reply
      from jsonb_to_recordset(_begin_lines.calls) as said(call_id uuid, fence uuid)
      left join jsonb_to_recordset(known) as begun(call_id uuid, decision text, wait_seconds double precision, detail text, reply jsonb)
        on begun.call_id = said.call_id;
end
$function$;
comment on function flywheel._begin_lines is
  'Internal: let claimed spans leave for a batch with their money set aside, or say why not: line, kept, cached, twice, released, wait, over_budget or void.';

-- _seal_batch: from here on the file may be at the endpoint.
create or replace function flywheel._seal_batch(batch_id uuid) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  update flywheel._batches as batches
     set lines = (select count(*) from flywheel._batch_lines as lines where lines.batch_id = batches.batch_id and lines.answer is null)
   where batches.batch_id = _seal_batch.batch_id and batches.closed_at is null
  returning batches.lines
$function$;
comment on function flywheel._seal_batch is 'Internal: count the lines of a batch before it is handed in; null = it was closed.';

-- _poll_seconds: a tenth of a batch's age, so that a quick answer is seen quickly and a slow one costs few questions.
create or replace function flywheel._poll_seconds(submitted_at timestamptz) returns double precision
language sql volatile security invoker parallel safe
begin atomic
  select least(300, greatest(1, extract(epoch from clock_timestamp() - submitted_at) / 10))::double precision;
end;
comment on function flywheel._poll_seconds is 'Internal: seconds until a batch is asked for again.';

-- _batch_submitted: false = the batch was given up meanwhile, and what the endpoint has is to be cancelled.
create or replace function flywheel._batch_submitted(batch_id uuid, remote_id text) returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with submitted as (
    update flywheel._batches as batches
       set remote_id = _batch_submitted.remote_id, status = 'validating', worker_id = null,
           next_poll_at = clock_timestamp() + make_interval(secs => flywheel._poll_seconds(batches.submitted_at))
     where batches.batch_id = _batch_submitted.batch_id and batches.closed_at is null
       and coalesce(batches.remote_id, _batch_submitted.remote_id) = _batch_submitted.remote_id
    returning 1
  )
  select exists (select from submitted)
$function$;
comment on function flywheel._batch_submitted is 'Internal: note under which id the endpoint has a batch; returns whether the batch still waits for it.';

-- _take_batches: batches to ask the endpoint for. A batch another live worker hands in or reads is left to it.
create or replace function flywheel._take_batches(worker_id uuid, in_hand uuid[], most integer default 8)
returns table (batch_id uuid, provider text, model text, remote_id text, lines integer, age_seconds double precision)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with due as materialized (
    select batches.batch_id
      from flywheel._batches as batches
     where batches.closed_at is null and batches.next_poll_at <= clock_timestamp() and batches.batch_id <> all (_take_batches.in_hand)
       and (batches.worker_id is null or batches.worker_id = _take_batches.worker_id
            or not exists (select from flywheel._workers as workers where workers.worker_id = batches.worker_id and workers.leased_until > clock_timestamp()))
     order by batches.next_poll_at
     limit _take_batches.most
       for update skip locked
  )
  update flywheel._batches as batches
     set worker_id = _take_batches.worker_id, polled_at = clock_timestamp(),
         next_poll_at = clock_timestamp() + make_interval(secs => flywheel._poll_seconds(batches.submitted_at))
    from due where batches.batch_id = due.batch_id
  returning batches.batch_id, batches.provider, batches.model, batches.remote_id, batches.lines,
            extract(epoch from clock_timestamp() - batches.submitted_at)::double precision
$function$;
comment on function flywheel._take_batches is 'Internal: batches that are due to be asked for, which are the worker''s until it leaves them; in_hand are those it has already.';

-- _leave_batch: nothing to read yet, or the endpoint did not answer.
create or replace function flywheel._leave_batch(batch_id uuid, status text, detail text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  update flywheel._batches as batches
     set status = coalesce(_leave_batch.status, batches.status), detail = left(_leave_batch.detail, 2000), worker_id = null
   where batches.batch_id = _leave_batch.batch_id and batches.closed_at is null
$function$;
comment on function flywheel._leave_batch is 'Internal: note the state of a batch (null = as it was) and leave it until it is due again.';

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

-- _ask_at_once: for a provider that turned out to have no batch endpoint.
create or replace function flywheel._ask_at_once(worker_id uuid, fences uuid[]) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with moved as (
    delete from flywheel._running as running
     where running.fence = any (_ask_at_once.fences) and running.worker_id = _ask_at_once.worker_id
    returning running.*
  ), queued as (
    insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin)
    select 'judge', moved.priority, moved.job_id, moved.version_ids, moved.span_ids, moved.started_from, moved.started_until, moved.attempt - 1, moved.origin
      from moved
    returning 1
  )
  select count(*)::integer from queued
$function$;
comment on function flywheel._ask_at_once is 'Internal: hand claims of lane batch to lane judge; returns how many.';

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
   and act.proname in ('_claim_lines', '_begin_lines', '_seal_batch', '_batch_submitted', '_take_batches', '_leave_batch', '_answer_lines', '_miss_lines',
                       '_answered_spans', '_end_lines', '_return_batch', '_close_batch', '_ask_at_once');
select flywheel._grant('flywheel_worker', 'select on flywheel._batches, flywheel.batch_status');
select flywheel._grant(role, 'select on flywheel.batch_status') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
