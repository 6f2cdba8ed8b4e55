-- Budgets: hard caps in US dollars by day or month, what is left of them, and what past calls say of the price of a backfill.

-- _require_budgeted: a budget on a name nobody has would never stop anything.
create or replace function flywheel._require_budgeted(scope text, name text, period text, cap_usd double precision) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if scope is null or scope not in ('validator', 'provider', 'project') then
    raise exception using errcode = 'WF009', message = format('scope of a budget is %s, not validator, provider or project', coalesce(scope, 'null'));
  elsif period is null or period not in ('day', 'month') then
    raise exception using errcode = 'WF009', message = format('period of a budget is %s, neither day nor month', coalesce(period, 'null'));
  elsif cap_usd is null or not (cap_usd >= 0 and cap_usd < 'infinity') then
    raise exception using errcode = 'WF009', message = format('cap of a budget is %s, not an amount of US dollars', coalesce(cap_usd::text, 'null')),
      hint = 'A cap of 0 lets no call through. To have none: pgflywheel budgets drop.';
  elsif scope = 'validator' and not exists (select from flywheel.validators where validators.name = _require_budgeted.name) then
    raise exception using errcode = 'WF002', message = format('there is no validator %s', name), hint = 'List them: pgflywheel validators list.';
  elsif scope = 'provider' and not exists (select from flywheel.providers where providers.provider = _require_budgeted.name) then
    raise exception using errcode = 'WF013', message = format('there is no provider %s', name), hint = 'List them: pgflywheel providers list.';
  elsif coalesce(name, '') = '' then
    raise exception using errcode = 'WF009', message = 'a budget of a project needs the name of the project';
  end if;
end
$function$;
comment on function flywheel._require_budgeted is 'Internal: refuse a budget nothing can fall under.';

-- _spent_before: what the calls of a period cost until now, as recorded.
create or replace function flywheel._spent_before(scope text, name text, started_on date) returns double precision
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(sum(calls.cost_usd) filter (where calls.cost_usd < 1e15), 0)
    from flywheel.calls
    left join flywheel.validator_versions as versions on versions.version_id = calls.version_id
    left join flywheel.validators using (validator_id)
   where calls.started_at >= flywheel._day_start(_spent_before.started_on)
     and case _spent_before.scope when 'validator' then validators.name when 'provider' then calls.provider else calls.project end = _spent_before.name
$function$;
comment on function flywheel._spent_before is 'Internal: what the recorded calls of a validator, provider or project cost since a day.';

-- _pay_open_calls: calls on their way when a budget is set fall under it, too; returns what is set aside for them. Twice, since more may
-- set out until nobody can: who begins a call holds its provider, and looks for budgets after that. Locks as _end_calls() does.
create or replace function flywheel._pay_open_calls(made flywheel.budgets, first_day date) returns double precision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  for turn in 1 .. 2 loop
    with concerned as materialized (
      select held.call_id
        from flywheel._reservations as held
        left join flywheel.validator_versions as versions on versions.version_id = held.version_id
        left join flywheel.validators using (validator_id)
       where case made.scope when 'validator' then validators.name when 'provider' then held.provider else held.call ->> 'project' end = made.name
         and held.reserved_at >= flywheel._day_start(_pay_open_calls.first_day) and made.budget_id <> all (held.budget_ids)
       order by held.call_id for update of held)
    update flywheel._reservations as held set budget_ids = array(select each.id from unnest(held.budget_ids || made.budget_id) as each(id) order by each.id)
      from concerned where concerned.call_id = held.call_id;
    perform from flywheel._provider_states as state order by state.provider for no key update;
  end loop;
  return (select coalesce(sum(held.usd), 0) from flywheel._reservations as held where made.budget_id = any (held.budget_ids));
end
$function$;
comment on function flywheel._pay_open_calls is 'Internal: let calls on their way fall under a new budget; returns what is set aside for them.';

-- set_budget: a new budget begins with what the calls of its period cost already, or may cost.
create or replace function flywheel.set_budget(scope text, name text, period text, cap_usd double precision) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  first_day date := flywheel._period_start(set_budget.period, now());
  made flywheel.budgets;
  reserved double precision;
  touched integer;
begin
  perform flywheel._require_budgeted(set_budget.scope, set_budget.name, set_budget.period, set_budget.cap_usd);
  insert into flywheel.budgets (budget_id, scope, name, period, cap_usd)
  values (flywheel.new_id(), set_budget.scope, set_budget.name, set_budget.period, set_budget.cap_usd)
      on conflict on constraint budget_is_set_once do nothing
  returning budgets.* into made;
  if made.budget_id is not null then
    reserved := flywheel._pay_open_calls(made, first_day);
    insert into flywheel._budget_periods (budget_id, started_on, spent_usd, reserved_usd)
    values (made.budget_id, first_day, flywheel._spent_before(set_budget.scope, set_budget.name, first_day), reserved);
    return true;
  end if;
  update flywheel.budgets set cap_usd = set_budget.cap_usd, changed_at = now()
   where (budgets.scope, budgets.name, budgets.period) = (set_budget.scope, set_budget.name, set_budget.period) and budgets.cap_usd <> set_budget.cap_usd;
  get diagnostics touched = row_count;
  return touched > 0;
end
$function$;
comment on function flywheel.set_budget is
  'Cap in US dollars what judging may cost: for a validator, a provider or a project, in a UTC day or month. Returns whether anything changed.';

create or replace function flywheel.drop_budget(scope text, name text, period text) returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with dropped as (
    delete from flywheel.budgets
     where (budgets.scope, budgets.name, budgets.period) = (drop_budget.scope, drop_budget.name, drop_budget.period)
    returning 1
  )
  select count(*) > 0 from dropped
$function$;
comment on function flywheel.drop_budget is 'Take a cap away; returns whether there was one.';

-- _resume_over_budget: who is still over budget comes back with the same answer. Who was refused and is about to wait either is there
-- already, or reads that budgets were changed; who is asking now waits for the period.
create or replace function flywheel._resume_over_budget() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if tg_table_name = 'budgets' and tg_op = 'UPDATE' then
    update flywheel._budget_periods as periods set refused_usd = null where periods.budget_id = new.budget_id and periods.started_on > now() - interval '32 days';
  end if;
  update flywheel._budget_changes set changed_at = clock_timestamp();
  update flywheel._later as later set run_at = now() where later.reason = 'over_budget' and later.run_at > now();
  if found then
    perform flywheel._wake();
  end if;
  return null;
end
$function$;
comment on function flywheel._resume_over_budget is 'Internal: make the jobs that wait for a budget due when one was changed or dropped, or a price became known.';

create or replace trigger resume_over_budget after update or delete on flywheel.budgets
  for each row execute function flywheel._resume_over_budget();
create or replace trigger resume_over_budget after insert or update on flywheel.provider_models
  for each row execute function flywheel._resume_over_budget();

create or replace view flywheel.budget_status as
  select known.scope, known.name, known.period, known.started_on, known.cap_usd, known.spent_usd, known.reserved_usd,
         case when known.cap_usd = 0 then 1 else (known.spent_usd + known.reserved_usd) / known.cap_usd end as used_share,
         known.reached, case when known.reached then flywheel._period_end(known.period, known.started_on) end as resumes_at
    from (
      select budgets.scope, budgets.name, budgets.period, flywheel._period_start(budgets.period, now()) as started_on, budgets.cap_usd,
             coalesce(periods.spent_usd, 0) as spent_usd, coalesce(periods.reserved_usd, 0) as reserved_usd,
             coalesce(periods.spent_usd, 0) + coalesce(periods.refused_usd, 0) > budgets.cap_usd
               or coalesce(periods.spent_usd, 0) >= budgets.cap_usd as reached
        from flywheel.budgets
        left join flywheel._budget_periods as periods
          on periods.budget_id = budgets.budget_id and periods.started_on = flywheel._period_start(budgets.period, now())) as known;
comment on view flywheel.budget_status is 'Budgets, and what is used of them in the period that runs.';
comment on column flywheel.budget_status.scope is 'What is capped: validator, provider or project.';
comment on column flywheel.budget_status.name is 'Which one.';
comment on column flywheel.budget_status.period is 'day or month, in UTC.';
comment on column flywheel.budget_status.started_on is 'First day of the period that runs.';
comment on column flywheel.budget_status.cap_usd is 'The cap in US dollars.';
comment on column flywheel.budget_status.spent_usd is 'What ended calls cost.';
comment on column flywheel.budget_status.reserved_usd is 'The most that calls on their way may cost.';
comment on column flywheel.budget_status.used_share is 'Spent and reserved, as a share of the cap.';
comment on column flywheel.budget_status.reached is 'Whether calls are refused for it: nothing is left, or less than the smallest call it refused may cost.';
comment on column flywheel.budget_status.resumes_at is 'When calls go on by themselves; null = they are not refused.';

-- _budget_share: what the ladder of a judge that may degrade goes by.
create or replace function flywheel._budget_share(version_id uuid) returns double precision
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(max(status.used_share), 0)
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
    join flywheel.budget_status as status
      on (status.scope, status.name) in (('validator', validators.name), ('provider', versions.definition ->> 'provider'))
   where versions.version_id = _budget_share.version_id
$function$;
comment on function flywheel._budget_share is 'Internal: the greatest used share of the budgets of a judge version and of its provider; 0 = it has none.';

-- _cost_usd: null where a price or a count is unknown, never 0 for it.
create or replace function flywheel._cost_usd(
  prices flywheel.provider_models, purpose text, input_tokens double precision, cached_tokens double precision, output_tokens double precision)
returns double precision
language sql immutable security invoker parallel safe
begin atomic
  select ((input_tokens - least(coalesce(cached_tokens, 0), input_tokens)) * (prices).input_usd
          + least(coalesce(cached_tokens, 0), input_tokens) * coalesce((prices).cached_input_usd, (prices).input_usd)
          + case when output_tokens = 0 then 0 else output_tokens * (prices).output_usd end)
         / 1000000 * case purpose when 'batch' then (prices).batch_share else 1 end;
end;
comment on function flywheel._cost_usd is 'Internal: what tokens cost in US dollars at the prices of a model; null = unknown.';

-- _call_sizes: tokens of one call of a judge version: what its calls of the last 30 days took, or what its words, the texts
-- of up to 1,000 spans and its examples come to at four characters a token.
create or replace function flywheel._call_sizes(version flywheel.validator_versions, since timestamptz, until timestamptz,
  out calls_per_span double precision, out input_tokens double precision, out cached_tokens double precision, out output_tokens double precision, out basis text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  past bigint;
begin
  select count(*), count(*)::double precision / nullif(count(distinct calls.span_id), 0), avg(calls.input_tokens), avg(coalesce(calls.cached_tokens, 0)), avg(calls.output_tokens)
    into past, calls_per_span, input_tokens, cached_tokens, output_tokens
    from flywheel.calls
   where calls.version_id = version.version_id and calls.purpose in ('score', 'batch') and calls.started_at > now() - interval '30 days'
     and calls.input_tokens is not null and calls.output_tokens is not null;
  basis := format('%s calls of this version in the last 30 days', past);
  if past = 0 then
    calls_per_span := coalesce((version.definition ->> 'votes')::integer, 1);
    cached_tokens := 0;
    output_tokens := 150;
    select 300 + (length(version.definition::text) + coalesce(avg(coalesce(length(sample.input), 0) + coalesce(length(sample.output), 0)), 0)) / 4 into input_tokens
      from (select span.input, span.output from flywheel.spans as span where span.started_at >= since and span.started_at < until limit 1000) as sample;
    input_tokens := input_tokens + coalesce((
      select least(avg(examples.tokens) * least(count(*), coalesce((version.definition #>> '{shots,count}')::integer, 6)),
                   (version.definition #>> '{shots,token_budget}')::double precision)
        from flywheel.examples
       where examples.validator_id = flywheel._question_of(version) and examples.status = 'servable'), 0);
    basis := 'the lengths of the texts; there are no calls of this version yet';
  end if;
end
$function$;
comment on function flywheel._call_sizes is 'Internal: how many calls a judge version makes for a span, and the tokens of one.';

-- price_backfill: lane batch pays the share of the prices that the batch endpoint takes.
create or replace function flywheel.price_backfill(name text, since timestamptz, until timestamptz default now(), lane text default null)
returns table (calls bigint, input_tokens bigint, output_tokens bigint, usd double precision, price_per_call double precision, basis text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(price_backfill.name, null);
begin
  if chosen.kind <> 'judge' then
    return;
  end if;
  return query
    select planned.calls, round(planned.calls * sizes.input_tokens)::bigint, round(planned.calls * sizes.output_tokens)::bigint,
           planned.calls * one.usd, one.usd,
           case when one.usd is null then format('%s; the price of model %s of provider %s is unknown', sizes.basis, chosen.definition ->> 'model', chosen.definition ->> 'provider')
                else sizes.basis end
      from flywheel.plan_backfill(price_backfill.name, price_backfill.since, price_backfill.until) as plan
     cross join lateral flywheel._call_sizes(chosen, price_backfill.since, price_backfill.until) as sizes
     cross join lateral (select round(plan.to_judge * sizes.calls_per_span)::bigint as calls) as planned
      left join flywheel.provider_models as prices on prices.provider = chosen.definition ->> 'provider' and prices.model = chosen.definition ->> 'model'
     cross join lateral (select flywheel._cost_usd(prices, price_backfill.lane, sizes.input_tokens, sizes.cached_tokens, sizes.output_tokens) as usd) as one;
end
$function$;
comment on function flywheel.price_backfill is
  'What a backfill of the newest version of a judge would cost, in US dollars (null = a price is unknown), and what the numbers go by; no row for other kinds.';

select flywheel._grant('flywheel_worker', 'execute on function flywheel._budget_share(uuid)');
select flywheel._grant('flywheel_analyst', 'select on flywheel.budget_status');
select flywheel._grant(role, 'execute on function flywheel._period_start(text, timestamptz), flywheel._period_end(text, date)')   -- the view calls them as whoever reads it
  from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_admin', privilege) from unnest(array[
  'select on flywheel.budgets, flywheel.budget_status',
  'execute on function flywheel.set_budget(text, text, text, double precision), flywheel.drop_budget(text, text, text),
     flywheel.price_backfill(text, timestamptz, timestamptz, text)']) as privilege;
