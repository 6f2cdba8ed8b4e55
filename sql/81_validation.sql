-- Validation of validation: how much of the traffic is judged, what waits, what it costs.

-- validation_coverage: one union, so that a condition on time reaches both sides.
create or replace view flywheel.validation_coverage as
  select counted.time, validators.name as validator, versions.version, versions.status, counted.project,
         counted.n, counted.judged, counted.n - counted.judged as unscored, counted.judged::double precision / counted.n as judged_share,
         counted.spans, counted.n::double precision / nullif(counted.spans, 0) as covered_share
    from (
      select summed.time, summed.project, summed.version_id, summed.n, summed.judged,
             (sum(summed.spans) over (partition by summed.time, summed.project))::bigint as spans
        from (
          select given.time, given.project, given.version_id, sum(given.n)::bigint as n, sum(given.judged)::bigint as judged, sum(given.spans) as spans
            from (
              select bucket as time, project, version_id, n, passed + failed as judged, 0::bigint as spans from flywheel._score_counts where grain = 'day'
               union all
              select bucket, project, null, 0, 0, n from flywheel._span_counts where grain = 'day') as given
           group by 1, 2, 3) as summed) as counted
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id)
   where counted.n > 0;
comment on view flywheel.validation_coverage is
  'How much each validator version looked at, by UTC day of the spans and project, and how often it gave a verdict. Shadows too: see status. What it should have looked at is in accounts, span by span.';

create or replace view flywheel.validation_reasons as
  select reasons.time, validators.name as validator, versions.version, versions.status, reasons.project, reasons.reason, reasons.n,
         reasons.n / reasons.total as share
    from (
      select summed.time, summed.project, summed.version_id, summed.reason, summed.n,
             (sum(summed.n) over (partition by summed.time, summed.project, summed.version_id))::double precision as total
        from (
          select bucket as time, project, version_id, reason, sum(n)::bigint as n
            from flywheel._score_counts where grain = 'day' group by 1, 2, 3, 4 having sum(n) > 0) as summed) as reasons
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id)
   where reasons.reason <> '';
comment on view flywheel.validation_reasons is 'Why validator versions gave no verdict, by UTC day of the spans, project and reason.';

-- validation_backlog: from the queue alone: nothing here reads a span.
create or replace view flywheel.validation_backlog as
  with work as materialized (
    select held.version_id, sum(held.queued) as queued, sum(held.running) as running, sum(held.later) as later, sum(held.dead) as dead,
           min(held.queued_at) as queued_at
      from (
        select unnest(version_ids), cardinality(span_ids), 0, 0, 0, flywheel._id_time(job_id) from flywheel._ready where lane <> 'embed'
         union all
        select unnest(version_ids), 0, cardinality(span_ids), 0, 0, flywheel._id_time(job_id) from flywheel._running where lane <> 'embed'
         union all
        select version_id, 0, count(distinct span_id), 0, 0, null from flywheel._batch_lines group by 1
         union all
        select unnest(version_ids), 0, 0, cardinality(span_ids), 0, flywheel._id_time(job_id) from flywheel._later where lane <> 'embed'
         union all
        select unnest(version_ids), 0, 0, 0, cardinality(span_ids), null from flywheel._dead where lane <> 'embed'
      ) as held (version_id, queued, running, later, dead, queued_at)
     group by 1
  )
  select validators.name as validator, versions.version, versions.lane, coalesce(work.queued, 0)::bigint as queued, coalesce(work.running, 0)::bigint as running,
         coalesce(work.later, 0)::bigint as later, coalesce(work.dead, 0)::bigint as dead,
         case when work.queued_at <= now() then extract(epoch from now() - work.queued_at)::double precision when work.queued_at > now() then 0 end as oldest_seconds, versions.status
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
    left join work using (version_id)
   where work.version_id is not null or versions.status in ('active', 'shadow', 'paused');
comment on view flywheel.validation_backlog is
  'Spans that wait for each validator version, read from the queue alone; versions that run have a row of zeros where nothing waits.';

-- validation_cost_by_day: day by day, so that a condition on time leaves the other days' partitions unread.
create or replace view flywheel.validation_cost_by_day as
  select days.time, validators.name as validator, versions.version, paid.provider, paid.model, paid.purpose, paid.calls,
         paid.cost_usd, paid.priced_share, paid.input_tokens, paid.cached_share, paid.output_tokens,
         paid.cost_usd / nullif(paid.judged, 0) as cost_per_judged, paid.judged, paid.answered_share
    from (select flywheel._day_start(day) from flywheel._partitions where relation = 'calls'
           union
          select date_bin('1 day', started_at, '2000-01-01 00:00:00+00') from flywheel.calls_default) as days (time)
   cross join lateral (
     select calls.version_id, calls.provider, calls.model, calls.purpose, count(*) as calls, sum(calls.cost_usd) filter (where calls.cost_usd < 1e15) as cost_usd,
            count(*) filter (where calls.cost_usd < 1e15)::double precision / count(*) as priced_share,
            sum(calls.input_tokens) as input_tokens, sum(calls.output_tokens) as output_tokens,
            sum(calls.cached_tokens)::double precision / nullif(sum(calls.input_tokens) filter (where calls.cached_tokens is not null), 0) as cached_share,
            count(distinct calls.span_id) filter (where calls.outcome = 'answered') as judged,
            count(*) filter (where calls.outcome = 'answered')::double precision / count(*) as answered_share
       from flywheel.calls
      where calls.started_at >= days.time and calls.started_at < days.time + interval '24 hours'
      group by 1, 2, 3, 4) as paid
    left join flywheel.validator_versions as versions using (version_id)
    left join flywheel.validators using (validator_id);
comment on view flywheel.validation_cost_by_day is
  'What calls to models cost, by UTC day of the call, validator version, provider, model and purpose. Checks of kind sql and python call nobody and are not here.';

do $block$
declare
  said record;
begin
  for said in
    select own.view, own.name, own.meaning from (values
      ('validation_coverage', 'time', 'UTC day in which the spans started.'),
      ('validation_coverage', 'validator', 'Name of the validator.'),
      ('validation_coverage', 'version', 'Which version of it.'),
      ('validation_coverage', 'status', 'What that version is now.'),
      ('validation_coverage', 'project', 'Project of the spans.'),
      ('validation_coverage', 'n', 'Spans it looked at.'),
      ('validation_coverage', 'judged', 'Spans it gave a verdict on.'),
      ('validation_coverage', 'unscored', 'Spans it gave none on; validation_reasons says why.'),
      ('validation_coverage', 'judged_share', 'judged / n.'),
      ('validation_coverage', 'spans', 'All spans of the project on that day, of every node.'),
      ('validation_coverage', 'covered_share', 'n / spans; a filter, a target or a sample rate below 1 keeps it below 1.'),
      ('validation_reasons', 'time', 'UTC day in which the spans started.'),
      ('validation_reasons', 'validator', 'Name of the validator.'),
      ('validation_reasons', 'version', 'Which version of it.'),
      ('validation_reasons', 'status', 'What that version is now.'),
      ('validation_reasons', 'project', 'Project of the spans.'),
      ('validation_reasons', 'reason', 'Why there is no verdict.'),
      ('validation_reasons', 'n', 'Spans without a verdict for that reason.'),
      ('validation_reasons', 'share', 'n / all spans the version looked at on that day in that project.'),
      ('validation_backlog', 'validator', 'Name of the validator.'),
      ('validation_backlog', 'version', 'Which version of it.'),
      ('validation_backlog', 'lane', 'Where it runs: inline, bulk or judge.'),
      ('validation_backlog', 'queued', 'Spans in jobs that may be claimed. One bulk job is for all bulk validators: a filter may yet leave some of them out.'),
      ('validation_backlog', 'running', 'Spans a worker or a batch endpoint has.'),
      ('validation_backlog', 'later', 'Spans that wait for a retry, or for a paused validator.'),
      ('validation_backlog', 'dead', 'Spans whose job was given up.'),
      ('validation_backlog', 'oldest_seconds', 'Age of the oldest job queued, running or put off, in seconds; null = none.'),
      ('validation_backlog', 'status', 'What the version is now.'),
      ('validation_cost_by_day', 'time', 'UTC day in which the calls began.'),
      ('validation_cost_by_day', 'validator', 'Name of the validator; null = no validator''s call (vectors).'),
      ('validation_cost_by_day', 'version', 'Which version of it.'),
      ('validation_cost_by_day', 'provider', 'Who was called.'),
      ('validation_cost_by_day', 'model', 'Model that was asked for.'),
      ('validation_cost_by_day', 'purpose', 'score, batch, test or embed.'),
      ('validation_cost_by_day', 'calls', 'Calls, failed ones too.'),
      ('validation_cost_by_day', 'cost_usd', 'Cost in US dollars, where known; null = nowhere known.'),
      ('validation_cost_by_day', 'priced_share', 'Share of the calls whose cost is known: below 1, cost_usd may be too low.'),
      ('validation_cost_by_day', 'input_tokens', 'Tokens read, where known; null = nowhere known.'),
      ('validation_cost_by_day', 'cached_share', 'Share of the input tokens the provider had cached, over calls that say so.'),
      ('validation_cost_by_day', 'output_tokens', 'Tokens written, where known; null = nowhere known.'),
      ('validation_cost_by_day', 'cost_per_judged', 'cost_usd / judged: votes, repairs and failed calls are paid for by the spans that were answered. Null where none was.'),
      ('validation_cost_by_day', 'judged', 'Different spans for which at least one of these calls was answered.'),
      ('validation_cost_by_day', 'answered_share', 'Share of the calls that were answered.')) as own(view, name, meaning)
  loop
    execute format('comment on column flywheel.%I.%I is %L', said.view, said.name, said.meaning);
  end loop;
end
$block$;

select flywheel._grant(role, 'execute on function flywheel._day_start(date)')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;   -- what the last view calls is run as whoever reads it
select flywheel._grant(role, 'select on flywheel.validation_coverage, flywheel.validation_reasons, flywheel.validation_backlog, flywheel.validation_cost_by_day')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
