-- Quality: pass rates as validators say them, by time, node, release and any other grouping. What people's labels add to
-- that is in 81_quality_estimates.sql.
--
-- A rate is of what was judged: unscored is never a fail. A rate of nothing is null and may be anything in [0, 1].
-- Versions of a validator are never added up: two wordings are two instruments.

-- _wilson_low, _wilson_high: wilson_interval at 95 % as two expressions, which views with very many rows can afford.
create or replace function flywheel._wilson_low(passes bigint, total bigint) returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select case when total = 0 or passes = 0 then 0
              else (passes + 1.9207294103470633 - 1.9599639845400545 * sqrt(passes * ((total - passes)::double precision / total) + 0.9603647051735317))
                   / (total + 3.8414588206941267) end;
end;
comment on function flywheel._wilson_low is 'Internal: lower end of the 95 % Wilson interval of a rate; 0 where total is 0.';

create or replace function flywheel._wilson_high(passes bigint, total bigint) returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select case when total = 0 or passes = total then 1
              else (passes + 1.9207294103470633 + 1.9599639845400545 * sqrt(passes * ((total - passes)::double precision / total) + 0.9603647051735317))
                   / (total + 3.8414588206941267) end;
end;
comment on function flywheel._wilson_high is 'Internal: upper end of the 95 % Wilson interval of a rate; 1 where total is 0.';

-- _live_low: the lower end of confidence_sequence, by Newton's method: from where the likelihood of the passes alone is too
-- low it climbs to the end and never past it, for the logarithm is concave. The upper end is that of the fails, from 1.
create or replace function flywheel._live_low(passes bigint, total bigint, confidence double precision default 0.95) returns double precision
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  floor_ double precision := flywheel._log_beta(0.5 + passes, 0.5 + total - passes) - ln(pi()) + ln(1 - confidence);
  low double precision := case when passes > 0 then exp(floor_ / passes) else 0 end;
  step double precision;
begin
  for round in 1 .. case when passes > 0 then 60 else 0 end loop
    step := -(passes * ln(low) + (total - passes) * ln(1 - low) - floor_) / (passes / low - (total - passes) / (1 - low));
    exit when not step > 1e-15 * low;
    low := low + step;
  end loop;
  return low;
end
$function$;
comment on function flywheel._live_low is 'Internal: lower end of confidence_sequence, some times faster.';

-- Days of instants are 24 hours: '1 day' is one of the session's time zone, which has days of 23 and 25 hours.
create or replace function flywheel._quality_since() returns timestamptz
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select date_trunc('day', now(), 'UTC') - make_interval(hours => 24 * (greatest(1, flywheel._setting('quality_window_days')::integer) - 1))
$function$;
comment on function flywheel._quality_since is 'Internal: the first of the last settings.quality_window_days days (UTC, today among them).';

create or replace view flywheel._known_versions as
  select versions.version_id, validators.name as validator, versions.version, versions.status,
         case when versions.kind in ('judge', 'neighbours') then versions.kind else 'code' end as annotator_kind,
         versions.severity, versions.kind in ('judge', 'neighbours') and coalesce(standings.provisional, true) as provisional,
         coalesce(question.validator_id, versions.validator_id) as question_id
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
    left join flywheel._standings as standings using (version_id)
    left join flywheel.validators as question on question.name = versions.definition ->> 'labels_of';
comment on view flywheel._known_versions is 'Internal: every validator version as views of numbers name it.';

-- _ranges: from the minute of since to that of until, in as few and as large buckets as fill it exactly.
create or replace function flywheel._ranges(since timestamptz, until timestamptz)
returns table (grain text, since timestamptz, until timestamptz)
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  with minutes as (
    select date_trunc('minute', $1) as m0, greatest(date_trunc('minute', $1), date_trunc('minute', $2 + interval '59.999999 seconds')) as m1
  ), hours as (
    select m0, m1, least(m1, date_trunc('hour', m0 + interval '59 minutes', 'UTC')) as h0, date_trunc('hour', m1, 'UTC') as below from minutes
  ), days as (
    select m0, m1, h0, greatest(h0, below) as h1, least(greatest(h0, below), date_trunc('day', h0 + interval '23 hours 59 minutes', 'UTC')) as d0 from hours
  ), whole as (
    select m0, m1, h0, h1, d0, greatest(d0, date_trunc('day', h1, 'UTC')) as d1 from days
  )
  select part.* from whole,
         lateral (values ('minute', m0, h0), ('hour', h0, d0), ('day', d0, d1), ('hour', d1, h1), ('minute', h1, m1)) as part(grain, first, last)
   where part.first < part.last
$function$;
comment on function flywheel._ranges is 'Internal: a time cut into whole days (UTC), and hours and minutes at its ends.';

-- _stepped_sql: ranges are counted as coarsely as they and the steps allow; steps at the ends of the time may be cut.
create or replace function flywheel._stepped_sql(source text, since timestamptz, until timestamptz, step text) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(string_agg(format('select * from flywheel.%I where grain = %L and bucket >= %L and bucket < %L',
                                    _stepped_sql.source, case when step = 'minute' or step = 'hour' and part.grain = 'day' then step else part.grain end,
                                    part.since, part.until), ' union all '),
                  format('select * from flywheel.%I where false', _stepped_sql.source))
    from flywheel._ranges(_stepped_sql.since, _stepped_sql.until) as part
$function$;
comment on function flywheel._stepped_sql is 'Internal: the rows of a view of counts that make up a time, none of more than a step (minute, hour or day).';

create or replace function flywheel._counted_sql(source text, since timestamptz, until timestamptz) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._stepped_sql(_counted_sql.source, _counted_sql.since, _counted_sql.until, 'day')
$function$;
comment on function flywheel._counted_sql is 'Internal: the rows of a view of counts that make up a time.';

-- _rates_sql: the numbers of a group, from its sums as counted.
create or replace function flywheel._rates_sql() returns text
language sql immutable parallel safe security invoker
begin atomic
  select $code$counted.n, counted.passed + counted.failed as judged, counted.passed, counted.failed,
         counted.n - counted.passed - counted.failed as unscored,
         (counted.passed + counted.failed)::double precision / nullif(counted.n, 0) as judged_share,
         counted.passed::double precision / nullif(counted.passed + counted.failed, 0) as pass_rate,
         flywheel._wilson_low(counted.passed, counted.passed + counted.failed) as pass_low,
         flywheel._wilson_high(counted.passed, counted.passed + counted.failed) as pass_high$code$;
end;
comment on function flywheel._rates_sql is 'Internal: the columns n to pass_high, of the row counted.';

create or replace function flywheel._sums_sql() returns text
language sql immutable parallel safe security invoker
begin atomic
  select $code$sum(n)::bigint as n, sum(passed)::bigint as passed, sum(failed)::bigint as failed, sum(valued)::bigint as valued,
             sum(value_sum) as value_sum, sum(cost_usd) as cost_usd, sum(priced)::bigint as priced$code$;
end;
comment on function flywheel._sums_sql is 'Internal: the sums over _score_counts that _rates_sql needs.';

-- By time: shadows too, with their status. A bucket without a score has no row.
do $block$
declare
  wanted text;
begin
  foreach wanted in array array['minute', 'hour', 'day'] loop
    execute format($code$
      create or replace view flywheel.%I as
        select counted.bucket as time, versions.validator, versions.version, versions.status, versions.annotator_kind, versions.severity, versions.provisional,
               counted.project, counted.environment, counted.release, counted.node, counted.node_kind,
               counted.attribute_1, counted.attribute_2, counted.attribute_3,
               %s,
               counted.value_sum / nullif(counted.valued, 0) as mean_value, case when counted.priced > 0 then counted.cost_usd end as cost_usd
          from (
            select bucket, version_id, project, environment, release, node, node_kind, attribute_1, attribute_2, attribute_3,
                   %s
              from flywheel._score_counts
             where grain = %L
             group by bucket, version_id, project, environment, release, node, node_kind, attribute_1, attribute_2, attribute_3
            having sum(n) > 0) as counted
          join flywheel._known_versions as versions using (version_id)$code$,
      'quality_by_' || wanted, flywheel._rates_sql(), flywheel._sums_sql(), wanted);
  end loop;
end
$block$;
comment on view flywheel.quality_by_minute is 'What validators say, by the minute (UTC) in which the spans started. Filter by time; see quality_by_day for longer.';
comment on view flywheel.quality_by_hour is 'What validators say, by the hour (UTC) in which the spans started.';
comment on view flywheel.quality_by_day is 'What validators say, by the day (UTC) on which the spans started. Shadows too: see status.';

-- Over the window: versions that judge or judged. Shadows and drafts decide nothing, so they are left out.
do $block$
declare
  wanted record;
begin
  for wanted in select * from (values ('quality_by_validator', ''), ('quality_by_node', ', node'), ('quality_by_release', ', release')) as view(name, dimension) loop
    execute format($code$
      create or replace view flywheel.%I as
        select versions.validator, versions.version, counted.project%s,
               %s,
               flywheel._live_low(counted.passed, counted.passed + counted.failed) as live_low,
               1 - flywheel._live_low(counted.failed, counted.passed + counted.failed) as live_high, counted.first_at, counted.last_at,
               versions.status, versions.annotator_kind, versions.severity, versions.provisional,
               counted.value_sum / nullif(counted.valued, 0) as mean_value, case when counted.priced > 0 then counted.cost_usd end as cost_usd
          from (
            select version_id, project%s, min(bucket) as first_at, max(bucket) as last_at,
                   %s
              from flywheel._score_counts
             where grain = 'day' and bucket >= (select flywheel._quality_since())
             group by version_id, project%s
            having sum(n) > 0) as counted
          join flywheel._known_versions as versions using (version_id)
         where versions.status in ('active', 'paused', 'retired')$code$,
      wanted.name, replace(wanted.dimension, ', ', ', counted.'), flywheel._rates_sql(), wanted.dimension, flywheel._sums_sql(), wanted.dimension);
  end loop;
end
$block$;
comment on view flywheel.quality_by_validator is 'What each validator version says of each project, over the last settings.quality_window_days days (30).';
comment on view flywheel.quality_by_node is 'The same as quality_by_validator, for each node.';
comment on view flywheel.quality_by_release is 'The same as quality_by_validator, for each release. Which release is better: release_comparisons.';

create or replace view flywheel.score_distributions as
  select counted.bucket as time, versions.validator, versions.version, counted.project, counted.environment, counted.release, counted.node,
         counted.value_bin::integer as bin, counted.value_bin / 20.0::double precision as value_low, (counted.value_bin + 1) / 20.0::double precision as value_high,
         counted.n, versions.status
    from (
      select bucket, version_id, project, environment, release, node, value_bin, sum(n)::bigint as n
        from flywheel._score_counts
       where grain = 'day' and value_bin >= 0
       group by bucket, version_id, project, environment, release, node, value_bin
      having sum(n) > 0) as counted
    join flywheel._known_versions as versions using (version_id);
comment on view flywheel.score_distributions is
  'How values in [0, 1] are spread, by day (UTC) in twentieths: a value on a border counts above it, 1 in the last. Scores without a value are in none.';

-- quality: any grouping. What is not grouped by is null, as an unknown release is: name what you group by.
create or replace function flywheel._require_grouping(by text[]) returns void
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  known constant text[] := array['project', 'environment', 'release', 'node', 'node_kind', 'attribute_1', 'attribute_2', 'attribute_3', 'minute', 'hour', 'day'];
  unknown text := (select each from unnest(by) as each where each is null or each <> all (known) limit 1);
begin
  if exists (select from unnest(by) as each where each is null or each <> all (known)) then
    raise exception using errcode = 'WF009', message = format('numbers cannot be grouped by %s', coalesce(unknown, 'null')),
      hint = format('Group by any of %s.', array_to_string(known, ', '));
  elsif (select count(*) > 1 from unnest(by) as each where each in ('minute', 'hour', 'day')) then
    raise exception using errcode = 'WF009', message = 'numbers cannot be grouped by two times at once', hint = 'Name one of minute, hour and day.';
  end if;
end
$function$;
comment on function flywheel._require_grouping is 'Internal: refuse a grouping that is not one of dimensions and one time.';

create or replace function flywheel.quality(since timestamptz, until timestamptz default now(), by text[] default '{}')
returns table ("time" timestamptz, validator text, version integer, status text, annotator_kind text, provisional boolean,
  project text, environment text, release text, node text, node_kind text, attribute_1 text, attribute_2 text, attribute_3 text,
  n bigint, judged bigint, passed bigint, failed bigint, unscored bigint, judged_share double precision,
  pass_rate double precision, pass_low double precision, pass_high double precision, mean_value double precision, cost_usd double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  grain text := (select min(each) from unnest(quality.by) as each where each in ('minute', 'hour', 'day'));
  shown text := (
    select string_agg(case when each = any (quality.by) then format('counted.%I', each) else 'null::text' end, ', ' order by place)
      from unnest(array['project', 'environment', 'release', 'node', 'node_kind', 'attribute_1', 'attribute_2', 'attribute_3'])
           with ordinality as dimension(each, place));
  keys text := (select coalesce(string_agg(distinct format(', %I', each), ''), '') from unnest(quality.by) as each where each not in ('minute', 'hour', 'day'));
  bucket text := coalesce(format('date_trunc(%L, bucket, ''UTC'')', grain), 'null::timestamptz');
begin
  perform flywheel._require_grouping(quality.by);
  return query execute format($code$
    select counted.time, versions.validator, versions.version, versions.status, versions.annotator_kind, versions.provisional, %s, %s,
           counted.value_sum / nullif(counted.valued, 0), case when counted.priced > 0 then counted.cost_usd end
      from (select %s as time, version_id%s, %s from (%s) as part group by 1, version_id%s having sum(n) > 0) as counted
      join flywheel._known_versions as versions using (version_id)$code$,
    shown, flywheel._rates_sql(), bucket, keys, flywheel._sums_sql(), flywheel._stepped_sql('_score_counts', quality.since, quality.until, coalesce(grain, 'day')), keys);
end
$function$;
comment on function flywheel.quality is
  'What validators say of spans of a time (to the minute), for any grouping: by takes project, environment, release, node, node_kind, attribute_1 to attribute_3 and one of minute, hour, day. Dimensions not named are null. Shadows too: see status.';

-- lowest_scores: fails before passes, low values before high ones. Unscored spans are not low: nobody judged them.
create or replace function flywheel.lowest_scores(validator text default null, since timestamptz default now() - interval '1 day',
  until timestamptz default now(), n integer default 20)
returns table (span_id uuid, "time" timestamptz, validator text, version integer, passed boolean, value double precision, critique text,
  project text, environment text, release text, node text, trace_id uuid, severity text, provisional boolean)
language sql stable security definer rows 20
set search_path = pg_catalog, pg_temp
as $function$
  select scores.span_id, scores.started_at, scores.validator, scores.version, scores.passed, scores.value, scores.critique,
         scores.project, scores.environment, scores.release, scores.node, scores.trace_id, scores.severity, scores.provisional
    from flywheel.current_scores as scores
   where scores.started_at >= $2 and scores.started_at < $3 and scores.passed is not null and ($1 is null or scores.validator = $1)
   order by scores.passed, scores.value nulls last, scores.started_at desc, scores.span_id
   limit greatest(0, $4)
$function$;
comment on function flywheel.lowest_scores is
  'The n lowest current scores of a validator (null = of all) in a time, with their critiques: fails first, then by value, the newest first. Unscored spans are not among them.';

create or replace view flywheel.lowest_scores_today as
  select scores.span_id, scores.started_at as "time", scores.validator, scores.version, scores.passed, scores.value, scores.critique,
         scores.project, scores.environment, scores.release, scores.node, scores.trace_id, scores.severity, scores.provisional
    from flywheel.current_scores as scores
   where scores.started_at >= now() - interval '24 hours' and scores.passed is not null
   order by scores.passed, scores.value nulls last, scores.started_at desc, scores.span_id
   limit 100;
comment on view flywheel.lowest_scores_today is 'The 100 lowest current scores of the last 24 hours, with their critiques. For more: lowest_scores().';

-- Comments on columns: one meaning each, in whichever of these views they stand.
do $block$
declare
  said record;
begin
  for said in
    select format('comment on column %s.%I is %L', shown.attrelid::regclass, shown.attname, own.meaning) as statement
      from (values
        ('time', 'Start (UTC) of the minute, hour or day in which the spans started; of a single score: started_at of its span.'),
        ('validator', 'Name of the validator.'), ('version', 'Which version of it judged; versions are never added up.'),
        ('status', 'What that version is now; shadow = its verdicts decide nothing.'), ('annotator_kind', 'Who judges: code, judge or neighbours.'),
        ('severity', 'info, low, medium, high or critical.'), ('provisional', 'True = a judge not yet shown to agree with people; its rate is what it says, no more.'),
        ('project', 'Project of the spans.'), ('environment', 'Environment of the spans.'), ('release', 'Release of the spans; null = unknown.'),
        ('node', 'Node of the spans.'), ('node_kind', 'Kind of the node.'),
        ('attribute_1', 'First own dimension; null = none.'), ('attribute_2', 'Second own dimension; null = none.'), ('attribute_3', 'Third own dimension; null = none.'),
        ('n', 'Scores: judged + unscored.'), ('judged', 'Scores with a verdict: passed + failed.'), ('passed', 'Verdicts that say pass.'),
        ('failed', 'Verdicts that say fail.'), ('unscored', 'Scores without a verdict: in no rate, and never a fail.'),
        ('judged_share', 'judged / n; where it is low the rate is of few of the spans.'), ('pass_rate', 'passed / judged; null = nothing was judged.'),
        ('pass_low', 'Lower end of its 95 % Wilson interval: for a time fixed beforehand.'), ('pass_high', 'Upper end of that interval.'),
        ('live_low', 'Lower end of an interval that stays right when people keep looking.'), ('live_high', 'Upper end of that interval.'),
        ('mean_value', 'Mean of the values in [0, 1] that validators gave; null = none has a value.'), ('cost_usd', 'What the scores cost, in US dollars, as far as known; null = unknown.'),
        ('first_at', 'First day (UTC) with scores in the window.'), ('last_at', 'Last day (UTC) with scores.'),
        ('bin', 'Twentieth of [0, 1]: 0 to 19.'), ('value_low', 'Lowest value of the bin.'), ('value_high', 'Where the next bin begins.'),
        ('span_id', 'The span judged.'), ('trace_id', 'Its trace.'), ('value', 'The validator''s value in [0, 1]; null = none.'), ('critique', 'Why, in words: content of the application may be quoted.')
      ) as own(name, meaning)
      join pg_catalog.pg_attribute as shown on shown.attname = own.name and shown.attnum > 0
     where shown.attrelid = any (array['flywheel.quality_by_minute', 'flywheel.quality_by_hour', 'flywheel.quality_by_day', 'flywheel.quality_by_validator',
                                       'flywheel.quality_by_node', 'flywheel.quality_by_release', 'flywheel.score_distributions', 'flywheel.lowest_scores_today',
                                       'flywheel._known_versions']::regclass[])
  loop
    execute said.statement;
  end loop;
end
$block$;
comment on column flywheel.lowest_scores_today.passed is 'False = fail, true = pass with a low value.';
comment on column flywheel.score_distributions.n is 'Scores with a value in the bin.';
comment on column flywheel._known_versions.version_id is 'The version.';
comment on column flywheel._known_versions.question_id is 'The validator whose labels count for it.';

-- What views call is run as whoever reads them.
select flywheel._grant(role, privilege)
  from unnest(array['flywheel_analyst', 'flywheel_admin']) as role, unnest(array[
  'select on flywheel.quality_by_minute, flywheel.quality_by_hour, flywheel.quality_by_day, flywheel.quality_by_validator,
             flywheel.quality_by_node, flywheel.quality_by_release, flywheel.score_distributions, flywheel.lowest_scores_today',
  'execute on function flywheel._wilson_low(bigint, bigint), flywheel._wilson_high(bigint, bigint), flywheel._quality_since(),
                       flywheel._live_low(bigint, bigint, double precision),
                       flywheel.quality(timestamptz, timestamptz, text[])']) as privilege;
select flywheel._grant('flywheel_worker', 'execute on function flywheel._wilson_low(bigint, bigint), flywheel._wilson_high(bigint, bigint),
  flywheel._quality_since(), flywheel._live_low(bigint, bigint, double precision)');
-- Critiques quote what they are about.
select flywheel._grant('flywheel_admin', 'execute on function flywheel.lowest_scores(text, timestamptz, timestamptz, integer)');
