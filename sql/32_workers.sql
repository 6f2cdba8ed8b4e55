-- Workers: heartbeat, lease, reaping, and the log of what they did.

-- _heartbeat: the lease is the worker's, so renewing it is one small update however many jobs it holds.
-- Null: the lease ran out (the process was stopped); the worker must take a new id, its old jobs are no longer its own.
create or replace function flywheel._heartbeat(
  worker_id uuid, name text, lanes text[], lease_seconds double precision, listening boolean, in_hand integer, release text, first boolean)
returns timestamptz
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with renewed as (
    update flywheel._workers as workers
       set last_seen_at = clock_timestamp(), in_hand = _heartbeat.in_hand, listening = _heartbeat.listening,
           leased_until = clock_timestamp() + make_interval(secs => _heartbeat.lease_seconds)
     where workers.worker_id = _heartbeat.worker_id and workers.leased_until > clock_timestamp()
    returning workers.leased_until
  ), entered as (
    insert into flywheel._workers (worker_id, name, lanes, listening, in_hand, release, last_seen_at, leased_until)
    select _heartbeat.worker_id, _heartbeat.name, _heartbeat.lanes, _heartbeat.listening, _heartbeat.in_hand, _heartbeat.release,
           clock_timestamp(), clock_timestamp() + make_interval(secs => _heartbeat.lease_seconds)
     where _heartbeat.first
    returning leased_until
  )
  select leased_until from renewed union all select leased_until from entered
$function$;
comment on function flywheel._heartbeat is
  'Enter a worker (first) or renew its lease; returns until when its jobs are its own, null when the lease had run out.';

-- _give_back: jobs of a worker that is gone become ready again. After two claims a job of several versions is cut
-- by version, so that one that kills its worker does not take the others along. Rows locked by the transaction of a
-- worker that was stopped in the middle of it are left for the next time: nobody waits for that worker.
create or replace function flywheel._give_back(worker_ids uuid[]) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with unlocked as materialized (
    select running.fence from flywheel._running as running where running.worker_id = any (_give_back.worker_ids)
       for update skip locked
  ), lost as (
    delete from flywheel._running as running using unlocked where running.fence = unlocked.fence returning running.*
  ), parts as (
    select lost.*, part.ids
      from lost
     cross join lateral (
       select lost.version_ids as ids where lost.attempt < 2
       union all
       select array[version_id] from unnest(lost.version_ids) as version_id where lost.attempt >= 2) as part
  ), buried as (
    insert into flywheel._dead (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, reason, detail)
    select lane, priority, flywheel.new_id(), ids, span_ids, started_from, started_until, attempt, origin,
           'crashed', 'its worker ended without finishing it, at each attempt'
      from parts where attempt >= flywheel._setting('max_attempts')
  ), returned as (
    insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin)
    select lane, priority, flywheel.new_id(), ids, span_ids, started_from, started_until, attempt, origin
      from parts where attempt < flywheel._setting('max_attempts')
  )
  select count(*)::integer from lost
$function$;
comment on function flywheel._give_back is 'Internal: make the running jobs of workers ready again (dead after max_attempts); returns how many.';

-- _give_back_strays: a claim that committed while its connection broke, or a batch dropped with one. Five seconds
-- are left for claims whose answer is still on its way.
create or replace function flywheel._give_back_strays(worker_id uuid, in_hand uuid[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  stray_id uuid := gen_random_uuid();
begin
  update flywheel._running as running set worker_id = stray_id
   where running.worker_id = _give_back_strays.worker_id
     and running.fence <> all (_give_back_strays.in_hand)
     and running.claimed_at < clock_timestamp() - interval '5 seconds';
  return flywheel._give_back(array[stray_id]);
end
$function$;
comment on function flywheel._give_back_strays is
  'Internal: make ready again what a worker holds without having it in hand; returns how many jobs.';

create or replace function flywheel._leave(worker_id uuid) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  given integer := flywheel._give_back(array[_leave.worker_id]);
begin
  delete from flywheel._workers as workers where workers.worker_id = _leave.worker_id;
  return given;
end
$function$;
comment on function flywheel._leave is 'A worker ends: its remaining jobs become ready again; returns how many.';

-- _reap: jobs of workers whose lease is over, or that never were.
create or replace function flywheel._reap() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  gone uuid[];
  reaped integer;
begin
  with expired as (
    delete from flywheel._workers as workers where workers.leased_until < clock_timestamp() returning workers.worker_id
  )
  select array_agg(expired.worker_id) into gone from expired;
  gone := gone || array(
    select distinct running.worker_id from flywheel._running as running
     where running.claimed_at < clock_timestamp() - interval '10 seconds'
       and not exists (select from flywheel._workers as workers where workers.worker_id = running.worker_id));
  reaped := flywheel._give_back(gone);
  if reaped > 0 then
    perform flywheel._log_run(null, 'bulk', reaped, 0, 0, clock_timestamp(), 'reaped', 'the lease of their worker was over');
    perform flywheel._wake();
  end if;
  return reaped;
end
$function$;
comment on function flywheel._reap is 'Internal: make jobs ready whose worker''s lease is over; returns how many.';

create or replace function flywheel._log_run(
  worker_id uuid, lane text, jobs integer, spans integer, scores integer, started_at timestamptz, outcome text, detail text)
returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  insert into flywheel.run_log (run_id, started_at, worker_id, lane, jobs, spans, scores, outcome, detail)
  values (flywheel.new_id(), _log_run.started_at, _log_run.worker_id, _log_run.lane, _log_run.jobs, _log_run.spans,
          _log_run.scores, _log_run.outcome, left(_log_run.detail, 2000))
$function$;
comment on function flywheel._log_run is 'Internal: one row of run_log.';

-- _maintain_partitions: yesterday's too, for spans that began before midnight and are written after it.
create or replace function flywheel._maintain_partitions() returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel.ensure_partitions(today.day - 1, today.day + flywheel._setting('premade_days')::integer)
    from (select (now() at time zone 'UTC')::date as day) as today
$function$;
comment on function flywheel._maintain_partitions is 'Internal: make the partitions of yesterday up to premade_days from now; returns how many were missing.';

-- The first spans may come before the first worker.
select flywheel._maintain_partitions();
