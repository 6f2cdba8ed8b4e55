-- Embeddings: whether the inputs and outputs of a day mean something else than those of a fixed window, from sums.
--
-- Only the hash sample of the embedder that serves counts: labelled spans have vectors too, and nobody chose them by chance.
-- Names are cut: a key of an index has a limit.

create or replace function flywheel._sampled_vectors(since timestamptz, until timestamptz)
returns table (embedder_id uuid, part text, project text, node text, span_id uuid, started_at timestamptz, trace_id uuid, embedded_at timestamptz, embedding public.halfvec)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select made.embedder_id, made.part, left(spans.project, 200), left(spans.node, 200), made.span_id, made.started_at, spans.trace_id, made.embedded_at, made.embedding
    from flywheel.embedders
    join flywheel.span_embeddings as made on made.embedder_id = embedders.embedder_id
    join flywheel.spans on (spans.span_id, spans.started_at) = (made.span_id, made.started_at)
   where embedders.status = 'serving' and made.started_at >= since and made.started_at < until
     and flywheel._hash01(spans.trace_id, 'embed') < embedders.span_permille / 1000.0
     and public.vector_norm(made.embedding::public.vector) > 0
$function$;
comment on function flywheel._sampled_vectors is 'Internal: vectors of the hash sample of spans, by the embedder that serves.';

create or replace function flywheel._sum_embeddings(since date, until date) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with summed as (
    select vectors.embedder_id, vectors.part, vectors.project, vectors.node, (vectors.started_at at time zone 'UTC')::date as day, count(*) as n,
           public.sum(vectors.embedding::public.vector) as total, sum(public.vector_norm(vectors.embedding::public.vector) ^ 2) as squares
      from flywheel._sampled_vectors(_sum_embeddings.since::timestamp at time zone 'UTC', (_sum_embeddings.until + 1)::timestamp at time zone 'UTC') as vectors
     where vectors.part in ('input', 'output')
     group by 1, 2, 3, 4, 5
  ), written as (
    insert into flywheel._embedding_days as known (embedder_id, part, project, node, day, n, total, squares)
    select * from summed
        on conflict on constraint _embedding_days_pkey do update set (n, total, squares) = (excluded.n, excluded.total, excluded.squares)
     where known.n <> excluded.n
    returning 1
  )
  select count(*)::integer from written
$function$;
comment on function flywheel._sum_embeddings is 'Internal: add up the vectors of some days anew; returns how many sums changed.';

create or replace function flywheel._vector_total(embedder_id uuid, part text, project text, node text, since date, until date,
  out n bigint, out total real[], out squares double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select sum(days.n)::bigint, public.sum(days.total)::real[], sum(days.squares)
    from flywheel._embedding_days as days
   where (days.embedder_id, days.part, days.project, days.node) = (_vector_total.embedder_id, _vector_total.part, _vector_total.project, _vector_total.node)
     and days.day between _vector_total.since and _vector_total.until
$function$;
comment on function flywheel._vector_total is 'Internal: the sums of some days together.';

-- _set_embedding_references: the first days with enough vectors, and how far random pairs of them are apart. A few at a
-- time: the pairs of one take a third of a second.
create or replace function flywheel._set_embedding_references(until date, most integer) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with summed as (
    select days.embedder_id, days.part, days.project, days.node, days.day, sum(days.n) over line as n, min(days.day) over line as from_day
      from flywheel._embedding_days as days
     where days.day between _set_embedding_references.until - 30 and _set_embedding_references.until
    window line as (partition by days.embedder_id, days.part, days.project, days.node order by days.day)
  ), enough as (
    select distinct on (summed.embedder_id, summed.part, summed.project, summed.node) summed.*
      from summed join flywheel.embedders on embedders.embedder_id = summed.embedder_id and embedders.status = 'serving'
     where summed.n >= flywheel._setting('drift_reference')
       and not exists (select from flywheel._references as known
             where known.reference_id = flywheel._reference_id('embedding ' || summed.part, summed.embedder_id, summed.project, summed.node))
     order by summed.embedder_id, summed.part, summed.project, summed.node, summed.day
  ), few as materialized (
    select * from enough limit most
  ), added as (
    insert into flywheel._references (reference_id, feature, version_id, project, node, from_day, until_day, n, spread)
    select flywheel._reference_id('embedding ' || few.part, few.embedder_id, few.project, few.node), 'embedding ' || few.part, few.embedder_id, few.project, few.node,
           few.from_day, few.day, few.n, flywheel.mmd_spread(pairs.vectors, pairs.dimensions)
      from few cross join lateral (
        select array_agg(number.x order by picked.place, number.axis) as vectors, max(picked.dimensions) as dimensions
          from (select row_number() over (order by md5(vectors.span_id::text)) as place, vectors.embedding::public.vector::real[] as numbers,
                       public.vector_dims(vectors.embedding::public.vector) as dimensions
                  from flywheel._sampled_vectors(few.from_day::timestamp at time zone 'UTC', (few.day + 1)::timestamp at time zone 'UTC') as vectors
                 where (vectors.part, vectors.project, vectors.node) = (few.part, few.project, few.node)
                 order by 1 limit 80) as picked
         cross join lateral unnest(picked.numbers) with ordinality as number(x, axis)) as pairs
     where pairs.dimensions is not null
        on conflict do nothing
    returning 1
  )
  select count(*)::integer from added
$function$;
comment on function flywheel._set_embedding_references is 'Internal: fix the windows that embeddings are compared with; returns how many.';

-- _test_embeddings: far and plainly so (z > 4 and statistic > 0.005), in two windows in a row.
create or replace function flywheel._test_embeddings(day date) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with compared as materialized (
    select known.*, embedders.name as embedder, current.n as n_current, test.statistic, test.z, test.cosine_distance,
           coalesce(current.n >= 30 and test.z > 4 and test.statistic > 0.005, false) as far
      from flywheel._references as known
      join flywheel.embedders on embedders.embedder_id = known.version_id and embedders.status = 'serving'
      join flywheel._embedding_days as current on (current.day, current.embedder_id, 'embedding ' || current.part, current.project, current.node)
                                                = (_test_embeddings.day, known.version_id, known.feature, known.project, known.node)
     cross join lateral flywheel._vector_total(current.embedder_id, current.part, current.project, current.node, known.from_day, known.until_day) as before
     cross join lateral flywheel.linear_mmd(before.n, before.total, before.squares, current.n, current.total::real[], current.squares, known.spread) as test
     where known.spread is not null and known.until_day < _test_embeddings.day
  ), noted as (
    select flywheel._note_drift(row(null, null, 'embedding_mmd', said.subject, said.slice, compared.project, null,
             _test_embeddings.day::timestamp at time zone 'UTC', (_test_embeddings.day + 1)::timestamp at time zone 'UTC',
             compared.from_day::timestamp at time zone 'UTC', (compared.until_day + 1)::timestamp at time zone 'UTC',
             case when compared.n_current >= 30 then compared.z end, 4, case when compared.n_current >= 30 then compared.statistic end,
             compared.n, compared.n_current, case when compared.n_current >= 30 then compared.far and coalesce(last.far, false) end,
             jsonb_build_object('far', compared.far, 'far_before', last.far, 'cosine_distance', compared.cosine_distance, 'smallest_effect', 0.005))::flywheel.drift_tests)
      from compared
     cross join lateral (select format('%s, %ss', compared.embedder, split_part(compared.feature, ' ', 2)) as subject,
                                flywheel._slice_text(compared.project, null, compared.node, null) as slice) as said
      left join lateral (
        select (tests.evidence ->> 'far')::boolean as far from flywheel.drift_tests as tests
         where (tests.kind, tests.subject, tests.slice) = ('embedding_mmd', said.subject, said.slice) and tests.drifted is not null
           and tests.window_from < (_test_embeddings.day::timestamp at time zone 'UTC') and tests.tested_at > now() - interval '30 days'
         order by tests.window_from desc limit 1) as last on true
  )
  select count(*)::integer from noted
$function$;
comment on function flywheel._test_embeddings is 'Internal: compare the embeddings of a day with their windows; returns how many tests were written.';

-- _domain_samples: what a weekly classifier is asked about: a project and node, its last seven days and the four weeks before.
create or replace function flywheel._domain_due() returns table (project text, node text, n_reference bigint, n_current bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select days.project, days.node, sum(days.n) filter (where days.day < today.day - 7)::bigint, sum(days.n) filter (where days.day >= today.day - 7)::bigint
    from (select (now() at time zone 'UTC')::date as day) as today
    join flywheel._embedding_days as days on days.day between today.day - 35 and today.day - 1 and days.part = 'input'
    join flywheel.embedders on embedders.embedder_id = days.embedder_id and embedders.status = 'serving'
   group by 1, 2
  having sum(days.n) filter (where days.day < today.day - 7) >= 100 and sum(days.n) filter (where days.day >= today.day - 7) >= 100
     and not exists (select from flywheel.drift_tests as tests
           where (tests.kind, tests.project, tests.slice) = ('domain_classifier', days.project, flywheel._slice_text(days.project, null, days.node, null))
             and tests.tested_at > now() - interval '7 days' and tests.drifted is not null)
   order by 4 desc limit 20
$function$;
comment on function flywheel._domain_due is 'Internal: projects and nodes whose week was not compared with the weeks before, and has 100 vectors on both sides.';

create or replace function flywheel._domain_sample(project text, node text, most integer)
returns table (span_id uuid, current boolean, embedding real[])
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select listed.span_id, listed.current, listed.embedding::public.vector::real[]
    from (select vectors.span_id, vectors.embedding, vectors.started_at >= today.start - interval '7 days' as current,
                 row_number() over (partition by vectors.started_at >= today.start - interval '7 days' order by flywheel._hash01(vectors.span_id, 'domain'), vectors.span_id) as place
            from (select date_trunc('day', now(), 'UTC') as start) as today
           cross join lateral flywheel._sampled_vectors(today.start - interval '35 days', today.start) as vectors
           where (vectors.part, vectors.project, vectors.node) = ('input', _domain_sample.project, _domain_sample.node)) as listed
   where listed.place <= most
   order by listed.current, listed.place
$function$;
comment on function flywheel._domain_sample is 'Internal: a hash sample of the vectors of a week and of the four weeks before.';

-- _note_domain: what the classifier found. The rows it is surest of are what changed.
create or replace function flywheel._note_domain(project text, node text, auc double precision, threshold double precision, n_reference bigint, n_current bigint,
  drifted boolean, evidence jsonb)
returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._note_drift(row(null, null, 'domain_classifier', 'inputs', coalesce(nullif(flywheel._slice_text(_note_domain.project, null, _note_domain.node, null), ''), 'all'),
           _note_domain.project, null, today.start - interval '7 days', today.start, today.start - interval '35 days', today.start - interval '7 days',
           _note_domain.auc, _note_domain.threshold, _note_domain.auc - 0.5, _note_domain.n_reference, _note_domain.n_current, _note_domain.drifted,
           _note_domain.evidence)::flywheel.drift_tests)
    from (select date_trunc('day', now(), 'UTC') as start) as today
$function$;
comment on function flywheel._note_domain is 'Internal: write what a classifier says of the last week.';

-- _test_drift: days that are over; the last two, so that verdicts that came late count too.
create or replace function flywheel._test_drift() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  today constant date := (now() at time zone 'UTC')::date;
  tests integer := 0;
begin
  if not flywheel._win_turn('windows', false) then
    return 0;
  end if;
  perform flywheel._count_lengths(day::date) from generate_series(today - 2, today - 1, interval '1 day') as day;
  perform flywheel._sum_embeddings(today - 2, today);
  perform flywheel._set_references(today - 1);
  perform flywheel._set_embedding_references(today - 1, 5);
  for past in reverse 2 .. 1 loop
    tests := tests + flywheel._test_distributions(today - past) + flywheel._test_embeddings(today - past);
  end loop;
  delete from flywheel._length_days where day < today - 60;
  delete from flywheel._embedding_days where day < today - flywheel._setting('drift_days_kept')::integer;
  delete from flywheel.drift_tests where tested_at < now() - make_interval(days => flywheel._setting('drift_days_kept')::integer);
  return tests;
end
$function$;
comment on function flywheel._test_drift is 'Internal: compare the last two days with their windows; returns how many tests were written.';

select flywheel._grant('flywheel_worker', 'execute on function flywheel._test_drift(), flywheel._domain_due(), flywheel._domain_sample(text, text, integer),
  flywheel._note_domain(text, text, double precision, double precision, bigint, bigint, boolean, jsonb)');
