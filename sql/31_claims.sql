-- Claims: ready jobs become a worker's, each under a new fence. Lane judge has a claim of its own, which cuts jobs.

-- _take: the oldest ready jobs of a lane, taken out of the queue.
-- Two workers never get the same row: skip locked passes over rows another one holds.
-- The index gives them in order; statistics of a table that is empty most of the time would have all of it sorted.
-- `after` is a floor on job_id: with an old transaction open, dead index entries of claimed jobs cannot be
-- removed, and a worker that remembers where it was does not walk over them again.
create or replace function flywheel._take(lane text, priority smallint, max_jobs integer, after uuid)
returns setof flywheel._ready
language sql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_sort = off set enable_bitmapscan = off set enable_seqscan = off
as $function$
  with runnable as materialized (      -- materialized: the limit is taken once
    select ready.lane, ready.priority, ready.job_id
      from flywheel._ready as ready
     where ready.lane = _take.lane
       and ready.priority = _take.priority
       and ready.job_id > coalesce(_take.after, '00000000-0000-0000-0000-000000000000')
       and flywheel._lane_runs(_take.lane)
     order by ready.lane, ready.priority, ready.job_id
     limit _take.max_jobs
       for update skip locked
  )
  delete from flywheel._ready as ready
   using runnable
   where (ready.lane, ready.priority, ready.job_id) = (runnable.lane, runnable.priority, runnable.job_id)
  returning ready.*
$function$;
comment on function flywheel._take is 'Internal: take up to max_jobs ready jobs of a lane and priority out of the queue. after: floor on job_id.';

create or replace function flywheel._claim(lane text, priority smallint, worker_id uuid, max_jobs integer, after uuid default null)
returns table (fence uuid, job_id uuid, version_ids uuid[], span_count integer, attempt smallint, origin text)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  insert into flywheel._running as running
         (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, fence, worker_id)
  select taken.lane, taken.priority, taken.job_id, taken.version_ids, taken.span_ids, taken.started_from,
         taken.started_until, taken.attempt + 1, taken.origin, gen_random_uuid(), _claim.worker_id
    from flywheel._take(_claim.lane, _claim.priority, _claim.max_jobs, _claim.after) as taken
   order by taken.job_id
  returning running.fence, running.job_id, running.version_ids,
            cardinality(running.span_ids), running.attempt, running.origin
$function$;
comment on function flywheel._claim is
  'Move up to max_jobs ready jobs of a lane and priority to worker_id; each gets a new fence. after: floor on job_id.';

-- _claim_together: an application that commits span by span leaves a job for each. A hundred of them go on as one, under the
-- id of the last, so that a worker has one row to hold and to end. Only small jobs that were never tried: what failed before
-- stays apart, and the size of settings.chunk_spans is kept.
create or replace function flywheel._claim_together(lane text, priority smallint, worker_id uuid, max_jobs integer, after uuid default null)
returns table (fence uuid, job_id uuid, version_ids uuid[], span_count integer, attempt smallint, origin text, jobs integer)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with taken as materialized (
    select ready.*, ready.attempt = 0 and cardinality(ready.span_ids) <= (select flywheel._setting('chunk_spans') / 100) as small
      from flywheel._take(_claim_together.lane, _claim_together.priority, _claim_together.max_jobs, _claim_together.after) as ready
  ), placed as (
    select taken.*, row_number() over (partition by version_ids, origin, small order by job_id) - 1 as place from taken
  ), joined as (
    select version_ids, attempt, origin, (array_agg(placed.job_id order by placed.job_id desc))[1] as job_id,
           array_agg(span_id order by placed.job_id) as span_ids, min(started_from) as started_from, max(started_until) as started_until,
           count(distinct placed.job_id)::integer as jobs
      from placed cross join unnest(placed.span_ids) as span_id
     group by version_ids, attempt, origin, small, case when small then place / 100 else place end
  ), begun as (
    insert into flywheel._running as running
           (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, origin, fence, worker_id)
    select _claim_together.lane, _claim_together.priority, joined.job_id, joined.version_ids, joined.span_ids, joined.started_from,
           joined.started_until, joined.attempt + 1, joined.origin, gen_random_uuid(), _claim_together.worker_id
      from joined
     order by joined.job_id
    returning running.*
  )
  select begun.fence, begun.job_id, begun.version_ids, cardinality(begun.span_ids), begun.attempt, begun.origin, joined.jobs
    from begun join joined using (job_id)
$function$;
comment on function flywheel._claim_together is
  'Internal: like _claim, with up to a hundred small new jobs of the same versions made one; jobs says how many it was.';
select flywheel._grant('flywheel_worker', 'execute on function flywheel._claim_together(text, smallint, uuid, integer, uuid)');
