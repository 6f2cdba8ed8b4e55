-- Fold: what has changed moves into the rollups. One statement reads the changes, adds them and deletes them, so it does
-- so in one snapshot; functions that are stable see the same one. Who folds holds a lock until the transaction ends.

-- _unseen_spans: its bounds, which keep other partitions closed, are of the caller's snapshot: more scores may have come to
-- lie between the two places since a fold chose them.
create or replace function flywheel._unseen_spans(first_row tid, last_row tid) returns table (span_id uuid, started_at timestamptz)
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan set enable_hashjoin = off set enable_mergejoin = off
as $function$
#variable_conflict use_column
declare
  since timestamptz;
  last timestamptz;
begin
  select min(changes.started_at), max(changes.started_at) into since, last
    from flywheel._score_changes as changes where changes.ctid >= first_row and changes.ctid <= last_row;
  return query
  select scored.span_id, scored.started_at
    from (select distinct changes.span_id, changes.started_at
            from flywheel._score_changes as changes where changes.ctid >= first_row and changes.ctid <= last_row) as scored
   where not exists (select from flywheel.spans
                      where (spans.span_id, spans.started_at) = (scored.span_id, scored.started_at)
                        and spans.started_at >= since and spans.started_at <= last offset 0);
end
$function$;
comment on function flywheel._unseen_spans is 'Internal: spans of scores not folded yet, between two places, that are not there for all to see.';

-- _fold_scores: all of _span_changes, and the part of _score_changes that lies between two places; returns what may have
-- changed cells, and buckets in which a count came to nothing.
create or replace function flywheel._fold_scores(first_row tid, last_row tid,
  out folded bigint, out dirty_ids uuid[], out dirty_since timestamptz, out dirty_last timestamptz, out emptied timestamptz[])
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan set enable_hashjoin = off set enable_mergejoin = off
as $function$
begin
  with fresh as materialized (
    select flywheel._slice_id(late.project, late.environment, late.release, late.node, late.node_kind, late.root, late.attribute_1, late.attribute_2, late.attribute_3) as slice_id, late.*
      from flywheel._unfolded_scores(_fold_scores.first_row, _fold_scores.last_row) as late
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
  ), taken as (
    delete from flywheel._score_changes as changes
     where changes.ctid >= _fold_scores.first_row and changes.ctid <= _fold_scores.last_row
    returning changes.*
  ), moved as (
    delete from flywheel._span_changes as moves returning moves.span_id, moves.started_at
  ), relabelled as (
    delete from flywheel._label_changes as changes returning changes.span_id, changes.started_at
  ), unseen as materialized (
    select missing.span_id, missing.started_at from flywheel._unseen_spans(_fold_scores.first_row, _fold_scores.last_row) as missing
  ), lost as (
    insert into flywheel._lost_spans (span_id, started_at) select span_id, started_at from unseen on conflict do nothing
  ), early as (
    insert into flywheel._early_scores (span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason)
    select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason
      from taken where case when (taken.span_id, taken.started_at) in (select span_id, started_at from unseen) then true end    -- looked up in a hash
  ), dirty as (
    select span_id, started_at from relabelled union all select span_id, started_at from moved union all
    select span_id, started_at from taken where exists (select from flywheel.labels where labels.span_id = taken.span_id offset 0)
  )
  select (select count(*) from taken) + (select count(*) from moved) + (select count(*) from relabelled),
         (select array_agg(distinct dirty.span_id) from dirty), (select min(dirty.started_at) from dirty), (select max(dirty.started_at) from dirty),
         (select array_agg(distinct rolled.bucket) from rolled where rolled.n = 0)
    into folded, dirty_ids, dirty_since, dirty_last, emptied;
end
$function$;
comment on function flywheel._fold_scores is 'Internal: fold changes of scores between two places, and all changes of spans.';

create or replace function flywheel._fold_spans(out folded bigint, out emptied timestamptz[])
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan
as $function$
begin
  with fresh as materialized (
    select flywheel._slice_id(late.project, late.environment, late.release, late.node, late.node_kind, late.root, late.attribute_1, late.attribute_2, late.attribute_3) as slice_id, late.*
      from flywheel._unfolded_spans() as late
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
  ), taken as (
    delete from flywheel._span_deltas returning 1
  )
  select (select count(*) from taken), (select array_agg(distinct rolled.bucket) from rolled where rolled.n = 0)
    into folded, emptied;
end
$function$;
comment on function flywheel._fold_spans is 'Internal: fold the counts of spans.';

-- _fold_cells: a later snapshot does: what is true now takes the place of what is remembered.
create or replace function flywheel._fold_cells(span_ids uuid[], since timestamptz, last timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan set enable_hashjoin = off set enable_mergejoin = off
as $function$
declare
  emptied timestamptz[];
begin
  with fresh as materialized (
    select late.* from flywheel._changed_cells(_fold_cells.span_ids, _fold_cells.since, _fold_cells.last) as late
  ), current as materialized (
    select * from flywheel._recount_cells_of(_fold_cells.span_ids, _fold_cells.since, _fold_cells.last)
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
    returning bucket, tp + fp + fn + tn as n
  ), forgotten as (
    delete from flywheel._label_cells as known
     where known.span_id = any (_fold_cells.span_ids) and known.started_at >= _fold_cells.since and known.started_at <= _fold_cells.last
       and not exists (select from current as kept
                        where (kept.span_id, kept.started_at, kept.revision, kept.version_id)
                            = (known.span_id, known.started_at, known.revision, known.version_id))
  ), kept as (
    insert into flywheel._label_cells (span_id, started_at, revision, version_id, slice_id, lane, judge_passed, human_passed, value)
    select span_id, started_at, revision, version_id, slice_id, lane, judge_passed, human_passed, value from current
        on conflict (span_id, started_at, revision, version_id) do update
       set slice_id = excluded.slice_id, lane = excluded.lane, judge_passed = excluded.judge_passed,
           human_passed = excluded.human_passed, value = excluded.value
  )
  select array_agg(distinct rolled.bucket) filter (where rolled.n = 0) into emptied from rolled;
  delete from flywheel._cell_rollups
   where grain = any ('{minute,hour,day}') and bucket = any (emptied) and (tp, fp, fn, tn) = (0, 0, 0, 0);
end
$function$;
comment on function flywheel._fold_cells is 'Internal: count the labelled scores of some spans as they are now.';

-- _sweep: rows that came to nothing. A part of the changes may undo what another part will do, hence all counts, not n alone.
-- Counts of spans are folded all at once: what their sums still hold then is but rounding.
create or replace function flywheel._sweep(score_buckets timestamptz[], span_buckets timestamptz[]) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  delete from flywheel._score_rollups
   where grain = any ('{minute,hour,day}') and bucket = any (score_buckets)
     and (n, passed, failed, valued, priced, input_tokens, output_tokens, metered, timed) = (0, 0, 0, 0, 0, 0, 0, 0, 0) and greatest(abs(value_sum), abs(value_squares), abs(cost_usd), abs(latency_ms)) < 1e-6;
  delete from flywheel._span_rollups
   where grain = any ('{minute,hour,day}') and bucket = any (span_buckets)
     and (n, errors, running, input_tokens, output_tokens, metered, priced, timed) = (0, 0, 0, 0, 0, 0, 0, 0);
$function$;
comment on function flywheel._sweep is 'Internal: delete rows of rollups that count nothing any more.';

-- _admit_seen: names are given before the counts move, so a flood of values finds the list closed.
create or replace function flywheel._admit_seen() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if (select value from flywheel.settings where name = 'rollup_attributes') <> '[]' then
    perform flywheel._admit_values(1, array(select distinct attribute_1 from flywheel._span_deltas where attribute_1 is not null));
    perform flywheel._admit_values(2, array(select distinct attribute_2 from flywheel._span_deltas where attribute_2 is not null));
    perform flywheel._admit_values(3, array(select distinct attribute_3 from flywheel._span_deltas where attribute_3 is not null));
  end if;
end
$function$;
comment on function flywheel._admit_seen is 'Internal: let values of own dimensions that have come be counted by name while there are places.';

-- _fold_locked: who empties a table has it before the turn, so whoever is to read it takes the table first, too.
create or replace function flywheel._fold_locked() returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  lock table only flywheel.spans, only flywheel.scores, only flywheel.labels in access share mode;
  select flywheel._win_turn('fold', false)
$function$;
comment on function flywheel._fold_locked is 'Internal: try to be the only one who changes rollups until the end of the transaction.';

-- _readmit_scores: a span that is on its way while a fold notes it as lost does not see the note, and nobody would look for its
-- scores again. So they wait: until the span is there, or until all who were at work when the note was there for all to see
-- have ended. Who brings the span after that says so in _span_changes.
create or replace function flywheel._readmit_scores() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_hashjoin = off set enable_mergejoin = off
as $function$
begin
  if not exists (select from flywheel._early_scores) then
    return;
  end if;
  with back as (
    delete from flywheel._early_scores as early
     where exists (select from flywheel.spans where (spans.span_id, spans.started_at) = (early.span_id, early.started_at) offset 0)
    returning early.*
  )
  insert into flywheel._score_changes (span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason)
  select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason from back;
  delete from flywheel._early_scores as early
   where early.waits_for <= pg_snapshot_xmin(pg_current_snapshot())
     and not exists (select from flywheel.spans where (spans.span_id, spans.started_at) = (early.span_id, early.started_at) offset 0)
     and not exists (select from flywheel._span_changes as moves where moves.span_id = early.span_id offset 0);
  update flywheel._early_scores set waits_for = pg_snapshot_xmax(pg_current_snapshot()) where waits_for is null;
end
$function$;
comment on function flywheel._readmit_scores is 'Internal: give scores that came before their span to the next fold once the span is there, and forget those whose span nobody brings.';

-- _fold: a chunk at a time, as the rows lie in the table. What comes after a chunk was chosen may lie in it and be part of it.
create or replace function flywheel._fold(max_chunks integer default 10) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set synchronize_seqscans = off
as $function$
declare
  most constant bigint := flywheel._setting('fold_rows');
  chunk record;
  done record;
  spans record;
  total bigint := 0;
begin
  if not flywheel._fold_locked() then
    return 0;
  end if;
  perform flywheel._readmit_scores();
  for turn in 1.._fold.max_chunks loop
    select coalesce(min(place), '(0,0)') as first_row, coalesce(max(place), '(0,0)') as last_row, count(*) as found
      into chunk from (select changes.ctid as place from flywheel._score_changes as changes limit most) as part;
    exit when chunk.found = 0 and not exists (select from flywheel._span_changes) and not exists (select from flywheel._span_deltas)
              and not exists (select from flywheel._label_changes);
    perform flywheel._admit_seen();
    select * into spans from flywheel._fold_spans();
    select * into done from flywheel._fold_scores(chunk.first_row, chunk.last_row);
    if done.dirty_ids is not null then
      perform flywheel._fold_cells(done.dirty_ids, done.dirty_since, done.dirty_last);
    end if;
    perform flywheel._sweep(done.emptied, spans.emptied);
    total := total + done.folded + spans.folded;
    exit when chunk.found < most;
  end loop;
  if total > 0 or not exists (select from flywheel._fold_state as state where state.name = 'rollups' and state.folded_at >= now() - interval '5 seconds') then
    insert into flywheel._fold_state as state (name, folded_at, folded) values ('rollups', clock_timestamp(), total)
        on conflict (name) do update set folded_at = excluded.folded_at, folded = excluded.folded;
  end if;
  return total;
end
$function$;
comment on function flywheel._fold is 'Internal: move changes into the rollups; returns how many. 0 also while another one folds.';

-- _day_span: a day as inclusive bounds; spans that started at infinity have a day of their own.
create or replace function flywheel._day_span(day date, out since timestamptz, out last timestamptz)
language sql immutable parallel safe security invoker
begin atomic
  select case when isfinite(day) then flywheel._day_start(day) else day::timestamp at time zone 'UTC' end,
         case when isfinite(day) then flywheel._day_start(day) + interval '24 hours -1 microsecond' else day::timestamp at time zone 'UTC' end;
end;
comment on function flywheel._day_span is 'Internal: first and last instant of a UTC day.';

-- _forget: changes go, too: who calls counts the time anew or has dropped what lay in it.
create or replace function flywheel._forget(since timestamptz, last timestamptz) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  delete from flywheel._score_rollups where grain = any ('{minute,hour,day}') and bucket >= since and bucket <= last;
  delete from flywheel._span_rollups where grain = any ('{minute,hour,day}') and bucket >= since and bucket <= last;
  delete from flywheel._cell_rollups where grain = any ('{minute,hour,day}') and bucket >= since and bucket <= last;
  delete from flywheel._label_cells where started_at >= since and started_at <= last;
$function$;
comment on function flywheel._forget is 'Internal: delete the rollups of whole days.';
