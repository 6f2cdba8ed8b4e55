-- Rollups and what is not folded into them yet, read together in one snapshot: exact at any instant.
--
-- With S the scores and P the spans as they are, dS and dP their changes since the last fold, the rollups hold (S - dS)
-- joined with (P - dP), so what they lack is  dS join P  +  S join dP  -  dS join dP.  A fold takes all of dP and any part
-- of dS: for that part the same holds, and what remains of dS is still lacking.
--
-- Few rows have changed, in tables whose statistics are always old: every span and score is found by its key.

-- Early scores, which a fold met without their span, belong to dS until the span has come or nobody can be about to bring it.

-- _changed_scores: the three terms, row by row. `offset 0` keeps the order: from what changed to what is looked up.
create or replace function flywheel._changed_scores(first_row tid, last_row tid, since timestamptz, last timestamptz)
returns table (sign integer, version_id uuid, started_at timestamptz, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text,
  passed boolean, unscored_reason text, value double precision, cost_usd double precision, input_tokens bigint, output_tokens bigint, latency_ms double precision)
language sql stable security invoker
begin atomic
  select changes.sign::integer as sign, changes.version_id, changes.started_at, spans.project, spans.environment, spans.release, spans.node, spans.node_kind, spans.parent_span_id is null as root,
         flywheel._attribute_1(spans.attributes, spans.model, spans.provider) as attribute_1, flywheel._attribute_2(spans.attributes, spans.model, spans.provider) as attribute_2,
         flywheel._attribute_3(spans.attributes, spans.model, spans.provider) as attribute_3,
         changes.passed, changes.unscored_reason, changes.value, flywheel._summable(changes.cost_usd) as cost_usd, changes.input_tokens::bigint as input_tokens, changes.output_tokens::bigint as output_tokens,
         flywheel._summable(changes.latency_ms) as latency_ms
    from flywheel._score_changes as changes
   cross join lateral (select * from flywheel.spans as held
                        where (held.span_id, held.started_at, held.revision) = (changes.span_id, changes.started_at, changes.revision)
                          and held.started_at >= since and held.started_at <= last offset 0) as spans
   where changes.ctid >= first_row and changes.ctid <= last_row
   union all
  select early.sign::integer as sign, early.version_id, early.started_at, spans.project, spans.environment, spans.release, spans.node, spans.node_kind, spans.parent_span_id is null as root,
         flywheel._attribute_1(spans.attributes, spans.model, spans.provider) as attribute_1, flywheel._attribute_2(spans.attributes, spans.model, spans.provider) as attribute_2,
         flywheel._attribute_3(spans.attributes, spans.model, spans.provider) as attribute_3,
         early.passed, early.unscored_reason, early.value, flywheel._summable(early.cost_usd) as cost_usd, early.input_tokens::bigint as input_tokens, early.output_tokens::bigint as output_tokens,
         flywheel._summable(early.latency_ms) as latency_ms
    from flywheel._early_scores as early
   cross join lateral (select * from flywheel.spans as held
                        where (held.span_id, held.started_at, held.revision) = (early.span_id, early.started_at, early.revision)
                          and held.started_at >= since and held.started_at <= last offset 0) as spans
   where last_row = '(4294967294,65535)'        -- all of dS is asked for; a fold leaves these where they are
   union all
  select moves.sign::integer as sign, scores.version_id, scores.started_at, moves.project, moves.environment, moves.release, moves.node, moves.node_kind, moves.root, moves.attribute_1, moves.attribute_2, moves.attribute_3,
         scores.passed, scores.unscored_reason, scores.value, flywheel._summable(scores.cost_usd) as cost_usd, scores.input_tokens::bigint as input_tokens, scores.output_tokens::bigint as output_tokens,
         flywheel._summable(scores.latency_ms) as latency_ms
    from flywheel._span_changes as moves
   cross join lateral (select * from flywheel.scores as held
                        where (held.span_id, held.started_at, held.revision) = (moves.span_id, moves.started_at, moves.revision)
                          and held.started_at >= since and held.started_at <= last offset 0) as scores
   union all
  select -changes.sign::integer * moves.sign as sign, changes.version_id, changes.started_at, moves.project, moves.environment, moves.release, moves.node, moves.node_kind, moves.root, moves.attribute_1, moves.attribute_2, moves.attribute_3,
         changes.passed, changes.unscored_reason, changes.value, flywheel._summable(changes.cost_usd) as cost_usd, changes.input_tokens::bigint as input_tokens, changes.output_tokens::bigint as output_tokens,
         flywheel._summable(changes.latency_ms) as latency_ms
    from (select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason from flywheel._score_changes
           union all
          select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason from flywheel._early_scores) as changes
   cross join lateral (select * from flywheel._span_changes as held
                        where (held.span_id, held.started_at, held.revision) = (changes.span_id, changes.started_at, changes.revision) offset 0) as moves
   where (select true from flywheel._span_changes limit 1);
end;
comment on function flywheel._changed_scores is 'Internal: scores that came (sign 1) and went (sign -1), with the dimensions they count under.';

create or replace function flywheel._unfolded_scores(first_row tid default '(0,0)', last_row tid default '(4294967294,65535)')
returns table (minute timestamptz, version_id uuid, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text,
  reason text, value_bin smallint,
  n bigint, passed bigint, failed bigint, valued bigint, value_sum double precision, value_squares double precision, cost_usd double precision, priced bigint,
  input_tokens bigint, output_tokens bigint, metered bigint, latency_ms double precision, timed bigint)
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan set enable_hashjoin = off set enable_mergejoin = off
as $function$
#variable_conflict use_column
declare
  since timestamptz;
  last timestamptz;
begin
  select min(started_at), max(started_at) into since, last
    from (select started_at from flywheel._score_changes where ctid >= first_row and ctid <= last_row
           union all select started_at from flywheel._span_changes
           union all select started_at from flywheel._early_scores) as changes;
  if since is null then
    return;
  end if;
  return query
  select counted.minute, counted.version_id, counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root,
         case when counted.attribute_1 is not null then flywheel._named(1, counted.attribute_1) end,
         case when counted.attribute_2 is not null then flywheel._named(2, counted.attribute_2) end, case when counted.attribute_3 is not null then flywheel._named(3, counted.attribute_3) end,
         counted.reason, counted.value_bin, counted.n, counted.passed, counted.failed, counted.valued, counted.value_sum, counted.value_squares, counted.cost_usd, counted.priced, counted.input_tokens, counted.output_tokens, counted.metered, counted.latency_ms, counted.timed
    from (
      select flywheel._minute(found.started_at) as minute, found.version_id, found.project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3,
             coalesce(found.unscored_reason, '') as reason, flywheel._value_bin(found.value) as value_bin,
             sum(sign) as n, coalesce(sum(sign) filter (where passed), 0) as passed, coalesce(sum(sign) filter (where not passed), 0) as failed,
             coalesce(sum(sign) filter (where value is not null), 0) as valued, coalesce(sum(sign * value), 0) as value_sum, coalesce(sum(sign * value * value), 0) as value_squares,
             coalesce(sum(sign * cost_usd), 0) as cost_usd, coalesce(sum(sign) filter (where cost_usd is not null), 0) as priced,
             coalesce(sum(sign * input_tokens), 0)::bigint as input_tokens, coalesce(sum(sign * output_tokens), 0)::bigint as output_tokens,
             coalesce(sum(sign) filter (where input_tokens is not null or output_tokens is not null), 0) as metered,
             coalesce(sum(sign * latency_ms), 0) as latency_ms, coalesce(sum(sign) filter (where latency_ms is not null), 0) as timed
        from flywheel._changed_scores(first_row, last_row, since, last) as found
       group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13) as counted;
end
$function$;
comment on function flywheel._unfolded_scores is 'Internal: what the rollups of scores lack, or of it what the changes from first_row to last_row bring, by minute.';

create or replace function flywheel._unfolded_spans()
returns table (minute timestamptz, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text,
  latency_bin smallint,
  n bigint, errors bigint, running bigint, input_tokens bigint, output_tokens bigint, metered bigint, cost_usd double precision, priced bigint,
  latency_ms double precision, latency_squares double precision, timed bigint)
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan
as $function$
#variable_conflict use_column
begin
  return query
  select counted.minute, counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root,
         case when counted.attribute_1 is not null then flywheel._named(1, counted.attribute_1) end,
         case when counted.attribute_2 is not null then flywheel._named(2, counted.attribute_2) end, case when counted.attribute_3 is not null then flywheel._named(3, counted.attribute_3) end,
         counted.latency_bin, counted.n, counted.errors, counted.running, counted.input_tokens, counted.output_tokens, counted.metered, counted.cost_usd, counted.priced, counted.latency_ms, counted.latency_squares, counted.timed
    from (
      select deltas.minute, deltas.project, deltas.environment, deltas.release, deltas.node, deltas.node_kind, deltas.root, deltas.attribute_1, deltas.attribute_2, deltas.attribute_3, deltas.latency_bin,
             sum(deltas.n)::bigint as n, sum(deltas.errors)::bigint as errors, sum(deltas.running)::bigint as running, sum(deltas.input_tokens)::bigint as input_tokens, sum(deltas.output_tokens)::bigint as output_tokens, sum(deltas.metered)::bigint as metered, sum(deltas.cost_usd) as cost_usd, sum(deltas.priced)::bigint as priced, sum(deltas.latency_ms) as latency_ms, sum(deltas.latency_squares) as latency_squares, sum(deltas.timed)::bigint as timed
        from flywheel._span_deltas as deltas
       group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) as counted;
end
$function$;
comment on function flywheel._unfolded_spans is 'Internal: what the rollups of spans lack, by minute.';

-- _dirty_spans: those whose labels, labelled scores or dimensions changed.
create or replace function flywheel._dirty_spans(out span_ids uuid[], out since timestamptz, out last timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp set enable_hashjoin = off set enable_mergejoin = off
as $function$
  select array_agg(distinct dirty.span_id), min(dirty.started_at), max(dirty.started_at)
    from (select span_id, started_at from flywheel._label_changes
           union all
          select span_id, started_at from flywheel._span_changes
           union all
          select changes.span_id, changes.started_at
            from (select span_id, started_at from flywheel._score_changes union all select span_id, started_at from flywheel._early_scores) as changes
           where exists (select from flywheel.labels where labels.span_id = changes.span_id offset 0)) as dirty
$function$;
comment on function flywheel._dirty_spans is 'Internal: spans whose labelled scores may differ from _label_cells, and the time they lie in.';

-- _changed_cells: what is remembered of a span is taken back, what is true now is added.
create or replace function flywheel._changed_cells(span_ids uuid[], since timestamptz, last timestamptz)
returns table (minute timestamptz, version_id uuid, slice_id uuid, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text, lane text,
  tp bigint, fp bigint, fn bigint, tn bigint, valued bigint, y_sum double precision, f_sum double precision, yf_sum double precision, ff_sum double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp set enable_hashjoin = off set enable_mergejoin = off
as $function$
  select flywheel._minute(cells.started_at), cells.version_id, cells.slice_id, cells.project, cells.environment, cells.release, cells.node, cells.node_kind, cells.root, cells.attribute_1, cells.attribute_2, cells.attribute_3, cells.lane,
         coalesce(sum(sign) filter (where judge_passed and human_passed), 0), coalesce(sum(sign) filter (where judge_passed and not human_passed), 0),
         coalesce(sum(sign) filter (where not judge_passed and human_passed), 0), coalesce(sum(sign) filter (where not judge_passed and not human_passed), 0),
         coalesce(sum(sign) filter (where value is not null), 0), coalesce(sum(sign) filter (where value is not null and human_passed), 0)::double precision,
         coalesce(sum(sign * value), 0), coalesce(sum(sign * value) filter (where human_passed), 0), coalesce(sum(sign * value * value), 0)
    from (
      select 1 as sign, found.* from flywheel._recount_cells_of(_changed_cells.span_ids, _changed_cells.since, _changed_cells.last) as found
       union all
      select -1, known.span_id, known.started_at, known.revision, known.version_id, known.slice_id, slices.project, slices.environment, slices.release, slices.node, slices.node_kind, slices.root, slices.attribute_1, slices.attribute_2, slices.attribute_3,
             known.lane, known.judge_passed, known.human_passed, known.value
        from flywheel._label_cells as known join flywheel._slices as slices using (slice_id)
       where known.span_id = any (_changed_cells.span_ids) and known.started_at >= _changed_cells.since and known.started_at <= _changed_cells.last
    ) as cells
   group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
$function$;
comment on function flywheel._changed_cells is 'Internal: what the rollups of labelled scores lack for some spans, by minute.';

create or replace function flywheel._unfolded_cells()
returns table (minute timestamptz, version_id uuid, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text, lane text,
  tp bigint, fp bigint, fn bigint, tn bigint, valued bigint, y_sum double precision, f_sum double precision, yf_sum double precision, ff_sum double precision)
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp
as $function$
declare
  dirty record := flywheel._dirty_spans();
begin
  if dirty.span_ids is not null then
    return query
    select changed.minute, changed.version_id, changed.project, changed.environment, changed.release, changed.node, changed.node_kind, changed.root, changed.attribute_1, changed.attribute_2, changed.attribute_3, changed.lane, changed.tp, changed.fp, changed.fn, changed.tn, changed.valued, changed.y_sum, changed.f_sum, changed.yf_sum, changed.ff_sum
      from flywheel._changed_cells(dirty.span_ids, dirty.since, dirty.last) as changed;
  end if;
end
$function$;
comment on function flywheel._unfolded_cells is 'Internal: what the rollups of labelled scores lack, by minute.';

create or replace view flywheel._score_counts as
  select rolled.grain, rolled.bucket, rolled.version_id, slices.project, slices.environment, slices.release, slices.node, slices.node_kind, slices.root, slices.attribute_1, slices.attribute_2, slices.attribute_3,
         rolled.reason, rolled.value_bin, rolled.n, rolled.passed, rolled.failed, rolled.valued, rolled.value_sum, rolled.value_squares, rolled.cost_usd, rolled.priced, rolled.input_tokens, rolled.output_tokens, rolled.metered, rolled.latency_ms, rolled.timed
    from flywheel._score_rollups as rolled join flywheel._slices as slices using (slice_id)
   union all
  select cut.grain, cut.bucket, late.version_id, late.project, late.environment, late.release, late.node, late.node_kind, late.root, late.attribute_1, late.attribute_2, late.attribute_3,
         late.reason, late.value_bin, late.n, late.passed, late.failed, late.valued, late.value_sum, late.value_squares, late.cost_usd, late.priced, late.input_tokens, late.output_tokens, late.metered, late.latency_ms, late.timed
    from flywheel._unfolded_scores() as late
   cross join lateral (values ('minute', late.minute), ('hour', date_bin('1 hour', late.minute, timestamptz '2000-01-01 00:00:00+00')),
                              ('day', date_bin('1 day', late.minute, timestamptz '2000-01-01 00:00:00+00'))) as cut(grain, bucket);
comment on view flywheel._score_counts is 'Internal: scores by minute, hour and day; always filter by grain. A bucket may come twice: add up.';
comment on column flywheel._score_counts.grain is 'minute, hour or day.';
comment on column flywheel._score_counts.bucket is 'Start of the minute, hour or UTC day, of when the span started.';
comment on column flywheel._score_counts.version_id is 'The validator version.';
comment on column flywheel._score_counts.project is 'Project of the spans.';
comment on column flywheel._score_counts.environment is 'Environment of the spans.';
comment on column flywheel._score_counts.release is 'Release of the spans; null = unknown.';
comment on column flywheel._score_counts.node is 'Node of the spans.';
comment on column flywheel._score_counts.node_kind is 'Kind of the node.';
comment on column flywheel._score_counts.root is 'Whether they are root spans.';
comment on column flywheel._score_counts.attribute_1 is 'First own dimension.';
comment on column flywheel._score_counts.attribute_2 is 'Second own dimension.';
comment on column flywheel._score_counts.attribute_3 is 'Third own dimension.';
comment on column flywheel._score_counts.reason is 'Why unscored; empty = there is a verdict.';
comment on column flywheel._score_counts.value_bin is 'Twentieth of [0, 1] the value lies in; -1 = none.';
comment on column flywheel._score_counts.n is 'Scores.';
comment on column flywheel._score_counts.passed is 'Scores that say pass.';
comment on column flywheel._score_counts.failed is 'Scores that say fail.';
comment on column flywheel._score_counts.valued is 'Scores with a value.';
comment on column flywheel._score_counts.value_sum is 'Sum of the values.';
comment on column flywheel._score_counts.value_squares is 'Sum of their squares.';
comment on column flywheel._score_counts.cost_usd is 'Sum of the costs known.';
comment on column flywheel._score_counts.priced is 'Scores whose cost is known.';
comment on column flywheel._score_counts.input_tokens is 'Sum of the input tokens known.';
comment on column flywheel._score_counts.output_tokens is 'Sum of the output tokens known.';
comment on column flywheel._score_counts.metered is 'Scores whose tokens are known.';
comment on column flywheel._score_counts.latency_ms is 'Sum of the latencies known.';
comment on column flywheel._score_counts.timed is 'Scores whose latency is known.';

create or replace view flywheel._span_counts as
  select rolled.grain, rolled.bucket, slices.project, slices.environment, slices.release, slices.node, slices.node_kind, slices.root, slices.attribute_1, slices.attribute_2, slices.attribute_3,
         rolled.latency_bin, rolled.n, rolled.errors, rolled.running, rolled.input_tokens, rolled.output_tokens, rolled.metered, rolled.cost_usd, rolled.priced, rolled.latency_ms, rolled.latency_squares, rolled.timed
    from flywheel._span_rollups as rolled join flywheel._slices as slices using (slice_id)
   union all
  select cut.grain, cut.bucket, late.project, late.environment, late.release, late.node, late.node_kind, late.root, late.attribute_1, late.attribute_2, late.attribute_3,
         late.latency_bin, late.n, late.errors, late.running, late.input_tokens, late.output_tokens, late.metered, late.cost_usd, late.priced, late.latency_ms, late.latency_squares, late.timed
    from flywheel._unfolded_spans() as late
   cross join lateral (values ('minute', late.minute), ('hour', date_bin('1 hour', late.minute, timestamptz '2000-01-01 00:00:00+00')),
                              ('day', date_bin('1 day', late.minute, timestamptz '2000-01-01 00:00:00+00'))) as cut(grain, bucket);
comment on view flywheel._span_counts is 'Internal: spans by minute, hour and day; always filter by grain. A bucket may come twice: add up.';
comment on column flywheel._span_counts.grain is 'minute, hour or day.';
comment on column flywheel._span_counts.bucket is 'Start of the minute, hour or UTC day, of when the span started.';
comment on column flywheel._span_counts.project is 'Project of the spans.';
comment on column flywheel._span_counts.environment is 'Environment of the spans.';
comment on column flywheel._span_counts.release is 'Release of the spans; null = unknown.';
comment on column flywheel._span_counts.node is 'Node of the spans.';
comment on column flywheel._span_counts.node_kind is 'Kind of the node.';
comment on column flywheel._span_counts.root is 'Whether they are root spans.';
comment on column flywheel._span_counts.attribute_1 is 'First own dimension.';
comment on column flywheel._span_counts.attribute_2 is 'Second own dimension.';
comment on column flywheel._span_counts.attribute_3 is 'Third own dimension.';
comment on column flywheel._span_counts.latency_bin is 'floor(8 * log2(milliseconds)); -999 = unknown.';
comment on column flywheel._span_counts.n is 'Spans.';
comment on column flywheel._span_counts.errors is 'Spans with status error.';
comment on column flywheel._span_counts.running is 'Spans with status running.';
comment on column flywheel._span_counts.input_tokens is 'Sum of the input tokens known.';
comment on column flywheel._span_counts.output_tokens is 'Sum of the output tokens known.';
comment on column flywheel._span_counts.metered is 'Spans whose tokens are known.';
comment on column flywheel._span_counts.cost_usd is 'Sum of the costs known.';
comment on column flywheel._span_counts.priced is 'Spans whose cost is known.';
comment on column flywheel._span_counts.latency_ms is 'Sum of the latencies known.';
comment on column flywheel._span_counts.latency_squares is 'Sum of their squares.';
comment on column flywheel._span_counts.timed is 'Spans whose latency is known.';

create or replace view flywheel._cell_counts as
  select rolled.grain, rolled.bucket, rolled.version_id, slices.project, slices.environment, slices.release, slices.node, slices.node_kind, slices.root, slices.attribute_1, slices.attribute_2, slices.attribute_3,
         rolled.lane, rolled.tp, rolled.fp, rolled.fn, rolled.tn, rolled.valued, rolled.y_sum, rolled.f_sum, rolled.yf_sum, rolled.ff_sum
    from flywheel._cell_rollups as rolled join flywheel._slices as slices using (slice_id)
   union all
  select cut.grain, cut.bucket, late.version_id, late.project, late.environment, late.release, late.node, late.node_kind, late.root, late.attribute_1, late.attribute_2, late.attribute_3,
         late.lane, late.tp, late.fp, late.fn, late.tn, late.valued, late.y_sum, late.f_sum, late.yf_sum, late.ff_sum
    from flywheel._unfolded_cells() as late
   cross join lateral (values ('minute', late.minute), ('hour', date_bin('1 hour', late.minute, timestamptz '2000-01-01 00:00:00+00')),
                              ('day', date_bin('1 day', late.minute, timestamptz '2000-01-01 00:00:00+00'))) as cut(grain, bucket);
comment on view flywheel._cell_counts is 'Internal: labelled scores by minute, hour and day; always filter by grain. A bucket may come twice: add up.';
comment on column flywheel._cell_counts.grain is 'minute, hour or day.';
comment on column flywheel._cell_counts.bucket is 'Start of the minute, hour or UTC day, of when the span started.';
comment on column flywheel._cell_counts.version_id is 'The validator version.';
comment on column flywheel._cell_counts.project is 'Project of the spans.';
comment on column flywheel._cell_counts.environment is 'Environment of the spans.';
comment on column flywheel._cell_counts.release is 'Release of the spans; null = unknown.';
comment on column flywheel._cell_counts.node is 'Node of the spans.';
comment on column flywheel._cell_counts.node_kind is 'Kind of the node.';
comment on column flywheel._cell_counts.root is 'Whether they are root spans.';
comment on column flywheel._cell_counts.attribute_1 is 'First own dimension.';
comment on column flywheel._cell_counts.attribute_2 is 'Second own dimension.';
comment on column flywheel._cell_counts.attribute_3 is 'Third own dimension.';
comment on column flywheel._cell_counts.lane is 'estimation or triage.';
comment on column flywheel._cell_counts.tp is 'Validator and people say pass.';
comment on column flywheel._cell_counts.fp is 'The validator says pass, people say fail.';
comment on column flywheel._cell_counts.fn is 'The validator says fail, people say pass.';
comment on column flywheel._cell_counts.tn is 'Validator and people say fail.';
comment on column flywheel._cell_counts.valued is 'Labelled scores with a value.';
comment on column flywheel._cell_counts.y_sum is 'Of those, how many people pass.';
comment on column flywheel._cell_counts.f_sum is 'Sum of the values.';
comment on column flywheel._cell_counts.yf_sum is 'Sum of the values that people pass.';
comment on column flywheel._cell_counts.ff_sum is 'Sum of the squares of the values.';
