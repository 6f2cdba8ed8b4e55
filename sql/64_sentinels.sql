-- Sentinels: labelled items of the dev split on which the nearest examples vote, without a new example and with it. They are only
-- voted on: nobody is shown one, and of the test split none is touched.

-- _queue_sentinels: labelled spans of dev get a vector as examples do, behind them.
create or replace function flywheel._queue_sentinels(embedder_id uuid, span_ids uuid[], earliest timestamptz, latest timestamptz) returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._queue_subjects(_queue_sentinels.embedder_id,
           array(select distinct wanted.span_id from unnest(_queue_sentinels.span_ids) as wanted(span_id)
                  where not exists (select from flywheel.span_embeddings as made
                          where (made.span_id, made.embedder_id, made.part) = (wanted.span_id, _queue_sentinels.embedder_id, 'item')
                            and made.started_at between _queue_sentinels.earliest and _queue_sentinels.latest)),
           2, _queue_sentinels.earliest, _queue_sentinels.latest, 'live')
$function$;
comment on function flywheel._queue_sentinels is 'Internal: queue spans for an embedder that have no vector of it yet; returns how many.';

create or replace function flywheel._embed_sentinels() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  held_out record;
begin
  select array_agg(added.span_id) as span_ids, min(added.started_at) as earliest, max(added.started_at) as latest into held_out
    from added where added.split = 'dev' and added.annotator_kind = 'human' and not added.withdrawn;
  if held_out.span_ids is not null then
    perform flywheel._queue_sentinels(embedders.embedder_id, held_out.span_ids, held_out.earliest, held_out.latest)
       from flywheel.embedders where embedders.status <> 'retired';
    perform flywheel._wake();
  end if;
  return null;
end
$function$;
comment on function flywheel._embed_sentinels is 'Internal: queue labelled spans of dev for every embedder.';

create or replace trigger embed_sentinels after insert on flywheel.labels
  referencing new table as added for each statement execute function flywheel._embed_sentinels();

-- _embed_known_sentinels: a new embedder begins with the newest; what is labelled from then on comes by itself.
create or replace function flywheel._embed_known_sentinels() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._queue_sentinels(added.embedder_id, known.span_ids, known.earliest, known.latest)
     from added
    cross join (select array_agg(newest.span_id) as span_ids, min(newest.started_at) as earliest, max(newest.started_at) as latest
                  from (select span_id, started_at from flywheel.labels where split = 'dev' and annotator_kind = 'human' and not withdrawn
                         order by labelled_at desc limit 1000) as newest) as known
    where added.status <> 'retired' and known.span_ids is not null;
  return null;
end
$function$;
comment on function flywheel._embed_known_sentinels is 'Internal: queue the newest labelled spans of dev for a new embedder.';

create or replace trigger embed_known_sentinels after insert on flywheel.embedders
  referencing new table as added for each statement execute function flywheel._embed_known_sentinels();

-- _sentinels: the newest twenty of each verdict, so that rare fails count as much as passes.
create or replace function flywheel._sentinels(question uuid, embedder_id uuid) returns table (passed boolean, embedding public.halfvec)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select listed.passed, listed.embedding
    from (select gold.passed, v.embedding, row_number() over (partition by gold.passed order by gold.labelled_at desc, gold.span_id) as place
            from flywheel.gold_labels as gold
            join flywheel.span_embeddings as v on (v.span_id, v.started_at, v.revision) = (gold.span_id, gold.started_at, gold.revision)
           where gold.validator_id = question and gold.split = 'dev' and gold.passed is not null and v.embedder_id = _sentinels.embedder_id
             and v.part = case flywheel._embed_target(question) when 'input' then 'input' else 'item' end) as listed
   where listed.place <= 20
$function$;
comment on function flywheel._sentinels is 'Internal: labelled items of dev, with their vectors.';

-- _jury: who is near each sentinel, found once for many new examples: place, example and cosine lie in arrays of one length.
create or replace function flywheel._jury(
  question uuid, embedder flywheel.embedders, out verdicts boolean[], out vectors public.halfvec[], out places integer[], out example_ids uuid[],
  out cosines double precision[], out passes bigint, out fails bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  near_sql constant text := flywheel._near_sql(question, null, null, 'item', embedder.embedder_id, embedder.dimensions);
  near record;
begin
  select count(*) filter (where coalesce(e.passed, false)), count(*) filter (where not coalesce(e.passed, false)) into passes, fails
    from flywheel.examples as e where e.validator_id = question and e.status = 'servable';
  if passes = 0 or fails = 0 or passes + fails < 24 then
    return;                                          -- nobody votes yet, or so few that every new one is near everything
  end if;
  select array_agg(known.passed), array_agg(known.embedding) into verdicts, vectors from flywheel._sentinels(question, embedder.embedder_id) as known;
  for place in 1 .. coalesce(cardinality(verdicts), 0) loop
    execute near_sql into near using vectors[place], 40;
    places := places || array_fill(place, array[coalesce(cardinality(near.f1), 0)]);
    example_ids := example_ids || near.f1;
    cosines := cosines || near.f3;
  end loop;
end
$function$;
comment on function flywheel._jury is 'Internal: the sentinels of a question and the examples near them.';

-- _sentinel_flips: the vote of _vote_neighbours, by nearness alone. Only examples that were compared themselves speak, so that two bad
-- ones that came together do not hide one another, and eight of them must. What nearly equals a held-out item is never shown for it.
-- What it mends is weighed against what it spoils, and a single flip may be chance.
create or replace function flywheel._sentinel_flips(
  made flywheel.examples, vector public.halfvec, verdicts boolean[], vectors public.halfvec[], places integer[], example_ids uuid[],
  cosines double precision[], passes bigint, fails bigint)
returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with near as (
    select listed.place, listed.cosine, coalesce(e.passed, false) as says, e.trust, false as is_new,
           row_number() over (partition by listed.place order by listed.cosine desc, e.example_id) as rank
      from unnest(places, example_ids, cosines) as listed(place, example_id, cosine) join flywheel.examples as e on e.example_id = listed.example_id
     where e.status = 'servable' and e.compared_at is not null and e.example_id <> made.example_id and listed.cosine < 0.98
  ), ballots as (
    select near.place, near.cosine, near.says, near.trust, near.is_new from near where near.rank <= 12
    union all
    select each.place, 1 - (each.embedding operator(public.<=>) vector), coalesce(made.passed, false), made.trust, true
      from unnest(vectors) with ordinality as each(embedding, place) where 1 - (each.embedding operator(public.<=>) vector) < 0.98
  ), ranked as (
    select ballots.*, row_number() over (partition by ballots.place order by ballots.cosine desc, ballots.is_new) as rank,
           exp(10 * ballots.cosine) * greatest(ballots.trust, 0.01) / case when ballots.says then passes else fails end * case when ballots.says then 1 else -1 end as weight
      from ballots
  ), voted as (
    select verdicts[ranked.place] as truth, sum(ranked.weight) filter (where not ranked.is_new) >= 0 as without,
           sum(ranked.weight) filter (where ranked.rank <= 12) >= 0 as beside
      from ranked group by ranked.place having count(*) filter (where not ranked.is_new) >= 8
  )
  select case when counted.spoiled - counted.mended > 1 and counted.spoiled - counted.mended > 0.05 * counted.items then
           format('with it, neighbours turn from right to wrong on %s of %s sentinel items, and from wrong to right on %s',
             counted.spoiled, counted.items, counted.mended) end
    from (select count(*) as items, count(*) filter (where voted.without = voted.truth and voted.beside <> voted.truth) as spoiled,
                 count(*) filter (where voted.without <> voted.truth and voted.beside = voted.truth) as mended from voted) as counted
$function$;
comment on function flywheel._sentinel_flips is 'Internal: on how many sentinels the vote turns wrong with an example; null = on at most one, or on a twentieth.';
