-- Recount: what the rollups say, counted from the raw rows. verify_rollups() compares the two; a day is rebuilt from here.
--
-- A score counts where its span is, on the span's current revision. A label counts where a version judged that revision.

-- _latency_bin: eight bins for each doubling, so a quantile read from bins is off by 4.5 % at most.
create or replace function flywheel._latency_bin(latency_ms double precision) returns smallint
language sql immutable parallel safe security invoker
begin atomic
  select case when latency_ms is null or latency_ms <> latency_ms then -999
              else greatest(-80, least(400, floor(11.541560327111707 * ln(greatest(latency_ms, 0.001))))) end::smallint;
end;
comment on function flywheel._latency_bin is 'Internal: floor(8 * log2(milliseconds)); -999 = unknown.';

create or replace function flywheel._value_bin(value double precision) returns smallint
language sql immutable parallel safe security invoker
begin atomic
  select case when value is null then -1 else least(19, floor(value * 20)) end::smallint;
end;
comment on function flywheel._value_bin is 'Internal: the twentieth of [0, 1] a value lies in, 0 to 19; -1 = no value.';

-- _slice_id: a hash, so that who counts needs to ask nobody for a number.
create or replace function flywheel._slice_id(project text, environment text, release text, node text, node_kind text, root boolean,
  attribute_1 text, attribute_2 text, attribute_3 text)
returns uuid
language sql immutable parallel safe security invoker
begin atomic
  select md5(jsonb_build_array(project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)::text)::uuid;
end;
comment on function flywheel._slice_id is 'Internal: the id of a combination of dimensions.';

create or replace function flywheel._attribute_1(span flywheel.spans) returns text
language sql immutable parallel safe security invoker
begin atomic
  select null::text;
end;
comment on function flywheel._attribute_1 is 'Internal, generated: own dimension 1 of a span; null = it has none.';

create or replace function flywheel._attribute_2(span flywheel.spans) returns text
language sql immutable parallel safe security invoker
begin atomic
  select null::text;
end;
comment on function flywheel._attribute_2 is 'Internal, generated: own dimension 2 of a span; null = it has none.';

create or replace function flywheel._attribute_3(span flywheel.spans) returns text
language sql immutable parallel safe security invoker
begin atomic
  select null::text;
end;
comment on function flywheel._attribute_3 is 'Internal, generated: own dimension 3 of a span; null = it has none.';

-- _recount_scores: spans first, so that a reader locks in the order in which writers and purge() do.
create or replace function flywheel._recount_scores(since timestamptz, until timestamptz)
returns table (minute timestamptz, version_id uuid, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text, reason text, value_bin smallint,
  n bigint, passed bigint, failed bigint, valued bigint, value_sum double precision, value_squares double precision, cost_usd double precision, priced bigint, input_tokens bigint, output_tokens bigint, metered bigint, latency_ms double precision, timed bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select date_trunc('minute', spans.started_at), scores.version_id, spans.project, spans.environment, spans.release, spans.node, spans.node_kind, spans.parent_span_id is null,
         flywheel._attribute_1(spans), flywheel._attribute_2(spans), flywheel._attribute_3(spans),
         coalesce(scores.unscored_reason, ''), flywheel._value_bin(scores.value),
         count(*), count(*) filter (where scores.passed), count(*) filter (where not scores.passed),
         count(scores.value), coalesce(sum(scores.value), 0), coalesce(sum(scores.value * scores.value), 0),
         coalesce(sum(scores.cost_usd), 0), count(scores.cost_usd),
         coalesce(sum(scores.input_tokens), 0), coalesce(sum(scores.output_tokens), 0), count(coalesce(scores.input_tokens, scores.output_tokens)),
         coalesce(sum(scores.latency_ms), 0), count(scores.latency_ms)
    from flywheel.spans
    join flywheel.scores on (scores.span_id, scores.started_at, scores.revision) = (spans.span_id, spans.started_at, spans.revision)
   where spans.started_at >= since and spans.started_at < until
   group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
$function$;
comment on function flywheel._recount_scores is 'Internal: scores of spans in [since, until), counted by minute from the raw rows.';

create or replace function flywheel._recount_spans(since timestamptz, until timestamptz)
returns table (minute timestamptz, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text, latency_bin smallint,
  n bigint, errors bigint, running bigint, input_tokens bigint, output_tokens bigint, metered bigint, cost_usd double precision, priced bigint, latency_ms double precision, latency_squares double precision, timed bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select date_trunc('minute', spans.started_at), spans.project, spans.environment, spans.release, spans.node, spans.node_kind, spans.parent_span_id is null,
         flywheel._attribute_1(spans), flywheel._attribute_2(spans), flywheel._attribute_3(spans),
         flywheel._latency_bin(spans.latency_ms),
         count(*), count(*) filter (where spans.status = 'error'), count(*) filter (where spans.status = 'running'),
         coalesce(sum(spans.input_tokens), 0), coalesce(sum(spans.output_tokens), 0), count(coalesce(spans.input_tokens, spans.output_tokens)),
         coalesce(sum(spans.cost_usd), 0), count(spans.cost_usd),
         coalesce(sum(spans.latency_ms), 0), coalesce(sum(spans.latency_ms * spans.latency_ms), 0), count(spans.latency_ms)
    from flywheel.spans
   where spans.started_at >= since and spans.started_at < until
   group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
$function$;
comment on function flywheel._recount_spans is 'Internal: spans in [since, until), counted by minute from the raw rows.';

-- _recount_cells: one row for each labelled score of a current revision; labels on which people differ count nowhere.
create or replace function flywheel._recount_cells(since timestamptz, until timestamptz)
returns table (span_id uuid, started_at timestamptz, revision integer, version_id uuid, project text, environment text, release text, node text, node_kind text, root boolean, attribute_1 text, attribute_2 text, attribute_3 text,
  lane text, judge_passed boolean, human_passed boolean, value double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select spans.span_id, spans.started_at, spans.revision, scores.version_id, spans.project, spans.environment, spans.release, spans.node, spans.node_kind, spans.parent_span_id is null,
         flywheel._attribute_1(spans), flywheel._attribute_2(spans), flywheel._attribute_3(spans),
         gold.lane, scores.passed, gold.passed, scores.value
    from flywheel.gold_labels as gold
    join flywheel.spans on (spans.span_id, spans.started_at, spans.revision) = (gold.span_id, gold.started_at, gold.revision)
    join flywheel.scores on (scores.span_id, scores.started_at, scores.revision) = (spans.span_id, spans.started_at, spans.revision)
    join flywheel.validator_versions as versions on versions.version_id = scores.version_id
   where gold.started_at >= since and gold.started_at < until and gold.passed is not null and scores.passed is not null
     and flywheel._question_of(versions) = gold.validator_id
$function$;
comment on function flywheel._recount_cells is 'Internal: labelled scores of spans in [since, until), from the raw rows.';
