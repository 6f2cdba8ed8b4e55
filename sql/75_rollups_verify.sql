-- Verify: whether what views count is what the raw rows say, and how far the fold has come.

create or replace function flywheel._both_scores(since timestamptz, last timestamptz)
returns table (names text[], grain text, bucket timestamptz, dimensions text, side integer, counts double precision[])
language sql stable security definer
set search_path = pg_catalog, pg_temp set jit = off
as $function$
  select array['n', 'passed', 'failed', 'valued', 'value_sum', 'value_squares', 'cost_usd', 'priced', 'input_tokens', 'output_tokens', 'metered', 'latency_ms', 'timed'] as names, grain, bucket, jsonb_build_array(version_id, reason, value_bin, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)::text as dimensions, 2 as side, array[sum(n)::double precision, sum(passed)::double precision, sum(failed)::double precision, sum(valued)::double precision, sum(value_sum)::double precision, sum(value_squares)::double precision, sum(cost_usd)::double precision, sum(priced)::double precision, sum(input_tokens)::double precision, sum(output_tokens)::double precision, sum(metered)::double precision, sum(latency_ms)::double precision, sum(timed)::double precision] as counts
    from flywheel._score_counts where bucket >= _both_scores.since and bucket <= _both_scores.last group by grain, bucket, version_id, reason, value_bin, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
   union all
  select array['n', 'passed', 'failed', 'valued', 'value_sum', 'value_squares', 'cost_usd', 'priced', 'input_tokens', 'output_tokens', 'metered', 'latency_ms', 'timed'] as names, grain, bucket, jsonb_build_array(version_id, reason, value_bin, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)::text as dimensions, 1 as side, array[sum(n)::double precision, sum(passed)::double precision, sum(failed)::double precision, sum(valued)::double precision, sum(value_sum)::double precision, sum(value_squares)::double precision, sum(cost_usd)::double precision, sum(priced)::double precision, sum(input_tokens)::double precision, sum(output_tokens)::double precision, sum(metered)::double precision, sum(latency_ms)::double precision, sum(timed)::double precision] as counts
    from flywheel._recount_scores(_both_scores.since, _both_scores.last) as counted cross join lateral flywheel._cuts(counted.minute) as cut group by grain, bucket, version_id, reason, value_bin, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
$function$;
comment on function flywheel._both_scores is 'Internal: counts of scores as views show them (side 2) and as a recount has them (side 1).';

create or replace function flywheel._both_spans(since timestamptz, last timestamptz)
returns table (names text[], grain text, bucket timestamptz, dimensions text, side integer, counts double precision[])
language sql stable security definer
set search_path = pg_catalog, pg_temp set jit = off
as $function$
  select array['n', 'errors', 'running', 'input_tokens', 'output_tokens', 'metered', 'cost_usd', 'priced', 'latency_ms', 'latency_squares', 'timed'] as names, grain, bucket, jsonb_build_array(latency_bin, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)::text as dimensions, 2 as side, array[sum(n)::double precision, sum(errors)::double precision, sum(running)::double precision, sum(input_tokens)::double precision, sum(output_tokens)::double precision, sum(metered)::double precision, sum(cost_usd)::double precision, sum(priced)::double precision, sum(latency_ms)::double precision, sum(latency_squares)::double precision, sum(timed)::double precision] as counts
    from flywheel._span_counts where bucket >= _both_spans.since and bucket <= _both_spans.last group by grain, bucket, latency_bin, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
   union all
  select array['n', 'errors', 'running', 'input_tokens', 'output_tokens', 'metered', 'cost_usd', 'priced', 'latency_ms', 'latency_squares', 'timed'] as names, grain, bucket, jsonb_build_array(latency_bin, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)::text as dimensions, 1 as side, array[sum(n)::double precision, sum(errors)::double precision, sum(running)::double precision, sum(input_tokens)::double precision, sum(output_tokens)::double precision, sum(metered)::double precision, sum(cost_usd)::double precision, sum(priced)::double precision, sum(latency_ms)::double precision, sum(latency_squares)::double precision, sum(timed)::double precision] as counts
    from flywheel._recount_spans(_both_spans.since, _both_spans.last) as counted cross join lateral flywheel._cuts(counted.minute) as cut group by grain, bucket, latency_bin, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
$function$;
comment on function flywheel._both_spans is 'Internal: counts of spans as views show them (side 2) and as a recount has them (side 1).';

create or replace function flywheel._both_cells(since timestamptz, last timestamptz)
returns table (names text[], grain text, bucket timestamptz, dimensions text, side integer, counts double precision[])
language sql stable security definer
set search_path = pg_catalog, pg_temp set jit = off
as $function$
  select array['tp', 'fp', 'fn', 'tn', 'valued', 'y_sum', 'f_sum', 'yf_sum', 'ff_sum'] as names, grain, bucket, jsonb_build_array(version_id, lane, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)::text as dimensions, 2 as side, array[sum(tp)::double precision, sum(fp)::double precision, sum(fn)::double precision, sum(tn)::double precision, sum(valued)::double precision, sum(y_sum)::double precision, sum(f_sum)::double precision, sum(yf_sum)::double precision, sum(ff_sum)::double precision] as counts
    from flywheel._cell_counts where bucket >= _both_cells.since and bucket <= _both_cells.last group by grain, bucket, version_id, lane, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
   union all
  select array['tp', 'fp', 'fn', 'tn', 'valued', 'y_sum', 'f_sum', 'yf_sum', 'ff_sum'] as names, grain, bucket, jsonb_build_array(version_id, lane, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)::text as dimensions, 1 as side, array[sum(tp)::double precision, sum(fp)::double precision, sum(fn)::double precision, sum(tn)::double precision, sum(valued)::double precision, sum(y_sum)::double precision, sum(f_sum)::double precision, sum(yf_sum)::double precision, sum(ff_sum)::double precision] as counts
    from (select flywheel._minute(started_at) as minute, version_id, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3, lane,
                     (judge_passed and human_passed)::integer as tp, (judge_passed and not human_passed)::integer as fp,
                     (not judge_passed and human_passed)::integer as fn, (not judge_passed and not human_passed)::integer as tn,
                     (value is not null)::integer as valued, (value is not null and human_passed)::integer as y_sum, coalesce(value, 0) as f_sum,
                     coalesce(value * human_passed::integer, 0) as yf_sum, coalesce(value * value, 0) as ff_sum
                from flywheel._recount_cells(_both_cells.since, _both_cells.last)) as counted cross join lateral flywheel._cuts(counted.minute) as cut group by grain, bucket, version_id, lane, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
$function$;
comment on function flywheel._both_cells is 'Internal: counts of cells as views show them (side 2) and as a recount has them (side 1).';

-- verify_rollups: whole UTC days. Sums of fractions may differ by what adding them in another order does.
-- Of a long span that went elsewhere, rounding stays behind: as much as its bin of latency says.
create or replace function flywheel.verify_rollups(since timestamptz default '-infinity', until timestamptz default 'infinity')
returns table (what text, grain text, bucket timestamptz, dimensions text, column_name text, expected double precision, found double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp set jit = off
as $function$
  with bounds as (
    select (flywheel._day_span((verify_rollups.since at time zone 'UTC')::date)).since,
           (flywheel._day_span((case when isfinite(verify_rollups.until) then verify_rollups.until - interval '1 microsecond'
                                     else verify_rollups.until end at time zone 'UTC')::date)).last
  ), sides as (
    select 'scores' as what, both_sides.* from bounds cross join lateral flywheel._both_scores(bounds.since, bounds.last) as both_sides
     union all
    select 'spans', both_sides.* from bounds cross join lateral flywheel._both_spans(bounds.since, bounds.last) as both_sides
     union all
    select 'cells', both_sides.* from bounds cross join lateral flywheel._both_cells(bounds.since, bounds.last) as both_sides
  ), beside as (
    select sides.what, sides.grain, sides.bucket, sides.dimensions, counted.name,
           coalesce(sum(counted.amount) filter (where sides.side = 1), 0) as expected, coalesce(sum(counted.amount) filter (where sides.side = 2), 0) as found
      from sides cross join lateral unnest(sides.names, sides.counts) as counted(name, amount)
     group by 1, 2, 3, 4, 5
  )
  select what, grain, bucket, dimensions, name, expected, found
    from beside
   where not abs(expected - found) <= 1e-9 * greatest(1, abs(expected), abs(found),
           case when what = 'spans' and name in ('latency_ms', 'latency_squares')
                then power(2, (dimensions::jsonb ->> 0)::integer / case name when 'latency_ms' then 8.0 else 4.0 end) end)
   order by what, grain, bucket, dimensions, name
$function$;
comment on function flywheel.verify_rollups is
  'Every difference between what views count and what the raw rows say, on the UTC days from since to before until; no row = none. Days that wait for a rebuild differ.';

create or replace view flywheel.rollup_status as
  select (select count(*) from (select from flywheel._score_changes limit 1000000) as waiting) as unfolded_scores,
         (select count(*) from (select from flywheel._span_deltas limit 1000000) as waiting) as unfolded_spans,
         (select count(*) from flywheel._rollup_rebuilds) as waiting_days,
         (select min(asked_at) from flywheel._rollup_rebuilds) as waiting_since,
         (select folded_at from flywheel._fold_state where name = 'rollups') as folded_at,
         (select folded from flywheel._fold_state where name = 'rollups') as folded,
         case when exists (select from flywheel._score_changes) or exists (select from flywheel._span_deltas)
                or exists (select from flywheel._span_changes) or exists (select from flywheel._label_changes)
              then extract(epoch from clock_timestamp() - (select folded_at from flywheel._fold_state where name = 'rollups'))::double precision
              else 0 end as lag_seconds,
         (select array_to_string(array(select jsonb_array_elements_text(value)), ', ') from flywheel.settings where name = 'rollup_attributes') as attributes;
comment on view flywheel.rollup_status is 'How far the rollups are behind; views are exact all the same, but read what is not folded row by row.';
comment on column flywheel.rollup_status.unfolded_scores is 'Changes of scores not folded yet, counted up to a million.';
comment on column flywheel.rollup_status.unfolded_spans is 'Counts of spans not folded yet, counted up to a million.';
comment on column flywheel.rollup_status.waiting_days is 'UTC days that wait to be counted anew; until then their numbers are not right.';
comment on column flywheel.rollup_status.waiting_since is 'Since when the oldest of them waits.';
comment on column flywheel.rollup_status.folded_at is 'When a fold last ended; null = never.';
comment on column flywheel.rollup_status.folded is 'Changes it folded.';
comment on column flywheel.rollup_status.lag_seconds is 'How long ago that was, while something waits; 0 = nothing waits; null = never folded.';
comment on column flywheel.rollup_status.attributes is 'The own dimensions, attribute_1 first.';

-- What the counting views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel._unfolded_scores(tid, tid), flywheel._unfolded_spans(), flywheel._unfolded_cells()')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant(role, 'select on flywheel.rollup_status, flywheel._score_counts, flywheel._span_counts, flywheel._cell_counts')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant(role, 'execute on function flywheel.verify_rollups(timestamptz, timestamptz)')
  from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_admin', 'execute on function flywheel.rebuild_rollups(timestamptz, timestamptz), flywheel.set_rollup_attributes(text[])');
select flywheel._grant('flywheel_worker', 'execute on function flywheel._fold(integer), flywheel._rebuild_asked()');
select flywheel._grant('flywheel_worker', 'maintain on flywheel._score_changes, flywheel._early_scores, flywheel._span_changes, flywheel._span_deltas, flywheel._label_changes, flywheel._fold_state')
 where current_setting('server_version_num')::integer >= 170000;
