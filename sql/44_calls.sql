-- Calls: what is set aside before a model is called, and what is settled after.
--
--   _begin_calls: cached | void | over_budget | wait | go --_end_calls--> calls
--                                                       `--_settle_lost--> calls, as lost

-- _asked_calls: the reservations that would be made, in the order of the calls.
create or replace function flywheel._asked_calls(worker_id uuid, calls jsonb) returns flywheel._reservations[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select array_agg(row(asked.call_id, asked.fence, _asked_calls.worker_id, asked.version_id, asked.provider, coalesce(asked.purpose, 'score'),
             coalesce(asked.vote, 1::smallint), asked.request_hash, asked.input_tokens + asked.output_tokens,
             flywheel._cost_usd(prices, asked.purpose, asked.input_tokens, 0, asked.output_tokens),
             array(select budgets.budget_id from flywheel.budgets
                    where (budgets.scope, budgets.name) in (('validator', validators.name), ('provider', asked.provider), ('project', asked.project))
                    order by budgets.budget_id),
             _asked_calls.calls -> (asked.place - 1)::integer, null)::flywheel._reservations order by asked.place)
    from rows from (jsonb_to_recordset(calls) as (
           call_id uuid, fence uuid, version_id uuid, project text, vote smallint, purpose text, provider text, model text, request_hash text,
           input_tokens integer, output_tokens integer))
         with ordinality as asked(call_id, fence, version_id, project, vote, purpose, provider, model, request_hash, input_tokens, output_tokens, place)
    left join flywheel.provider_models as prices on (prices.provider, prices.model) = (asked.provider, asked.model)
    left join flywheel.validator_versions as versions on versions.version_id = asked.version_id
    left join flywheel.validators using (validator_id)
$function$;
comment on function flywheel._asked_calls is 'Internal: announced calls as the reservations they ask for; usd null = a price is unknown.';

-- _lock_budgets: in the order of their ids, so that no two wait for one another.
create or replace function flywheel._lock_budgets(budget_ids uuid[], at timestamptz) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if cardinality(_lock_budgets.budget_ids) = 0 then
    return false;
  end if;
  insert into flywheel._budget_periods (budget_id, started_on)
  select budgets.budget_id, flywheel._period_start(budgets.period, _lock_budgets.at)
    from flywheel.budgets
   where budgets.budget_id = any (_lock_budgets.budget_ids)
     and not exists (select from flywheel._budget_periods as known
           where (known.budget_id, known.started_on) = (budgets.budget_id, flywheel._period_start(budgets.period, _lock_budgets.at)))
   order by budgets.budget_id
      on conflict do nothing;
  perform from flywheel._budget_periods as periods
    join flywheel.budgets using (budget_id)
   where periods.budget_id = any (_lock_budgets.budget_ids)
     and periods.started_on = flywheel._period_start(budgets.period, _lock_budgets.at)
   order by periods.budget_id, periods.started_on
     for update of periods;
  return true;
end
$function$;
comment on function flywheel._lock_budgets is 'Internal: lock the periods of some budgets at a time, made where missing; false = no budgets.';

-- _known_calls: what need not be asked. Votes of one span are different calls, also where their words are the same.
create or replace function flywheel._known_calls(asked flywheel._reservations[], at timestamptz)
returns table (place bigint, void boolean, reply jsonb, same_on_its_way boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select call.ordinality,
         call.fence is not null and not exists (
           select from flywheel._running as running where running.fence = call.fence and running.worker_id = call.worker_id),
         earlier.reply,
         call.purpose <> 'test' and (
           row_number() over (partition by call.purpose, call.version_id, call.request_hash, call.vote order by call.ordinality) > 1
           or exists (select from flywheel._reservations as others
                 where others.request_hash = call.request_hash and others.version_id = call.version_id and others.vote = call.vote
                   and others.purpose in ('score', call.purpose) and others.call_id <> call.call_id))
    from unnest(asked) with ordinality as call
    left join lateral (
      select past.reply from flywheel.calls as past
       where call.purpose <> 'test' and past.request_hash = call.request_hash and past.version_id = call.version_id and past.vote = call.vote
         and past.outcome = 'answered' and past.reply is not null
         and past.started_at > _known_calls.at - make_interval(secs => flywheel._setting('call_cache_days') * 86400)
         and past.started_at <= _known_calls.at
       limit 1) as earlier on true
$function$;
comment on function flywheel._known_calls is
  'Internal: for each call whether its claim was lost, the reply to the same request, and whether that is on its way.';

-- _refused_calls: what no settling of others can make fit waits for the end of the period; where calls on their way only
-- may use up the rest, a second shows whether they do.
create or replace function flywheel._refused_calls(asked flywheel._reservations[], places bigint[], at timestamptz)
returns table (place bigint, decision text, wait_seconds double precision, detail text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with falls as (
    select call.ordinality as place, call.usd, call.provider, call.call ->> 'model' as model, budgets.cap_usd + 1e-9 as cap_usd, periods.spent_usd, periods.reserved_usd,
           format('budget %s:%s of %s USD a %s', budgets.scope, budgets.name, trim_scale(round(budgets.cap_usd::numeric, 6)), budgets.period) as words,
           extract(epoch from flywheel._period_end(budgets.period, periods.started_on) - _refused_calls.at)::double precision as rest_seconds,
           sum(call.usd) filter (where periods.spent_usd + call.usd <= budgets.cap_usd + 1e-9)
             over (partition by budgets.budget_id order by call.ordinality) as taken_usd
      from unnest(asked) with ordinality as call
     cross join unnest(call.budget_ids) as applies(budget_id)
      join flywheel.budgets using (budget_id)
      join flywheel._budget_periods as periods
        on periods.budget_id = budgets.budget_id and periods.started_on = flywheel._period_start(budgets.period, _refused_calls.at)
     where call.ordinality = any (places)
  )
  select distinct on (refused.place) refused.place, refused.decision, refused.wait_seconds, refused.detail
    from (
      select falls.place, 'over_budget' as decision, falls.rest_seconds as wait_seconds,
             case when falls.usd is null then format('%s needs the price of model %s of provider %s', falls.words, coalesce(falls.model, 'null'), falls.provider)
                  else format('%s: %s USD are spent, and the call may cost %s', falls.words, trim_scale(round(falls.spent_usd::numeric, 6)), trim_scale(round(falls.usd::numeric, 6))) end as detail
        from falls where falls.usd is null or falls.spent_usd + falls.usd > falls.cap_usd
      union all
      select falls.place, 'wait', 1, format('%s: calls on their way may use up the rest', falls.words)
        from falls where falls.spent_usd + falls.reserved_usd + falls.taken_usd > falls.cap_usd
    ) as refused
   order by refused.place, refused.decision, refused.wait_seconds desc
$function$;
comment on function flywheel._refused_calls is 'Internal: the calls a budget does not let pass now, with why.';

-- _passing_calls: first come, first served, a call larger than the bucket before the others; it makes them wait while it saves.
create or replace function flywheel._passing_calls(asked flywheel._reservations[], places bigint[], at timestamptz)
returns table (place bigint, decision text, wait_seconds double precision, detail text, saving_seconds double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with doors as materialized (
    select * from flywheel._doors(array(select distinct call.provider from unnest(asked) as call), _passing_calls.at)
  ), line as (
    select call.ordinality as place, call.purpose, call.provider as asked_for, doors.*, least(call.tokens, doors.tokens_limit) as size,
           coalesce(call.tokens > doors.tokens_full, false) as large, row_number() over first_come as rank, sum(least(call.tokens, doors.tokens_limit)) over first_come as sizes
      from unnest(asked) with ordinality as call
      left join doors on doors.provider = call.provider
     where call.ordinality = any (places)
    window first_come as (partition by call.provider, call.purpose = 'batch' order by coalesce(call.tokens > doors.tokens_full, false) desc, call.ordinality)
  ), judged as (
    select line.*,
           case when line.provider is null then 600
                when line.blocked_seconds > 0 then line.blocked_seconds
                when line.purpose = 'batch' then null
                when line.rank > line.free then least(2, 0.05 + 0.1 * (line.rank - line.free) / line.room)
                when line.rank > least(line.requests, line.requests_full) then (line.rank - least(line.requests, line.requests_full)) / line.requests_flow
                when line.saving_seconds > 0 and not line.large then line.saving_seconds
                when line.sizes > least(line.tokens, line.tokens_full) and not (line.rank = 1 and line.size <= line.tokens)
                then (case when line.large then line.size - line.tokens else line.sizes - least(line.tokens, line.tokens_full) end) / line.tokens_flow end as seconds
      from line
  )
  select judged.place, case when judged.seconds is null then 'go' else 'wait' end, case when judged.seconds is null then 0 else greatest(judged.seconds, 0.02) end,
         case when judged.seconds is null then null
              when judged.provider is null then format('there is no provider %s', judged.asked_for)
              when judged.blocked_seconds > 0 then judged.blocked_detail
              when judged.rank > judged.free then format('provider %s takes %s calls at a time', judged.provider, judged.room)
              else format('provider %s: its limit a minute', judged.provider) end,
         case when judged.large and judged.blocked_seconds = 0 and judged.rank <= judged.free then coalesce(judged.seconds + 3, 0) end
    from judged
$function$;
comment on function flywheel._passing_calls is
  'Internal: whether calls pass the limits of their providers; saving_seconds: how long smaller ones leave the tokens to it, 0 = it went.';

create or replace function flywheel._weigh_calls(asked flywheel._reservations[], at timestamptz)
returns table (place bigint, decision text, wait_seconds double precision, detail text, reply jsonb, saving_seconds double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with known as materialized (
    select * from flywheel._known_calls(asked, _weigh_calls.at)
  ), open as materialized (
    select coalesce(array_agg(known.place), '{}') as places from known where not known.void and known.reply is null and not known.same_on_its_way
  ), refused as materialized (
    select refusal.* from open cross join lateral flywheel._refused_calls(asked, open.places, _weigh_calls.at) as refusal
  ), passing as materialized (
    select passes.* from flywheel._passing_calls(asked, array(
      select opened.place from open cross join unnest(open.places) as opened(place) except select refused.place from refused), _weigh_calls.at) as passes
  )
  select known.place, case when known.void then 'void' when known.reply is not null then 'cached' else 'wait' end,
         case when known.void or known.reply is not null then 0 else 0.2 end,
         case when known.void then 'the claim was lost' when known.reply is null then 'the same request is on its way' end,
         case when not known.void then known.reply end, null::double precision
    from known where known.void or known.reply is not null or known.same_on_its_way
  union all
  select refused.place, refused.decision, refused.wait_seconds, refused.detail, null, null from refused
  union all
  select passing.place, passing.decision, passing.wait_seconds, passing.detail, null, passing.saving_seconds from passing
$function$;
comment on function flywheel._weigh_calls is 'Internal: the decision on each of some calls; the rows it goes by are locked.';

-- _begin_calls: one statement for many calls. Providers are locked first, then budgets, each in the order of their keys; which budgets
-- there are is asked with the providers in hand: who sets one has them, too. Where no budget is concerned, a crash of the server may
-- forget the reservations: there is nothing to wait for the disk for.
-- Planning anew would take longer than the work; the hot tables are empty when they are analysed, and full when they are read.
create or replace function flywheel._begin_calls(worker_id uuid, calls jsonb)
returns table (call_id uuid, decision text, wait_seconds double precision, detail text, reply jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off
as $function$
#variable_conflict use_column
declare
  asked flywheel._reservations[];
  at timestamptz;
begin
  perform from flywheel._provider_states as state
    where state.provider in (select call ->> 'provider' from jsonb_array_elements(_begin_calls.calls) as call)
    order by state.provider for no key update;
  asked := flywheel._asked_calls(_begin_calls.worker_id, _begin_calls.calls);
  at := clock_timestamp();
  if not flywheel._lock_budgets(array(select distinct budget_id from unnest(asked) as call cross join unnest(call.budget_ids) as budget_id), at) then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  return query
    with weighed as materialized (
      select call.*, verdict.* from flywheel._weigh_calls(asked, at) as verdict
        join unnest(asked) with ordinality as call on call.ordinality = verdict.place
    ), reserved as (
      insert into flywheel._reservations (call_id, fence, worker_id, version_id, provider, purpose, vote, request_hash, tokens, usd, budget_ids, call, reserved_at)
      select weighed.call_id, weighed.fence, weighed.worker_id, weighed.version_id, weighed.provider, weighed.purpose, weighed.vote, weighed.request_hash,
             weighed.tokens, weighed.usd, weighed.budget_ids, weighed.call - 'input_tokens' - 'output_tokens', at
        from weighed where weighed.decision = 'go'
    ), levelled as (
      update flywheel._provider_states as state
         set requests = case when went.calls > 0 then coalesce(least(door.requests, door.requests_full) - went.calls, 0) else state.requests end,
             tokens = case when went.calls > 0 then coalesce(least(door.tokens, door.tokens_full) - went.tokens, 0) else state.tokens end,
             levelled_at = case when went.calls > 0 then at else state.levelled_at end,  -- cut at the size of the bucket only when something is taken
             saving_until = case when went.saving_seconds is null then state.saving_until when went.saving_seconds > 0 then at + make_interval(secs => went.saving_seconds) end
        from flywheel._doors(array(select distinct weighed.provider from weighed), at) as door
       cross join lateral (select count(*) filter (where weighed.decision = 'go') as calls, max(weighed.saving_seconds) as saving_seconds,
                                  coalesce(sum(least(weighed.tokens, door.tokens_limit)) filter (where weighed.decision = 'go'), 0) as tokens
                             from weighed where weighed.provider = door.provider and weighed.purpose <> 'batch') as went
       where state.provider = door.provider and (door.requests_flow is not null or door.tokens_flow is not null)
         and (went.calls > 0 or went.saving_seconds is not null)
    ), funded as (
      update flywheel._budget_periods as periods
         set reserved_usd = periods.reserved_usd + coalesce(asks.taken_usd, 0), refused_usd = least(periods.refused_usd, asks.refused_usd)
        from (select budget_id, sum(weighed.usd) filter (where weighed.decision = 'go') as taken_usd,
                     min(weighed.usd) filter (where weighed.decision = 'over_budget') as refused_usd
                from weighed cross join unnest(weighed.budget_ids) as budget_id group by budget_id) as asks
        join flywheel.budgets using (budget_id)
       where periods.budget_id = asks.budget_id and periods.started_on = flywheel._period_start(budgets.period, at)
         and (asks.taken_usd > 0 or asks.refused_usd is not null)
    )
    select weighed.call_id, weighed.decision, weighed.wait_seconds, weighed.detail, weighed.reply from weighed order by weighed.place;
end
$function$;
comment on function flywheel._begin_calls is
  'Internal: set aside place, tokens and dollars for calls, or say why not: go, cached (with the reply), wait, over_budget or void.';

-- _ended_calls: what is known of calls that ended: the announcement, and over it what the worker says now.
-- paid_usd: what budgets pay. Usage that is not known may have been billed in full; what the endpoint turned away was not.
create or replace function flywheel._ended_calls(calls jsonb)
returns table (ended flywheel.calls, budget_ids uuid[], reserved_usd double precision, paid_usd double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select row(known.call_id, coalesce(held.reserved_at, said.started_at, clock_timestamp()), coalesce(said.purpose, 'score'), said.version_id, said.span_id,
             said.revision, said.trace_id, said.project, coalesce(said.vote, 1::smallint), coalesce(said.attempt, 1::smallint), coalesce(said.repair, false),
             said.provider, said.model, said.answered_by, said.rung, said.request_hash, said.shots, said.outcome, said.http_status, left(said.detail, 2000),
             said.reply, said.input_tokens, said.cached_tokens, said.output_tokens, price.cost_usd, said.latency_ms)::flywheel.calls,
         held.budget_ids, held.usd, coalesce(price.cost_usd, held.usd, 0)
    from jsonb_array_elements(calls) as given(call)
   cross join lateral (select (given.call ->> 'call_id')::uuid as call_id) as known
    left join flywheel._reservations as held on held.call_id = known.call_id
   cross join lateral jsonb_to_record(coalesce(held.call, '{}') || given.call) as said(
           started_at timestamptz, purpose text, version_id uuid, span_id uuid, revision integer, trace_id uuid, project text, vote smallint, attempt smallint,
           repair boolean, provider text, model text, answered_by text, rung text, request_hash text, shots uuid[], outcome text, http_status smallint,
           detail text, reply jsonb, input_tokens integer, cached_tokens integer, output_tokens integer, latency_ms double precision)
    left join flywheel.provider_models as prices on (prices.provider, prices.model) = (said.provider, said.model)
   cross join lateral (
     select case when told.usd >= 0 and told.usd < 1e15 then told.usd end as cost_usd          -- NaN is above all numbers: it is unknown
       from (select case when said.outcome in ('rate_limited', 'quota_exhausted', 'rejected', 'server_error', 'expired') then 0
                         else flywheel._cost_usd(prices, said.purpose, said.input_tokens, said.cached_tokens, said.output_tokens) end) as told(usd)) as price
   where held.call_id is not null
      or not exists (select from flywheel.calls as past where past.call_id = known.call_id and past.started_at > now() - interval '2 days')
$function$;
comment on function flywheel._ended_calls is 'Internal: rows of calls for calls that ended, with what they had set aside; one that was settled before is left out.';

-- _settle_budgets: in the period the call was begun in, also when another began meanwhile.
create or replace function flywheel._settle_budgets(call_ids uuid[], paid_usd double precision[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not exists (select from flywheel._reservations as held where held.call_id = any (_settle_budgets.call_ids) and held.budget_ids <> '{}') then
    return;
  end if;
  perform from flywheel._budget_periods as periods
    where (periods.budget_id, periods.started_on) in (
      select budgets.budget_id, flywheel._period_start(budgets.period, held.reserved_at)
        from flywheel._reservations as held
       cross join unnest(held.budget_ids) as applies(budget_id)
        join flywheel.budgets using (budget_id)
       where held.call_id = any (_settle_budgets.call_ids))
    order by periods.budget_id, periods.started_on
      for update;
  update flywheel._budget_periods as periods
     set reserved_usd = case when periods.reserved_usd - settled.reserved_usd > 1e-9 then periods.reserved_usd - settled.reserved_usd else 0 end,
         spent_usd = periods.spent_usd + settled.paid_usd
    from (select budgets.budget_id, flywheel._period_start(budgets.period, held.reserved_at) as started_on, sum(held.usd) as reserved_usd, sum(paid.usd) as paid_usd
            from unnest(_settle_budgets.call_ids, _settle_budgets.paid_usd) as paid(call_id, usd)
            join flywheel._reservations as held using (call_id)
           cross join unnest(held.budget_ids) as applies(budget_id)
            join flywheel.budgets using (budget_id)
           group by 1, 2) as settled
   where (periods.budget_id, periods.started_on) = (settled.budget_id, settled.started_on);
end
$function$;
comment on function flywheel._settle_budgets is 'Internal: turn what calls had set aside in budgets into what they are paid.';

-- _reopen_providers: an answer says that a block is over that nobody may have lifted yet (a quota, a key, a row of refusals).
create or replace function flywheel._reopen_providers(answered text[]) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  update flywheel._provider_states as state set blocked_until = null, blocked_reason = null, blocked_detail = null, refusals = 0
   where state.provider in (
     select past.provider from flywheel._provider_states as past
      where past.provider = any (answered) and past.blocked_until <= clock_timestamp()
      order by past.provider for no key update)
$function$;
comment on function flywheel._reopen_providers is 'Internal: forget blocks that are over for providers that answer.';

-- _end_calls: record calls and settle what was set aside for them; the same call twice counts once. Locks reservations, then
-- providers, then budgets. A reservation a crash of the server forgot had no budget: its call is recorded all the same.
create or replace function flywheel._end_calls(calls jsonb) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off
as $function$
declare
  call_ids uuid[] := array(select (call ->> 'call_id')::uuid from jsonb_array_elements(_end_calls.calls) as call);
  done record;
begin
  perform from flywheel._reservations as held where held.call_id = any (call_ids) order by held.call_id for update;
  select coalesce(array_agg((known.ended).call_id), '{}') as call_ids, array_agg(known.paid_usd) as paid_usd, array_agg(known.ended) as ended,
         array_agg(distinct (known.ended).provider) filter (where (known.ended).outcome in ('answered', 'refused', 'length_stop', 'content_filter', 'empty_reply', 'unreadable')) as answered
    into done
    from flywheel._ended_calls(_end_calls.calls) as known;
  if done.answered is not null then
    perform flywheel._reopen_providers(done.answered);
  end if;
  perform flywheel._settle_budgets(done.call_ids, done.paid_usd);
  insert into flywheel.calls select ended.* from unnest(done.ended) as ended;
  delete from flywheel._reservations as held where held.call_id = any (done.call_ids);
  return cardinality(done.call_ids);
end
$function$;
comment on function flywheel._end_calls is 'Internal: record calls that ended and settle what was set aside for them; returns how many were new.';

-- _settle_lost: calls whose worker is gone or took too long to say what came of them. Lines of a batch have no claim; they
-- are lost once the batch has forgotten them.
create or replace function flywheel._settle_lost() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  lost uuid[];
begin
  lost := array(
    select held.call_id
      from flywheel._reservations as held
      left join flywheel.providers using (provider)
     where held.reserved_at < clock_timestamp() - make_interval(secs => coalesce(providers.time_limit_ms, 60000) / 1000.0 + 10)
       and not exists (select from flywheel._running as running where running.fence = held.fence)
       and (held.purpose <> 'batch' or held.reserved_at < clock_timestamp() - interval '10 minutes')
       and not exists (select from flywheel._batch_lines as lines where lines.call_id = held.call_id)
     limit 1000
       for update of held skip locked);
  if cardinality(lost) = 0 then
    return 0;
  end if;
  return flywheel._end_calls((
    select jsonb_agg(jsonb_build_object('call_id', call_id, 'outcome', 'lost', 'detail', 'its worker did not say what came of it; it is paid as reserved'))
      from unnest(lost) as call_id));
end
$function$;
comment on function flywheel._settle_lost is 'Internal: settle calls nobody will end, at what they had set aside; returns how many.';

select flywheel._grant('flywheel_worker', 'execute on function ' || act.oid::regprocedure)
  from pg_catalog.pg_proc as act
 where act.pronamespace = 'flywheel'::regnamespace and act.proname in ('_begin_calls', '_end_calls', '_settle_lost');
select flywheel._grant(role, 'select on flywheel.calls') from unnest(array['flywheel_worker', 'flywheel_admin']) as role;
-- What a model said quotes what it was shown, so analysts see everything but that.
select flywheel._grant('flywheel_analyst', format('select (%s) on flywheel.calls', string_agg(quote_ident(attname), ', ' order by attnum)))
  from pg_catalog.pg_attribute
 where attrelid = 'flywheel.calls'::regclass and attnum > 0 and not attisdropped and attname not in ('reply', 'detail');
select flywheel._grant('flywheel_admin', 'execute on function flywheel._begin_calls(uuid, jsonb), flywheel._end_calls(jsonb)');
select flywheel._grant('flywheel_worker', 'maintain on flywheel._reservations, flywheel._provider_states, flywheel._budget_periods')
 where current_setting('server_version_num')::integer >= 170000;
