-- Operations: how long it takes, how often it breaks, what it costs. From counts by day and hour, never from spans.

-- latency_quantiles: bins are an eighth of a doubling wide, so the geometric middle is off by a sixteenth at most: 4.5 %.
create or replace function flywheel.latency_quantiles(bins smallint[], counts bigint[], shares double precision[])
returns double precision[]
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  known smallint[];
  reached bigint[];                             -- spans in that bin and below; a bin may come twice, and be taken back
  share double precision;
  found double precision[];
begin
  if cardinality(bins) <> cardinality(counts) or 0 > any (shares) or 1 < any (shares) then
    raise exception using errcode = '22023', message = format('%s bins with %s counts have no quantiles at %s', cardinality(bins), cardinality(counts), shares),
      hint = 'Give one count for each bin, and shares from 0 to 1.';
  end if;
  select array_agg(bin), array_agg(below) into known, reached
    from (select bin, (sum(n) over (order by bin))::bigint as below
            from unnest(bins, counts) as given (bin, n) where bin <> -999 order by bin) as cumulated;
  foreach share in array shares loop
    found := found || power(2, (known[1 + width_bucket(greatest(0, ceil(share * reached[cardinality(reached)])::bigint - 1), reached)] + 0.5) / 8);
  end loop;
  return found;
end
$function$;
comment on function flywheel.latency_quantiles is
  'Latencies in milliseconds below which the given shares of spans lie, from the counts of bins floor(8 log2(ms)); bin -999 (unknown) is left out. Within 4.5 % of the latency that has that rank (percentile_disc), above 0.001 ms. Null where nothing was timed.';

create or replace function flywheel.latency_quantile(bins smallint[], counts bigint[], share double precision)
returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select (flywheel.latency_quantiles(bins, counts, array[share]))[1];
end;
comment on function flywheel.latency_quantile is
  'Latency in milliseconds below which a share of spans lies, as latency_quantiles() has it.';

create or replace view flywheel._latency as
  select counted.grain, counted.bucket, counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root,
         counted.attribute_1, counted.attribute_2, counted.attribute_3,
         sum(counted.n)::bigint as n, sum(counted.errors)::bigint as errors, sum(counted.running)::bigint as running,
         sum(counted.timed)::bigint as timed, array_agg(counted.latency_bin) as bins, array_agg(counted.n) as counts,
         sum(counted.latency_ms) as latency_ms,
         nullif(sum(counted.input_tokens), 0)::bigint as input_tokens,       -- metered spans may know one of the two alone
         nullif(sum(counted.output_tokens), 0)::bigint as output_tokens,
         case when sum(counted.priced) > 0 then sum(counted.cost_usd) end as cost_usd,
         sum(counted.priced)::bigint as priced
    from flywheel._span_counts as counted
   group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
  having sum(counted.n) > 0;
comment on view flywheel._latency is 'Internal: spans by minute, hour and day with their bins of latency; always filter by grain.';

create or replace view flywheel.latency_by_hour as
  select summed.bucket as time, summed.project, summed.environment, summed.release, summed.node, summed.node_kind, summed.root,
         summed.attribute_1, summed.attribute_2, summed.attribute_3, summed.n, summed.errors, summed.running,
         summed.errors::double precision / nullif(summed.n - summed.running, 0) as error_rate, likely.low as error_low, likely.high as error_high,
         summed.timed, quantile.ms[1] as p50_ms, quantile.ms[2] as p95_ms, quantile.ms[3] as p99_ms,
         summed.latency_ms / nullif(summed.timed, 0) as mean_ms, summed.input_tokens, summed.output_tokens, summed.cost_usd,
         summed.priced::double precision / summed.n as priced_share
    from flywheel._latency as summed
   cross join lateral flywheel.wilson_interval(summed.errors, summed.n - summed.running) as likely
   cross join lateral flywheel.latency_quantiles(summed.bins, summed.counts, array[0.5, 0.95, 0.99]) as quantile(ms)
   where summed.grain = 'hour';
comment on view flywheel.latency_by_hour is
  'Latency, errors, tokens and cost of spans by hour and everything they are counted by. Quantiles of rows cannot be averaged: latency(since, until, by) has those of any grouping.';

create or replace view flywheel.latency_by_day as
  select summed.bucket as time, summed.project, summed.environment, summed.release, summed.node, summed.node_kind, summed.root,
         summed.attribute_1, summed.attribute_2, summed.attribute_3, summed.n, summed.errors, summed.running,
         summed.errors::double precision / nullif(summed.n - summed.running, 0) as error_rate, likely.low as error_low, likely.high as error_high,
         summed.timed, quantile.ms[1] as p50_ms, quantile.ms[2] as p95_ms, quantile.ms[3] as p99_ms,
         summed.latency_ms / nullif(summed.timed, 0) as mean_ms, summed.input_tokens, summed.output_tokens, summed.cost_usd,
         summed.priced::double precision / summed.n as priced_share
    from flywheel._latency as summed
   cross join lateral flywheel.wilson_interval(summed.errors, summed.n - summed.running) as likely
   cross join lateral flywheel.latency_quantiles(summed.bins, summed.counts, array[0.5, 0.95, 0.99]) as quantile(ms)
   where summed.grain = 'day';
comment on view flywheel.latency_by_day is
  'Latency, errors, tokens and cost of spans by UTC day and everything they are counted by. Quantiles of rows cannot be averaged: latency(since, until, by) has those of any grouping.';

-- _grain: the coarsest counts both ends fall between, and no coarser than the steps asked for.
create or replace function flywheel._grain(since timestamptz, until timestamptz, step text default null) returns text
language sql immutable parallel safe security invoker
begin atomic
  select case when date_bin('1 day', since, '2000-01-01 00:00:00+00') = since and date_bin('1 day', until, '2000-01-01 00:00:00+00') = until
                   and coalesce(step, 'day') = 'day' then 'day'
              when date_bin('1 hour', since, '2000-01-01 00:00:00+00') = since and date_bin('1 hour', until, '2000-01-01 00:00:00+00') = until
                   and coalesce(step, 'hour') <> 'minute' then 'hour'
              else 'minute' end;
end;
comment on function flywheel._grain is 'Internal: the grain of the counts that cover [since, until) exactly, fine enough for steps of that size.';

-- latency: from the minute of since, as quality() does; quantiles of any grouping, which no view's rows add up to.
create or replace function flywheel.latency(since timestamptz, until timestamptz, by text[] default '{}', step text default null)
returns table ("time" timestamptz, project text, environment text, release text, node text, node_kind text, root boolean,
  attribute_1 text, attribute_2 text, attribute_3 text, n bigint, errors bigint, running bigint,
  error_rate double precision, error_low double precision, error_high double precision, timed bigint,
  p50_ms double precision, p95_ms double precision, p99_ms double precision, mean_ms double precision,
  input_tokens bigint, output_tokens bigint, cost_usd double precision, priced_share double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  known text[] := array['project', 'environment', 'release', 'node', 'node_kind', 'root', 'attribute_1', 'attribute_2', 'attribute_3'];
  first timestamptz := flywheel._minute(latency.since);
begin
  if not latency.by <@ known or latency.step not in ('minute', 'hour', 'day') then
    raise exception using errcode = 'WF009', message = format('latency is not counted by %s in steps of %s', latency.by, coalesce(latency.step, 'nothing')),
      hint = format('Dimensions are %s; steps are minute, hour and day.', array_to_string(known, ', '));
  end if;
  return query
    select summed.at, summed.project, summed.environment, summed.release, summed.node, summed.node_kind, summed.root,
           summed.attribute_1, summed.attribute_2, summed.attribute_3, summed.n, summed.errors, summed.running,
           summed.errors::double precision / nullif(summed.n - summed.running, 0), likely.low, likely.high, summed.timed,
           quantile.ms[1], quantile.ms[2], quantile.ms[3], summed.latency_ms / nullif(summed.timed, 0),
           nullif(summed.input_tokens, 0), nullif(summed.output_tokens, 0),
           case when summed.priced > 0 then summed.cost_usd end, summed.priced::double precision / summed.n
      from (
        select case when latency.step is null then latency.since else date_trunc(latency.step, counted.bucket, 'UTC') end as at,
               case when 'project' = any (latency.by) then counted.project end as project,
               case when 'environment' = any (latency.by) then counted.environment end as environment,
               case when 'release' = any (latency.by) then counted.release end as release,
               case when 'node' = any (latency.by) then counted.node end as node,
               case when 'node_kind' = any (latency.by) then counted.node_kind end as node_kind,
               case when 'root' = any (latency.by) then counted.root end as root,
               case when 'attribute_1' = any (latency.by) then counted.attribute_1 end as attribute_1,
               case when 'attribute_2' = any (latency.by) then counted.attribute_2 end as attribute_2,
               case when 'attribute_3' = any (latency.by) then counted.attribute_3 end as attribute_3,
               sum(counted.n)::bigint as n, sum(counted.errors)::bigint as errors, sum(counted.running)::bigint as running,
               sum(counted.timed)::bigint as timed, array_agg(counted.latency_bin) as bins, array_agg(counted.n) as counts,
               sum(counted.latency_ms) as latency_ms, sum(counted.input_tokens)::bigint as input_tokens,
               sum(counted.output_tokens)::bigint as output_tokens, sum(counted.cost_usd) as cost_usd, sum(counted.priced)::bigint as priced
          from flywheel._span_counts as counted
         where counted.grain = flywheel._grain(first, latency.until, latency.step)
           and counted.bucket >= first and counted.bucket < latency.until
         group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 having sum(counted.n) > 0) as summed
     cross join lateral flywheel.wilson_interval(summed.errors, summed.n - summed.running) as likely
     cross join lateral flywheel.latency_quantiles(summed.bins, summed.counts, array[0.5, 0.95, 0.99]) as quantile(ms)
     order by summed.at, summed.n desc;
end
$function$;
comment on function flywheel.latency is
  'Latency, errors, tokens and cost of the spans of a time (to the minute), by any of project, environment, release, node, node_kind, root, attribute_1..3 and, if asked, in steps of minute, hour or day (UTC). A dimension not asked for is null.';

-- cost_by_day: one union, so that a condition on time reaches both sides; the row without a validator is always there.
create or replace view flywheel.cost_by_day as
  select priced.time, priced.project, priced.environment, priced.release, priced.requests, priced.spans, priced.cost_usd, priced.priced_share,
         priced.cost_usd / nullif(priced.requests, 0) as cost_per_request,
         validators.name as validator, case when validators.name is not null then priced.passed end as passed,
         priced.cost_usd / nullif(priced.requests, 0) * priced.judged / nullif(priced.passed, 0) as cost_per_pass,
         versions.version, case when validators.name is not null then priced.judged end as judged
    from (
      select summed.time, summed.project, summed.environment, summed.release, summed.version_id, summed.judged, summed.passed,
             (sum(summed.requests) over slice)::bigint as requests, (sum(summed.spans) over slice)::bigint as spans,
             case when sum(summed.priced) over slice > 0 then sum(summed.cost_usd) over slice end as cost_usd,
             (sum(summed.priced) over slice / nullif(sum(summed.spans) over slice, 0))::double precision as priced_share
        from (
          select counted.time, counted.project, counted.environment, counted.release, counted.version_id,
                 sum(counted.requests) as requests, sum(counted.spans) as spans, sum(counted.cost_usd) as cost_usd, sum(counted.priced) as priced,
                 sum(counted.judged)::bigint as judged, sum(counted.passed)::bigint as passed
            from (
              select bucket as time, project, environment, release, null::uuid as version_id, case when root then n else 0 end as requests,
                     n as spans, cost_usd, priced, 0::bigint as judged, 0::bigint as passed
                from flywheel._span_counts where grain = 'day'
               union all
              select bucket, project, environment, release, version_id, 0, 0, 0, 0, passed + failed, passed
                from flywheel._score_counts where grain = 'day' and root) as counted
           group by 1, 2, 3, 4, 5) as summed
      window slice as (partition by summed.time, summed.project, summed.environment, summed.release)) as priced
    left join flywheel.validator_versions as versions using (version_id)
    left join flywheel.validators using (validator_id)
   where priced.spans > 0 and (priced.version_id is null or (versions.status not in ('shadow', 'draft', 'approved') and priced.judged > 0));
comment on view flywheel.cost_by_day is
  'What requests (root spans) cost, by UTC day: one row without a validator, and the same costs again for each validator version that judged requests. A sum over rows needs: where validator is null. What judging costs is in validation_cost_by_day.';

do $block$
declare
  said record;
begin
  for said in
    select shown.view, own.name, own.meaning
      from (values
        ('time', 'Start of the hour or UTC day in which the spans started.'),
        ('project', 'Which LLM application.'),
        ('environment', 'Where it runs.'),
        ('release', 'Which version of it; null = unknown.'),
        ('node', 'The step in the call graph.'),
        ('node_kind', 'Kind of the step.'),
        ('root', 'Whether these are root spans, which are whole requests.'),
        ('attribute_1', 'First own dimension; null = none.'),
        ('attribute_2', 'Second own dimension; null = none.'),
        ('attribute_3', 'Third own dimension; null = none.'),
        ('n', 'Spans.'),
        ('errors', 'Spans with status error.'),
        ('running', 'Spans that have not ended.'),
        ('error_rate', 'errors / (n - running); null where none has ended.'),
        ('error_low', 'Lower end of its 95 % Wilson interval.'),
        ('error_high', 'Upper end of its 95 % Wilson interval.'),
        ('timed', 'Spans whose latency is known; the next four are of these.'),
        ('p50_ms', 'Half of them took no longer, in milliseconds; within 4.5 %. Null = none was timed.'),
        ('p95_ms', '95 % of them took no longer, in milliseconds; within 4.5 %. Null = none was timed.'),
        ('p99_ms', '99 % of them took no longer, in milliseconds; within 4.5 %. Null = none was timed.'),
        ('mean_ms', 'Mean latency in milliseconds, exact; null = none was timed.'),
        ('input_tokens', 'Tokens read, where known; null = nowhere known, or none.'),
        ('output_tokens', 'Tokens written, where known; null = nowhere known, or none.'),
        ('cost_usd', 'Cost in US dollars, where known; null = nowhere known.'),
        ('priced_share', 'Share of the spans whose cost is known: below 1, cost_usd may be too low.'),
        ('requests', 'Root spans.'),
        ('spans', 'All spans, steps too.'),
        ('cost_per_request', 'cost_usd of all spans / requests: steps are paid for by the requests of the same day and release.'),
        ('validator', 'Validator of requests; null = the row of costs alone.'),
        ('passed', 'Requests it passed.'),
        ('cost_per_pass', 'cost_per_request / (passed / judged): what is spent until one request passes, also where only a sample is judged. Null where none passed.'),
        ('version', 'Version of the validator; verdicts of versions are not mixed.'),
        ('judged', 'Requests it gave a verdict on.')) as own(name, meaning)
      join (values ('latency_by_hour'), ('latency_by_day'), ('cost_by_day')) as shown(view) on true
      join pg_catalog.pg_attribute as held
        on held.attrelid = format('flywheel.%I', shown.view)::regclass and held.attname = own.name
  loop
    execute format('comment on column flywheel.%I.%I is %L', said.view, said.name, said.meaning);
  end loop;
  for said in select attname from pg_catalog.pg_attribute where attrelid = 'flywheel._latency'::regclass and attnum > 0 loop
    execute format('comment on column flywheel._latency.%I is %L', said.attname, 'As in _span_counts, added up; bins and counts: spans by bin of latency.');
  end loop;
end
$block$;

select flywheel._grant(role, 'select on flywheel.latency_by_hour, flywheel.latency_by_day, flywheel.cost_by_day')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  'latency_quantiles', 'latency_quantile', 'latency(timestamptz, timestamptz, text[], text)']) as name;
