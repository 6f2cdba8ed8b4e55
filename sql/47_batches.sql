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
-- still claimed), twice (another batch has the span: its claim is ended), released, wait, over_budget or void. Who enters lines has the
-- provider, so that of two claims of one span the second finds the lines of the first; a batch that was returned takes none.
create or replace function flywheel._begin_lines(worker_id uuid, batch_id uuid, provider text, model text, calls jsonb)
returns table (call_id uuid, decision text, wait_seconds double precision, detail text, reply jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  held uuid[] := flywheel._lock_fences(_begin_lines.worker_id, array(select distinct (call ->> 'fence')::uuid from jsonb_array_elements(_begin_lines.calls) as call));
  twice uuid[];
  known jsonb;
  entered uuid[];
begin
  perform from flywheel._batches as batches where batches.batch_id = _begin_lines.batch_id for key share;
  perform from flywheel._provider_states as state where state.provider = _begin_lines.provider for no key update;
  twice := flywheel._lines_there(_begin_lines.calls);
  select coalesce(jsonb_agg(to_jsonb(begun) || jsonb_build_object('fence', call.value ->> 'fence')), '[]') into known
    from flywheel._begin_calls(_begin_lines.worker_id,
           (select coalesce(jsonb_agg(each), '[]') from jsonb_array_elements(_begin_lines.calls) as each where (each ->> 'fence')::uuid <> all (twice))) as begun
    join jsonb_array_elements(_begin_lines.calls) as call on (call.value ->> 'call_id')::uuid = begun.call_id;
  entered := array(select said.fence from jsonb_to_recordset(known) as said(fence uuid, decision text)
                    where said.fence = any (held)
                      and not exists (select from flywheel._batches as batches where batches.batch_id = _begin_lines.batch_id and batches.closed_at is not null)
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

select flywheel._grant('flywheel_worker', 'execute on function ' || act.oid::regprocedure)
  from pg_catalog.pg_proc as act
 where act.pronamespace = 'flywheel'::regnamespace
   and act.proname in ('_claim_lines', '_begin_lines', '_seal_batch', '_batch_submitted', '_take_batches', '_leave_batch', '_ask_at_once');
select flywheel._grant('flywheel_worker', 'select on flywheel._batches');
