-- Judges: what the definition of a judge, or of a vote of neighbours, may say.

create or replace function flywheel._judge_keys() returns text[]
language sql immutable security invoker parallel safe
begin atomic
  select array['question', 'pass_when', 'fail_when', 'template', 'provider', 'model', 'model_parameters', 'votes', 'confidence',
               'shots', 'context', 'degrade', 'labels_of', 'runs', 'escalates_to', 'selective'];
end;
comment on function flywheel._judge_keys is 'Internal: every key only a judge or neighbours definition may have.';

create or replace function flywheel._shot_strategies() returns text[]
language sql immutable security invoker parallel safe
begin atomic
  select array['similar', 'recent', 'similar_recent', 'disagreement_first', 'fixed_first', 'any_plus_fixed', 'diverse', 'random', 'none'];
end;
comment on function flywheel._shot_strategies is 'Internal: every way to choose examples.';

-- _number_problem: numbers of a definition, each with its range.
create or replace function flywheel._number_problem(holder jsonb, holder_name text, key text, lowest numeric, highest numeric, whole boolean)
returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when not holder ? key then null
    when jsonb_typeof(holder -> key) <> 'number'
      or not (holder ->> key)::numeric between lowest and highest
      or (whole and (holder ->> key)::numeric <> trunc((holder ->> key)::numeric)) then
      format('%s%s is %s, not a %s from %s to %s', holder_name, key, holder -> key, case when whole then 'whole number' else 'number' end, lowest, highest)
  end
$function$;
comment on function flywheel._number_problem is 'Internal: what is wrong with one number of a definition; null = nothing.';

create or replace function flywheel._unknown_key(holder jsonb, holder_name text, known text[]) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when holder is null then null
    when jsonb_typeof(holder) <> 'object' then format('%s is %s, not a table', holder_name, holder)
    else (select format('%s.%s is not one of %s', holder_name, key, array_to_string(known, ', '))
            from jsonb_object_keys(holder) as key where key <> all (known) limit 1)
  end
$function$;
comment on function flywheel._unknown_key is 'Internal: the first key of a table that is not known; null = none.';

create or replace function flywheel._shots_problem(shots jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    flywheel._unknown_key(shots, 'shots', array['strategy', 'count', 'minimum', 'token_budget', 'half_life_days', 'diversity', 'weights', 'shot_set', 'embedder']),
    case when shots ? 'strategy' and shots ->> 'strategy' <> all (flywheel._shot_strategies()) then
      format('shots.strategy is %s, not one of %s', shots -> 'strategy', array_to_string(flywheel._shot_strategies(), ', ')) end,
    flywheel._number_problem(shots, 'shots.', 'count', 0, 50, true),
    flywheel._number_problem(shots, 'shots.', 'minimum', 1, 1000, true),
    flywheel._number_problem(shots, 'shots.', 'token_budget', 0, 1000000, true),
    flywheel._number_problem(shots, 'shots.', 'half_life_days', 0.001, 100000, false),
    flywheel._number_problem(shots, 'shots.', 'diversity', 0, 1, false),
    flywheel._unknown_key(shots -> 'weights', 'shots.weights', array['similarity', 'recency', 'disagreement', 'trust']),
    (select flywheel._number_problem(shots -> 'weights', 'shots.weights.', weight.key, 0, 1, false)
       from jsonb_each(case jsonb_typeof(shots -> 'weights') when 'object' then shots -> 'weights' else '{}' end) as weight
      where flywheel._number_problem(shots -> 'weights', 'shots.weights.', weight.key, 0, 1, false) is not null limit 1))
$function$;
comment on function flywheel._shots_problem is 'Internal: the first thing wrong with a policy of shots; null = nothing.';

create or replace function flywheel._text_problem(definition jsonb, keys text[]) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('%s is %s, not a text', key, coalesce(definition ->> key, 'missing'))
    from unnest(keys) with ordinality as wanted(key, place)
   where jsonb_typeof(definition -> key) is distinct from 'string' or btrim(definition ->> key) = ''
   order by wanted.place limit 1
$function$;
comment on function flywheel._text_problem is 'Internal: which of the texts a definition must have is missing; null = none.';

-- _cascade_problem: the keys by which versions follow one another.
create or replace function flywheel._cascade_problem(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    flywheel._text_problem(definition, array(select key from unnest(array['labels_of', 'escalates_to', 'runs']) as key where definition ? key)),
    case when definition ? 'runs' and definition ->> 'runs' not in ('always', 'escalated') then
      format('runs is %s, neither always nor escalated', definition -> 'runs') end,
    flywheel._unknown_key(definition -> 'selective', 'selective', array['alpha', 'delta']),
    flywheel._number_problem(definition -> 'selective', 'selective.', 'alpha', 0.001, 0.5, false),
    flywheel._number_problem(definition -> 'selective', 'selective.', 'delta', 0.001, 0.5, false))
$function$;
comment on function flywheel._cascade_problem is 'Internal: the first thing wrong with how a version follows others; null = nothing.';

create or replace function flywheel._degrade_problem(degrade jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    flywheel._unknown_key(degrade, 'degrade', array['votes_at', 'model_at', 'model', 'sample_at', 'sample']),
    flywheel._number_problem(degrade, 'degrade.', 'votes_at', 0, 1, false),
    flywheel._number_problem(degrade, 'degrade.', 'model_at', 0, 1, false),
    flywheel._number_problem(degrade, 'degrade.', 'sample_at', 0, 1, false),
    flywheel._number_problem(degrade, 'degrade.', 'sample', 0, 1, false),
    case when degrade ? 'model_at' <> degrade ? 'model' then 'degrade.model and degrade.model_at need one another'
         when degrade ? 'sample_at' <> degrade ? 'sample' then 'degrade.sample and degrade.sample_at need one another' end)
$function$;
comment on function flywheel._degrade_problem is 'Internal: the first thing wrong with what a budget may make smaller; null = nothing.';

create or replace function flywheel._judge_problem(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    case when definition ->> 'lane' <> 'judge' then format('a judge runs in lane judge, not %s', definition ->> 'lane') end,
    flywheel._text_problem(definition, array['question', 'pass_when', 'fail_when', 'provider', 'model']),
    flywheel._text_problem(definition, array(select 'template' where definition ? 'template')),
    flywheel._number_problem(definition, '', 'votes', 1, 9, true),
    case when (definition ->> 'votes')::numeric % 2 = 0 then format('votes is %s: an odd number has no ties', definition -> 'votes') end,
    case when definition ? 'confidence' and definition ->> 'confidence' not in ('logprobs', 'votes', 'none') then
      format('confidence is %s, not one of logprobs, votes, none', definition -> 'confidence') end,
    case when jsonb_typeof(definition -> 'model_parameters') <> 'object' then
      format('model_parameters is %s, not a table', definition -> 'model_parameters') end,
    flywheel._shots_problem(definition -> 'shots'),
    flywheel._unknown_key(definition -> 'context', 'context', array['parents', 'documents', 'session']),
    flywheel._number_problem(definition -> 'context', 'context.', 'session', 0, 100, true),
    flywheel._degrade_problem(definition -> 'degrade'),
    flywheel._cascade_problem(definition))
$function$;
comment on function flywheel._judge_problem is 'Internal: the first thing wrong with a definition of kind judge; null = nothing.';

create or replace function flywheel._neighbours_problem(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    case when definition ->> 'lane' <> 'bulk' then format('neighbours run in lane bulk, not %s', definition ->> 'lane') end,
    (select format('%s is for kind judge', key)
       from unnest(array['template', 'provider', 'model', 'model_parameters', 'votes', 'confidence', 'context', 'degrade']) as key
      where definition ? key limit 1),
    flywheel._shots_problem(definition -> 'shots'),
    flywheel._cascade_problem(definition))
$function$;
comment on function flywheel._neighbours_problem is 'Internal: the first thing wrong with a definition of kind neighbours; null = nothing.';

-- _reference_problem: what a definition names must be there when it is stored; it may be gone later.
create or replace function flywheel._reference_problem(name text, definition jsonb) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when not exists (select from flywheel.providers where provider = coalesce(definition ->> 'provider', provider))
         and definition ? 'provider' then
      format('there is no provider %s', definition ->> 'provider')
    when definition ->> 'labels_of' <> name
         and not exists (select from flywheel.validators where validators.name = definition ->> 'labels_of') then
      format('labels_of names validator %s, which does not exist', definition ->> 'labels_of')
    when definition ->> 'escalates_to' = name then 'escalates_to names the validator itself'
    when definition ->> 'escalates_to' <> 'person'
         and not exists (select from flywheel.validators where validators.name = definition ->> 'escalates_to') then
      format('escalates_to names validator %s, which does not exist', definition ->> 'escalates_to')
    when definition #>> '{shots,shot_set}' is not null
         and not exists (select from flywheel.shot_sets where shot_set = definition #>> '{shots,shot_set}') then
      format('there is no shot set %s', definition #>> '{shots,shot_set}')
    when definition #>> '{shots,embedder}' is not null
         and not exists (select from flywheel.embedders where embedders.name = definition #>> '{shots,embedder}') then
      format('there is no embedder %s', definition #>> '{shots,embedder}')
  end
$function$;
comment on function flywheel._reference_problem is 'Internal: what a definition names and is not there; null = nothing.';

-- _question_of: whose labels and examples a version goes by: a cascade's tiers share those of one validator.
create or replace function flywheel._question_of(version flywheel.validator_versions) returns uuid
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce((select validators.validator_id from flywheel.validators where validators.name = version.definition ->> 'labels_of'),
                  version.validator_id)
$function$;
comment on function flywheel._question_of is 'Internal: the validator whose labels and examples a version goes by: labels_of, or its own.';
