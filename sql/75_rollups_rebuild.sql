-- Rebuild: days counted anew from the raw rows, after rows came past the triggers or own dimensions changed.

create or replace function flywheel._rebuild_scores(since timestamptz, last timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan
as $function$
declare
  made bigint;
begin
  with fresh as materialized (
    select flywheel._slice_id(counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root, counted.attribute_1, counted.attribute_2, counted.attribute_3) as slice_id, counted.*
      from flywheel._recount_scores(_rebuild_scores.since, _rebuild_scores.last) as counted
  ), sliced as (
    insert into flywheel._slices (slice_id, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)
    select distinct on (slice_id) slice_id, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3 from fresh
        on conflict do nothing
  ), named as (
    insert into flywheel._slice_values (attribute, value)
    select distinct known.attribute, known.value
      from fresh cross join lateral (values (1, attribute_1), (2, attribute_2), (3, attribute_3)) as known(attribute, value)
     where known.value <> '(other)'
        on conflict do nothing
  ), rolled as (
    insert into flywheel._score_rollups as held (grain, bucket, version_id, slice_id, reason, value_bin, n, passed, failed, valued, value_sum, value_squares, cost_usd, priced, input_tokens, output_tokens, metered, latency_ms, timed)
    select cut.grain, cut.bucket, fresh.version_id, fresh.slice_id, fresh.reason, fresh.value_bin,
           sum(fresh.n), sum(fresh.passed), sum(fresh.failed), sum(fresh.valued), sum(fresh.value_sum), sum(fresh.value_squares), sum(fresh.cost_usd),
            sum(fresh.priced), sum(fresh.input_tokens), sum(fresh.output_tokens), sum(fresh.metered), sum(fresh.latency_ms), sum(fresh.timed)
      from fresh cross join lateral flywheel._cuts(fresh.minute) as cut
     group by 1, 2, 3, 4, 5, 6
        on conflict (grain, bucket, version_id, slice_id, reason, value_bin) do update
       set n = held.n + excluded.n, passed = held.passed + excluded.passed, failed = held.failed + excluded.failed, valued = held.valued + excluded.valued,
          value_sum = held.value_sum + excluded.value_sum, value_squares = held.value_squares + excluded.value_squares, cost_usd = held.cost_usd + excluded.cost_usd, priced = held.priced + excluded.priced,
          input_tokens = held.input_tokens + excluded.input_tokens, output_tokens = held.output_tokens + excluded.output_tokens, metered = held.metered + excluded.metered, latency_ms = held.latency_ms + excluded.latency_ms,
          timed = held.timed + excluded.timed
    returning bucket, n
  ), noted as (
    delete from flywheel._score_changes as changes where changes.started_at >= _rebuild_scores.since and changes.started_at <= _rebuild_scores.last
  ), moved as (
    delete from flywheel._span_changes as moves where moves.started_at >= _rebuild_scores.since and moves.started_at <= _rebuild_scores.last
  ), waiting as (
    delete from flywheel._early_scores as early where early.started_at >= _rebuild_scores.since and early.started_at <= _rebuild_scores.last
  ), unseen as materialized (
    select scores.*
      from flywheel.scores left join flywheel.spans on (spans.span_id, spans.started_at) = (scores.span_id, scores.started_at)
       and spans.started_at >= _rebuild_scores.since and spans.started_at <= _rebuild_scores.last
     where scores.started_at >= _rebuild_scores.since and scores.started_at <= _rebuild_scores.last and spans.span_id is null
  ), early as (
    insert into flywheel._early_scores (span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason)
    select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, 1, passed, unscored_reason from unseen
  ), lost as (
    insert into flywheel._lost_spans (span_id, started_at) select distinct span_id, started_at from unseen
        on conflict do nothing
  )
  select count(*) into made from rolled;
  return made;
end
$function$;
comment on function flywheel._rebuild_scores is 'Internal: count the scores of whole days anew.';

create or replace function flywheel._rebuild_spans(since timestamptz, last timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan
as $function$
declare
  made bigint;
begin
  with fresh as materialized (
    select flywheel._slice_id(counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root, counted.attribute_1, counted.attribute_2, counted.attribute_3) as slice_id, counted.*
      from flywheel._recount_spans(_rebuild_spans.since, _rebuild_spans.last) as counted
  ), sliced as (
    insert into flywheel._slices (slice_id, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)
    select distinct on (slice_id) slice_id, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3 from fresh
        on conflict do nothing
  ), named as (
    insert into flywheel._slice_values (attribute, value)
    select distinct known.attribute, known.value
      from fresh cross join lateral (values (1, attribute_1), (2, attribute_2), (3, attribute_3)) as known(attribute, value)
     where known.value <> '(other)'
        on conflict do nothing
  ), rolled as (
    insert into flywheel._span_rollups as held (grain, bucket, slice_id, latency_bin, n, errors, running, input_tokens, output_tokens, metered, cost_usd, priced, latency_ms, latency_squares, timed)
    select cut.grain, cut.bucket, fresh.slice_id, fresh.latency_bin,
           sum(fresh.n), sum(fresh.errors), sum(fresh.running), sum(fresh.input_tokens), sum(fresh.output_tokens), sum(fresh.metered), sum(fresh.cost_usd),
            sum(fresh.priced), sum(fresh.latency_ms), sum(fresh.latency_squares), sum(fresh.timed)
      from fresh cross join lateral flywheel._cuts(fresh.minute) as cut
     group by 1, 2, 3, 4
        on conflict (grain, bucket, slice_id, latency_bin) do update
       set n = held.n + excluded.n, errors = held.errors + excluded.errors, running = held.running + excluded.running, input_tokens = held.input_tokens + excluded.input_tokens,
          output_tokens = held.output_tokens + excluded.output_tokens, metered = held.metered + excluded.metered, cost_usd = held.cost_usd + excluded.cost_usd, priced = held.priced + excluded.priced,
          latency_ms = held.latency_ms + excluded.latency_ms, latency_squares = held.latency_squares + excluded.latency_squares, timed = held.timed + excluded.timed
    returning bucket, n
  ), noted as (
    delete from flywheel._span_deltas as deltas where deltas.minute >= _rebuild_spans.since and deltas.minute <= _rebuild_spans.last
  )
  select count(*) into made from rolled;
  return made;
end
$function$;
comment on function flywheel._rebuild_spans is 'Internal: count the spans of whole days anew.';

create or replace function flywheel._rebuild_cells(since timestamptz, last timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan
as $function$
begin
  with current as materialized (
    select * from flywheel._recount_cells(_rebuild_cells.since, _rebuild_cells.last)
  ), fresh as (
    select flywheel._minute(started_at) as minute, version_id, slice_id, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3, lane,
           count(*) filter (where judge_passed and human_passed) as tp, count(*) filter (where judge_passed and not human_passed) as fp,
           count(*) filter (where not judge_passed and human_passed) as fn, count(*) filter (where not judge_passed and not human_passed) as tn,
           count(value) as valued, coalesce(sum(human_passed::integer) filter (where value is not null), 0)::double precision as y_sum,
           coalesce(sum(value), 0) as f_sum, coalesce(sum(value) filter (where human_passed), 0) as yf_sum, coalesce(sum(value * value), 0) as ff_sum
      from current
     group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
  ), sliced as (
    insert into flywheel._slices (slice_id, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)
    select distinct on (slice_id) slice_id, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3 from fresh
        on conflict do nothing
  ), named as (
    insert into flywheel._slice_values (attribute, value)
    select distinct known.attribute, known.value
      from fresh cross join lateral (values (1, attribute_1), (2, attribute_2), (3, attribute_3)) as known(attribute, value)
     where known.value <> '(other)'
        on conflict do nothing
  ), rolled as (
    insert into flywheel._cell_rollups as held (grain, bucket, version_id, slice_id, lane, tp, fp, fn, tn, valued, y_sum, f_sum, yf_sum, ff_sum)
    select cut.grain, cut.bucket, fresh.version_id, fresh.slice_id, fresh.lane,
           sum(fresh.tp), sum(fresh.fp), sum(fresh.fn), sum(fresh.tn), sum(fresh.valued), sum(fresh.y_sum), sum(fresh.f_sum),
            sum(fresh.yf_sum), sum(fresh.ff_sum)
      from fresh cross join lateral flywheel._cuts(fresh.minute) as cut
     group by 1, 2, 3, 4, 5
        on conflict (grain, bucket, version_id, slice_id, lane) do update
       set tp = held.tp + excluded.tp, fp = held.fp + excluded.fp, fn = held.fn + excluded.fn, tn = held.tn + excluded.tn,
          valued = held.valued + excluded.valued, y_sum = held.y_sum + excluded.y_sum, f_sum = held.f_sum + excluded.f_sum, yf_sum = held.yf_sum + excluded.yf_sum,
          ff_sum = held.ff_sum + excluded.ff_sum
    
  ), noted as (
    delete from flywheel._label_changes as changes where changes.started_at >= _rebuild_cells.since and changes.started_at <= _rebuild_cells.last
  )
  insert into flywheel._label_cells (span_id, started_at, revision, version_id, slice_id, lane, judge_passed, human_passed, value)
  select span_id, started_at, revision, version_id, slice_id, lane, judge_passed, human_passed, value from current;
end
$function$;
comment on function flywheel._rebuild_cells is 'Internal: count the labelled scores of whole days anew.';

create or replace function flywheel._rebuild_rollups(day date) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  bounds record := flywheel._day_span(_rebuild_rollups.day);
  made bigint;
begin
  perform flywheel._win_turn('fold', true);
  delete from flywheel._rollup_rebuilds as asked where asked.day = _rebuild_rollups.day;  -- first: who asks from now on asks for another time
  perform flywheel._forget(bounds.since, bounds.last);
  if (select value from flywheel.settings where name = 'rollup_attributes') <> '[]' then
    perform flywheel._admit_values(seen.attribute, array_agg(distinct seen.value))
       from flywheel._recount_spans(bounds.since, bounds.last) as counted
      cross join lateral (values (1, counted.attribute_1), (2, counted.attribute_2), (3, counted.attribute_3)) as seen(attribute, value)
      where seen.value is not null
      group by seen.attribute;
  end if;
  made := flywheel._rebuild_spans(bounds.since, bounds.last) + flywheel._rebuild_scores(bounds.since, bounds.last);
  perform flywheel._rebuild_cells(bounds.since, bounds.last);
  return made;
end
$function$;
comment on function flywheel._rebuild_rollups is 'Internal: count a UTC day anew from the raw rows; returns how many rows of rollups it has.';

-- _rebuild_asked: one day at a time, the newest first: that is what people look at.
create or replace function flywheel._rebuild_asked() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  next_day date;
begin
  if not exists (select from flywheel._rollup_rebuilds) or not flywheel._fold_locked() then
    return 0;
  end if;
  select day into next_day from flywheel._rollup_rebuilds order by isfinite(day) desc, day desc limit 1;
  return case when next_day is not null then 1 + 0 * flywheel._rebuild_rollups(next_day) else 0 end;
end
$function$;
comment on function flywheel._rebuild_asked is 'Internal: count one of the days anew that wait for it; returns how many it did.';

-- _held_days: days on which something lies, or is counted.
create or replace function flywheel._held_days() returns setof date
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select day from flywheel._partitions where relation = 'spans' and pg_relation_size(to_regclass(format('flywheel.%I', partition))) > 0
   union
  select (started_at at time zone 'UTC')::date from flywheel.spans_default
   union
  select (bucket at time zone 'UTC')::date from flywheel._span_rollups where grain = 'day'
   union
  select (bucket at time zone 'UTC')::date from flywheel._score_rollups where grain = 'day'
$function$;
comment on function flywheel._held_days is 'Internal: UTC days with spans, or with rollups.';

create or replace function flywheel.rebuild_rollups(since timestamptz default '-infinity', until timestamptz default 'infinity') returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  asked integer;
begin
  insert into flywheel._rollup_rebuilds (day, reason)
  select held.day, 'asked for by ' || session_user
    from flywheel._held_days() as held(day)
   where held.day >= (rebuild_rollups.since at time zone 'UTC')::date
     and (flywheel._day_span(held.day)).since < rebuild_rollups.until or (held.day = 'infinity' and rebuild_rollups.until = 'infinity')
      on conflict do nothing;
  get diagnostics asked = row_count;
  return asked;
end
$function$;
comment on function flywheel.rebuild_rollups is
  'Have the rollups of the UTC days from since to before until counted anew from the raw rows; workers do a day at a time. Returns how many days were put on the list.';

-- set_rollup_attributes: who writes with the former dimensions is let through first, and their days are counted anew.
create or replace function flywheel.set_rollup_attributes(paths text[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  wrong text := (select coalesce(quote_literal(given.path), 'null') from unnest(paths) as given(path)
                  where given.path is null or given.path !~ '^[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_][A-Za-z0-9_-]*)*$' or length(given.path) > 200 limit 1);
begin
  if array_ndims(paths) > 1 then
    raise exception using errcode = 'WF009', message = format('own dimensions are lists of lists: %s', paths),
      hint = 'Give one list of paths: {tenant.plan,model}.';
  elsif cardinality(paths) > 3 then
    raise exception using errcode = 'WF009', message = format('%s own dimensions are too many', cardinality(paths)),
      detail = 'Rollups have three.', hint = 'Choose those that views are filtered by.';
  elsif wrong is not null then
    raise exception using errcode = 'WF009', message = format('own dimension %s is no path', wrong),
      hint = 'Give model, provider, or keys of attributes joined by dots, as tenant.plan.';
  end if;
  perform flywheel._win_turn('fold', true);
  lock table flywheel.spans in share row exclusive mode;
  update flywheel.settings set value = to_jsonb(coalesce(paths, '{}')) where name = 'rollup_attributes';
  perform flywheel._compile_attributes();
  delete from flywheel._slice_values;
  return flywheel.rebuild_rollups();
end
$function$;
comment on function flywheel.set_rollup_attributes is
  'Count spans and scores by up to three dimensions of your own: model, provider, or keys of attributes joined by dots. Every day is counted anew; returns how many.';

-- _forget_before: for purge(), when the days are dropped. Of the day it cuts only rows of the default partition go, so
-- that day is counted anew.
create or replace function flywheel._forget_before(before timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  first_day date := (_forget_before.before at time zone 'UTC')::date;
  last timestamptz := flywheel._day_start(first_day) - interval '1 microsecond';
begin
  perform flywheel._forget('-infinity', last);
  delete from flywheel._score_changes where started_at <= last;
  delete from flywheel._early_scores where started_at <= last;
  delete from flywheel._span_changes where started_at <= last;
  delete from flywheel._span_deltas where minute <= last;
  delete from flywheel._label_changes where started_at <= last;
  delete from flywheel._lost_spans where started_at <= last;
  delete from flywheel._rollup_rebuilds where day < first_day;
end
$function$;
comment on function flywheel._forget_before is 'Internal: forget what was counted on days that are dropped.';
