-- Retrieval: which examples a judge or an application is shown, with every component of their rank.

-- _retrieve: one target. near_sql is made by _near_sql. Rows come in the order in which they are shown: the most relevant last, rank 1.
create or replace function flywheel._retrieve(
  near_sql text, policy jsonb, query public.halfvec, embedder_id uuid, part text, question uuid, project text, node text,
  span_id uuid, trace_id uuid, group_key text, held_out text, most_of_verdict integer, seed text)
returns table (example_id uuid, rank integer, similarity double precision, recency double precision, disagreement double precision,
               trust double precision, relevance double precision, penalty double precision, tokens integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $function$
declare
  near record;
  c record;
  chosen record;
  wanted constant integer := policy ->> 'count';
  strategy constant text := policy ->> 'strategy';
  other_ids uuid[] := flywheel._other_ids(strategy, query is not null and near_sql is not null, question, project, node, embedder_id, part, seed);
  nearest integer := 50;
begin
  loop                                               -- more are looked at when most of the nearest may not be shown
    near := ('{}'::uuid[], '{}'::public.halfvec[], '{}'::double precision[]);
    if query is not null and near_sql is not null then
      execute near_sql into near using query, nearest;
    end if;
    c := flywheel._ranked(near.f1, near.f2, near.f3, other_ids, query, embedder_id, part, question, project, node, span_id, trace_id, group_key, held_out,
      (policy ->> 'half_life_days')::double precision, array[policy #>> '{weights,similarity}', policy #>> '{weights,recency}',
      policy #>> '{weights,disagreement}', policy #>> '{weights,trust}']::double precision[]);
    exit when coalesce(cardinality(near.f1), 0) < nearest or cardinality(c.ids) >= 2 * wanted or nearest > 10000;
    perform set_config('hnsw.iterative_scan', 'relaxed_order', true);   -- until this function ends, which has its own value
    nearest := nearest * 10;
  end loop;
  if c.ids is null then
    return;
  end if;
  if strategy = 'random' then
    c.relevances := array(select 1 - flywheel._hash01(each.id, seed) from unnest(c.ids) as each(id));
  end if;
  chosen := flywheel._pick_shots(wanted, (policy ->> 'diversity')::double precision, c.relevances, c.vectors, 0.97, c.verdicts, most_of_verdict,
    case strategy when 'disagreement_first' then c.disagreed else c.fixed end,
    case strategy when 'fixed_first' then wanted when 'disagreement_first' then wanted / 2 when 'any_plus_fixed' then wanted / 2 else 0 end,
    c.disagreed, greatest(wanted / 2, 1), c.users, c.sessions, c.hashes, c.tokens, (policy ->> 'token_budget')::integer);
  return query
    select c.ids[p.place], (row_number() over (order by c.relevances[p.place] desc, p.turn))::integer, c.cosines[p.place], c.recencies[p.place],
           c.disagreed[p.place]::integer::double precision, c.trusts[p.place], c.relevances[p.place], p.penalty, c.tokens[p.place]
      from unnest(chosen.picked, chosen.penalties) with ordinality as p(place, penalty, turn)
     order by 2 desc;
end
$function$;
comment on function flywheel._retrieve is 'Internal: choose examples for one target.';

-- Calling a function of pgvector loads it; its settings are known from then on. Before version 0.8 there is no iterative_scan.
do $block$
begin
  perform '[1]'::public.halfvec;
  alter function flywheel._retrieve set hnsw.ef_search = 200;
  alter function flywheel._retrieve set hnsw.iterative_scan = 'off';
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
language sql immutable security invoker parallel safe
begin atomic
  select case when dimensions > 0 and cardinality(embeddings) >= place * dimensions
    then (embeddings[(place - 1) * dimensions + 1 : place * dimensions])::public.halfvec end;
end;
comment on function flywheel._vector_of is 'Internal: one of several vectors in one array; null = it is not there.';

-- _chosen_for: the same choice for each of several spans, as ids.
create or replace function flywheel._chosen_for(
  question uuid, policy jsonb, span_ids uuid[], started_ats timestamptz[], embeddings real[], dimensions integer, most_of_verdict integer)
returns table (place integer, example_id uuid, rank integer, similarity double precision, recency double precision, disagreement double precision,
               trust double precision, relevance double precision, penalty double precision, tokens integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $function$
declare
  embedder flywheel.embedders := flywheel._shot_embedder(policy);
  asked_of constant text := (select versions.target from flywheel.validator_versions as versions
                              where versions.validator_id = question order by versions.version desc limit 1);
  near_sql text;
  target record;
begin
  if policy ->> 'strategy' not in ('recent', 'random') and embedder.dimensions = _chosen_for.dimensions then
    near_sql := flywheel._near_sql(question, null, null, 'item', embedder.embedder_id, embedder.dimensions);
  end if;
  for target in
    select wanted.place::integer as place, span.span_id, span.trace_id, flywheel._group_key(span) as group_key,
           flywheel._item_text(asked_of, span.input, span.output) as text,
           flywheel._vector_of(_chosen_for.embeddings, _chosen_for.dimensions, wanted.place::integer) as vector
      from unnest(_chosen_for.span_ids, _chosen_for.started_ats) with ordinality as wanted(span_id, started_at, place)
      join flywheel.spans as span on (span.span_id, span.started_at) = (wanted.span_id, wanted.started_at)
  loop
    return query
      select target.place, shot.*
        from flywheel._retrieve(near_sql, policy, target.vector, embedder.embedder_id, 'item', question, null, null, target.span_id,
          target.trace_id, target.group_key, case when flywheel._split(target.group_key) <> 'train' then flywheel._text_hash(coalesce(target.text, '')) end,
          most_of_verdict, target.span_id::text) as shot;
  end loop;
end
$function$;
comment on function flywheel._chosen_for is 'Internal: the examples a policy chooses for each of several spans.';

create or replace function flywheel._application_policy(k integer, strategy text, token_budget integer, half_life_days double precision, diversity double precision)
returns jsonb
language plpgsql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  given jsonb := jsonb_build_object('strategy', strategy, 'count', k, 'token_budget', token_budget, 'half_life_days', half_life_days) ||
    case when strategy in ('recent', 'random', 'diverse') then '{}' else jsonb_build_object('diversity', diversity) end;
  problem text := flywheel._shots_problem(given);
begin
  if problem is not null or strategy is null or k is null then
    raise exception using errcode = 'WF009', message = format('examples cannot be retrieved so: %s', coalesce(problem, 'strategy and k must be given')),
      hint = 'See flywheel.retrieve_examples in docs/reference/functions.md.';
  end if;
  return flywheel._shot_policy(given);
end
$function$;
comment on function flywheel._application_policy is 'Internal: the arguments of retrieve_examples as a policy; raises WF009.';

create or replace function flywheel._query_vector(embedder flywheel.embedders, embedding double precision[], span_id uuid) returns public.halfvec
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  found_vector public.halfvec;
begin
  if embedding is not null then
    if cardinality(embedding) is distinct from embedder.dimensions then
      raise exception using errcode = 'WF009',
        message = format('the vector has %s dimensions and embedder %s has %s', cardinality(embedding), coalesce(embedder.name, '(none)'), coalesce(embedder.dimensions, 0)),
        hint = 'Embed the input with the embedder that serves: see flywheel.embedder_status.';
    end if;
    return embedding::public.halfvec;
  end if;
  select v.embedding into found_vector from flywheel.span_embeddings as v
   where v.span_id = _query_vector.span_id and v.embedder_id = embedder.embedder_id and v.part = 'input'
   order by v.started_at desc limit 1;
  if found_vector is null then
    raise exception using errcode = 'WF009', message = 'there is no vector to compare examples with',
      detail = 'SQL cannot embed a text; this strategy goes by similarity.',
      hint = 'Pass embedding (python: pgflywheel.judge.embed), or take the strategy recent or random.';
  end if;
  return found_vector;
end
$function$;
comment on function flywheel._query_vector is 'Internal: the vector given, else the one stored for a span; raises WF009.';

-- _frozen_for: the same set for each span, in the order it was signed in. A guard is a guard: a span of a member's own group or trace
-- is shown the others, and so is one held out (dev or test) of nearly the same text. Nobody embeds it for that: texts are compared.
create or replace function flywheel._frozen_for(shot_set text, span_ids uuid[], started_ats timestamptz[]) returns table (place integer, example_id uuid, rank integer)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select wanted.place::integer, e.example_id, (row_number() over (partition by wanted.place order by listed.place desc))::integer
    from unnest(flywheel._frozen_shots(_frozen_for.shot_set)) with ordinality as listed(example_id, place)
    join flywheel.examples as e on e.example_id = listed.example_id
   cross join unnest(_frozen_for.span_ids, _frozen_for.started_ats) with ordinality as wanted(span_id, started_at, place)
    join flywheel.spans as span on (span.span_id, span.started_at) = (wanted.span_id, wanted.started_at)
   where e.span_id <> span.span_id and e.trace_id <> span.trace_id and e.group_key <> flywheel._group_key(span)
     and case when flywheel._split(flywheel._group_key(span)) = 'train' then true else not flywheel._nearly_equal(
               coalesce(flywheel._item_text(flywheel._embed_target(e.validator_id), e.input, e.output), ''),
               coalesce(flywheel._item_text(flywheel._embed_target(e.validator_id), span.input, span.output), '')) end
$function$;
comment on function flywheel._frozen_for is 'Internal: a frozen set of shots for each of several spans.';

-- _shots_for: what a judge is shown for each of several spans; place numbers them. Without a vector (embeddings null, or too few)
-- similarity is left out and the newest are chosen from. A frozen set has no ranks: its components are null.
create or replace function flywheel._shots_for(version_id uuid, span_ids uuid[], started_ats timestamptz[], embeddings real[], dimensions integer)
returns table (place integer, example_id uuid, rank integer, kind text, input text, output text, corrected_output text, passed boolean, critique text,
               similarity double precision, recency double precision, disagreement double precision, trust double precision,
               relevance double precision, penalty double precision, tokens integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $function$
declare
  version flywheel.validator_versions;
  policy jsonb;
begin
  select * into version from flywheel.validator_versions as versions where versions.version_id = _shots_for.version_id;
  policy := flywheel._shot_policy(version.definition -> 'shots');
  if policy ? 'shot_set' then
    return query
      select shot.place, e.example_id, shot.rank, e.kind, e.input, e.output, e.corrected_output, coalesce(e.passed, false), coalesce(e.critique, ''),
             null::double precision, null::double precision, null::double precision, null::double precision, null::double precision,
             null::double precision, e.tokens
        from flywheel._frozen_for(policy ->> 'shot_set', _shots_for.span_ids, _shots_for.started_ats) as shot
        join flywheel.examples as e on e.example_id = shot.example_id
       order by shot.place, shot.rank desc;
  elsif policy ->> 'strategy' <> 'none' and policy ->> 'count' <> '0' then
    return query
      select shot.place, e.example_id, shot.rank, e.kind, e.input, e.output, e.corrected_output, coalesce(e.passed, false), coalesce(e.critique, ''),
             shot.similarity, shot.recency, shot.disagreement, shot.trust, shot.relevance, shot.penalty, e.tokens
        from flywheel._chosen_for(flywheel._question_of(version), policy, _shots_for.span_ids, _shots_for.started_ats, _shots_for.embeddings,
               _shots_for.dimensions, ((policy ->> 'count')::integer + 1) / 2) as shot
        join flywheel.examples as e on e.example_id = shot.example_id
       order by shot.place, shot.rank desc;
  end if;
end
$function$;
comment on function flywheel._shots_for is
  'Internal: the examples a judge version is shown for each of several spans, the most relevant last, with every component of their rank.';

-- retrieve_examples: for the application's own prompt: fixed outputs and outputs that passed, the most relevant last. input is what the
-- user asked; its vector comes from judge.embed, or from a span that was embedded. group_key: a conversation whose own examples stay out.
create or replace function flywheel.retrieve_examples(
  project text, node text, input text, k integer default 6, strategy text default 'similar', validator text default null,
  embedding double precision[] default null, span_id uuid default null, group_key text default null, token_budget integer default 4000,
  half_life_days double precision default 30, diversity double precision default 0.4)
returns setof flywheel.shot
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  embedder flywheel.embedders := flywheel._shot_embedder('{}');
  policy jsonb := flywheel._application_policy(k, strategy, token_budget, half_life_days, diversity);
  question uuid := case when retrieve_examples.validator is not null then flywheel._question_of(flywheel._find_version(retrieve_examples.validator, null)) end;
  own flywheel.spans;
  query public.halfvec;
begin
  if retrieve_examples.span_id is not null then
    select * into own from flywheel.spans where spans.span_id = retrieve_examples.span_id order by spans.started_at desc limit 1;
  end if;
  if strategy = 'none' or k = 0 then
    return;
  elsif strategy not in ('recent', 'random') then
    query := flywheel._query_vector(embedder, retrieve_examples.embedding, own.span_id);
  end if;
  return query
    select e.example_id, shot.rank, e.kind, e.input, e.output, e.corrected_output, coalesce(e.passed, false), coalesce(e.critique, ''),
           shot.similarity, shot.recency, shot.disagreement, shot.trust, shot.relevance, shot.penalty, e.tokens
      from flywheel._retrieve(flywheel._near_sql(question, retrieve_examples.project, retrieve_examples.node, 'input', embedder.embedder_id, embedder.dimensions),
             policy, query, embedder.embedder_id, 'input', question, retrieve_examples.project, retrieve_examples.node, own.span_id, own.trace_id,
             coalesce(retrieve_examples.group_key, case when own.span_id is not null then flywheel._group_key(own) end), null, k,
             coalesce(retrieve_examples.input, '')) as shot
      join flywheel.examples as e on e.example_id = shot.example_id
     order by shot.rank desc;
end
$function$;
comment on function flywheel.retrieve_examples is
  'Examples for an application''s own prompt from a project and node (and the question of a validator): fixed outputs, and outputs that passed; the most relevant last, with every component of their rank.';

select flywheel._grant(role, 'execute on function flywheel.retrieve_examples(text, text, text, integer, text, text, double precision[], uuid, text, integer, double precision, double precision)')
  from unnest(array['flywheel_writer', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_worker', 'execute on function flywheel._shots_for(uuid, uuid[], timestamptz[], real[], integer), flywheel._shot_policy(jsonb)');
