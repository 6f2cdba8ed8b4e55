-- Novelty: how unlike recent inputs an input is, as the share of them that are nearer to their own neighbours.
--
-- The recent inputs are a hash sample of those embedded in thirty days; a thousand are compared one by one in a few
-- milliseconds, so no index is needed and none can miss a neighbour.

-- _tenth_distance: the nearest nine may be repetitions of one question.
create or replace function flywheel._tenth_distance(project text, embedding public.halfvec, except_span uuid) returns double precision
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select greatest(0, points.embedding operator(public.<=>) _tenth_distance.embedding)
    from flywheel._novelty_points as points
   where points.project = _tenth_distance.project and points.span_id is distinct from except_span
   order by 1 offset 9 limit 1
$function$;
comment on function flywheel._tenth_distance is 'Internal: cosine distance to the tenth nearest point of a project; null = there are fewer.';

-- _distance_share: distances that are the same but for rounding do not count as nearer.
create or replace function flywheel._distance_share(distances double precision[], distance double precision) returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select case when cardinality(distances) >= 30 then width_bucket(distance - 1e-6, distances)::double precision / cardinality(distances) end;
end;
comment on function flywheel._distance_share is 'Internal: the share of distances (in order) below one; null below 30 of them.';

create or replace function flywheel.novelty(project text, embedding real[],
  out distance double precision, out percentile double precision, out novel boolean, out compared_with bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  known flywheel._novelty_references;
  wanted integer;
begin
  select * into known from flywheel._novelty_references as listed where listed.project = left(novelty.project, 200);
  compared_with := coalesce(known.n, 0);
  if known.n is null or novelty.embedding is null then
    return;
  end if;
  select embedders.dimensions into wanted from flywheel.embedders where embedders.embedder_id = known.embedder_id;
  if cardinality(novelty.embedding) <> wanted then
    raise exception using errcode = '22023', message = format('an embedding of %s numbers cannot be compared with those of %s', cardinality(novelty.embedding), wanted),
      hint = 'Embed the input with the embedder that serves: select name, model from flywheel.embedder_status where status = ''serving''.';
  end if;
  if public.vector_norm(novelty.embedding::public.vector) > 0 then
    distance := flywheel._tenth_distance(left(novelty.project, 200), public.l2_normalize(novelty.embedding::public.vector)::public.halfvec, null);
  end if;
  percentile := flywheel._distance_share(known.distances, distance);
  novel := case when known.n >= 100 then percentile > flywheel._setting('novelty_permille') / 1000 end;
end
$function$;
comment on function flywheel.novelty is
  'How unlike the inputs of the last thirty days an input is, by its embedding (of the embedder that serves): cosine distance to the tenth nearest, the share of those inputs that are nearer to their own tenth (null below 30), and whether that is above the setting novelty_permille (null below 100).';

-- is_novel: for the expression of a validator, which has the embedding in an attribute of the span, if anywhere.
create or replace function flywheel.is_novel(project text, embedding jsonb) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select (flywheel.novelty(is_novel.project, array(select number.value::real from jsonb_array_elements_text(is_novel.embedding) with ordinality as number(value, place) order by place))).novel
   where case when jsonb_typeof(is_novel.embedding) = 'array' then not is_novel.embedding @? '$[*] ? (@.type() != "number")' and jsonb_array_length(is_novel.embedding) > 0 end
$function$;
comment on function flywheel.is_novel(text, jsonb) is
  'Whether an embedding, as a JSON array, is novel for a project; null where it is no array of numbers, or too little is known.';

-- _draw_points: the sample is drawn anew once a day, and sooner while it is small.
create or replace function flywheel._draw_points(project text, embedder_id uuid) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  points bigint;
begin
  delete from flywheel._novelty_points as past where past.project = _draw_points.project;
  insert into flywheel._novelty_points (project, span_id, started_at, embedding)
  select vectors.project, vectors.span_id, max(vectors.started_at), (array_agg(vectors.embedding order by vectors.started_at desc))[1]
    from flywheel._sampled_vectors(now() - interval '30 days', now()) as vectors
   where (vectors.project, vectors.embedder_id, vectors.part) = (_draw_points.project, _draw_points.embedder_id, 'input')
   group by vectors.project, vectors.span_id
   order by flywheel._hash01(vectors.span_id, 'novelty') limit flywheel._setting('novelty_points')::integer;
  get diagnostics points = row_count;
  update flywheel._novelty_points as drawn set distance = flywheel._tenth_distance(drawn.project, drawn.embedding, drawn.span_id)
   where drawn.project = _draw_points.project;
  insert into flywheel._novelty_references as known (project, embedder_id, n, distances, looked_until)
  values (_draw_points.project, _draw_points.embedder_id, points,
          array(select drawn.distance from flywheel._novelty_points as drawn where drawn.project = _draw_points.project and drawn.distance is not null order by 1), now())
      on conflict on constraint _novelty_references_pkey do update
     set (embedder_id, n, distances, fitted_at) = (excluded.embedder_id, excluded.n, excluded.distances, now());
  return points;
end
$function$;
comment on function flywheel._draw_points is 'Internal: draw the recent inputs of a project anew; returns how many.';

-- _look_for_novelty: spans of the last two days; what is embedded later than that is no news.
create or replace function flywheel._look_for_novelty(most integer) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with fresh as materialized (
    select vectors.project, vectors.span_id, vectors.started_at, vectors.embedded_at, vectors.embedding, known.distances
      from flywheel._novelty_references as known
      join flywheel._sampled_vectors(now() - interval '2 days', now() + interval '1 day') as vectors
        on (vectors.project, vectors.embedder_id, vectors.part) = (known.project, known.embedder_id, 'input') and vectors.embedded_at > known.looked_until - interval '5 minutes'
     where known.n >= 100 and not exists (
             select from flywheel._novelties as seen where (seen.project, seen.span_id) = (vectors.project, vectors.span_id) and seen.day = (vectors.started_at at time zone 'UTC')::date)
     order by vectors.embedded_at limit most
  ), looked as (
    insert into flywheel._novelties (day, project, span_id, started_at, distance, percentile)
    select (fresh.started_at at time zone 'UTC')::date, fresh.project, fresh.span_id, fresh.started_at, far.distance, flywheel._distance_share(fresh.distances, far.distance)
      from fresh cross join lateral (select flywheel._tenth_distance(fresh.project, fresh.embedding, fresh.span_id) as distance) as far
     where flywheel._distance_share(fresh.distances, far.distance) is not null
        on conflict do nothing
  ), moved as (
    update flywheel._novelty_references as known
       set looked_until = case when (select count(*) from fresh) >= most then greatest(known.looked_until, coalesce((select max(embedded_at) from fresh), known.looked_until)) else now() end
  )
  select count(*)::integer from fresh
$function$;
comment on function flywheel._look_for_novelty is 'Internal: compare spans embedded since the last look; returns how many.';

-- _test_novelty: of many inputs a hundredth is novel by definition; more than that, and plainly so, is drift.
create or replace function flywheel._test_novelty(day date) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with counted as materialized (
    select seen.project, count(*) as n, avg((seen.percentile > flywheel._setting('novelty_permille') / 1000)::integer)::double precision as share,
           known.n as points, (1000 - flywheel._setting('novelty_permille')) / 1000 as expected,
           (array_agg(seen.span_id order by seen.percentile desc, seen.distance desc))[1:10] as spans
      from flywheel._novelties as seen join flywheel._novelty_references as known using (project)
     where seen.day = _test_novelty.day group by seen.project, known.n
  ), noted as (
    select flywheel._note_drift(row(null, null, 'novelty', 'inputs', flywheel._slice_text(counted.project, null, null, null), counted.project, null,
             _test_novelty.day::timestamp at time zone 'UTC', (_test_novelty.day + 1)::timestamp at time zone 'UTC', now() - interval '30 days', now(),
             case when counted.n >= 30 then counted.share end, limits.threshold, case when counted.n >= 30 then counted.share - counted.expected end,
             counted.points, counted.n, case when counted.n >= 30 then counted.share > limits.threshold end,
             jsonb_build_object('expected', counted.expected, 'spans', counted.spans))::flywheel.drift_tests)
      from counted
     cross join lateral (select greatest(0.05, counted.expected + 4 * sqrt(counted.expected * (1 - counted.expected) * (1.0 / counted.n + 1.0 / counted.points))) as threshold) as limits
  )
  select count(*)::integer from noted
$function$;
comment on function flywheel._test_novelty is 'Internal: whether a day had more novel inputs than chance allows; returns how many tests were written.';

create or replace function flywheel._refresh_novelty() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  due record;
  looked integer;
begin
  if not flywheel._win_turn('novelty', false) then
    return 0;
  end if;
  for due in
    select days.project, days.embedder_id
      from flywheel._embedding_days as days
      join flywheel.embedders on embedders.embedder_id = days.embedder_id and embedders.status = 'serving'
      left join flywheel._novelty_references as known on known.project = days.project
     where days.part = 'input' and days.day >= (now() at time zone 'UTC')::date - 30
     group by days.project, days.embedder_id, known.fitted_at, known.n, known.embedder_id
    having known.fitted_at is null or known.embedder_id <> days.embedder_id or known.fitted_at < now() - interval '1 day'
        or (known.n < flywheel._setting('novelty_points') / 2 and sum(days.n) >= 1.5 * known.n)
     order by known.fitted_at nulls first limit 2
  loop
    perform flywheel._draw_points(due.project, due.embedder_id);
  end loop;
  looked := flywheel._look_for_novelty(1000);
  perform flywheel._test_novelty((now() at time zone 'UTC')::date - past) from generate_series(1, 0, -1) as past;
  delete from flywheel._novelties where day < (now() at time zone 'UTC')::date - 30;
  delete from flywheel._novelty_references where fitted_at < now() - interval '30 days';
  delete from flywheel._novelty_points as points where not exists (select from flywheel._novelty_references as known where known.project = points.project);
  return looked;
end
$function$;
comment on function flywheel._refresh_novelty is 'Internal: keep the recent inputs of each project, and compare new ones; returns how many were compared.';

create or replace view flywheel.novel_spans as
  select seen.started_at, seen.span_id, seen.project, spans.node, spans.trace_id, seen.distance, seen.percentile, seen.looked_at
    from flywheel._novelties as seen
    join flywheel.spans on (spans.span_id, spans.started_at) = (seen.span_id, seen.started_at)
   where seen.percentile > flywheel._setting('novelty_permille') / 1000;
comment on view flywheel.novel_spans is 'Spans of the last thirty days whose input is unlike the others, of those that were embedded.';
comment on column flywheel.novel_spans.started_at is 'Start of the span.';
comment on column flywheel.novel_spans.span_id is 'The span.';
comment on column flywheel.novel_spans.project is 'Its project.';
comment on column flywheel.novel_spans.node is 'Its node.';
comment on column flywheel.novel_spans.trace_id is 'Its trace.';
comment on column flywheel.novel_spans.distance is 'Cosine distance of its input to the tenth nearest recent one.';
comment on column flywheel.novel_spans.percentile is 'Share of the recent inputs that are nearer to their own tenth.';
comment on column flywheel.novel_spans.looked_at is 'When it was compared.';

select flywheel._grant(role, 'select on flywheel.novel_spans') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant(role, 'execute on function flywheel._setting(text)') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant(role, 'execute on function flywheel.novelty(text, real[]), flywheel.is_novel(text, jsonb)')
  from unnest(array['flywheel_writer', 'flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant('flywheel_worker', 'execute on function flywheel._refresh_novelty()');
