-- Alerts on levels: cost, backlog, budgets, standings of judges, drift; and a candidate release against its baseline.

-- _cost_readings: what the window cost, as a multiple of the median hour before it. Hours without spans cost nothing and count;
-- hours of which no cost is known are no hours it could cost as much as.
create or replace function flywheel._cost_readings(definition jsonb, at timestamptz)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with span as (
    select at - flywheel._alert_interval(definition, 'window') as since, flywheel._alert_interval(definition, 'baseline') as before,
           flywheel._alert_seconds(definition ->> 'window') / 3600 as hours
  ), now_ as materialized (
    select counted.slice, case when sum(counted.priced) > 0 then sum(counted.cost_usd) end as usd, sum(counted.priced)::bigint as priced
      from span cross join flywheel._alert_span_counts('cost_usd', definition -> 'slice', flywheel._alert_keys(definition), flywheel._alert_grain(definition), span.since, at + interval '1 minute') as counted
     group by counted.slice
  ), earlier as materialized (
    select counted.slice, counted.bucket, case when counted.priced > 0 then counted.cost_usd end as cost_usd
      from span cross join flywheel._alert_span_counts('cost_usd', definition -> 'slice', flywheel._alert_keys(definition), 'hour',
             date_trunc('hour', span.since - span.before), date_trunc('hour', span.since)) as counted
  ), known as (
    select earlier.slice, min(earlier.bucket) as first_at from earlier group by 1
  ), usual as (
    select known.slice, count(*) as hours, percentile_cont(0.5) within group (order by case when earlier.bucket is null then 0 else earlier.cost_usd end) as usd
      from span cross join known cross join lateral generate_series(known.first_at, date_trunc('hour', span.since) - interval '1 hour', interval '1 hour') as hour(bucket)
      left join earlier on earlier.slice = known.slice and earlier.bucket = hour.bucket
     where earlier.bucket is null or earlier.cost_usd is not null
     group by 1
  )
  select now_.slice, now_.priced, now_.usd / nullif(usual.usd * span.hours, 0), (definition ->> 'threshold')::double precision, now_.usd - usual.usd * span.hours,
         case when now_.priced < (definition ->> 'minimum_n')::bigint or coalesce(usual.hours, 0) < 24 then null
              else now_.usd > usual.usd * span.hours * (definition ->> 'threshold')::double precision
                   and now_.usd - usual.usd * span.hours >= (definition ->> 'minimum_effect')::double precision end,
         jsonb_strip_nulls(jsonb_build_object('test', 'ratio to the trailing median', 'cost_usd', now_.usd, 'median_usd', usual.usd * span.hours, 'baseline_hours', usual.hours))
    from span cross join now_ left join usual using (slice)
$function$;
comment on function flywheel._cost_readings is 'Internal: slices that cost more than a multiple of what they usually cost.';

-- _level_readings: what stands in a view; a subject that is not there is clear.
create or replace function flywheel._level_readings(definition jsonb)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with found (slice, n, value, evidence) as (
    select jsonb_build_object('lane', queued.lane), queued.ready_spans::bigint, coalesce(queued.oldest_ready_seconds, 0),
           jsonb_build_object('ready_spans', queued.ready_spans, 'running_spans', queued.running_spans, 'paused', queued.paused)
      from flywheel.queue_status as queued where definition ->> 'metric' = 'backlog_seconds'
    union all
    select jsonb_build_object('lane', queued.lane), queued.dead_spans::bigint, queued.dead_spans::double precision, '{}'::jsonb
      from flywheel.queue_status as queued where definition ->> 'metric' = 'dead_spans'
    union all
    select jsonb_build_object('scope', budget.scope, 'name', left(budget.name, 120), 'period', budget.period), null, budget.used_share,
           jsonb_build_object('cap_usd', budget.cap_usd, 'spent_usd', budget.spent_usd, 'reserved_usd', budget.reserved_usd, 'reached', budget.reached)
      from flywheel.budget_status as budget where definition ->> 'metric' = 'budget_used'
    union all
    select jsonb_build_object('validator', standing.validator), (standing.n_pass + standing.n_fail)::bigint, case when standing.provisional then 1 else 0 end,
           jsonb_strip_nulls(jsonb_build_object('reason', standing.reason, 'version', standing.version, 'tpr', standing.tpr, 'tnr', standing.tnr,
                                                'n_pass', standing.n_pass, 'n_fail', standing.n_fail))
      from flywheel.judge_standing as standing where definition ->> 'metric' = 'judge_standing' and standing.status in ('active', 'paused')
  )
  select found.slice, found.n, found.value, (definition ->> 'threshold')::double precision, found.value - (definition ->> 'threshold')::double precision,
         case when found.value < (definition ->> 'threshold')::double precision then false
              when found.n < (definition ->> 'minimum_n')::bigint then null
              else found.value - (definition ->> 'threshold')::double precision >= (definition ->> 'minimum_effect')::double precision end,
         found.evidence
    from found where found.slice @> (definition -> 'slice')
$function$;
comment on function flywheel._level_readings is 'Internal: backlog, dead spans, budgets and standings of judges against a threshold.';

-- _drift_readings: what the monitors of drift say; their own limits decide. Dynamic, since it is asked what a row is called.
create or replace function flywheel._drift_readings(definition jsonb)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if to_regclass('flywheel.drift_status') is null then
    return;
  end if;
  return query execute $query$
    select found.slice, found.n, found.value, found.threshold, found.effect,
           case when not found.drifted then false when found.n < ($1 ->> 'minimum_n')::bigint then null
                when found.drifted and coalesce(abs(found.effect), 0) >= ($1 ->> 'minimum_effect')::double precision then true end, found.evidence
      from (select jsonb_strip_nulls(jsonb_build_object('kind', status.held ->> 'kind', 'subject', left(coalesce(status.held ->> 'subject', ''), 120),
                     'part', left(coalesce(status.held ->> 'slice', ''), 120), 'project', left(status.held ->> 'project', 120))) as slice,
                   (status.held ->> 'n_current')::double precision::bigint as n, (status.held ->> 'statistic')::double precision as value,
                   (status.held ->> 'threshold')::double precision as threshold, (status.held ->> 'effect')::double precision as effect,
                   (status.held ->> 'drifted')::boolean as drifted,
                   jsonb_build_object('tested_at', status.held -> 'tested_at', 'n_reference', status.held -> 'n_reference', 'evidence', left(status.held ->> 'evidence', 2000)) as evidence
              from (select to_jsonb(latest) as held from flywheel.drift_status as latest) as status) as found
     where found.slice @> ($1 -> 'slice')
  $query$ using definition;
end
$function$;
comment on function flywheel._drift_readings is 'Internal: monitors of drift that give alarm.';

-- _canary_path: one bet for each whole bucket both releases have rows in; buckets of one side wait for the other.
create or replace function flywheel._canary_path(good_a bigint[], all_a bigint[], good_b bigint[], all_b bigint[]) returns double precision
language plpgsql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  log_e double precision := 0;
  seen bigint[] := array[0, 0, 0, 0];
  block bigint[] := array[0, 0, 0, 0];
begin
  for place in 1 .. coalesce(cardinality(all_a), 0) loop
    block := array[block[1] + good_a[place], block[2] + all_a[place], block[3] + good_b[place], block[4] + all_b[place]];
    if block[2] > 0 and block[4] > 0 then
      log_e := flywheel.block_e_step(log_e, seen[1], seen[2], seen[3], seen[4], block[1], block[2], block[3], block[4]);
      seen := array[seen[1] + block[1], seen[2] + block[2], seen[3] + block[3], seen[4] + block[4]];
      block := array[0, 0, 0, 0];
    end if;
  end loop;
  return log_e;
end
$function$;
comment on function flywheel._canary_path is 'Internal: logarithm of the evidence that release b passes less often than a, from counts by time.';

-- _canary_releases: the candidate is the release seen first last, the baseline the one with most rows beside it.
create or replace function flywheel._canary_releases(definition jsonb, since timestamptz, until timestamptz)
returns table (slice jsonb, candidate text, baseline text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with seen as materialized (
    select counted.slice - 'release' as slice, counted.slice ->> 'release' as release, min(counted.bucket) as first_at, sum(counted.total) as rows
      from flywheel._alert_score_counts('pass_rate', definition -> 'slice', flywheel._alert_keys(definition) || 'release'::text, 'hour', since, until) as counted
     where counted.slice ->> 'release' <> '' group by 1, 2
  ), chosen as (
    select seen.slice, coalesce(definition ->> 'candidate', (array_agg(seen.release order by seen.first_at desc, seen.rows))[1]) as candidate from seen group by 1
  )
  select chosen.slice, chosen.candidate,
         coalesce(definition ->> 'against', (select seen.release from seen where seen.slice = chosen.slice and seen.release <> chosen.candidate order by seen.rows desc limit 1))
    from chosen
$function$;
comment on function flywheel._canary_releases is 'Internal: which releases a rule on a canary compares.';

create or replace function flywheel._canary_readings(definition jsonb, at timestamptz)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with span as (
    select at - flywheel._alert_interval(definition, 'window') as since,
           date_trunc(flywheel._alert_grain(definition), at - interval '1 minute', 'UTC') as until     -- what was bet on a bucket is not changed by its later rows
  ), pairs as materialized (
    select pair.*, count(*) over () as slices from span cross join flywheel._canary_releases(definition, span.since, span.until) as pair where pair.baseline is not null
  ), counted as materialized (
    select pairs.slice, pairs.candidate, pairs.baseline, pairs.slices, counts.bucket, (counts.slice ->> 'release') = pairs.candidate as of_candidate, counts.total - counts.bad as good, counts.total
      from span cross join flywheel._alert_score_counts('pass_rate', definition -> 'slice', flywheel._alert_keys(definition) || 'release'::text, flywheel._alert_grain(definition), span.since, span.until) as counts
      join pairs on pairs.slice = counts.slice - 'release' and counts.slice ->> 'release' in (pairs.candidate, pairs.baseline)
  ), buckets as (
    select counted.slice, counted.candidate, counted.baseline, counted.slices, counted.bucket,
           coalesce(sum(counted.good) filter (where not of_candidate), 0)::bigint as good_a, coalesce(sum(counted.total) filter (where not of_candidate), 0)::bigint as all_a,
           coalesce(sum(counted.good) filter (where of_candidate), 0)::bigint as good_b, coalesce(sum(counted.total) filter (where of_candidate), 0)::bigint as all_b
      from counted group by 1, 2, 3, 4, 5
  ), compared as (
    select buckets.slice, buckets.candidate, buckets.baseline, buckets.slices, sum(all_a)::bigint as n_a, sum(all_b)::bigint as n_b,
           sum(good_a)::double precision / nullif(sum(all_a), 0) as rate_a, sum(good_b)::double precision / nullif(sum(all_b), 0) as rate_b,
           flywheel._canary_path(array_agg(good_a order by bucket), array_agg(all_a order by bucket), array_agg(good_b order by bucket), array_agg(all_b order by bucket)) as log_e
      from buckets group by 1, 2, 3, 4
  )
  select compared.slice || jsonb_build_object('release', compared.candidate), compared.n_b, compared.rate_b, compared.rate_a, compared.rate_a - compared.rate_b,
         case when least(compared.n_a, compared.n_b) < greatest(1, (definition ->> 'minimum_n')::bigint) then null
              when compared.log_e >= ln(compared.slices / (definition ->> 'alpha')::double precision)
                   and compared.rate_a - compared.rate_b >= (definition ->> 'minimum_effect')::double precision then true
              else false end,
         jsonb_strip_nulls(jsonb_build_object('test', 'block e-process', 'log_e', round(compared.log_e::numeric, 3), 'limit', round(ln(compared.slices / (definition ->> 'alpha')::numeric), 3),
           'baseline_release', compared.baseline, 'baseline_n', compared.n_a))
    from compared
$function$;
comment on function flywheel._canary_readings is 'Internal: candidate releases that pass less often than their baseline.';

create or replace function flywheel._alert_readings(rule text, definition jsonb, at timestamptz)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  case
    when definition ->> 'test' = 'change' then return query select * from flywheel._change_readings(rule, definition, at);
    when definition ->> 'metric' in ('pass_rate', 'error_rate', 'unscored_rate') then return query select * from flywheel._rate_readings(definition, at);
    when definition ->> 'metric' = 'corrected_pass_rate' then return query select * from flywheel._corrected_readings(definition, at);
    when definition ->> 'metric' = 'latency_p95' then return query select * from flywheel._latency_readings(definition, at);
    when definition ->> 'metric' = 'cost_usd' then return query select * from flywheel._cost_readings(definition, at);
    when definition ->> 'metric' = 'canary' then return query select * from flywheel._canary_readings(definition, at);
    when definition ->> 'metric' = 'drift' then return query select * from flywheel._drift_readings(definition);
    else return query select * from flywheel._level_readings(definition);
  end case;
end
$function$;
comment on function flywheel._alert_readings is 'Internal: what a rule says of each of its slices at a time.';
