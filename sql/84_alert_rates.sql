-- Alerts on rates: a drop against the slice's own past, a rate on the wrong side of a limit, a release against another.
--
-- A reading says of one slice what the metric is and whether the rule fires: yes, no (it is clear), or null: not enough data,
-- or in between. Null neither opens an alert nor closes one. How false alarms are kept: docs/how-to/alerts.md.

create or replace function flywheel._alert_shown(metric text, bad_rate double precision) returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select case when metric in ('pass_rate', 'canary') then 1 - bad_rate else bad_rate end;
end;
comment on function flywheel._alert_shown is 'Internal: a rate of bad rows as the metric people know.';

-- _change_paths: the Bernoulli CUSUM of all slices at once. Its value is the height of a walk above its lowest point so far,
-- so the walk can be summed anew at each look, and late and changed scores are never counted wrong.
create or replace function flywheel._change_paths(rule text, definition jsonb, at timestamptz)
returns table (slice jsonb, usual_bad bigint, usual_total bigint, q0 double precision, q1 double precision, slices bigint,
               statistic double precision, peak double precision, changed_at timestamptz, bad bigint, total bigint, per_month double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with span as (
    select flywheel._alert_interval(definition, 'window') as recent, flywheel._alert_interval(definition, 'baseline') as before,
           (definition ->> 'minimum_effect')::double precision as effect
  ), usual as materialized (
    select counted.slice, sum(counted.bad)::bigint as bad, sum(counted.total)::bigint as total, count(*) over () as slices,
           sum(counted.total) * 30.0 / greatest(1, extract(epoch from date_trunc('day', at - min(span.recent), 'UTC') - min(counted.bucket)) / 86400.0) as per_month
      from span, flywheel._alert_counts(definition, 'day', date_trunc('day', at - span.recent, 'UTC') - span.before, date_trunc('day', at - span.recent, 'UTC')) as counted
     group by counted.slice
    having sum(counted.total) >= greatest(100, (definition ->> 'minimum_n')::bigint)
  ), told as materialized (       -- the upper end: a baseline that looks better than it is must raise no alarm
    select usual.*, least(0.9, greatest(0.005, ceil((flywheel.wilson_interval(usual.bad, usual.total, 0.8)).high * 400) / 400)) as q0
      from usual
  ), limits as materialized (
    select told.*, row_number() over () as place, least(0.95, told.q0 + greatest(span.effect, least(told.q0, 0.1))) as q1 from told, span
  ), steps as (                   -- sorted by a number: to compare slices takes longer
    select limits.place, counted.bucket, counted.bad, counted.total,
           sum(counted.bad * ln(limits.q1 / limits.q0) + (counted.total - counted.bad) * ln((1 - limits.q1) / (1 - limits.q0))) over earlier as walk
      from span cross join flywheel._alert_counts(definition, flywheel._alert_grain(definition), at - span.recent, at + interval '1 minute') as counted
      join limits using (slice)
      left join flywheel._alert_states as states on states.rule = _change_paths.rule and states.slice = counted.slice
     where states.counts_from is null or counted.bucket > states.counts_from
    window earlier as (partition by limits.place order by counted.bucket)
  ), heights as (
    select steps.*, steps.walk - least(0, min(steps.walk) over (partition by steps.place order by steps.bucket)) as height from steps
  ), lows as (
    select heights.*, coalesce(max(heights.bucket) filter (where heights.height < 1e-9) over (partition by heights.place), '-infinity') as low_at from heights
  ), ends as (
    select lows.place, (array_agg(lows.height order by lows.bucket desc))[1] as height, max(lows.height) as peak, sum(lows.total) as total,
           min(lows.bucket) filter (where lows.bucket > lows.low_at) as changed_at,
           coalesce(sum(lows.bad) filter (where lows.bucket > lows.low_at), 0)::bigint as bad_since, coalesce(sum(lows.total) filter (where lows.bucket > lows.low_at), 0)::bigint as total_since
      from lows group by lows.place
  )
  select limits.slice, limits.bad, limits.total, limits.q0, limits.q1, limits.slices, ends.height, ends.peak, ends.changed_at, ends.bad_since, ends.total_since,
         greatest(limits.per_month, ends.total * 2592000.0 / extract(epoch from span.recent))::double precision
    from span cross join limits join ends using (place)
$function$;
comment on function flywheel._change_paths is 'Internal: for each slice of a rule the CUSUM against its own past, and what came since it began to rise.';

-- _change_readings: clear again where evidence that it is over is as strong as 20 to 1.
create or replace function flywheel._change_readings(rule text, definition jsonb, at timestamptz)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with paths as materialized (
    select paths.*, power(1.25, ceil(ln(greatest(1, paths.per_month)) / ln(1.25))) as month_rows
      from flywheel._change_paths(_change_readings.rule, definition, at) as paths
  ), limits as materialized (     -- a limit takes milliseconds: only for slices that may reach it, once for each pair of rates
    select asked.*, flywheel.cusum_limit(asked.q0, asked.q1, asked.month_rows, 1, flywheel._alert_share(asked.slices)) as h
      from (select distinct paths.q0, paths.q1, paths.month_rows, paths.slices from paths where paths.statistic >= 2) as asked
  ), judged as (
    select paths.*, limits.h, paths.bad::double precision / nullif(paths.total, 0) as rate, paths.usual_bad::double precision / paths.usual_total as usual
      from paths left join limits using (q0, q1, month_rows, slices)
  )
  select judged.slice, judged.total, flywheel._alert_shown(definition ->> 'metric', judged.rate), flywheel._alert_shown(definition ->> 'metric', judged.usual),
         judged.rate - judged.usual,
         case when judged.peak - judged.statistic >= ln(20) or judged.h is null then false
              when judged.statistic >= judged.h and judged.total >= (definition ->> 'minimum_n')::bigint
                   and judged.rate - judged.usual >= (definition ->> 'minimum_effect')::double precision then true
              when judged.statistic < judged.h / 2 then false end,
         jsonb_strip_nulls(jsonb_build_object('test', 'cusum', 'statistic', round(judged.statistic::numeric, 3), 'limit', round(judged.h::numeric, 3),
           'since', judged.changed_at, 'baseline_n', judged.usual_total, 'baseline_rate', flywheel._alert_shown(definition ->> 'metric', judged.usual)))
    from judged
$function$;
comment on function flywheel._change_readings is 'Internal: slices whose rate became worse than it used to be.';

-- _side_readings: a limit is passed when the whole interval is behind it.
create or replace function flywheel._side_readings(definition jsonb, ceiling double precision, counted jsonb)
returns table (slice jsonb, n bigint, rate double precision, low double precision, high double precision, firing boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with given as materialized (
    select given.slice, given.bad, given.total, given.bad::double precision / nullif(given.total, 0) as rate, count(*) over () as slices
      from jsonb_to_recordset(counted) as given (slice jsonb, bad bigint, total bigint)
  ), needed as materialized (
    select flywheel._alert_confidence(definition, max(given.slices)) as confidence from given
  )
  select given.slice, given.total, given.rate, seen.low, seen.high,
         case when given.total < greatest(1, (definition ->> 'minimum_n')::bigint) then null
              when given.rate <= ceiling then false
              when seen.low > ceiling then true end
    from needed cross join given
    left join lateral (select (found).low, (found).high
                         from (select flywheel.confidence_sequence(given.bad, given.total, needed.confidence) as found) as computed) as seen
      on given.rate > ceiling and given.total >= (definition ->> 'minimum_n')::bigint
$function$;
comment on function flywheel._side_readings is 'Internal: of counts of bad rows, whose rate is surely above a ceiling.';

create or replace function flywheel._rate_readings(definition jsonb, at timestamptz)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select found.slice, found.n, flywheel._alert_shown(definition ->> 'metric', found.rate), (definition ->> 'threshold')::double precision, found.rate - bar.ceiling,
         case when found.firing and found.rate - bar.ceiling < (definition ->> 'minimum_effect')::double precision then null else found.firing end,
         jsonb_strip_nulls(jsonb_build_object('test', 'confidence sequence',
           'low', least(flywheel._alert_shown(definition ->> 'metric', found.low), flywheel._alert_shown(definition ->> 'metric', found.high)),
           'high', greatest(flywheel._alert_shown(definition ->> 'metric', found.low), flywheel._alert_shown(definition ->> 'metric', found.high))))
    from (select flywheel._alert_shown(definition ->> 'metric', (definition ->> 'threshold')::double precision) as ceiling) as bar
   cross join lateral flywheel._side_readings(definition, bar.ceiling, (
     select jsonb_agg(jsonb_build_object('slice', summed.slice, 'bad', summed.bad, 'total', summed.total))
       from (select counted.slice, sum(counted.bad) as bad, sum(counted.total) as total
               from flywheel._alert_counts(definition, flywheel._alert_grain(definition), at - flywheel._alert_interval(definition, 'window'), at + interval '1 minute') as counted
              group by counted.slice) as summed)) as found
$function$;
comment on function flywheel._rate_readings is 'Internal: slices whose rate is on the wrong side of a threshold.';

-- _latency_readings: p95 is above a threshold where more than 5 % are slower, which is a rate and has an interval.
create or replace function flywheel._latency_readings(definition jsonb, at timestamptz)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with bins as materialized (
    select counted.slice, counted.latency_bin, sum(counted.n) as n
      from flywheel._alert_span_counts('latency_p95', definition -> 'slice', flywheel._alert_keys(definition), flywheel._alert_grain(definition),
             at - flywheel._alert_interval(definition, 'window'), at + interval '1 minute') as counted
     group by 1, 2
  ), ranked as (
    select bins.*, sum(bins.n) over (partition by bins.slice order by bins.latency_bin) as up_to, sum(bins.n) over (partition by bins.slice) as total from bins
  ), summed as materialized (
    select ranked.slice, max(ranked.total) as total,
           coalesce(sum(ranked.n) filter (where ranked.latency_bin > flywheel._latency_bin((definition ->> 'threshold')::double precision)), 0) as bad,
           power(2, (min(ranked.latency_bin) filter (where ranked.up_to >= 0.95 * ranked.total) + 0.5) / 8.0)::double precision as p95
      from ranked group by ranked.slice
  )
  select summed.slice, found.n, summed.p95, (definition ->> 'threshold')::double precision, summed.p95 - (definition ->> 'threshold')::double precision,
         case when found.firing and summed.p95 - (definition ->> 'threshold')::double precision < (definition ->> 'minimum_effect')::double precision then null else found.firing end,
         jsonb_strip_nulls(jsonb_build_object('test', 'share of slower spans', 'slower_share', found.rate, 'low', found.low, 'high', found.high))
    from flywheel._side_readings(definition, 0.05, (
      select jsonb_agg(jsonb_build_object('slice', summed.slice, 'bad', summed.bad, 'total', summed.total)) from summed)) as found
    join summed using (slice)
$function$;
comment on function flywheel._latency_readings is 'Internal: slices whose p95 of latency is surely above a threshold.';

create or replace function flywheel._alert_cells(definition jsonb, at timestamptz)
returns table (slice jsonb, tp bigint, fp bigint, fn bigint, tn bigint, labels bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select (_alert_cells.definition -> 'slice') || flywheel._alert_slice(flywheel._alert_keys(_alert_cells.definition), validators.name, counted.project, counted.environment, counted.release, counted.node,
                               counted.attribute_1, counted.attribute_2, counted.attribute_3) as slice,
         sum(counted.tp)::bigint, sum(counted.fp)::bigint, sum(counted.fn)::bigint, sum(counted.tn)::bigint, sum(counted.tp + counted.fp + counted.fn + counted.tn)::bigint
    from flywheel._cell_counts as counted
    join flywheel.validator_versions as versions on versions.version_id = counted.version_id and versions.status in ('active', 'paused')
    join flywheel.validators on validators.validator_id = versions.validator_id
   where counted.grain = flywheel._alert_grain(_alert_cells.definition) and counted.lane = 'estimation'
     and counted.bucket >= at - flywheel._alert_interval(_alert_cells.definition, 'window') and counted.bucket < at + interval '1 minute'
     and flywheel._alert_slice(array(select jsonb_object_keys(_alert_cells.definition -> 'slice')), validators.name, counted.project, counted.environment, counted.release, counted.node,
                               counted.attribute_1, counted.attribute_2, counted.attribute_3) = _alert_cells.definition -> 'slice'
   group by 1
$function$;
comment on function flywheel._alert_cells is 'Internal: labels drawn for estimation by slice, by what judge and people say.';

-- _corrected_readings: n counts labels, not scores: they are what is scarce.
create or replace function flywheel._corrected_readings(definition jsonb, at timestamptz)
returns table (slice jsonb, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with judged as materialized (
    select counted.slice, sum(counted.bad)::bigint as failed, sum(counted.total)::bigint as total, count(*) over () as slices
      from flywheel._alert_score_counts('pass_rate', definition -> 'slice', flywheel._alert_keys(definition), flywheel._alert_grain(definition),
             at - flywheel._alert_interval(definition, 'window'), at + interval '1 minute') as counted
     group by counted.slice
  ), found as (
    select judged.slice, coalesce(cells.labels, 0) as labels, corrected.rate, corrected.low, corrected.high, judged.total
      from judged
      left join flywheel._alert_cells(definition, at) as cells using (slice)
     cross join lateral flywheel.corrected_rate(coalesce(cells.tp, 0), coalesce(cells.fp, 0), coalesce(cells.fn, 0), coalesce(cells.tn, 0), judged.total - judged.failed, judged.total,
                                                flywheel._alert_confidence(definition, judged.slices)) as corrected
  )
  select found.slice, found.labels, found.rate, (definition ->> 'threshold')::double precision, (definition ->> 'threshold')::double precision - found.rate,
         case when found.labels < greatest(1, (definition ->> 'minimum_n')::bigint) then null
              when found.rate >= (definition ->> 'threshold')::double precision then false
              when found.high < (definition ->> 'threshold')::double precision
                   and (definition ->> 'threshold')::double precision - found.rate >= (definition ->> 'minimum_effect')::double precision then true end,
         jsonb_strip_nulls(jsonb_build_object('test', 'corrected interval', 'low', found.low, 'high', found.high, 'judged', found.total, 'labels', found.labels))
    from found
$function$;
comment on function flywheel._corrected_readings is 'Internal: slices whose corrected pass rate is surely below a floor.';
