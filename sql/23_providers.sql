-- Providers: endpoints with their prices and limits, when they are not to be called, and which judges wait for one.

create or replace function flywheel._provider_keys() returns text[]
language sql immutable security invoker parallel safe
begin atomic
  select array['base_url', 'key_variable', 'abilities', 'max_in_flight', 'requests_per_minute', 'tokens_per_minute', 'time_limit_ms', 'models'];
end;
comment on function flywheel._provider_keys is 'Internal: every key the definition of a provider may have.';

-- _model_problem: prices are dollars for a million tokens.
create or replace function flywheel._model_problem(models jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when models is null then null
    when jsonb_typeof(models) <> 'object' then format('models is %s, not a table', models)
    else (
      select found.problem
        from jsonb_each(models) as model
       cross join lateral (select coalesce(
         flywheel._unknown_key(model.value, 'models.' || model.key, array['input_usd', 'cached_input_usd', 'output_usd', 'batch_share']),
         flywheel._number_problem(model.value, format('models.%s.', model.key), 'input_usd', 0, 1000000, false),
         flywheel._number_problem(model.value, format('models.%s.', model.key), 'cached_input_usd', 0, 1000000, false),
         flywheel._number_problem(model.value, format('models.%s.', model.key), 'output_usd', 0, 1000000, false),
         flywheel._number_problem(model.value, format('models.%s.', model.key), 'batch_share', 0, 10, false))) as found(problem)
       where found.problem is not null
       limit 1)
  end
$function$;
comment on function flywheel._model_problem is 'Internal: the first thing wrong with the prices of a provider; null = nothing.';

create or replace function flywheel._ability_problem(abilities jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    flywheel._unknown_key(abilities, 'abilities', array['json_schema', 'json_object', 'logprobs', 'prompt_cache_key', 'batch', 'seed', 'max_completion_tokens']),
    (select format('abilities.%s is %s, neither true nor false', ability.key, ability.value)
       from jsonb_each(case jsonb_typeof(abilities) when 'object' then abilities else '{}' end) as ability
      where jsonb_typeof(ability.value) <> 'boolean' limit 1))
$function$;
comment on function flywheel._ability_problem is 'Internal: the first thing wrong with what a provider is said to know; null = nothing.';

create or replace function flywheel._provider_problem(name text, definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    case when name is null or name !~ '^[a-z][a-z0-9_-]{0,62}$' then 'a name is 1 to 63 lower-case letters, digits, - and _, and starts with a letter' end,
    case when definition is null then 'it is null' end,
    flywheel._unknown_key(definition, 'provider', flywheel._provider_keys()),
    flywheel._text_problem(definition, array['base_url']),
    case when definition ->> 'base_url' !~ '^https?://[^\s]+$' then format('base_url is %s, not an http address', definition -> 'base_url') end,
    case when definition ->> 'base_url' ~ '^https?://[^/?#]*@' then 'base_url holds a user or a password, which would be stored: name an environment variable in key_variable' end,
    flywheel._text_problem(definition, array(select 'key_variable' where definition ? 'key_variable')),
    case when definition ->> 'key_variable' !~ '^[A-Za-z_][A-Za-z0-9_]*$' then 'key_variable is not the name of an environment variable' end,
    flywheel._ability_problem(definition -> 'abilities'),
    flywheel._number_problem(definition, '', 'max_in_flight', 1, 100000, true),
    flywheel._number_problem(definition, '', 'requests_per_minute', 1, 1000000000, true),
    flywheel._number_problem(definition, '', 'tokens_per_minute', 1, 2000000000, true),
    flywheel._number_problem(definition, '', 'time_limit_ms', 1, 86400000, true),
    flywheel._model_problem(definition -> 'models'))
$function$;
comment on function flywheel._provider_problem is 'Internal: the first thing wrong with a provider; null = nothing.';

-- _provider_row: a key left out is a limit that is not there, or the default of its column.
create or replace function flywheel._provider_row(name text, definition jsonb) returns flywheel.providers
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select jsonb_populate_record(null::flywheel.providers,
    '{"abilities": {}, "max_in_flight": 16, "time_limit_ms": 60000}'::jsonb || (definition - 'models') || jsonb_build_object('provider', name))
$function$;
comment on function flywheel._provider_row is 'Internal: a definition as a row of providers.';

create or replace function flywheel._set_models(name text, models jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  touched integer;
  dropped integer;
begin
  delete from flywheel.provider_models as known where known.provider = _set_models.name and not _set_models.models ? known.model;
  get diagnostics dropped = row_count;
  insert into flywheel.provider_models as known (provider, model, input_usd, cached_input_usd, output_usd, batch_share)
  select _set_models.name, model.key, (model.value ->> 'input_usd')::double precision, (model.value ->> 'cached_input_usd')::double precision,
         (model.value ->> 'output_usd')::double precision, coalesce((model.value ->> 'batch_share')::double precision, 0.5)
    from jsonb_each(_set_models.models) as model
      on conflict (provider, model) do update
     set input_usd = excluded.input_usd, cached_input_usd = excluded.cached_input_usd, output_usd = excluded.output_usd, batch_share = excluded.batch_share
   where (known.input_usd, known.cached_input_usd, known.output_usd, known.batch_share)
         is distinct from (excluded.input_usd, excluded.cached_input_usd, excluded.output_usd, excluded.batch_share);
  get diagnostics touched = row_count;
  return touched + dropped > 0;
end
$function$;
comment on function flywheel._set_models is 'Internal: make the prices of a provider these and no others; returns whether any changed.';

-- set_provider: what the definition leaves out goes back to its default, so that a file is the whole truth.
create or replace function flywheel.set_provider(name text, definition jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  whole jsonb := case jsonb_typeof(definition) when 'object' then jsonb_strip_nulls(definition) else definition end;
  problem text := flywheel._provider_problem(name, whole);
  wanted flywheel.providers;
  touched integer;
begin
  if problem is not null then
    raise exception using errcode = 'WF009', message = format('provider %s is not valid: %s', name, problem),
      hint = 'Its keys are ' || array_to_string(flywheel._provider_keys(), ', ') || '.';
  end if;
  wanted := flywheel._provider_row(name, whole);
  insert into flywheel.providers as known
         (provider, base_url, key_variable, abilities, max_in_flight, requests_per_minute, tokens_per_minute, time_limit_ms)
  values (wanted.provider, wanted.base_url, wanted.key_variable, wanted.abilities, wanted.max_in_flight, wanted.requests_per_minute,
          wanted.tokens_per_minute, wanted.time_limit_ms)
      on conflict (provider) do update
     set base_url = excluded.base_url, key_variable = excluded.key_variable, abilities = excluded.abilities, max_in_flight = excluded.max_in_flight,
         requests_per_minute = excluded.requests_per_minute, tokens_per_minute = excluded.tokens_per_minute, time_limit_ms = excluded.time_limit_ms,
         changed_at = now()
   where (known.base_url, known.key_variable, known.abilities, known.max_in_flight, known.requests_per_minute, known.tokens_per_minute, known.time_limit_ms)
         is distinct from (excluded.base_url, excluded.key_variable, excluded.abilities, excluded.max_in_flight, excluded.requests_per_minute,
                           excluded.tokens_per_minute, excluded.time_limit_ms);
  get diagnostics touched = row_count;
  insert into flywheel._provider_states (provider, levelled_at) values (wanted.provider, '2000-01-01') on conflict do nothing;
  return flywheel._set_models(wanted.provider, coalesce(whole -> 'models', '{}')) or touched > 0;
end
$function$;
comment on function flywheel.set_provider is
  'Define an endpoint that speaks the OpenAI API, with its limits and the prices of its models, or change it; returns whether anything changed.';

-- _block_provider: the later end of two blocks counts. Without seconds (or with none to wait) a refusal waits 1 s, and twice as long each time
-- the provider refuses again after the wait; refusals that come in together are one.
create or replace function flywheel._block_provider(provider text, seconds double precision, reason text, detail text) returns timestamptz
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  update flywheel._provider_states as state
     set blocked_until = greatest(state.blocked_until, blocked.until),
         blocked_reason = case when blocked.until > state.blocked_until then _block_provider.reason else coalesce(state.blocked_reason, _block_provider.reason) end,
         blocked_detail = case when blocked.until > state.blocked_until then left(_block_provider.detail, 2000) else coalesce(state.blocked_detail, left(_block_provider.detail, 2000)) end,
         refusals = case when (_block_provider.seconds > 0) is not true and blocked.anew then least(state.refusals + 1, 30) else state.refusals end
    from (select known.provider, known.anew,
                 clock_timestamp() + make_interval(secs => coalesce(nullif(greatest(_block_provider.seconds, 0), 0), case _block_provider.reason
                   when 'quota_exhausted' then flywheel._setting('quota_probe_seconds')
                   when 'unauthorized' then 600
                   else case when known.anew then least(60, power(2, least(known.refusals, 10))) * (1 + random() / 4) else 0 end end)) as until
            from (select states.provider, states.refusals, coalesce(states.blocked_until, '-infinity') <= clock_timestamp() as anew
                    from flywheel._provider_states as states
                   where states.provider = _block_provider.provider
                     for update) as known) as blocked
   where state.provider = blocked.provider
  returning state.blocked_until
$function$;
comment on function flywheel._block_provider is
  'Internal: make no calls to a provider for some seconds (null: as long as its reason asks for, rate_limited doubling); returns until when.';

create or replace function flywheel.release_provider(name text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  was_blocked boolean;
begin
  select state.blocked_reason is not null into was_blocked from flywheel._provider_states as state where state.provider = release_provider.name for update;
  if not found then
    raise exception using errcode = 'WF013', message = format('there is no provider %s', release_provider.name),
      hint = 'List them: pgflywheel providers list.';
  end if;
  update flywheel._provider_states as state set blocked_until = null, blocked_reason = null, blocked_detail = null, refusals = 0
   where state.provider = release_provider.name and was_blocked;
  update flywheel._later as later set run_at = now()
   where later.reason in ('waits', 'rate_limited', 'quota_exhausted', 'unauthorized') and later.run_at > now()
     and (exists (select from flywheel.embedders where embedders.provider = release_provider.name and embedders.status <> 'retired')  -- any of them may wait for vectors
          or exists (select from flywheel.validator_versions as versions
                where versions.version_id = any (later.version_ids) and versions.definition ->> 'provider' = release_provider.name));
  perform flywheel._wake();
  return was_blocked;
end
$function$;
comment on function flywheel.release_provider is 'Let a provider be called again that was blocked; returns whether it was.';

-- _doors: how much may pass to each provider now. In any 60 seconds a bucket gives its capacity, a tenth of the limit, and what
-- flows in, 0.88 of it a minute: together never more than the limit, and 2 % are left for calls that set out late.
-- A call larger than the bucket goes once that much has flowed in with nothing taken; it leaves the bucket below zero.
-- After a quota was used up one call goes first, to see.
create or replace function flywheel._doors(providers text[], at timestamptz)
returns table (provider text, blocked_seconds double precision, blocked_detail text, room integer, free integer,
               requests_full double precision, requests double precision, requests_flow double precision,
               tokens_limit integer, tokens_full double precision, tokens double precision, tokens_flow double precision, saving_seconds double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select known.provider, greatest(extract(epoch from state.blocked_until - _doors.at), 0)::double precision,
         format('provider %s: %s', known.provider, concat_ws(', ', state.blocked_reason, state.blocked_detail)), size.room,
         size.room - (select count(*)::integer from flywheel._reservations as calls
               where calls.provider = known.provider and calls.purpose <> 'batch'
                 and calls.reserved_at > _doors.at - make_interval(secs => known.time_limit_ms / 1000.0 + 30)),
         case when known.requests_per_minute is not null then greatest(known.requests_per_minute / 10.0, 1) end, state.requests + since.seconds * known.requests_per_minute * 0.88 / 60, known.requests_per_minute * 0.88 / 60,
         known.tokens_per_minute, known.tokens_per_minute / 10.0, state.tokens + since.seconds * known.tokens_per_minute * 0.88 / 60, known.tokens_per_minute * 0.88 / 60,
         greatest(extract(epoch from state.saving_until - _doors.at), 0)::double precision
    from flywheel.providers as known
    join flywheel._provider_states as state using (provider)
   cross join lateral (select greatest(extract(epoch from _doors.at - state.levelled_at), 0)::double precision as seconds) as since
   cross join lateral (select case when state.blocked_reason in ('quota_exhausted', 'unauthorized') then 1 else known.max_in_flight end as room) as size
   where known.provider = any (_doors.providers)
$function$;
comment on function flywheel._doors is 'Internal: what each provider lets pass at a time; requests and tokens are credits not yet cut at the size of the bucket; null = no limit.';

-- _period_start and _period_end: periods are UTC.
create or replace function flywheel._period_start(period text, at timestamptz) returns date
language sql immutable security invoker parallel safe
begin atomic
  select case period when 'month' then date_trunc('month', at at time zone 'UTC')::date else (at at time zone 'UTC')::date end;
end;
comment on function flywheel._period_start is 'Internal: first day of the period of a budget that holds a time.';

create or replace function flywheel._period_end(period text, started_on date) returns timestamptz
language sql immutable security invoker parallel safe
begin atomic
  select (started_on + case period when 'month' then interval '1 month' else interval '1 day' end) at time zone 'UTC';
end;
comment on function flywheel._period_end is 'Internal: when a period of a budget ends.';

-- _budget_reached: nothing is left, or so little that the smallest call refused does not fit. One huge call that was
-- refused does not close a budget: from 95 % on it is believed.
create or replace function flywheel._budget_reached(cap_usd double precision, spent_usd double precision, refused_usd double precision) returns boolean
language sql immutable security invoker parallel safe
begin atomic
  select spent_usd >= cap_usd or coalesce(spent_usd + refused_usd > cap_usd and spent_usd >= 0.95 * cap_usd, false);
end;
comment on function flywheel._budget_reached is 'Internal: whether a budget leaves no room for calls.';

-- _held_versions: claims pass these over, so that their jobs stay queued and use up no attempts. A project's budget holds
-- no version: other projects may still be judged by it.
create or replace function flywheel._held_versions(at timestamptz default now()) returns uuid[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(array_agg(versions.version_id), '{}')
    from (
      select state.provider, null as validator from flywheel._provider_states as state where state.blocked_until > _held_versions.at
      union
      select case budgets.scope when 'provider' then budgets.name end, case budgets.scope when 'validator' then budgets.name end
        from flywheel.budgets
        left join flywheel._budget_periods as periods
          on periods.budget_id = budgets.budget_id and periods.started_on = flywheel._period_start(budgets.period, _held_versions.at)
       where budgets.scope in ('provider', 'validator')
         and flywheel._budget_reached(budgets.cap_usd, coalesce(periods.spent_usd, 0), periods.refused_usd)
    ) as closed
    join flywheel.validators on validators.name = coalesce(closed.validator, validators.name)
    join flywheel.validator_versions as versions
      on versions.validator_id = validators.validator_id and versions.kind = 'judge'
     and versions.definition ->> 'provider' = coalesce(closed.provider, versions.definition ->> 'provider')
$function$;
comment on function flywheel._held_versions is 'Internal: judge versions whose provider is blocked at a time or whose budget is used up.';

create or replace view flywheel.provider_status as
  select providers.provider, providers.base_url, providers.key_variable, providers.max_in_flight, providers.requests_per_minute,
         providers.tokens_per_minute, providers.time_limit_ms,
         (select count(*)::integer from flywheel._reservations as calls where calls.provider = providers.provider) as in_flight,
         case when state.blocked_until > now() then state.blocked_reason end as blocked_reason,
         case when state.blocked_until > now() then state.blocked_detail end as blocked_detail,
         case when state.blocked_until > now() then state.blocked_until end as blocked_until,
         (select count(*)::integer from flywheel.provider_models as models where models.provider = providers.provider) as models
    from flywheel.providers
    left join flywheel._provider_states as state using (provider);
comment on view flywheel.provider_status is 'Endpoints, their limits, and whether they are called now.';
comment on column flywheel.provider_status.provider is 'Its name.';
comment on column flywheel.provider_status.base_url is 'Address of the API.';
comment on column flywheel.provider_status.key_variable is 'Environment variable of the worker that holds the key; null = no key.';
comment on column flywheel.provider_status.max_in_flight is 'Calls at a time, of all workers together.';
comment on column flywheel.provider_status.requests_per_minute is 'Calls in any minute; null = no limit.';
comment on column flywheel.provider_status.tokens_per_minute is 'Tokens in any minute; null = no limit.';
comment on column flywheel.provider_status.time_limit_ms is 'Milliseconds one call may take.';
comment on column flywheel.provider_status.in_flight is 'Calls on their way now.';
comment on column flywheel.provider_status.blocked_reason is 'rate_limited, quota_exhausted or unauthorized; null = it is called.';
comment on column flywheel.provider_status.blocked_detail is 'What the endpoint said.';
comment on column flywheel.provider_status.blocked_until is 'No calls before; null = it is called.';
comment on column flywheel.provider_status.models is 'Models with a price.';

select flywheel._grant('flywheel_worker', 'execute on function ' || act.oid::regprocedure)
  from pg_catalog.pg_proc as act
 where act.pronamespace = 'flywheel'::regnamespace and act.proname in ('_block_provider', '_held_versions');
select flywheel._grant('flywheel_worker', 'select on flywheel.providers, flywheel.provider_models, flywheel.provider_status');
select flywheel._grant('flywheel_analyst', 'select on flywheel.provider_status');
select flywheel._grant('flywheel_admin', privilege) from unnest(array[
  'select on flywheel.providers, flywheel.provider_models, flywheel.provider_status',
  'execute on function flywheel.set_provider(text, jsonb), flywheel.release_provider(text)']) as privilege;
