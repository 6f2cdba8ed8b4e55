-- Metrics: numbers declared by name, each a view of its own for BI tools, however it is stored.
--
--   live          counted from the raw rows whenever somebody looks       costs what is stored, nothing to keep
--   rollup        read from the rollups and what is not folded yet        costs what is shown; exact, the default
--   materialized  the rollup's answer, kept and refreshed by a worker     costs nothing to read; as old as its last refresh
--
-- The three say the same: docs/explanation/views.md has what each costs.

create or replace function flywheel._metric_dimensions() returns text[]
language sql immutable parallel safe security invoker
begin atomic
  select array['project', 'environment', 'release', 'node', 'node_kind', 'attribute_1', 'attribute_2', 'attribute_3'];
end;
comment on function flywheel._metric_dimensions is 'Internal: what a metric may be grouped and filtered by.';

create or replace function flywheel._whole_metric(definition jsonb) returns jsonb
language sql immutable parallel safe security invoker
begin atomic
  select '{"grain": "day", "by": [], "where": {}, "days": 30, "storage": "rollup", "refresh_seconds": 300}'::jsonb || jsonb_strip_nulls(definition);
end;
comment on function flywheel._whole_metric is 'Internal: a definition of a metric with its defaults.';

create or replace function flywheel._whole_number(given jsonb, smallest integer, largest integer) returns boolean
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case when jsonb_typeof(given) = 'number' and given::text ~ '^[0-9]{1,9}$' then given::text::integer between smallest and largest else false end
$function$;
comment on function flywheel._whole_number is 'Internal: whether a JSON value is a whole number in a range.';

-- _metric_problem: the first thing wrong, in words an author can act on.
create or replace function flywheel._metric_problem(definition jsonb) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with said as (
    select definition ->> 'measure' as measure, definition ->> 'validator' as validator,
           array['pass_rate', 'judged_share', 'unscored_rate', 'mean_value', 'corrected_pass_rate', 'cost_usd'] as of_scores,
           array['error_rate', 'latency_p95', 'cost_usd', 'requests'] as of_spans,
           array['measure', 'validator', 'by', 'grain', 'where', 'days', 'storage', 'refresh_seconds'] as keys
  )
  select case
    when exists (select from jsonb_object_keys(definition) as key where key <> all (keys)) then
      format('key %s is not one of %s', (select key from jsonb_object_keys(definition) as key where key <> all (keys) limit 1), array_to_string(keys, ', '))
    when not coalesce(measure = any (of_scores || of_spans), false) then
      format('measure is %s, not one of %s', coalesce(measure, 'missing'), array_to_string(of_scores || of_spans[1:2] || of_spans[4:4], ', '))
    when validator is null and measure <> all (of_spans) then format('measure %s needs a validator', measure)
    when validator is not null and measure <> all (of_scores) then format('measure %s is of spans, so it has no validator', measure)
    when validator is not null and not exists (select from flywheel.validators where validators.name = validator) then format('there is no validator %s', validator)
    when definition ->> 'grain' not in ('minute', 'hour', 'day') then format('grain is %s, not minute, hour or day', definition ->> 'grain')
    when definition ->> 'storage' not in ('live', 'rollup', 'materialized') then format('storage is %s, not live, rollup or materialized', definition ->> 'storage')
    when not flywheel._whole_number(definition -> 'days', 1, 3660) then format('days is %s, not a whole number from 1 to 3660', definition -> 'days')
    when not flywheel._whole_number(definition -> 'refresh_seconds', 1, 864000) then format('refresh_seconds is %s, not a whole number from 1 to 864000', definition -> 'refresh_seconds')
    when jsonb_typeof(definition -> 'by') <> 'array' or definition -> 'by' @? '$[*] ? (@.type() != "string")' then format('by is %s, not a list of dimensions', definition -> 'by')
    when jsonb_typeof(definition -> 'where') <> 'object' then format('where is %s, not an object', definition -> 'where')
    else coalesce(
      (select format('by has %s, not one of %s', each, array_to_string(flywheel._metric_dimensions(), ', '))
         from jsonb_array_elements_text(definition -> 'by') as each where each <> all (flywheel._metric_dimensions()) limit 1),
      (select format('where has %s, not one of %s', key, array_to_string(flywheel._metric_dimensions(), ', '))
         from jsonb_object_keys(definition -> 'where') as key where key <> all (flywheel._metric_dimensions()) limit 1),
      (select format('where.%s is %s, neither a text nor a list of texts', key, value) from jsonb_each(definition -> 'where') as filter(key, value)
        where jsonb_typeof(value) not in ('string', 'array') or value = '[]' or value @? '$[*] ? (@.type() != "string")' limit 1))
  end from said
$function$;
comment on function flywheel._metric_problem is 'Internal: what is wrong with a definition of a metric; null = nothing.';

-- _metric_source: rows of counts, from the rollups or counted anew. Since is the start of a day, so all grains begin together.
create or replace function flywheel._metric_source(definition jsonb, storage text, counts text, recount text, columns text) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format(case storage when 'live'
      then 'select date_trunc(%1$L, %6$s, ''UTC'') as bucket, %5$s from flywheel.%4$I(%2$s, ''infinity'') as counts'
      else 'select bucket, %5$s from flywheel.%3$I as counts where grain = %1$L and bucket >= %2$s' end,
    definition ->> 'grain', format('date_trunc(''day'', now(), ''UTC'') - interval ''%s hours''', 24 * ((definition ->> 'days')::integer - 1)),
    counts, recount, columns, case recount when '_recount_cells' then 'started_at' else 'minute' end)
$function$;
comment on function flywheel._metric_source is 'Internal: the counts a metric is made of.';

create or replace function flywheel._metric_filter(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(string_agg(format('counts.%I = any (%s)', filter.key, flywheel._literal_list(filter.value)), ' and ' order by filter.key), 'true')
    from jsonb_each(definition -> 'where') as filter
$function$;
comment on function flywheel._metric_filter is 'Internal: the condition that where of a metric means.';

-- _metric_dims: "node=app, version=2"; an unknown value is left out, a comma or backslash in a value has a backslash before it.
create or replace function flywheel._metric_dims(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('concat_ws('', ''%s%s)',
    (select string_agg(format($$, %L || replace(replace(counted.%I, '\', '\\'), ',', '\,')$$, each || '=', each), '' order by place)
       from jsonb_array_elements_text(definition -> 'by') with ordinality as dimension(each, place)),
    case when definition ? 'validator' then ', ''version='' || versions.version' else ', null' end)
$function$;
comment on function flywheel._metric_dims is 'Internal: the expression for the dims of a metric.';

create or replace function flywheel._metric_rate(part text, whole text) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('%2$s as n, (%1$s)::double precision / nullif(%2$s, 0) as value, flywheel._wilson_low(%1$s, %2$s) as low, flywheel._wilson_high(%1$s, %2$s) as high', part, whole)
$function$;
comment on function flywheel._metric_rate is 'Internal: n, value, low and high of a rate.';

-- _metric_numbers: n, value, low and high of the row counted.
create or replace function flywheel._metric_numbers(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case definition ->> 'measure'
    when 'pass_rate' then flywheel._metric_rate('counted.passed', 'counted.passed + counted.failed')
    when 'judged_share' then flywheel._metric_rate('counted.passed + counted.failed', 'counted.n')
    when 'unscored_rate' then flywheel._metric_rate('counted.n - counted.passed - counted.failed', 'counted.n')
    when 'error_rate' then flywheel._metric_rate('counted.errors', 'counted.n - counted.running')
    when 'mean_value' then 'counted.valued as n, mean.mean as value, mean.low, mean.high'
    when 'corrected_pass_rate' then 'counted.passed + counted.failed as n, corrected.rate as value, corrected.low, corrected.high'
    when 'cost_usd' then 'counted.priced as n, case when counted.priced > 0 then counted.cost_usd end as value, null::double precision as low, null::double precision as high'
    when 'requests' then 'counted.requests as n, counted.requests::double precision as value, null::double precision as low, null::double precision as high'
    when 'latency_p95' then 'counted.timed as n, flywheel.latency_quantile(counted.bins, counted.counts, 0.95) as value, null::double precision as low, null::double precision as high'
  end
$function$;
comment on function flywheel._metric_numbers is 'Internal: n, value, low and high of a metric, of the row counted.';

-- _metric_of_scores: shadows and drafts decide nothing, so no metric counts them; each version has rows of its own.
create or replace function flywheel._metric_of_scores(definition jsonb, storage text) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$
    with scores as (
      select bucket, version_id%1$s, sum(n)::bigint as n, sum(passed)::bigint as passed, sum(failed)::bigint as failed, sum(valued)::bigint as valued,
             sum(value_sum) as value_sum, sum(value_squares) as value_squares, sum(cost_usd) as cost_usd, sum(priced)::bigint as priced
        from (%2$s) as counts where %3$s
       group by bucket, version_id%1$s having sum(n) > 0
    )%4$s
    select counted.bucket as time, %5$s as dims, %6$s
      from scores as counted
      join flywheel._known_versions as versions using (version_id)
      %7$s
     where versions.validator = %8$L and versions.status in ('active', 'paused', 'retired')$code$,
    keys.list, flywheel._metric_source(definition, storage, '_score_counts', '_recount_scores',
      'version_id, project, environment, release, node, node_kind, attribute_1, attribute_2, attribute_3, n, passed, failed, valued, value_sum, value_squares, cost_usd, priced'),
    flywheel._metric_filter(definition),
    case when definition ->> 'measure' = 'corrected_pass_rate' then format($code$, cells as (
      select bucket, version_id%1$s, sum(tp)::bigint as tp, sum(fp)::bigint as fp, sum(fn)::bigint as fn, sum(tn)::bigint as tn
        from (%2$s) as counts where lane = 'estimation' and %3$s
       group by bucket, version_id%1$s)$code$, keys.list,
      flywheel._metric_source(definition, storage, '_cell_counts', '_recount_cells', 'version_id, project, environment, release, node, node_kind, attribute_1, attribute_2, attribute_3, lane, '
        || case storage when 'live' then '(judge_passed and human_passed)::integer as tp, (judge_passed and not human_passed)::integer as fp,
                                          (not judge_passed and human_passed)::integer as fn, (not judge_passed and not human_passed)::integer as tn'
                        else 'tp, fp, fn, tn' end),
      flywheel._metric_filter(definition)) else '' end,
    flywheel._metric_dims(definition), flywheel._metric_numbers(definition),
    case definition ->> 'measure'
      when 'mean_value' then 'cross join lateral flywheel.bounded_mean_interval(counted.valued, counted.value_sum, counted.value_squares) as mean'
      when 'corrected_pass_rate' then format($code$
        left join cells on (cells.bucket, cells.version_id) = (counted.bucket, counted.version_id)%s
        cross join lateral flywheel.corrected_rate(coalesce(cells.tp, 0), coalesce(cells.fp, 0), coalesce(cells.fn, 0), coalesce(cells.tn, 0),
                                                   counted.passed, counted.passed + counted.failed) as corrected$code$, keys.joined)
      else '' end,
    definition ->> 'validator')
    from (select coalesce(string_agg(format(', %I', each), '' order by place), ''),
                 coalesce(string_agg(format(' and cells.%1$I is not distinct from counted.%1$I', each), '' order by place), '')
            from (select each, min(place) as place from jsonb_array_elements_text(definition -> 'by') with ordinality as dimension(each, place) group by each) as once
         ) as keys(list, joined)
$function$;
comment on function flywheel._metric_of_scores is 'Internal: the query of a metric of a validator.';

create or replace function flywheel._metric_of_spans(definition jsonb, storage text) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$
    select counted.bucket as time, %5$s as dims, %4$s
      from (
        select bucket%1$s, sum(n)::bigint as n, coalesce(sum(n) filter (where root), 0)::bigint as requests, sum(errors)::bigint as errors, sum(running)::bigint as running,
               sum(cost_usd) as cost_usd, sum(priced)::bigint as priced, sum(timed)::bigint as timed,
               array_agg(latency_bin) as bins, array_agg(n) as counts
          from (%2$s) as counts where %3$s
         group by bucket%1$s having sum(n) > 0) as counted$code$,
    (select coalesce(string_agg(distinct format(', %I', each), ''), '') from jsonb_array_elements_text(definition -> 'by') as each),
    flywheel._metric_source(definition, storage, '_span_counts', '_recount_spans',
      'project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3, latency_bin, n, errors, running, cost_usd, priced, timed'),
    flywheel._metric_filter(definition), flywheel._metric_numbers(definition), flywheel._metric_dims(definition))
$function$;
comment on function flywheel._metric_of_spans is 'Internal: the query of a metric of spans.';

create or replace function flywheel._metric_sql(definition jsonb, storage text) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case when definition ? 'validator' then flywheel._metric_of_scores(definition, storage) else flywheel._metric_of_spans(definition, storage) end
$function$;
comment on function flywheel._metric_sql is 'Internal: the query of a metric, as its storage asks.';

-- _comment_metric: what the view of a metric says of itself.
create or replace function flywheel._comment_metric(name text, definition jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  said record;
begin
  execute format('comment on view flywheel_bi.%I is %L', 'metric_' || name, format('Metric %s: %s%s by %s%s, of the last %s days, %s.', name, definition ->> 'measure',
    coalesce(' of ' || (definition ->> 'validator'), ''), definition ->> 'grain',
    (select coalesce(string_agg(', ' || each, ''), '') from jsonb_array_elements_text(definition -> 'by') as each), definition ->> 'days',
    case definition ->> 'storage' when 'materialized' then 'refreshed every ' || (definition ->> 'refresh_seconds') || ' seconds' else 'exact' end));
  for said in select * from (values
      ('time', 'Start (UTC) of the bucket.'), ('dims', 'Its dimensions as name=value; an unknown value is left out.'),
      ('n', 'What the value is of: rows counted.'), ('value', 'The measure; null = there is nothing to measure.'),
      ('low', 'Lower end of its 95 % interval; null = the measure has none.'), ('high', 'Upper end of that interval.')) as own(name, meaning)
  loop
    execute format('comment on column flywheel_bi.%I.%I is %L', 'metric_' || _comment_metric.name, said.name, said.meaning);
  end loop;
end
$function$;
comment on function flywheel._comment_metric is 'Internal: comment the view of a metric.';

-- _make_metric: the view keeps its identity, and so what was granted on it, whatever is behind it. A kept answer is made anew
-- only where its question changed: the comment on it holds a hash of that.
create or replace function flywheel._make_metric(name text, definition jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  kept text := '_metric_' || name;
  shown text := 'metric_' || name;
  query text := flywheel._metric_sql(definition, case definition ->> 'storage' when 'materialized' then 'rollup' else definition ->> 'storage' end);
  mark text := format('Internal: the kept answer of metric %s, of question %s.', name, md5(query));
  known boolean := coalesce(pg_catalog.obj_description(to_regclass(format('flywheel.%I', kept)), 'pg_class') = mark, false);
begin
  if not known then
    execute format('create or replace view flywheel_bi.%I as %s', shown, query);
    execute format('drop materialized view if exists flywheel.%I', kept);
  end if;
  if definition ->> 'storage' = 'materialized' then
    if not known then
      execute format('create materialized view flywheel.%I as select metric.*, md5(metric.dims) as dims_hash from (%s) as metric', kept, query);
      execute format('create unique index on flywheel.%I ("time", dims_hash)', kept);
      execute format('comment on materialized view flywheel.%I is %L', kept, mark);
      update flywheel.metrics set refreshed_at = clock_timestamp(), error = null where metrics.name = _make_metric.name;
    end if;
    execute format('create or replace view flywheel_bi.%I as select "time", dims, n, value, low, high from flywheel.%I', shown, kept);
  end if;
  perform flywheel._comment_metric(name, definition);
  perform flywheel._grant(role, format('select on flywheel_bi.%I', shown)) from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
end
$function$;
comment on function flywheel._make_metric is 'Internal: make or remake the view of a metric, and what it keeps.';

create or replace function flywheel.define_metric(name text, definition jsonb) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  whole jsonb;
  problem text := case when jsonb_typeof(definition) is distinct from 'object' then 'it is not an object' end;
begin
  if name is null or name !~ '^[a-z][a-z0-9_]{0,40}$' or name = 'status' then
    raise exception using errcode = 'WF009', message = format('a metric cannot be named %s', coalesce(name, 'null')),
      hint = 'Use 1 to 41 lower-case letters, digits and underscores, a letter first; status is taken.';
  end if;
  if problem is null then
    whole := flywheel._whole_metric(definition);
    problem := flywheel._metric_problem(whole);
  end if;
  if problem is not null then
    raise exception using errcode = 'WF009', message = format('definition of metric %s is not valid: %s', name, problem),
      hint = 'As {"measure": "pass_rate", "validator": "polite", "by": ["node"], "grain": "day", "days": 30, "storage": "rollup"}.';
  end if;
  perform flywheel._win_turn('metrics', true);
  insert into flywheel.metrics as known (name, definition, storage, refresh_seconds)
  values (define_metric.name, whole, whole ->> 'storage', (whole ->> 'refresh_seconds')::integer)
      on conflict on constraint metrics_pkey do update
     set definition = excluded.definition, storage = excluded.storage, refresh_seconds = excluded.refresh_seconds,
         defined_by = session_user, defined_at = now(), error = null,
         refreshed_at = case excluded.storage when 'materialized' then known.refreshed_at end;
  perform flywheel._make_metric(name, whole);
  return 'flywheel_bi.metric_' || name;
end
$function$;
comment on function flywheel.define_metric is
  'Declare a metric, or declare it anew; returns its view (time, dims, n, value, low, high). Keys: measure (pass_rate, judged_share, unscored_rate, mean_value, corrected_pass_rate, cost_usd with a validator; error_rate, latency_p95, cost_usd, requests of spans), validator, by, grain (day), where, days (30), storage (rollup, live or materialized), refresh_seconds (300).';

create or replace function flywheel.drop_metric(name text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._win_turn('metrics', true);
  delete from flywheel.metrics where metrics.name = drop_metric.name;
  if not found then
    return false;
  end if;
  execute format('drop view if exists flywheel_bi.%I', 'metric_' || name);
  execute format('drop materialized view if exists flywheel.%I', '_metric_' || name);
  return true;
end
$function$;
comment on function flywheel.drop_metric is 'Forget a metric and drop its view; false = there is none of this name.';

-- _refresh_metrics: one a call, the one that waited longest, so that no chore holds the others up.
create or replace function flywheel._refresh_metrics() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  due text;
  began timestamptz := clock_timestamp();
begin
  select metrics.name into due from flywheel.metrics
   where metrics.storage = 'materialized' and coalesce(metrics.refreshed_at, '-infinity') + make_interval(secs => metrics.refresh_seconds) <= began
   order by metrics.refreshed_at + make_interval(secs => metrics.refresh_seconds) nulls first limit 1 for update skip locked;
  if due is null then
    return 0;
  end if;
  begin
    execute format('refresh materialized view concurrently flywheel.%I', '_metric_' || due);
    update flywheel.metrics set refresh_ms = extract(epoch from clock_timestamp() - began) * 1000, error = null where metrics.name = due;
  exception when others then
    update flywheel.metrics set error = sqlerrm where metrics.name = due;
  end;
  update flywheel.metrics set refreshed_at = began where metrics.name = due;
  return 1;
end
$function$;
comment on function flywheel._refresh_metrics is 'Internal: refresh the materialized metric that is due longest; returns 1, or 0 where none is. Workers call it.';

-- _remake_metrics: after an upgrade. A metric that cannot be made any more keeps its reason, and holds up no upgrade.
create or replace function flywheel._remake_metrics() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  known record;
  made bigint := 0;
begin
  for known in select metrics.name, metrics.definition from flywheel.metrics order by metrics.name loop
    begin
      perform flywheel._make_metric(known.name, known.definition);
      made := made + 1;
    exception when others then
      update flywheel.metrics set error = sqlerrm where metrics.name = known.name;
      raise notice 'metric % cannot be made: %', known.name, sqlerrm;
    end;
  end loop;
  return made;
end
$function$;
comment on function flywheel._remake_metrics is 'Internal: make the views of all metrics anew; returns how many there are.';
select flywheel._remake_metrics();

create or replace view flywheel.metric_status as
  select metrics.name as metric, 'flywheel_bi.metric_' || metrics.name as view, metrics.definition ->> 'measure' as measure,
         metrics.definition ->> 'validator' as validator, metrics.definition ->> 'grain' as grain,
         array_to_string(array(select jsonb_array_elements_text(metrics.definition -> 'by')), ', ') as by,
         (metrics.definition ->> 'days')::integer as days, metrics.storage,
         case metrics.storage when 'materialized' then metrics.refresh_seconds end as refresh_seconds, metrics.refreshed_at,
         case metrics.storage when 'materialized' then extract(epoch from now() - metrics.refreshed_at)::double precision else 0 end as age_seconds,
         metrics.refresh_ms, metrics.error as refresh_error, metrics.defined_by, metrics.defined_at
    from flywheel.metrics;
comment on view flywheel.metric_status is 'The metrics that were declared by name, with how old what they show may be.';
comment on column flywheel.metric_status.metric is 'Name of the metric.';
comment on column flywheel.metric_status.view is 'The view that shows it.';
comment on column flywheel.metric_status.measure is 'What is measured.';
comment on column flywheel.metric_status.validator is 'By which validator; null = it is of spans.';
comment on column flywheel.metric_status.grain is 'minute, hour or day.';
comment on column flywheel.metric_status.by is 'Dimensions it is grouped by.';
comment on column flywheel.metric_status.days is 'Days (UTC, today among them) it looks back.';
comment on column flywheel.metric_status.storage is 'live, rollup or materialized.';
comment on column flywheel.metric_status.refresh_seconds is 'Seconds between refreshes; null = it is always exact.';
comment on column flywheel.metric_status.refreshed_at is 'When it was refreshed last; null = it is always exact.';
comment on column flywheel.metric_status.age_seconds is 'How old what it shows is, in seconds.';
comment on column flywheel.metric_status.refresh_ms is 'Milliseconds the last refresh took; null = none yet.';
comment on column flywheel.metric_status.refresh_error is 'Why the last refresh failed; null = it did not.';
comment on column flywheel.metric_status.defined_by is 'Database user who defined it last.';
comment on column flywheel.metric_status.defined_at is 'When.';

select flywheel._grant(role, 'select on flywheel.metric_status') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_admin', 'execute on function flywheel.define_metric(text, jsonb), flywheel.drop_metric(text)');
select flywheel._grant(role, 'execute on function flywheel._refresh_metrics()') from unnest(array['flywheel_worker', 'flywheel_admin']) as role;
-- What views of live metrics call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel._recount_scores(timestamptz, timestamptz), flywheel._recount_spans(timestamptz, timestamptz),
  flywheel._recount_cells(timestamptz, timestamptz)') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
