-- Recount: what the rollups say, counted from the raw rows. verify_rollups() compares the two; a day is rebuilt from here.
--
-- A score counts where its span is, on the span's current revision. A label counts where a version judged that revision.
-- Bounds are inclusive, so that a span which started at infinity is counted, too. Plans are made for the bounds given:
-- only their partitions are opened.

-- _recount_scores: spans first, so that a reader locks in the order in which writers and purge() do.
create or replace function flywheel._recount_scores(since timestamptz, last timestamptz)
returns table (minute timestamptz, version_id uuid, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text,
  reason text, value_bin smallint,
  n bigint, passed bigint, failed bigint, valued bigint, value_sum double precision, value_squares double precision, cost_usd double precision, priced bigint,
  input_tokens bigint, output_tokens bigint, metered bigint, latency_ms double precision, timed bigint)
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan
as $function$
#variable_conflict use_column
begin
  return query
  select counted.minute, counted.version_id, counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root,
         case when counted.attribute_1 is not null then flywheel._named(1, counted.attribute_1) end,
         case when counted.attribute_2 is not null then flywheel._named(2, counted.attribute_2) end, case when counted.attribute_3 is not null then flywheel._named(3, counted.attribute_3) end,
         counted.reason, counted.value_bin, counted.n, counted.passed, counted.failed, counted.valued, counted.value_sum, counted.value_squares, counted.cost_usd, counted.priced, counted.input_tokens, counted.output_tokens, counted.metered, counted.latency_ms, counted.timed
    from (
      select flywheel._minute(spans.started_at) as minute, scores.version_id, spans.project, spans.environment, spans.release, spans.node, spans.node_kind, spans.parent_span_id is null as root,
             flywheel._attribute_1(spans.attributes, spans.model, spans.provider) as attribute_1,
             flywheel._attribute_2(spans.attributes, spans.model, spans.provider) as attribute_2,
             flywheel._attribute_3(spans.attributes, spans.model, spans.provider) as attribute_3,
             coalesce(scores.unscored_reason, '') as reason, flywheel._value_bin(scores.value) as value_bin,
             count(*) as n, count(*) filter (where scores.passed) as passed, count(*) filter (where not scores.passed) as failed,
             count(scores.value) as valued, coalesce(sum(scores.value), 0) as value_sum, coalesce(sum(scores.value * scores.value), 0) as value_squares,
             coalesce(sum(flywheel._summable(scores.cost_usd)), 0) as cost_usd, count(flywheel._summable(scores.cost_usd)) as priced,
             coalesce(sum(scores.input_tokens), 0) as input_tokens, coalesce(sum(scores.output_tokens), 0) as output_tokens,
             count(coalesce(scores.input_tokens, scores.output_tokens)) as metered,
             coalesce(sum(flywheel._summable(scores.latency_ms)), 0) as latency_ms, count(flywheel._summable(scores.latency_ms)) as timed
        from flywheel.spans
        join flywheel.scores on (scores.span_id, scores.started_at, scores.revision) = (spans.span_id, spans.started_at, spans.revision)
       where spans.started_at >= since and spans.started_at <= last
         and scores.started_at >= since and scores.started_at <= last          -- the same: for the planner
       group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13) as counted;
end
$function$;
comment on function flywheel._recount_scores is 'Internal: scores of spans from since to last, counted by minute from the raw rows.';

create or replace function flywheel._recount_spans(since timestamptz, last timestamptz)
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
      select flywheel._minute(spans.started_at) as minute, spans.project, spans.environment, spans.release, spans.node, spans.node_kind, spans.parent_span_id is null as root,
             flywheel._attribute_1(spans.attributes, spans.model, spans.provider) as attribute_1,
             flywheel._attribute_2(spans.attributes, spans.model, spans.provider) as attribute_2,
             flywheel._attribute_3(spans.attributes, spans.model, spans.provider) as attribute_3,
             flywheel._latency_bin(spans.latency_ms) as latency_bin,
             count(*) as n, count(*) filter (where spans.status = 'error') as errors, count(*) filter (where spans.status = 'running') as running,
             coalesce(sum(spans.input_tokens), 0) as input_tokens, coalesce(sum(spans.output_tokens), 0) as output_tokens,
             count(coalesce(spans.input_tokens, spans.output_tokens)) as metered,
             coalesce(sum(flywheel._summable(spans.cost_usd)), 0) as cost_usd, count(flywheel._summable(spans.cost_usd)) as priced,
             coalesce(sum(spans.latency_ms), 0) as latency_ms, coalesce(sum(spans.latency_ms * spans.latency_ms), 0) as latency_squares, count(spans.latency_ms) as timed
        from flywheel.spans
       where spans.started_at >= since and spans.started_at <= last
       group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) as counted;
end
$function$;
comment on function flywheel._recount_spans is 'Internal: spans from since to last, counted by minute from the raw rows.';

-- _labelled_scores: one row for each labelled score of a current revision; labels on which people differ count nowhere.
-- From labels, which are few, to spans and scores; `offset 0` keeps this order.
create or replace function flywheel._labelled_scores(since timestamptz, last timestamptz)
returns table (span_id uuid, started_at timestamptz, revision integer, version_id uuid, project text, environment text, release text, node text, node_kind text, root boolean,
  attributes jsonb, model text, provider text, lane text, judge_passed boolean, human_passed boolean, value double precision)
language sql stable security invoker
begin atomic
  select gold.span_id, gold.started_at, spans.revision, scores.version_id, spans.project, spans.environment, spans.release, spans.node, spans.node_kind, spans.parent_span_id is null,
         spans.attributes, spans.model, spans.provider, gold.lane, scores.passed, gold.passed, scores.value
    from flywheel.gold_labels as gold
   cross join lateral (select * from flywheel.spans as held
                        where (held.span_id, held.started_at, held.revision) = (gold.span_id, gold.started_at, gold.revision)
                          and held.started_at >= since and held.started_at <= last offset 0) as spans
   cross join lateral (select * from flywheel.scores as held
                        where (held.span_id, held.started_at, held.revision) = (spans.span_id, spans.started_at, spans.revision)
                          and held.started_at >= since and held.started_at <= last offset 0) as scores
    join (select versions.version_id, flywheel._question_of(versions) as validator_id from flywheel.validator_versions as versions offset 0) as asked
      on (asked.version_id, asked.validator_id) = (scores.version_id, gold.validator_id)
   where gold.started_at >= since and gold.started_at <= last and gold.passed is not null and scores.passed is not null;
end;
comment on function flywheel._labelled_scores is 'Internal: labelled scores of spans from since to last.';

create or replace function flywheel._recount_cells(since timestamptz, last timestamptz)
returns table (span_id uuid, started_at timestamptz, revision integer, version_id uuid, slice_id uuid, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text,
  lane text, judge_passed boolean, human_passed boolean, value double precision)
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan
as $function$
#variable_conflict use_column
begin
  return query
  select cells.span_id, cells.started_at, cells.revision, cells.version_id,
         flywheel._slice_id(cells.project, cells.environment, cells.release, cells.node, cells.node_kind, cells.root, named.attribute_1, named.attribute_2, named.attribute_3),
         cells.project, cells.environment, cells.release, cells.node, cells.node_kind, cells.root, named.attribute_1, named.attribute_2, named.attribute_3,
         cells.lane, cells.judge_passed, cells.human_passed, cells.value
    from (
      select found.span_id, found.started_at, found.revision, found.version_id, found.project, found.environment, found.release, found.node, found.node_kind, found.root, found.lane, found.judge_passed, found.human_passed, found.value,
             flywheel._attribute_1(found.attributes, found.model, found.provider) as attribute_1,
             flywheel._attribute_2(found.attributes, found.model, found.provider) as attribute_2,
             flywheel._attribute_3(found.attributes, found.model, found.provider) as attribute_3
        from flywheel._labelled_scores(since, last) as found) as cells
   cross join lateral (select case when cells.attribute_1 is not null then flywheel._named(1, cells.attribute_1) end,
         case when cells.attribute_2 is not null then flywheel._named(2, cells.attribute_2) end, case when cells.attribute_3 is not null then flywheel._named(3, cells.attribute_3) end offset 0) as named(attribute_1, attribute_2, attribute_3);
end
$function$;
comment on function flywheel._recount_cells is 'Internal: labelled scores of spans from since to last, from the raw rows.';

-- _recount_cells_of: a few spans, each found by its key: the tables whose statistics say otherwise are small and change all the time.
create or replace function flywheel._recount_cells_of(span_ids uuid[], since timestamptz, last timestamptz)
returns table (span_id uuid, started_at timestamptz, revision integer, version_id uuid, slice_id uuid, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text,
  lane text, judge_passed boolean, human_passed boolean, value double precision)
language plpgsql stable security definer parallel restricted
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_custom_plan set enable_hashjoin = off set enable_mergejoin = off
as $function$
#variable_conflict use_column
begin
  return query
  select cells.span_id, cells.started_at, cells.revision, cells.version_id,
         flywheel._slice_id(cells.project, cells.environment, cells.release, cells.node, cells.node_kind, cells.root, named.attribute_1, named.attribute_2, named.attribute_3),
         cells.project, cells.environment, cells.release, cells.node, cells.node_kind, cells.root, named.attribute_1, named.attribute_2, named.attribute_3,
         cells.lane, cells.judge_passed, cells.human_passed, cells.value
    from (
      select found.span_id, found.started_at, found.revision, found.version_id, found.project, found.environment, found.release, found.node, found.node_kind, found.root, found.lane, found.judge_passed, found.human_passed, found.value,
             flywheel._attribute_1(found.attributes, found.model, found.provider) as attribute_1,
             flywheel._attribute_2(found.attributes, found.model, found.provider) as attribute_2,
             flywheel._attribute_3(found.attributes, found.model, found.provider) as attribute_3
        from flywheel._labelled_scores(since, last) as found
       where found.span_id = any (_recount_cells_of.span_ids)) as cells
   cross join lateral (select case when cells.attribute_1 is not null then flywheel._named(1, cells.attribute_1) end,
         case when cells.attribute_2 is not null then flywheel._named(2, cells.attribute_2) end, case when cells.attribute_3 is not null then flywheel._named(3, cells.attribute_3) end offset 0) as named(attribute_1, attribute_2, attribute_3);
end
$function$;
comment on function flywheel._recount_cells_of is 'Internal: labelled scores of some spans that started from since to last.';
