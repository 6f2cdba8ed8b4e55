-- Alerts, counted: what rules on rates are made of, by slice and time, from the counting views.
--
-- Bad is what a rule fears: fails, errors, scores without a verdict, slow spans. One statement reads all slices of a rule.

create or replace function flywheel._alert_seconds(duration text) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select substring(duration, '^[0-9]{1,6}')::double precision
         * case right(duration, 1) when 's' then 1 when 'm' then 60 when 'h' then 3600 when 'd' then 86400 end
   where duration ~ '^[0-9]{1,6}[smhd]$';
end;
comment on function flywheel._alert_seconds is 'Internal: seconds of a duration like 90s, 15m, 1h or 7d; null where it is none.';

create or replace function flywheel._alert_interval(definition jsonb, key text) returns interval
language sql immutable parallel safe security invoker
begin atomic
  select make_interval(secs => flywheel._alert_seconds(definition ->> key));
end;
comment on function flywheel._alert_interval is 'Internal: a duration of a rule.';

create or replace function flywheel._alert_grain(definition jsonb) returns text
language sql immutable parallel safe security invoker
begin atomic
  select case when seconds <= 21600 then 'minute' when seconds <= 1209600 then 'hour' else 'day' end
    from (select flywheel._alert_seconds(definition ->> 'window')) as over_time (seconds);
end;
comment on function flywheel._alert_grain is 'Internal: how finely the window of a rule is counted.';

-- _alert_slice: names come from spans, so each is cut: a key of an index has a limit. Called for each row, so it is inlined.
create or replace function flywheel._alert_slice(by_keys text[], validator text, project text, environment text, release text, node text,
  attribute_1 text, attribute_2 text, attribute_3 text)
returns jsonb
language sql immutable parallel safe security invoker
begin atomic
  select jsonb_strip_nulls(jsonb_build_object(
    'validator', case when 'validator' = any (by_keys) then left(coalesce(validator, ''), 120) end,
    'project', case when 'project' = any (by_keys) then left(coalesce(project, ''), 120) end,
    'environment', case when 'environment' = any (by_keys) then left(coalesce(environment, ''), 120) end,
    'release', case when 'release' = any (by_keys) then left(coalesce(release, ''), 120) end,
    'node', case when 'node' = any (by_keys) then left(coalesce(node, ''), 120) end,
    'attribute_1', case when 'attribute_1' = any (by_keys) then left(coalesce(attribute_1, ''), 120) end,
    'attribute_2', case when 'attribute_2' = any (by_keys) then left(coalesce(attribute_2, ''), 120) end,
    'attribute_3', case when 'attribute_3' = any (by_keys) then left(coalesce(attribute_3, ''), 120) end));
end;
comment on function flywheel._alert_slice is 'Internal: the slice of a rule some counts belong to; an unknown value is empty.';

-- _alert_score_counts: of the version that judges now, so that no number mixes two versions.
create or replace function flywheel._alert_score_counts(metric text, fixed jsonb, by_keys text[], grain text, since timestamptz, until timestamptz)
returns table (slice jsonb, bucket timestamptz, bad bigint, total bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select named.slice, piece.bucket, piece.bad, piece.total       -- named once for each slice, not for each bucket of it
    from (
      select fixed || flywheel._alert_slice(by_keys, found.name, found.project, found.environment, found.release, found.node, found.attribute_1, found.attribute_2, found.attribute_3) as slice,
             array_agg(found.bucket) as buckets, array_agg(found.bad::bigint) as bads, array_agg(found.total::bigint) as totals
        from (
          select validators.name, case when 'project' = any (by_keys) then counted.project end as project,
                 case when 'environment' = any (by_keys) then counted.environment end as environment,
                 case when 'release' = any (by_keys) then counted.release end as release, case when 'node' = any (by_keys) then counted.node end as node,
                 case when 'attribute_1' = any (by_keys) then counted.attribute_1 end as attribute_1,
                 case when 'attribute_2' = any (by_keys) then counted.attribute_2 end as attribute_2,
                 case when 'attribute_3' = any (by_keys) then counted.attribute_3 end as attribute_3, counted.bucket,
                 sum(case metric when 'unscored_rate' then counted.n - counted.passed - counted.failed else counted.failed end) as bad,
                 sum(case metric when 'unscored_rate' then counted.n else counted.passed + counted.failed end) as total
            from flywheel._score_counts as counted
            join flywheel.validator_versions as versions on versions.version_id = counted.version_id and versions.status in ('active', 'paused')
            join flywheel.validators on validators.validator_id = versions.validator_id
           where counted.grain = _alert_score_counts.grain and counted.bucket >= since and counted.bucket < until
             and (not fixed ? 'validator' or validators.name = fixed ->> 'validator')
             and (not fixed ? 'project' or counted.project = fixed ->> 'project')
             and (not fixed ? 'environment' or counted.environment = fixed ->> 'environment')
             and (not fixed ? 'node' or counted.node = fixed ->> 'node')
             and (not fixed ? 'release' or counted.release = fixed ->> 'release')
             and (not fixed ? 'attribute_1' or counted.attribute_1 = fixed ->> 'attribute_1')
             and (not fixed ? 'attribute_2' or counted.attribute_2 = fixed ->> 'attribute_2')
             and (not fixed ? 'attribute_3' or counted.attribute_3 = fixed ->> 'attribute_3')
           group by 1, 2, 3, 4, 5, 6, 7, 8, 9) as found
       where found.total > 0
       group by found.name, found.project, found.environment, found.release, found.node, found.attribute_1, found.attribute_2, found.attribute_3) as named
   cross join lateral unnest(named.buckets, named.bads, named.totals) as piece(bucket, bad, total)
$function$;
comment on function flywheel._alert_score_counts is 'Internal: bad and all scores by slice and time, for a rule on pass_rate or unscored_rate.';

-- _alert_span_counts: without a node in the rule latency is that of requests, which are root spans.
create or replace function flywheel._alert_span_counts(metric text, fixed jsonb, by_keys text[], grain text, since timestamptz, until timestamptz)
returns table (slice jsonb, bucket timestamptz, latency_bin smallint, errors bigint, n bigint, cost_usd double precision, priced bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select fixed || flywheel._alert_slice(by_keys, null, found.project, found.environment, found.release, found.node, found.attribute_1, found.attribute_2, found.attribute_3),
         found.bucket, found.latency_bin, found.errors::bigint, found.n::bigint, found.cost_usd, found.priced::bigint
    from (
      select case when 'project' = any (by_keys) then counted.project end as project,
             case when 'environment' = any (by_keys) then counted.environment end as environment,
             case when 'release' = any (by_keys) then counted.release end as release, case when 'node' = any (by_keys) then counted.node end as node,
             case when 'attribute_1' = any (by_keys) then counted.attribute_1 end as attribute_1,
             case when 'attribute_2' = any (by_keys) then counted.attribute_2 end as attribute_2,
             case when 'attribute_3' = any (by_keys) then counted.attribute_3 end as attribute_3,
             counted.bucket, case when metric = 'latency_p95' then counted.latency_bin end as latency_bin,
             sum(counted.errors) as errors, sum(counted.n) as n, sum(counted.cost_usd) as cost_usd, sum(counted.priced) as priced
        from flywheel._span_counts as counted
       where counted.grain = _alert_span_counts.grain and counted.bucket >= since and counted.bucket < until
         and (metric <> 'latency_p95' or (counted.latency_bin <> -999 and (counted.root or fixed ? 'node' or 'node' = any (by_keys))))
         and (not fixed ? 'project' or counted.project = fixed ->> 'project')
         and (not fixed ? 'environment' or counted.environment = fixed ->> 'environment')
         and (not fixed ? 'node' or counted.node = fixed ->> 'node')
         and (not fixed ? 'release' or counted.release = fixed ->> 'release')
         and (not fixed ? 'attribute_1' or counted.attribute_1 = fixed ->> 'attribute_1')
         and (not fixed ? 'attribute_2' or counted.attribute_2 = fixed ->> 'attribute_2')
         and (not fixed ? 'attribute_3' or counted.attribute_3 = fixed ->> 'attribute_3')
       group by 1, 2, 3, 4, 5, 6, 7, 8, 9) as found
$function$;
comment on function flywheel._alert_span_counts is 'Internal: spans, errors, latencies and cost by slice and time, for a rule.';

create or replace function flywheel._alert_keys(definition jsonb) returns text[]
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select array(select jsonb_array_elements_text(definition -> 'by'))
$function$;
comment on function flywheel._alert_keys is 'Internal: by what a rule is cut into slices.';

create or replace function flywheel._alert_counts(definition jsonb, grain text, since timestamptz, until timestamptz)
returns table (slice jsonb, bucket timestamptz, bad bigint, total bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if definition ->> 'metric' = 'error_rate' then
    return query select counted.slice, counted.bucket, counted.errors, counted.n
      from flywheel._alert_span_counts('error_rate', definition -> 'slice', flywheel._alert_keys(definition), grain, since, until) as counted;
  else
    return query select counted.slice, counted.bucket, counted.bad, counted.total
      from flywheel._alert_score_counts(definition ->> 'metric', definition -> 'slice', flywheel._alert_keys(definition), grain, since, until) as counted;
  end if;
end
$function$;
comment on function flywheel._alert_counts is 'Internal: bad and all rows of a rule on a rate, by slice and time.';

-- _alert_share: the budget is one number for the install; each rule on rates gets the same part, and in it each slice.
create or replace function flywheel._alert_share(slices bigint) returns double precision
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._setting('false_alarms_per_month') / greatest(1, count(*)) / greatest(1, slices)
    from flywheel.alert_rules
   where metric in ('pass_rate', 'corrected_pass_rate', 'error_rate', 'unscored_rate', 'latency_p95')
$function$;
comment on function flywheel._alert_share is 'Internal: false alarms a month that one of so many slices of a rule may raise.';

-- _alert_confidence: one-sided, and spent anew with each window.
create or replace function flywheel._alert_confidence(definition jsonb, slices bigint) returns double precision
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select 1 - 2 * least(0.025, flywheel._alert_share(slices) * flywheel._alert_seconds(definition ->> 'window') / 2592000)
$function$;
comment on function flywheel._alert_confidence is 'Internal: the confidence an interval needs for a rule to keep to its part of the false alarms.';
