-- Advance: what is seen of an example only once its vector is there.

-- _compared_problem: floods of near copies, and labels that contradict all that is around them. $1 is its vector.
create or replace function flywheel._compared_problem(made flywheel.examples, vector public.halfvec, embedder flywheel.embedders, out reason text, out detail text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  near record;
  copies integer;
  close integer;
  opposed integer;
begin
  execute flywheel._near_sql(made.validator_id, null, null, 'item', embedder.embedder_id, embedder.dimensions) into near using vector, 12;
  select count(*) filter (where found.cosine > 0.97), count(*) filter (where found.cosine >= 0.9),
         count(*) filter (where found.cosine >= 0.9 and coalesce(e.passed, false) <> coalesce(made.passed, false))
    into copies, close, opposed
    from unnest(near.f1, near.f3) as found(example_id, cosine) join flywheel.examples as e using (example_id)
   where e.span_id <> made.span_id and e.status = 'servable';
  if copies > 3 then
    reason := 'flood';
    detail := format('%s other examples are nearly the same', copies);
  elsif close >= 3 and opposed = close then
    reason := 'contradicts';
    detail := format('its %s nearest neighbours say the opposite', close);
  end if;
end
$function$;
comment on function flywheel._compared_problem is 'Internal: why an example is kept back once it can be compared with others; null = nothing is seen.';

-- _outlier: further from the middle of its question than four standard deviations of a sample. Needs 100 others.
create or replace function flywheel._outlier(made flywheel.examples, vector public.halfvec, embedder flywheel.embedders) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  pool record;
begin
  with sampled as materialized (
    select v.embedding from flywheel._example_embeddings as v
     where v.embedder_id = embedder.embedder_id and v.validator_id = made.validator_id and v.part = 'item' and v.servable
       and v.example_id <> made.example_id
     limit 1000
  ), middle as materialized (
    select public.avg(sampled.embedding) as embedding from sampled
  )
  select count(*) as others, avg(1 - (sampled.embedding operator(public.<=>) middle.embedding)) as mean,
         stddev_samp(1 - (sampled.embedding operator(public.<=>) middle.embedding)) as deviation,
         1 - (vector operator(public.<=>) (select middle.embedding from middle)) as own
    into pool from sampled cross join middle;
  return case when pool.others >= 100 and pool.own < pool.mean - 4 * pool.deviation then
    format('its similarity to the others is %s, theirs to one another %s', round(pool.own::numeric, 3), round(pool.mean::numeric, 3)) end;
end
$function$;
comment on function flywheel._outlier is 'Internal: how far an example lies from all others of its question; null = not far, or there are too few.';

-- _mark_disagreed: a judge said otherwise of a labelled span after its label. A stretch of the table is looked at each time, wherever it
-- lies: all of a small one, and of a large one every part within minutes, with nothing to remember.
create or replace function flywheel._mark_disagreed() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  stretch constant integer := 256;
  stretches constant integer := ceil((pg_relation_size('flywheel.examples') / current_setting('block_size')::integer + 1) / stretch::numeric);
  first constant integer := floor(random() * stretches)::integer * stretch;
  marked bigint;
begin
  with wrong as materialized (
    select e.example_id
      from flywheel.examples as e
     cross join lateral (
       select from flywheel.scores join flywheel.validator_versions as versions on versions.version_id = scores.version_id
        where (scores.span_id, scores.revision, scores.started_at) = (e.span_id, e.revision, e.started_at) and scores.passed <> coalesce(e.passed, false)
          and versions.kind in ('judge', 'neighbours') and flywheel._question_of(versions) = e.validator_id
        limit 1) as said
     where e.ctid >= format('(%s,0)', first)::tid and e.ctid < format('(%s,0)', first + stretch)::tid and not e.disagreed and e.status <> 'revoked'
     order by e.example_id for no key update of e skip locked
  )
  update flywheel.examples as e set disagreed = true, changed_at = now() from wrong where e.example_id = wrong.example_id;
  get diagnostics marked = row_count;
  return marked;
end
$function$;
comment on function flywheel._mark_disagreed is 'Internal: mark examples on which a judge was wrong since they were made; returns how many.';

-- _advance_examples: a chore. What a person signed or released stays as it is. Scores are written with an example meanwhile.
create or replace function flywheel._advance_examples() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  embedder flywheel.embedders := flywheel._shot_embedder('{}');
  work record;
  asked uuid;
  jury record;
  reason text;
  detail text;
  touched bigint := flywheel._mark_disagreed();
begin
  for work in
    select fresh.* from (
      select e as made, v.embedding, e.validator_id, e.created_at,
             e.validator_id is null or exists (select from flywheel.sign_offs where sign_offs.example_id = e.example_id) as exempt
        from flywheel.examples as e
        join flywheel._example_embeddings as v on (v.example_id, v.embedder_id, v.part) = (e.example_id, embedder.embedder_id, 'item')
       where e.compared_at is null and e.status in ('candidate', 'servable')
       order by e.created_at limit 200 for no key update of e skip locked) as fresh
     order by fresh.validator_id, fresh.created_at
  loop
    reason := null;
    detail := null;
    if not work.exempt then
      if work.validator_id is distinct from asked then
        asked := work.validator_id;
        jury := flywheel._jury(asked, embedder);
      end if;
      detail := flywheel._crowding(work.made);
      reason := case when detail is not null then 'one_user' end;
      if reason is null then
        select found.reason, found.detail into reason, detail from flywheel._compared_problem(work.made, work.embedding, embedder) as found;
      end if;
      if reason is null then
        detail := flywheel._outlier(work.made, work.embedding, embedder);
        reason := case when detail is not null then 'outlier' end;
      end if;
      if reason is null then
        detail := flywheel._sentinel_flips(work.made, work.embedding, jury.verdicts, jury.vectors, jury.places, jury.example_ids, jury.cosines, jury.passes, jury.fails);
        reason := case when detail is not null then 'sentinel_flips' end;
      end if;
    end if;
    update flywheel.examples as e
       set compared_at = now(), status = case when reason is null then e.status else 'quarantined' end,
           quarantined_reason = reason, quarantined_detail = detail, changed_at = case when reason is null then e.changed_at else now() end
     where e.example_id = (work.made).example_id;
    touched := touched + 1;
  end loop;
  return touched;
end
$function$;
comment on function flywheel._advance_examples is
  'Internal: compare new examples with the others, quarantine floods, outliers, contradictions and what turns the vote on sentinels wrong, and mark those a judge was wrong on; workers call it every few seconds.';

select flywheel._grant('flywheel_worker', 'execute on function flywheel._advance_examples()');
