-- Queue: finish, retry, bury, split, reap; claims are in 31_claims.sql. Jobs live in one of four tables and history lives in run_log.
--
--   _ready --claim--> _running --finish--> (gone; scores are its history)
--                        |--retry / hold--> _later --due / resumed--> _ready
--                        |--bury--> _dead --replay--> _ready
--                        `--reap (lease over)--> _ready

-- _lane_runs: `queue pause` stops claims, not inserts.
create or replace function flywheel._lane_runs(lane text) returns boolean
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select not exists (select from flywheel._lanes where _lanes.lane = _lane_runs.lane and _lanes.paused_at is not null)
$function$;
comment on function flywheel._lane_runs is 'Internal: whether jobs of a lane may be claimed.';

-- _claim_calls: the judge lane makes one call a span, so a job is cut: as many spans as the worker has free hands
-- are claimed one by one, the rest goes back under the same id and keeps its place. Jobs of versions whose provider is
-- blocked, or whose budget is used up, stay where they are.
create or replace function flywheel._claim_calls(priority smallint, worker_id uuid, max_calls integer, after uuid default null)
returns table (fence uuid, job_id uuid, version_ids uuid[], span_count integer, attempt smallint, origin text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_sort = off set enable_bitmapscan = off set enable_seqscan = off
as $function$
declare
  free integer := _claim_calls.max_calls;
  held_back uuid[] := flywheel._held_versions();
  job flywheel._ready;
begin
  for job in
    select ready.* from flywheel._ready as ready
     where ready.lane = 'judge' and ready.priority = _claim_calls.priority
       and ready.job_id > coalesce(_claim_calls.after, '00000000-0000-0000-0000-000000000000')
       and flywheel._lane_runs('judge')
       and not ready.version_ids && held_back
     order by ready.lane, ready.priority, ready.job_id
     limit _claim_calls.max_calls
       for update skip locked
  loop
    exit when free <= 0;
    delete from flywheel._ready as ready
     where (ready.lane, ready.priority, ready.job_id) = (job.lane, job.priority, job.job_id);
    if cardinality(job.span_ids) > free then
      insert into flywheel._ready
      select job.lane, job.priority, job.job_id, job.version_ids, job.span_ids[free + 1:], job.started_from,
             job.started_until, job.attempt, job.origin;
    end if;
    return query
      insert into flywheel._running as running
             (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, fence, worker_id)
      select job.lane, job.priority, flywheel.new_id(), job.version_ids, array[called.span_id], job.started_from,
             job.started_until, job.attempt + 1, job.origin, gen_random_uuid(), _claim_calls.worker_id
        from unnest(job.span_ids[:free]) as called(span_id)
      returning running.fence, job.job_id, running.version_ids, 1,  -- the id it was cut from: a floor must not pass the rest
                running.attempt, running.origin;
    free := free - cardinality(job.span_ids);
  end loop;
end
$function$;
comment on function flywheel._claim_calls is
  'Claim up to max_calls spans of the judge lane for worker_id, one row and one fence each.';

-- _lock_fences: which claims still hold; the rows stay locked until the caller's transaction ends. It writes scores next and
-- may read spans after that: what drops or makes days takes spans first, and would wait for it for ever.
create or replace function flywheel._lock_fences(worker_id uuid, fences uuid[]) returns uuid[]
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  lock table only flywheel.spans, only flywheel.spans_default in access share mode;
  with held as (
    select running.fence from flywheel._running as running
     where running.fence = any (_lock_fences.fences) and running.worker_id = _lock_fences.worker_id
       for update
  )
  select coalesce(array_agg(held.fence), '{}') from held
$function$;
comment on function flywheel._lock_fences is 'Internal: the fences that are still the worker''s, locked.';

create or replace function flywheel._finish(worker_id uuid, fences uuid[]) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with finished as (
    delete from flywheel._running as running
     where running.fence = any (_finish.fences) and running.worker_id = _finish.worker_id
    returning 1
  )
  select count(*)::integer from finished
$function$;
comment on function flywheel._finish is 'Internal: end jobs whose fences still hold; returns how many did.';

-- _enqueue: cut spans into jobs of at most chunk_spans.
create or replace function flywheel._enqueue(
  lane text, priority smallint, version_ids uuid[], span_ids uuid[], started_from timestamptz, started_until timestamptz, origin text)
returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with size as materialized (select flywheel._setting('chunk_spans')::integer as spans), queued as (
    insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until, origin)
    select _enqueue.lane, _enqueue.priority, flywheel.new_id(), _enqueue.version_ids,
           _enqueue.span_ids[chunk.first : chunk.first + size.spans - 1], _enqueue.started_from, _enqueue.started_until, _enqueue.origin
      from size cross join lateral generate_series(1, cardinality(_enqueue.span_ids), size.spans) as chunk(first)
    returning 1
  )
  select count(*)::integer from queued
$function$;
comment on function flywheel._enqueue is 'Internal: queue spans for versions in jobs of at most settings.chunk_spans; returns the number of jobs.';

-- _wake: an empty hint, sent only if an idle worker has registered (it holds advisory lock 1) and only by the
-- writer that gets lock 2: NOTIFY in every commit would put all commits of the server in one line.
create or replace function flywheel._wake() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  install integer := 'flywheel'::regnamespace::oid::integer;
begin
  if pg_try_advisory_lock_shared(install, 1) then
    perform pg_advisory_unlock_shared(install, 1);
  elsif pg_try_advisory_xact_lock(install, 2) then
    notify flywheel_wake;
  end if;
end
$function$;
comment on function flywheel._wake is 'Internal: tell idle workers that there is work once this transaction commits.';

-- _split: cut a failing job in two (first by validator version, then by halves of its spans) to find what fails.
create or replace function flywheel._split(worker_id uuid, whole_fence uuid)
returns table (fence uuid, job_id uuid, version_ids uuid[], span_count integer, attempt smallint, origin text)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with whole as (
    delete from flywheel._running as running
     where running.fence = _split.whole_fence and running.worker_id = _split.worker_id
    returning running.*
  ), parts as (
    select array[version_id] as version_ids, whole.span_ids
      from whole cross join unnest(whole.version_ids) as version_id
     where cardinality(whole.version_ids) > 1
    union all
    select whole.version_ids, half.span_ids
      from whole
     cross join lateral (values
       (whole.span_ids[: (cardinality(whole.span_ids) + 1) / 2]),
       (whole.span_ids[(cardinality(whole.span_ids) + 1) / 2 + 1 :])) as half(span_ids)
     where cardinality(whole.version_ids) = 1 and cardinality(half.span_ids) > 0
  )
  insert into flywheel._running as running
         (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, fence, worker_id)
  select whole.lane, whole.priority, flywheel.new_id(), parts.version_ids, parts.span_ids, whole.started_from,
         whole.started_until, whole.attempt, whole.origin, gen_random_uuid(), _split.worker_id
    from whole cross join parts
  returning running.fence, running.job_id, running.version_ids,
            cardinality(running.span_ids), running.attempt, running.origin
$function$;
comment on function flywheel._split(uuid, uuid) is 'Internal: replace a running job by one for each version, or by its halves; new fences, same worker.';

-- _bury: a job given up keeps its spans, so replay_dead() can queue it again.
create or replace function flywheel._bury(worker_id uuid, fences uuid[], reason text, detail text) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with failed as (
    delete from flywheel._running as running
     where running.fence = any (_bury.fences) and running.worker_id = _bury.worker_id
    returning running.*
  ), buried as (
    insert into flywheel._dead (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, reason, detail)
    select lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, _bury.reason, _bury.detail
      from failed
    returning 1
  )
  select count(*)::integer from buried
$function$;
comment on function flywheel._bury is 'Internal: give up running jobs with a reason; returns how many.';

-- _put_off_until: who was refused by a budget that was changed since the claim asks again at once: nobody would wake it.
create or replace function flywheel._put_off_until(claimed_at timestamptz, delay_seconds double precision, reason text) returns timestamptz
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select clock_timestamp() + make_interval(secs => case when _put_off_until.reason = 'over_budget' and exists (
           select from flywheel._budget_changes as budgets where budgets.changed_at > _put_off_until.claimed_at) then 0 else _put_off_until.delay_seconds end)
$function$;
comment on function flywheel._put_off_until is 'Internal: until when a claim is put off for a reason.';

-- _retry: later, or dead once max_attempts claims were used. `costs` false gives the attempt back (rate limits).
create or replace function flywheel._retry(
  worker_id uuid, fences uuid[], delay_seconds double precision, reason text, detail text, costs boolean default true)
returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select from flywheel._budget_changes where _retry.reason = 'over_budget' for share;  -- who changes one finds these jobs
  with failed as (
    delete from flywheel._running as running
     where running.fence = any (_retry.fences) and running.worker_id = _retry.worker_id
    returning running.*, running.attempt - (not _retry.costs)::integer as used
  ), buried as (
    insert into flywheel._dead (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, reason, detail)
    select lane, priority, job_id, version_ids, span_ids, started_from, started_until, used, origin, _retry.reason, _retry.detail
      from failed where used >= flywheel._setting('max_attempts')
  ), delayed as (
    insert into flywheel._later (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, run_at, reason, detail)
    select lane, priority, job_id, version_ids, span_ids, started_from, started_until, used, origin,
           flywheel._put_off_until(failed.claimed_at, _retry.delay_seconds, _retry.reason), _retry.reason, _retry.detail
      from failed where used < flywheel._setting('max_attempts')
  )
  select count(*)::integer from failed
$function$;
comment on function flywheel._retry is 'Internal: put running jobs off by delay_seconds; dead after settings.max_attempts claims.';

-- _retry_each: many at once, each for its own time and reason, as _retry puts one off.
create or replace function flywheel._retry_each(
  worker_id uuid, fences uuid[], delays double precision[], reasons text[], details text[], costs boolean[])
returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select from flywheel._budget_changes where 'over_budget' = any (_retry_each.reasons) for share;
  with wanted as materialized (
    select given.* from unnest(_retry_each.fences, _retry_each.delays, _retry_each.reasons, _retry_each.details, _retry_each.costs)
        as given(fence, delay_seconds, reason, detail, costs)
  ), failed as (
    delete from flywheel._running as running using wanted
     where running.fence = wanted.fence and running.worker_id = _retry_each.worker_id
    returning running.*, running.attempt - (not wanted.costs)::integer as used, wanted.delay_seconds, wanted.reason, wanted.detail
  ), buried as (
    insert into flywheel._dead (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, reason, detail)
    select lane, priority, job_id, version_ids, span_ids, started_from, started_until, used, origin, reason, detail
      from failed where used >= flywheel._setting('max_attempts')
  ), delayed as (
    insert into flywheel._later (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, run_at, reason, detail)
    select lane, priority, job_id, version_ids, span_ids, started_from, started_until, used, origin,
           flywheel._put_off_until(failed.claimed_at, delay_seconds, reason), reason, detail
      from failed where used < flywheel._setting('max_attempts')
  )
  select count(*)::integer from failed
$function$;
comment on function flywheel._retry_each is 'Internal: put running jobs off, each by its own delay; dead after settings.max_attempts claims. Returns how many still were the worker''s.';

-- _hold: jobs of a paused validator wait at infinity; resuming it brings them back. Its version is locked first: who
-- resumes it meanwhile either finds these jobs held, or is seen here, and the jobs are due at once.
create or replace function flywheel._hold(worker_id uuid, fences uuid[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  moved integer;
begin
  perform from flywheel.validator_versions as versions
    where versions.version_id in (select unnest(running.version_ids) from flywheel._running as running where running.fence = any (_hold.fences))
    order by versions.version_id
      for share;
  with held as (
    delete from flywheel._running as running
     where running.fence = any (_hold.fences) and running.worker_id = _hold.worker_id
    returning running.*
  )
  insert into flywheel._later (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, run_at, reason)
  select held.lane, held.priority, held.job_id, held.version_ids, held.span_ids, held.started_from, held.started_until, held.attempt - 1, held.origin,
         case when exists (select from flywheel.validator_versions as versions where versions.version_id = any (held.version_ids) and versions.status <> 'paused')
              then now() else 'infinity'::timestamptz end, 'paused'
    from held;
  get diagnostics moved = row_count;
  return moved;
end
$function$;
comment on function flywheel._hold is 'Internal: hold running jobs until their validator resumes; costs no attempt.';

-- _promote_later: due jobs become ready under a new id, so that no worker's floor hides them.
create or replace function flywheel._promote_later(max_jobs integer default 1000) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with due as materialized (
    select later.job_id from flywheel._later as later
     where later.run_at <= now() order by later.run_at limit max_jobs for update skip locked
  ), taken as (
    delete from flywheel._later as later using due where later.job_id = due.job_id returning later.*
  ), promoted as (
    insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin)
    select lane, priority, flywheel.new_id(), version_ids, span_ids, started_from, started_until, attempt, origin from taken
    returning 1
  )
  select count(*)::integer from promoted
$function$;
comment on function flywheel._promote_later is 'Internal: make due jobs ready; returns how many.';

-- _resume_held: a job held for several versions comes back when any of them runs again.
create or replace function flywheel._resume_held(version_id uuid) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with resumed as (
    update flywheel._later as later set run_at = now()
     where later.run_at = 'infinity' and later.version_ids @> array[_resume_held.version_id]
    returning 1
  )
  select count(*)::integer from resumed
$function$;
comment on function flywheel._resume_held is 'Internal: make the jobs held for a version due; returns how many.';

create or replace function flywheel.replay_dead(job_id uuid default null) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  replayed bigint;
begin
  with taken as (
    delete from flywheel._dead as dead
     where dead.job_id = replay_dead.job_id or replay_dead.job_id is null
    returning dead.*
  )
  insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until, origin)
  select taken.lane, 1, flywheel.new_id(), taken.version_ids, taken.span_ids, taken.started_from, taken.started_until, 'replay' from taken;
  get diagnostics replayed = row_count;
  if replayed = 0 and replay_dead.job_id is not null then
    raise exception using errcode = 'WF007', message = format('there is no dead job %s', replay_dead.job_id),
      hint = 'List them: select * from flywheel.dead_jobs.';
  end if;
  perform flywheel._wake();
  return replayed;
end
$function$;
comment on function flywheel.replay_dead is 'Queue a dead job again, or all of them (null), with fresh attempts; returns how many.';

create or replace function flywheel._set_lane(lane text, reason text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  update flywheel._lanes set paused_reason = reason, paused_at = case when reason is not null then now() end
   where _lanes.lane = _set_lane.lane;
  if not found then
    raise exception using errcode = 'WF009', message = format('there is no lane %s', _set_lane.lane),
      hint = 'The lanes of the queue are bulk and judge.';
  end if;
end
$function$;
comment on function flywheel._set_lane is 'Internal: pause a lane with a reason, or let it run (null).';

create or replace function flywheel.pause_lane(lane text, reason text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._set_lane(lane, coalesce(nullif(reason, ''), 'no reason given'))
$function$;
comment on function flywheel.pause_lane is 'Stop workers from claiming jobs of a lane; new jobs keep being queued.';

create or replace function flywheel.resume_lane(lane text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._set_lane(lane, null);
  select flywheel._wake()
$function$;
comment on function flywheel.resume_lane is 'Let workers claim jobs of a paused lane again.';

select flywheel._grant('flywheel_worker', 'execute on function flywheel._retry_each(uuid, uuid[], double precision[], text[], text[], boolean[])');
