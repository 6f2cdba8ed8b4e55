-- Retrieval: which examples a judge or an application is shown, with every component of their rank.
--
-- Candidates come from pgvector (or by time, or by a hash), the choice among them is made here: relevance is a weighted
-- sum, the next example is the one most relevant and least like those chosen (MMR), within caps and a budget of tokens.

-- _strategy_policy: what a strategy means where the policy says nothing. diversity is 1 - lambda of MMR.
create or replace function flywheel._strategy_policy(strategy text) returns jsonb
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select '{"count": 6, "token_budget": 4000, "half_life_days": 30, "diversity": 0.3}'::jsonb || jsonb_build_object('strategy', strategy) ||
    case strategy
      when 'recent' then '{"diversity": 0, "weights": {"similarity": 0, "recency": 1, "disagreement": 0, "trust": 0}}'
      when 'similar_recent' then '{"weights": {"similarity": 0.45, "recency": 0.45, "disagreement": 0, "trust": 0.1}}'
      when 'random' then '{"diversity": 0, "weights": {"similarity": 0, "recency": 0, "disagreement": 0, "trust": 0}}'
      when 'diverse' then '{"diversity": 0.7, "weights": {"similarity": 0.6, "recency": 0.15, "disagreement": 0.15, "trust": 0.1}}'
      else '{"weights": {"similarity": 0.6, "recency": 0.15, "disagreement": 0.15, "trust": 0.1}}'
    end::jsonb
$function$;
comment on function flywheel._strategy_policy is 'Internal: the policy of shots a strategy stands for.';

-- _shot_policy: a policy as it is used; the weights given replace those of the strategy one by one.
create or replace function flywheel._shot_policy(given jsonb) returns jsonb
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select known.policy || coalesce(given, '{}') || jsonb_build_object('weights', (known.policy -> 'weights') || coalesce(given -> 'weights', '{}'))
    from (select flywheel._strategy_policy(coalesce(given ->> 'strategy', 'similar')) as policy) as known
$function$;
comment on function flywheel._shot_policy is 'Internal: a policy of shots with everything it leaves open filled in.';

-- _pick_shots: greedy MMR over candidates in order of place: arrays of one length, ties go to the lower place.
-- The penalty of a candidate is its greatest similarity to those picked; the first pick has none.
create or replace function flywheel._pick_shots(
  wanted integer, diversity double precision, relevance double precision[], vectors public.halfvec[], most_alike double precision,
  verdicts boolean[], most_of_verdict integer, preferred boolean[], preferred_picks integer, disagreed boolean[], most_disagreed integer,
  users text[], sessions text[], hashes text[], tokens integer[], token_budget integer, out picked integer[], out penalties double precision[])
language plpgsql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  penalty double precision[] := array_fill(null::double precision, array[cardinality(relevance)]);
  open boolean[] := array_fill(true, array[cardinality(relevance)]);
  passes integer := 0;
  fails integer := 0;
  wrong integer := 0;
  budget integer := token_budget;
  last integer := 0;
  last_vector public.halfvec;
begin
  picked := '{}';
  penalties := '{}';
  for turn in 1 .. wanted loop
    last_vector := vectors[last];
    with seen as (
      select c.place, c.relevance, c.preferred,
             greatest(c.penalty, 1 - (c.vector operator(public.<=>) last_vector)) as penalty,
             c.open and c.place <> last and c.tokens <= budget
               and (c.verdict is null or case when c.verdict then passes else fails end < most_of_verdict)
               and (not c.disagreed or wrong < most_disagreed)
               and (last = 0 or (c.user_id is distinct from users[last] or c.user_id is null)
                 and (c.session_id is distinct from sessions[last] or c.session_id is null)
                 and c.hash is distinct from hashes[last]
                 and coalesce(1 - (c.vector operator(public.<=>) last_vector) <= most_alike, true)) as open
        from unnest(relevance, vectors, verdicts, preferred, disagreed, users, sessions, hashes, tokens, penalty, open) with ordinality
          as c(relevance, vector, verdict, preferred, disagreed, user_id, session_id, hash, tokens, penalty, open, place)
       order by c.place
    )
    select array_agg(seen.penalty), array_agg(seen.open),
           (array_agg(seen.place order by (seen.preferred and turn <= preferred_picks) desc,
              (1 - diversity) * seen.relevance - diversity * coalesce(seen.penalty, 0) desc, seen.place) filter (where seen.open))[1]
      into penalty, open, last
      from seen;
    exit when last is null;
    picked := picked || last;
    penalties := penalties || coalesce(penalty[last], 0);
    budget := budget - tokens[last];
    passes := passes + coalesce(verdicts[last], false)::integer;
    fails := fails + coalesce(not verdicts[last], false)::integer;
    wrong := wrong + disagreed[last]::integer;
  end loop;
end
$function$;
comment on function flywheel._pick_shots is 'Internal: choose among candidates by relevance and difference, within caps; returns places and penalties in the order of choice.';

-- _pool_sql: what may be shown, over e. A judge is shown verdicts on its question. An application is shown outputs that
-- were fixed, or that passed where nobody failed or fixed the same span.
create or replace function flywheel._pool_sql(question uuid, project text, node text) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select concat_ws(' and ', 'e.status = ''servable''', format('e.validator_id = %L', question),
    case when project is not null then format($code$e.project = %L and e.node = %L and (e.kind = 'fix' or e.passed and not exists (
      select from flywheel.examples as other where other.span_id = e.span_id and other.status = 'servable' and (other.kind = 'fix' or not other.passed)))$code$,
      project, node) end)
$function$;
comment on function flywheel._pool_sql is 'Internal: the predicate over examples e of one pool: of a question, of a node, or both.';

-- _near_sql: the nearest examples. Every id is a literal, so that the partial index of this question can be used. A pool
-- without a question has no index: its newest 5,000 are compared one by one.
create or replace function flywheel._near_sql(pool text, question uuid, part text, embedder_id uuid, dimensions integer) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format(case when question is not null then
    'select v.example_id, v.embedding, 1 - ((v.embedding::public.halfvec(%1$s)) operator(public.<=>) $1) as cosine
       from flywheel._example_embeddings as v
      where v.embedder_id = %2$L and v.validator_id = %3$L and v.part = %4$L and v.servable
      order by (v.embedding::public.halfvec(%1$s)) operator(public.<=>) $1 limit $7'
    else
    'select v.example_id, v.embedding, 1 - (v.embedding operator(public.<=>) $1) as cosine
       from (select e.example_id from flywheel.examples as e where %5$s order by e.created_at desc limit 5000) as e
       join flywheel._example_embeddings as v on (v.example_id, v.embedder_id, v.part) = (e.example_id, %2$L, %4$L)
      order by v.embedding operator(public.<=>) $1 limit $7' end,
    dimensions, embedder_id, question, part, pool)
$function$;
comment on function flywheel._near_sql is 'Internal: the nearest $7 examples to $1, with their vectors.';

-- _others_sql: candidates a strategy wants whatever their vectors are; null = only the newest that have no vector yet.
create or replace function flywheel._others_sql(strategy text, pool text, has_query boolean) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when strategy = 'random' then format('select e.example_id from flywheel.examples as e where %s order by md5(e.example_id::text || $8) limit 50', pool)
    when strategy in ('recent', 'similar_recent') or not has_query then
      format('select e.example_id from flywheel.examples as e where %s order by e.created_at desc limit 50', pool)
    when strategy = 'disagreement_first' then
      format('select e.example_id from flywheel.examples as e where %s and e.disagreed order by e.created_at desc limit 200', pool)
    when strategy in ('fixed_first', 'any_plus_fixed') then
      format('select e.example_id from flywheel.examples as e where %s and e.kind = ''fix'' order by e.created_at desc limit 200', pool)
  end
$function$;
comment on function flywheel._others_sql is 'Internal: ids of candidates a strategy adds to the nearest; null = none.';

-- _candidates_sql: $1 vector, $2 span, $3 trace and $4 group of the target, $5 whether it is held out (dev or test), $6 half-life
-- in days, $7 how many are near, $8 seed, $9 weights. The guards stand here and nowhere else: never the item itself, its trace or
-- its group, and for a held-out item nothing nearly equal.
create or replace function flywheel._candidates_sql(strategy text, pool text, near text, part text, embedder_id uuid) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$
  with near as materialized (%1$s), others as materialized (%2$s), found as (
    select near.example_id, near.embedding, near.cosine from near
    union all
    select others.example_id, v.embedding, 1 - (v.embedding operator(public.<=>) $1)
      from others left join flywheel._example_embeddings as v on (v.example_id, v.embedder_id, v.part) = (others.example_id, %3$L, %4$L)
     where %5$s
  ), ranked as (
    select e.example_id, found.embedding, found.cosine, e.disagreed, e.trust, e.kind = 'fix' as fixed, coalesce(e.passed, e.kind <> 'fix') as passed,
           e.user_id, e.session_id, e.content_hash, e.tokens, power(2, least(0, -extract(epoch from now() - e.created_at) / 86400 / $6)) as recency,
           (1 + coalesce(found.cosine, (select percentile_disc(0.5) within group (order by near.cosine) from near), 0)) / 2 as similarity
      from found join flywheel.examples as e on e.example_id = found.example_id
     where %6$s and ($2 is null or e.span_id <> $2) and ($3 is null or e.trace_id <> $3) and ($4 is null or e.group_key <> $4)
       and not ($5 and coalesce(found.cosine >= 0.98, false))
     order by found.cosine desc nulls last, e.example_id
  )
  select array_agg(example_id) as ids, array_agg(embedding) as vectors, array_agg(cosine) as cosines, array_agg(disagreed) as disagreed,
         array_agg(trust) as trusts, array_agg(fixed) as fixed, array_agg(passed) as verdicts, array_agg(user_id) as users,
         array_agg(session_id) as sessions, array_agg(content_hash) as hashes, array_agg(tokens) as tokens, array_agg(recency) as recencies,
         array_agg($9[1] * similarity + $9[2] * recency + $9[3] * disagreed::integer + $9[4] * trust) as relevances,
         (select count(*) from near) as near
    from ranked$code$,
    coalesce(near, 'select null::uuid as example_id, null::public.halfvec as embedding, null::double precision as cosine where false'),
    coalesce(flywheel._others_sql(strategy, pool, near is not null), format('select e.example_id from flywheel.examples as e where %s order by e.created_at desc limit 20', pool)),
    embedder_id, part,
    case when flywheel._others_sql(strategy, pool, near is not null) is null then 'v.example_id is null'
         else 'not exists (select from near where near.example_id = others.example_id)' end,
    pool)
$function$;
comment on function flywheel._candidates_sql is 'Internal: the statement that gathers candidates as arrays.';

-- _retrieve: one target. Rows come in the order in which they are shown: the most relevant last, rank 1.
create or replace function flywheel._retrieve(
  code text, policy jsonb, query public.halfvec, span_id uuid, trace_id uuid, group_key text, held_out boolean, most_of_verdict integer, seed text)
returns table (example_id uuid, rank integer, similarity double precision, recency double precision, disagreement double precision,
               trust double precision, relevance double precision, penalty double precision, tokens integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  c record;
  chosen record;
  wanted constant integer := (policy ->> 'count')::integer;
  strategy constant text := policy ->> 'strategy';
  weights constant double precision[] := array[policy #>> '{weights,similarity}', policy #>> '{weights,recency}',
    policy #>> '{weights,disagreement}', policy #>> '{weights,trust}'];
  nearest integer := 50;
begin
  loop                                               -- more are looked at when most of the nearest may not be shown
    execute code into c
      using query, span_id, trace_id, group_key, held_out, (policy ->> 'half_life_days')::double precision, nearest, seed, weights;
    exit when c.near < nearest or coalesce(cardinality(c.ids), 0) >= 2 * wanted or nearest > 10000;
    nearest := nearest * 10;
  end loop;
  if c.ids is null then
    return;
  end if;
  chosen := flywheel._pick_shots(wanted, (policy ->> 'diversity')::double precision,
    case when strategy = 'random' then array(select 1 - ('x' || left(md5(id || seed), 8))::bit(32)::bigint / 4294967296.0 from unnest(c.ids) as id) else c.relevances end,
    c.vectors, 0.97, c.verdicts, most_of_verdict, case strategy when 'disagreement_first' then c.disagreed else c.fixed end,
    case strategy when 'fixed_first' then wanted when 'disagreement_first' then wanted / 2 when 'any_plus_fixed' then wanted / 2 else 0 end,
    c.disagreed, greatest(wanted / 2, 1), c.users, c.sessions, c.hashes, c.tokens, (policy ->> 'token_budget')::integer);
  return query
    select c.ids[p.place], (row_number() over (order by c.relevances[p.place] desc, p.turn))::integer, c.cosines[p.place], c.recencies[p.place],
           c.disagreed[p.place]::integer::double precision, c.trusts[p.place], c.relevances[p.place], p.penalty, c.tokens[p.place]
      from unnest(chosen.picked, chosen.penalties) with ordinality as p(place, penalty, turn)
     order by 2 desc;
end
$function$;
comment on function flywheel._retrieve is 'Internal: choose examples for one target from the candidates a statement gathers.';

-- Calling a function of pgvector loads it; its settings are known from then on. Before version 0.8 there is no iterative_scan.
do $block$
begin
  perform '[1]'::public.halfvec;
  alter function flywheel._retrieve set hnsw.ef_search = 100;
  alter function flywheel._retrieve set hnsw.iterative_scan = 'relaxed_order';
exception when undefined_object or insufficient_privilege then
  raise notice 'pgvector is older than 0.8: fewer candidates are found when many of the nearest may not be shown';
end
$block$;

-- _shot_embedder: the embedder a policy names, else the one that serves.
create or replace function flywheel._shot_embedder(policy jsonb) returns flywheel.embedders
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select embedders from flywheel.embedders
   where case when policy ? 'embedder' then embedders.name = policy ->> 'embedder' else embedders.status = 'serving' end
$function$;
comment on function flywheel._shot_embedder is 'Internal: the embedder whose vectors a policy compares; null = none serves.';

-- _vector_of: the place-th of several vectors that come one after the other.
create or replace function flywheel._vector_of(embeddings real[], dimensions integer, place integer) returns public.halfvec
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select (embeddings[(place - 1) * dimensions + 1 : place * dimensions])::public.halfvec
   where cardinality(embeddings) >= place * dimensions and dimensions > 0
$function$;
comment on function flywheel._vector_of is 'Internal: one of several vectors in one array; null = it is not there.';

-- _chosen_for: the same choice for each of several spans, as ids.
create or replace function flywheel._chosen_for(
  question uuid, policy jsonb, span_ids uuid[], started_ats timestamptz[], embeddings real[], dimensions integer, most_of_verdict integer)
returns table (place integer, example_id uuid, rank integer, similarity double precision, recency double precision, disagreement double precision,
               trust double precision, relevance double precision, penalty double precision, tokens integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  embedder flywheel.embedders := flywheel._shot_embedder(policy);
  pool text := flywheel._pool_sql(question, null, null);
  strategy text := policy ->> 'strategy';
  near text;
  with_vector text;
  without_vector text;
  target record;
begin
  if strategy not in ('recent', 'random') and embedder.dimensions = _chosen_for.dimensions then
    near := flywheel._near_sql(pool, question, 'item', embedder.embedder_id, embedder.dimensions);
  end if;
  with_vector := flywheel._candidates_sql(strategy, pool, near, 'item', embedder.embedder_id);
  without_vector := flywheel._candidates_sql(strategy, pool, null, 'item', embedder.embedder_id);
  for target in
    select wanted.place::integer as place, span.span_id, span.trace_id, flywheel._group_key(span) as group_key,
           flywheel._vector_of(_chosen_for.embeddings, _chosen_for.dimensions, wanted.place::integer) as vector
      from unnest(_chosen_for.span_ids, _chosen_for.started_ats) with ordinality as wanted(span_id, started_at, place)
      join flywheel.spans as span on (span.span_id, span.started_at) = (wanted.span_id, wanted.started_at)
  loop
    return query
      select target.place, shot.*
        from flywheel._retrieve(case when target.vector is null then without_vector else with_vector end, policy, target.vector, target.span_id,
          target.trace_id, target.group_key, flywheel._split(target.group_key) <> 'train', _chosen_for.most_of_verdict, target.span_id::text) as shot;
  end loop;
end
$function$;
comment on function flywheel._chosen_for is 'Internal: the examples a policy chooses for each of several spans.';

-- _shots_for: what a judge is shown for each of several spans; place numbers them. Without a vector (embeddings null, or null
-- in its place) similarity is left out and the newest are chosen from.
create or replace function flywheel._shots_for(version_id uuid, span_ids uuid[], started_ats timestamptz[], embeddings real[], dimensions integer)
returns table (place integer, example_id uuid, rank integer, kind text, input text, output text, corrected_output text, passed boolean, critique text,
               similarity double precision, recency double precision, disagreement double precision, trust double precision,
               relevance double precision, penalty double precision, tokens integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  version flywheel.validator_versions;
  policy jsonb;
begin
  select * into version from flywheel.validator_versions as versions where versions.version_id = _shots_for.version_id;
  policy := flywheel._shot_policy(version.definition -> 'shots');
  if policy ->> 'strategy' = 'none' or policy ->> 'count' = '0' then
    return;
  end if;
  return query
    select shot.place, e.example_id, shot.rank, e.kind, e.input, e.output, e.corrected_output, coalesce(e.passed, false), coalesce(e.critique, ''),
           shot.similarity, shot.recency, shot.disagreement, shot.trust, shot.relevance, shot.penalty, e.tokens
      from flywheel._chosen_for(flywheel._question_of(version), policy, _shots_for.span_ids, _shots_for.started_ats, _shots_for.embeddings,
             _shots_for.dimensions, ((policy ->> 'count')::integer + 1) / 2) as shot
      join flywheel.examples as e on e.example_id = shot.example_id
     order by shot.place, shot.rank desc;
end
$function$;
comment on function flywheel._shots_for is
  'Internal: the examples a judge version is shown for each of several spans, the most relevant last, with every component of their rank.';
