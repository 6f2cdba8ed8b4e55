-- Candidates: the policies, which examples come into question, and the choice among them.
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
-- The penalty of a candidate is its greatest similarity to those picked; the first pick has none (-2 = none yet). Above most_alike
-- it is one of them again and out. Arrays are read by place, which is measured faster than rows of unnest; caps are looked at from
-- the top of what is left, in order.
create or replace function flywheel._pick_shots(
  wanted integer, diversity double precision, relevance double precision[], vectors public.halfvec[], most_alike double precision,
  verdicts boolean[], most_of_verdict integer, preferred boolean[], preferred_picks integer, disagreed boolean[], most_disagreed integer,
  users text[], sessions text[], hashes text[], tokens integer[], token_budget integer, out picked integer[], out penalties double precision[])
language plpgsql immutable security invoker
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $function$
declare
  most constant integer := cardinality(relevance);
  penalty double precision[] := array_fill(-2::double precision, array[most]);
  closed boolean[] := array_fill(false, array[most]);
  counts integer[] := array[0, 0, 0];                -- passes, fails, corrections of a judge
  budget integer := token_budget;
  seen text[] := '{}';
  names text[];
  ranking integer[];
  last integer;
begin
  picked := '{}';
  penalties := '{}';
  while cardinality(picked) < wanted loop
    if vectors[last] is not null then
      penalty := array(select greatest(penalty[place], 1 - (vectors[place] operator(public.<=>) vectors[last])) from generate_series(1, most) as place);
    end if;
    ranking := array(select place from generate_series(1, most) as place where not closed[place] and penalty[place] <= most_alike
      order by preferred[place] and cardinality(picked) < preferred_picks desc,
               (1 - diversity) * relevance[place] - diversity * case when penalty[place] < -1.5 then 0 else penalty[place] end desc, place);
    last := null;
    foreach last in array ranking loop
      closed[last] := true;                          -- taken now, or against a cap that will not be looser later
      names := array_remove(array['user ' || users[last], 'session ' || sessions[last], 'text ' || hashes[last]], null);
      exit when tokens[last] <= budget and not seen && names and not (disagreed[last] and counts[3] >= most_disagreed)
        and coalesce(counts[case when verdicts[last] then 1 else 2 end] < most_of_verdict or verdicts[last] is null, true);
      last := null;
    end loop;
    exit when last is null;
    picked := picked || last;
    penalties := penalties || case when penalty[last] < -1.5 then 0 else penalty[last] end;
    budget := budget - tokens[last];
    counts := array[counts[1] + coalesce(verdicts[last], false)::integer, counts[2] + coalesce(not verdicts[last], false)::integer,
                    counts[3] + disagreed[last]::integer];
    seen := seen || names;
  end loop;
end
$function$;
comment on function flywheel._pick_shots is 'Internal: choose among candidates by relevance and difference, within caps; returns places and penalties in the order of choice.';

-- _near_sql: the nearest $2 examples to $1. Every id is a literal, so that the partial index of this question can be used, and
-- the statement is small, since it is planned each time. A pool without a question has no index: its newest 5,000 are compared.
create or replace function flywheel._near_sql(question uuid, project text, node text, part text, embedder_id uuid, dimensions integer) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('select array_agg(v.example_id) as f1, array_agg(v.embedding) as f2, array_agg(v.cosine) as f3 from (' || case when question is not null then
    'select v.example_id, v.embedding, 1 - ((v.embedding::public.halfvec(%1$s)) operator(public.<=>) $1) as cosine
       from flywheel._example_embeddings as v
      where v.embedder_id = %2$L and v.validator_id = %3$L and v.part = %4$L and v.servable
      order by (v.embedding::public.halfvec(%1$s)) operator(public.<=>) $1 limit $2'
    else
    'select v.example_id, v.embedding, 1 - (v.embedding operator(public.<=>) $1) as cosine
       from (select e.example_id from flywheel.examples as e where e.status = ''servable'' and e.project = %5$L and e.node = %6$L
              order by e.created_at desc limit 5000) as e
       join flywheel._example_embeddings as v on (v.example_id, v.embedder_id, v.part) = (e.example_id, %2$L, %4$L)
      order by v.embedding operator(public.<=>) $1 limit $2' end || ') as v',
    dimensions, embedder_id, question, part, project, node)
$function$;
comment on function flywheel._near_sql is 'Internal: the statement that finds the nearest examples of a pool: of a question, or of a node.';

create or replace function flywheel._is_wanted(strategy text, kind text, disagreed boolean) returns boolean
language sql immutable security invoker parallel safe
begin atomic
  select case strategy when 'disagreement_first' then disagreed when 'fixed_first' then kind = 'fix' when 'any_plus_fixed' then kind = 'fix' else true end;
end;
comment on function flywheel._is_wanted is 'Internal: whether a strategy looks for an example beyond the nearest.';

-- _other_ids: candidates a strategy wants however near they are; otherwise the newest that have no vector yet, so that a fix is
-- found on the statement after its commit.
create or replace function flywheel._other_ids(strategy text, near boolean, question uuid, project text, node text, embedder_id uuid, part text, seed text)
returns uuid[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $function$
begin
  if near and strategy in ('similar', 'diverse') and question is not null and project is null then
    return array(
      select newest.example_id
        from (select e.example_id from flywheel.examples as e where e.status = 'servable' and e.validator_id = question
               order by e.created_at desc limit 20) as newest
       where not exists (select from flywheel._example_embeddings as v
               where (v.example_id, v.embedder_id, v.part) = (newest.example_id, _other_ids.embedder_id, _other_ids.part)));
  elsif near and strategy in ('similar', 'diverse') then
    return array(
      select newest.example_id
        from (select e.example_id from flywheel.examples as e where e.status = 'servable' and e.project = _other_ids.project and e.node = _other_ids.node
               order by e.created_at desc limit 20) as newest
       where not exists (select from flywheel._example_embeddings as v
               where (v.example_id, v.embedder_id, v.part) = (newest.example_id, _other_ids.embedder_id, _other_ids.part)));
  elsif project is not null then
    return array(
      select e.example_id from flywheel.examples as e
       where e.status = 'servable' and e.project = _other_ids.project and e.node = _other_ids.node and (question is null or e.validator_id = question)
         and (e.kind = 'fix' or e.passed) and (not near or flywheel._is_wanted(strategy, e.kind, e.disagreed))
       order by case strategy when 'random' then flywheel._hash01(e.example_id, seed) end, e.created_at desc limit 200);
  end if;
  return array(
    select e.example_id from flywheel.examples as e
     where e.status = 'servable' and e.validator_id = question and (not near or flywheel._is_wanted(strategy, e.kind, e.disagreed))
     order by case strategy when 'random' then flywheel._hash01(e.example_id, seed) end, e.created_at desc limit 200);
end
$function$;
comment on function flywheel._other_ids is 'Internal: ids of candidates beside the nearest.';

-- _ranked: candidates as arrays in order of similarity. The guards stand here and nowhere else: never the item itself, its trace
-- or its group, and for an item held out (dev or test; held_out = the hash of its text, else null) nothing equal or nearly so, whether
-- vectors are there or not. Who has no vector yet counts as the median.
create or replace function flywheel._ranked(
  near_ids uuid[], near_vectors public.halfvec[], near_cosines double precision[], other_ids uuid[], query public.halfvec, embedder_id uuid, part text,
  question uuid, project text, node text, span_id uuid, trace_id uuid, group_key text, held_out text, half_life_days double precision,
  weights double precision[], out ids uuid[], out vectors public.halfvec[], out cosines double precision[], out disagreed boolean[],
  out trusts double precision[], out fixed boolean[], out verdicts boolean[], out users text[], out sessions text[], out hashes text[],
  out tokens integer[], out recencies double precision[], out relevances double precision[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $function$
declare
  middle double precision := 0;
begin
  if cardinality(other_ids) > 0 and cardinality(near_ids) > 0 then
    middle := (select percentile_disc(0.5) within group (order by cosine) from unnest(near_cosines) as cosine);
  end if;
  select array_agg(c.example_id), array_agg(c.embedding), array_agg(c.cosine), array_agg(c.disagreed), array_agg(c.trust), array_agg(c.fixed),
         array_agg(c.passed), array_agg(c.user_id), array_agg(c.session_id), array_agg(c.content_hash), array_agg(c.tokens), array_agg(c.recency),
         array_agg(weights[1] * (1 + coalesce(c.cosine, middle)) / 2 + weights[2] * c.recency + weights[3] * c.disagreed::integer + weights[4] * c.trust)
    into ids, vectors, cosines, disagreed, trusts, fixed, verdicts, users, sessions, hashes, tokens, recencies, relevances
    from (
      select e.example_id, found.embedding, found.cosine, e.disagreed, e.trust, e.kind = 'fix' as fixed, coalesce(e.passed, e.kind <> 'fix') as passed,
             e.user_id, e.session_id, e.content_hash, e.tokens,
             power(2, least(0, -extract(epoch from now() - e.created_at)::double precision / 86400 / half_life_days)) as recency
        from (
          select near.example_id, near.embedding, near.cosine from unnest(near_ids, near_vectors, near_cosines) as near(example_id, embedding, cosine)
          union all
          select other.example_id, v.embedding, 1 - (v.embedding operator(public.<=>) query)
            from unnest(other_ids) as other(example_id)
            left join flywheel._example_embeddings as v on (v.example_id, v.embedder_id, v.part) = (other.example_id, _ranked.embedder_id, _ranked.part)
           where other.example_id <> all (coalesce(near_ids, '{}'))) as found  -- array_agg of nothing is null
        join flywheel.examples as e on e.example_id = found.example_id
       where e.status = 'servable' and (question is null or e.validator_id = question)
         and (_ranked.project is null or (e.project = _ranked.project and e.node = _ranked.node and (e.kind = 'fix' or e.passed and not exists (
           select from flywheel.examples as other
            where other.span_id = e.span_id and other.status = 'servable' and (other.kind = 'fix' or not other.passed)))))
         and (_ranked.span_id is null or e.span_id <> _ranked.span_id) and (_ranked.trace_id is null or e.trace_id <> _ranked.trace_id)
         and (_ranked.group_key is null or e.group_key <> _ranked.group_key)
         and (held_out is null or not coalesce(found.cosine >= 0.98, false) and e.content_hash <> held_out)
       order by found.cosine desc nulls last, e.example_id) as c;
end
$function$;
comment on function flywheel._ranked is 'Internal: what may be shown of the candidates, with every component of relevance.';
