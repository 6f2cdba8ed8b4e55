-- Explain: why a span has a score or none, and whether every eligible pair is accounted for.

-- _filtered_by: the first part of a definition that leaves a span out; null = none does.
create or replace function flywheel._filtered_by(name text, definition jsonb, span flywheel.spans) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  part record;
  meant boolean;
begin
  for part in
    select format('%s is null', definition ->> 'target') as words, format('span.%s is not null', definition ->> 'target') as predicate
     where definition ->> 'target' in ('input', 'output')
    union all
    select format('%s is %s, not %s', filter.key, coalesce(to_jsonb(span) ->> filter.key, 'null'), filter.value),
           format('span.%I = any (%s)', filter.key, flywheel._literal_list(filter.value))
      from jsonb_each(definition -> 'filter') as filter
    union all
    select 'a judge''s own span', 'not span.attributes ? ''pgflywheel.judge''' where definition ->> 'kind' = 'judge'
    union all
    select 'not handed on by an earlier tier',
           format('exists (select from flywheel._escalations as handed where handed.validator_id = %L and handed.span_id = span.span_id
                     and handed.revision = span.revision and handed.started_at = span.started_at)',
                  (select validator_id from flywheel.validators where validators.name = _filtered_by.name))
     where definition ->> 'runs' = 'escalated'
    union all
    select format('where is not true: %s', definition ->> 'where'), format(E'(%s\n)', definition ->> 'where') where definition ? 'where'
  loop
    execute format('select %s from (select ($1).*) as span', part.predicate) into meant using span;
    if meant is not true then
      return part.words;
    end if;
  end loop;
  return null;
exception when others or assert_failure then
  return null;                                  -- a where that raises leaves nothing out: the span will be unscored
end
$function$;
comment on function flywheel._filtered_by is 'Internal: which part of a definition leaves a span out, in words; null = none.';

create or replace function flywheel._sampled_out(name text, sample double precision, span flywheel.spans) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  taken boolean;
begin
  execute format('select %s from (select ($1).*) as span', coalesce(flywheel._sample_sql(name, sample), 'true')) into taken using span;
  return not taken;
end
$function$;
comment on function flywheel._sampled_out is 'Internal: whether sampling leaves the trace of a span out.';

-- _held_by: what keeps claims from the jobs of a judge version: its budget, or its provider.
create or replace function flywheel._held_by(version_id uuid, out state text, out detail text, out until timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select found.state, found.detail, found.until
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
   cross join lateral (
     select 1 as place, 'over_budget' as state, status.resumes_at as until,
            format('budget %s:%s of %s USD a %s: %s USD are spent', status.scope, status.name, trim_scale(round(status.cap_usd::numeric, 6)), status.period,
                   trim_scale(round(status.spent_usd::numeric, 6))) as detail
       from flywheel.budget_status as status
      where status.reached and (status.scope, status.name) in (('validator', validators.name), ('provider', versions.definition ->> 'provider'))
     union all
     select 2, 'queued', blocked.blocked_until, format('provider %s: %s', blocked.provider, concat_ws(', ', blocked.blocked_reason, blocked.blocked_detail))
       from flywheel.provider_status as blocked
      where blocked.provider = versions.definition ->> 'provider' and blocked.blocked_until is not null) as found
   where versions.version_id = _held_by.version_id and versions.kind = 'judge'
   order by found.place, found.until desc limit 1
$function$;
comment on function flywheel._held_by is 'Internal: the budget or provider that keeps a judge version waiting, and until when; null = none does.';

create or replace function flywheel._lane_waits(lane text) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select case
           when lanes.paused_at is not null then format('the lane is paused: %s', lanes.paused_reason)
           when not exists (select from flywheel._workers as workers where lanes.lane = any (workers.lanes) and workers.leased_until > clock_timestamp())
             then 'no worker of this lane is alive' end
    from flywheel._lanes as lanes where lanes.lane = _lane_waits.lane
$function$;
comment on function flywheel._lane_waits is 'Internal: why no worker claims the jobs of a lane; null = one does.';

-- _queue_state: where a pair stands in the queue, with the time and reason that go with it.
create or replace function flywheel._queue_state(version_id uuid, span_id uuid, out state text, out detail text, out since timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select found.state, found.detail, found.since from (
    select 1 as place, 'running' as state, format('attempt %s, worker %s', attempt, worker_id) as detail, claimed_at as since
      from flywheel._running where version_ids @> array[_queue_state.version_id] and span_ids @> array[_queue_state.span_id]
    union all
    select 1, 'running', format('in a batch at provider %s', batches.provider), batches.submitted_at
      from flywheel._batch_lines as lines join flywheel._batches as batches using (batch_id)
     where lines.version_id = _queue_state.version_id and lines.span_id = _queue_state.span_id
    union all
    select 2, coalesce(held.state, 'queued'), concat_ws('; ', format('lane %s, %s', lane, origin), coalesce(held.detail, flywheel._lane_waits(lane))), held.until
      from flywheel._ready left join lateral flywheel._held_by(_queue_state.version_id) as held on true
     where version_ids @> array[_queue_state.version_id] and span_ids @> array[_queue_state.span_id]
    union all
    select 3, case when run_at = 'infinity' then 'paused' when reason = 'over_budget' then reason else 'retrying' end, case when reason = 'over_budget' then detail else concat_ws(': ', reason, detail) end, nullif(run_at, 'infinity')
      from flywheel._later where version_ids @> array[_queue_state.version_id] and span_ids @> array[_queue_state.span_id]
    union all
    select 4, 'dead', concat_ws(': ', reason, detail), died_at
      from flywheel._dead where version_ids @> array[_queue_state.version_id] and span_ids @> array[_queue_state.span_id]
  ) as found
  order by found.place limit 1
$function$;
comment on function flywheel._queue_state is 'Internal: the state of a (version, span) pair in the queue; null = it is not there.';

-- _explain_version: the state of one span under one version.
create or replace function flywheel._explain_version(span flywheel.spans, name text, version flywheel.validator_versions,
  out state text, out detail text, out since timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  select case when scores.passed is null then 'unscored' else 'scored' end,
         case when scores.passed is null
                then concat_ws(': ', scores.unscored_reason, coalesce(scores.unscored_detail, case scores.unscored_reason when 'no_verdict' then 'it returned null' end))
              else concat_ws(': ', case when scores.passed then 'pass' else 'fail' end, scores.critique) end, scores.scored_at
    into state, detail, since
    from flywheel.scores
   where (scores.span_id, scores.revision, scores.version_id, scores.started_at) = (span.span_id, span.revision, version.version_id, span.started_at);
  if state is not null then return; end if;
  detail := flywheel._filtered_by(name, version.definition, span);
  if detail is not null then state := 'filtered'; return; end if;
  if flywheel._sampled_out(name, version.sample, span) then
    state := 'sampled_out'; detail := format('the sample rate is %s', version.sample); return;
  end if;
  select queue.* into state, detail, since from flywheel._queue_state(version.version_id, span.span_id) as queue;
  if state = 'paused' then                        -- held jobs wait for the validator, so its reason is theirs
    detail := concat_ws(': ', version.paused_reason, version.paused_detail);
    since := version.changed_at;
  end if;
  if state is not null then return; end if;
  if exists (select from flywheel._activations as active where active.version_id = version.version_id
               and span.ingested_at >= active.started_at and (active.ended_at is null or span.ingested_at < active.ended_at)) then
    state := 'missing'; detail := 'it came past the triggers; the reconciler of a worker, or flywheel.reconcile(), will queue it';
  elsif version.status = 'paused' then
    state := 'paused'; detail := concat_ws(': ', version.paused_reason, version.paused_detail); since := version.changed_at;
  else
    state := 'not_active';
    detail := format('version %s is %s%s', version.version, version.status,
      case when version.status in ('active', 'shadow') then format(' since %s; the span came before: pgflywheel backfill %s', version.changed_at, name) else '' end);
  end if;
end
$function$;
comment on function flywheel._explain_version is 'Internal: the state of one span under one validator version.';

-- _explain_span: one row for each version that has an answer on the span, and for the newest one of each validator otherwise.
create or replace function flywheel._explain_span(span_id uuid)
returns table (validator text, version integer, state text, detail text, since timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  subject flywheel.spans;
begin
  select * into subject from flywheel.spans where spans.span_id = _explain_span.span_id;
  if not found then
    raise exception using errcode = 'WF010', message = format('there is no span %s', _explain_span.span_id),
      hint = 'A blocked insert leaves no span; a purged day takes its spans along.';
  end if;
  return query
    with explained as (
      select validators.name, versions.version, told.state, told.detail, told.since,
             row_number() over (partition by validators.validator_id
               order by versions.status in ('active', 'paused') desc, versions.status = 'shadow' desc, versions.version desc) as place
        from flywheel.validators
        join flywheel.validator_versions as versions using (validator_id)
       cross join lateral flywheel._explain_version(subject, validators.name, versions) as told
    )
    select explained.name, explained.version, explained.state, explained.detail, explained.since from explained
     where explained.place = 1 or explained.state in ('scored', 'unscored', 'queued', 'running', 'retrying', 'over_budget', 'dead')
     order by 1, 2;
end
$function$;
comment on function flywheel._explain_span is 'Internal: why(), with critiques and with what errors say.';

-- _explain_span_briefly: what stands behind the colon are texts of judges, of code and of providers, which quote the span's own.
create or replace function flywheel._explain_span_briefly(span_id uuid)
returns table (validator text, version integer, state text, detail text, since timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select told.validator, told.version, told.state,
         case when told.state in ('scored', 'unscored', 'queued', 'retrying', 'dead', 'paused') then split_part(told.detail, ': ', 1) else told.detail end, told.since
    from flywheel._explain_span(_explain_span_briefly.span_id) as told
$function$;
comment on function flywheel._explain_span_briefly is 'Internal: why(), for those who may read no content.';

create or replace function flywheel.why(span_id uuid)
returns table (validator text, version integer, state text, detail text, since timestamptz)
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if has_column_privilege('flywheel.scores', 'critique', 'select') then
    return query select * from flywheel._explain_span(why.span_id);
  else
    return query select * from flywheel._explain_span_briefly(why.span_id);
  end if;
end
$function$;
comment on function flywheel.why is
  'For each validator, why a span has or lacks a score: scored, unscored, queued, running, retrying, over_budget, dead, filtered, sampled_out, paused, not_active or missing. Critiques and what errors say are told to those who may read flywheel.scores.';

-- _count_books: the books of many versions, recounted from the spans themselves and not from what the triggers believe. Spans
-- and scores are read once for all. eligible[place] is a predicate over the row span, and may raise: it is asked last.
create or replace function flywheel._count_books(version_ids uuid[], eligible text[])
returns table (version_id uuid, pairs bigint, scored bigint, unscored bigint, queued bigint, running bigint, later bigint, dead bigint, missing bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if _count_books.version_ids is null then
    return;                                     -- nothing has judged yet
  end if;
  return query execute format($code$
    with asked as materialized (
      select asked.version_id, asked.place::integer as place,
             (select range_agg(tstzrange(active.started_at, active.ended_at)) from flywheel._activations as active
               where active.version_id = asked.version_id and (active.ended_at is null or active.ended_at > active.started_at)) as judging
        from unnest($1) with ordinality as asked(version_id, place)
    ), judged as materialized (
      select span.span_id, span.started_at, asked.place, scores.passed is not null as says
        from flywheel.spans as span
        join flywheel.scores on (scores.span_id, scores.revision, scores.started_at) = (span.span_id, span.revision, span.started_at)
        join asked using (version_id)
    ), judges as (
      select judged.span_id, judged.started_at, array_agg(judged.place) as places from judged group by judged.span_id, judged.started_at
    ), waiting as materialized (
      select pending.span_id, array_agg(asked.place) as places, array_agg(pending.state) as states
        from asked cross join lateral flywheel._pending_spans(asked.version_id) as pending group by pending.span_id
    ), counted as (
      select judged.place, case when judged.says then 'scored' else 'unscored' end as state, count(*) as pairs from judged group by 1, 2
      union all
      select asked.place, coalesce(waiting.states[array_position(waiting.places, asked.place)], 'missing'), count(*)
        from flywheel.spans as span
        left join judges on (judges.span_id, judges.started_at) = (span.span_id, span.started_at)
        left join waiting on waiting.span_id = span.span_id
       cross join asked
       where case when asked.place = any (judges.places) then false
                  when asked.place = any (waiting.places) or span.ingested_at <@ asked.judging then case asked.place %s end end
       group by 1, 2
    )
    select asked.version_id, coalesce(sum(counted.pairs), 0)::bigint, %s
      from asked left join counted using (place) group by asked.version_id$code$,
    (select string_agg(format(E'when %s then (%s\n)', predicate.place, predicate.code), ' ' order by predicate.place)
       from unnest(_count_books.eligible) with ordinality as predicate(code, place)),
    (select string_agg(format('coalesce(sum(counted.pairs) filter (where counted.state = %L), 0)::bigint', states.state), ', ' order by states.place)
       from unnest(array['scored', 'unscored', 'queued', 'running', 'later', 'dead', 'missing']) with ordinality as states(state, place)))
    using _count_books.version_ids;
end
$function$;
comment on function flywheel._count_books is 'Internal: the books of some versions, each with its predicate over the row span.';

create or replace function flywheel._own_books(name text, version flywheel.validator_versions)
returns table (version_id uuid, pairs bigint, scored bigint, unscored bigint, queued bigint, running bigint, later bigint, dead bigint, missing bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query select * from flywheel._count_books(array[version.version_id], array[flywheel._eligible_sql(name, version.definition)]);
exception when others or assert_failure then         -- its where raises on some span
  return query select * from flywheel._count_books(array[version.version_id], array[flywheel._may_be_eligible_sql(name, version.definition)]);
end
$function$;
comment on function flywheel._own_books is 'Internal: the books of one version.';

-- _books: all together; where some predicate raises, those that cannot raise together and each of the others by itself.
create or replace function flywheel._books()
returns table (version_id uuid, pairs bigint, scored bigint, unscored bigint, queued bigint, running bigint, later bigint, dead bigint, missing bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  every record;
begin
  select array_agg(judging.version_id) as ids, array_agg(judging.code) as codes,
         array_agg(judging.version_id) filter (where not judging.raises) as safe_ids, array_agg(judging.code) filter (where not judging.raises) as safe_codes
    into every
    from (select versions.version_id, flywheel._eligible_sql(validators.name, versions.definition) as code, versions.definition ? 'where' as raises
            from flywheel.validators join flywheel.validator_versions as versions using (validator_id)
           where exists (select from flywheel._activations as active where active.version_id = versions.version_id)) as judging;
  begin
    return query select * from flywheel._count_books(every.ids, every.codes);
    return;
  exception when others or assert_failure then
    null;
  end;
  return query
    select * from flywheel._count_books(every.safe_ids, every.safe_codes)
    union all
    select account.* from flywheel.validators join flywheel.validator_versions as versions using (validator_id)
     cross join lateral flywheel._own_books(validators.name, versions) as account
     where versions.version_id = any (every.ids) and versions.version_id <> all (coalesce(every.safe_ids, '{}'));
end
$function$;
comment on function flywheel._books is 'Internal: the books of all versions that ever judged.';

create or replace function flywheel._accounts()
returns table (validator text, version integer, status text, eligible bigint, scored bigint, unscored bigint, queued bigint,
               running bigint, later bigint, dead bigint, missing bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select validators.name, versions.version, versions.status, books.pairs, books.scored, books.unscored, books.queued, books.running,
         books.later, books.dead, books.missing
    from flywheel._books() as books
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id)
$function$;
comment on function flywheel._accounts is 'Internal: the rows of the view accounts.';
