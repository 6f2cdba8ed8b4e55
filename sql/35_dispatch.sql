-- Dispatch: the triggers that judge and queue new spans. Their bodies are generated from the active versions, so
-- predicates are planned SQL and a validator that goes live is live for the next statement of every connection.
--
-- One pass over the transition table collects keys, verdicts and ids into arrays; inserts read only the arrays.

-- _dispatched: the versions that judge new spans, in a stable order; slot is their number in the generated code.
create or replace view flywheel._dispatched as
  select row_number() over (order by validators.name, versions.version)::integer as slot,
         validators.name, versions.version_id, versions.version, versions.lane, versions.kind, versions.target,
         versions.action, versions.severity, versions.definition, versions.status = 'shadow' as shadow
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
   where versions.status in ('active', 'shadow')
     and versions.definition ->> 'runs' is distinct from 'escalated';   -- those are queued by the tier before them
comment on view flywheel._dispatched is 'Internal: the versions that judge new spans.';
comment on column flywheel._dispatched.slot is 'Number of the version in the generated code.';
comment on column flywheel._dispatched.name is 'Name of the validator.';
comment on column flywheel._dispatched.version_id is 'Id of the version.';
comment on column flywheel._dispatched.version is 'Number of the version.';
comment on column flywheel._dispatched.lane is 'Where it runs.';
comment on column flywheel._dispatched.kind is 'sql, python, judge or neighbours.';
comment on column flywheel._dispatched.target is 'What it judges.';
comment on column flywheel._dispatched.action is 'flag or block.';
comment on column flywheel._dispatched.severity is 'How bad a fail is.';
comment on column flywheel._dispatched.definition is 'The whole definition.';
comment on column flywheel._dispatched.shadow is 'Whether it runs for show only.';

-- _pause_failing: this runs inside an application's insert, so it never waits: who does not get the locks, or sees
-- an old state (repeatable read), leaves the pause to the next. A shadow has nothing to wait for and is retired.
create or replace function flywheel._pause_failing(version_id uuid, reason text, detail text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not flywheel._win_turn('dispatch', false) then
    return false;
  end if;
  perform from flywheel.validator_versions as versions
    where versions.version_id = _pause_failing.version_id and versions.status in ('active', 'shadow')
      for no key update skip locked;
  if not found then                             -- paused by somebody else: who asks is to stop, too
    return exists (select from flywheel.validator_versions as versions where versions.version_id = _pause_failing.version_id and status = 'paused');
  end if;
  update flywheel.validator_versions as versions
     set status = case versions.status when 'active' then 'paused' else 'retired' end,
         paused_reason = _pause_failing.reason, paused_detail = _pause_failing.detail
   where versions.version_id = _pause_failing.version_id;
  return true;
exception when serialization_failure then
  return false;
end
$function$;
comment on function flywheel._pause_failing is 'Internal: pause a version (retire a shadow) without waiting for anybody; returns whether it did, or somebody else had paused it.';

-- _record_fault: count a fault, and pause the version when it has had too many lately. True = it is paused now.
create or replace function flywheel._record_fault(version_id uuid, reason text, detail text, spans integer) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  faults integer;
begin
  insert into flywheel._faults (fault_id, version_id, reason, detail, spans)
  values (flywheel.new_id(), _record_fault.version_id, _record_fault.reason, left(_record_fault.detail, 2000), _record_fault.spans);
  select count(*) into faults from flywheel._faults as past
   where past.version_id = _record_fault.version_id
     and past.occurred_at > now() - make_interval(secs => flywheel._setting('faults_window_seconds'))
     and past.occurred_at >= (select versions.changed_at from flywheel.validator_versions as versions
                               where versions.version_id = _record_fault.version_id);
  if faults < flywheel._setting('faults_before_pause') and _record_fault.reason <> 'slow' then  -- slow was measured twice
    return false;
  end if;
  return flywheel._pause_failing(_record_fault.version_id, case _record_fault.reason when 'slow' then 'slow' else 'errors' end,
    format('%s faults, the last: %s', faults, left(_record_fault.detail, 500)));
end
$function$;
comment on function flywheel._record_fault is
  'Internal: record that a version raised or was slow; pauses it after settings.faults_before_pause faults and returns whether it did.';

-- _reject_span: a guardrail says no. The whole statement of the application fails, with the validator's name.
create or replace function flywheel._reject_span(name text, version integer, span_id uuid, critique text) returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  raise exception using errcode = 'WF001',
    message = format('span %s is blocked by validator %s', _reject_span.span_id, _reject_span.name),
    detail = format('Version %s of the validator has action block and says fail%s.', _reject_span.version, coalesce(': ' || _reject_span.critique, '')),
    hint = 'Ask flywheel.guard() before the insert, or pause the validator: select flywheel.pause_validator(name, reason).',
    constraint = _reject_span.name;
end
$function$;
comment on function flywheel._reject_span is 'Internal: raise WF001, naming the validator.';

-- _key_sql: what a score copies from its span.
create or replace function flywheel._key_sql() returns text
language sql immutable security invoker parallel safe
begin atomic
  select 'row(span.span_id, span.revision, span.started_at, span.trace_id, span.project)::flywheel._span_key';
end;
comment on function flywheel._key_sql is 'Internal: expression over the row span that makes its _span_key.';

-- _queue_targets_sql: the aggregates that collect ids for the queue, and the variables they fill.
-- A bulk job takes the union of what its versions want, by filters that cannot raise; who wants what is asked again when it runs.
create or replace function flywheel._queue_targets_sql() returns table (aggregates text, variables text)
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  with wanted as (
    select 0 as slot, 'bulk_ids' as variable,
           nullif(string_agg(flywheel._filter_sql(name, definition), ' or '), '') as predicate,
           bool_or(flywheel._filter_sql(name, definition) = 'true') as everything
      from flywheel._dispatched where lane = 'bulk' having count(*) > 0
    union all
    select slot, 'judge_ids_' || slot, flywheel._filter_sql(name, definition), flywheel._filter_sql(name, definition) = 'true'
      from flywheel._dispatched where lane = 'judge'
  )
  select string_agg(format(', array_agg(span.span_id)%s', case when not everything then format(' filter (where %s)', predicate) end), '' order by slot)
           || ', min(span.started_at), max(span.started_at)',
         string_agg(', ' || variable, '' order by slot) || ', earliest, latest'
    from wanted
$function$;
comment on function flywheel._queue_targets_sql is 'Internal: aggregates and variables that collect span ids for the queue; null = no lane is used.';

-- _enqueue_sql: one row for each lane of a small statement, written without a set function (measurably cheaper).
create or replace function flywheel._enqueue_sql() returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  with wanted as (
    select 'bulk' as lane, 'bulk_ids' as variable, array_agg(version_id order by slot) as version_ids, flywheel._setting('chunk_spans')::integer as chunk
      from flywheel._dispatched where lane = 'bulk' having count(*) > 0
    union all
    select 'judge', 'judge_ids_' || slot, array[version_id], flywheel._setting('chunk_spans')::integer from flywheel._dispatched where lane = 'judge'
  )
  select string_agg(format($code$
  if cardinality(%2$s) <= %4$s then
    insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until)
    values (%1$L, 1, flywheel.new_id(), %3$L, %2$s, earliest, latest);
    queued := true;
  elsif %2$s is not null then
    perform flywheel._enqueue(%1$L, 1::smallint, %3$L, %2$s, earliest, latest, 'live');
    queued := true;
  end if;$code$, lane, variable, version_ids, chunk), '')
  || $code$
  if queued then
    if (case when pg_catalog.pg_try_advisory_lock_shared(@install@, 1)  -- nobody holds it: no idle worker to wake
             then not pg_catalog.pg_advisory_unlock_shared(@install@, 1) else true end)
      and pg_catalog.pg_try_advisory_xact_lock(@install@, 2) and pg_catalog.current_setting('application_name') not like 'citus_internal%' then
      notify flywheel_wake;
    end if;
  end if;$code$
    from wanted
$function$;
comment on function flywheel._enqueue_sql is 'Internal: code that writes the jobs of a statement; null = no lane is used.';

-- _inline_parts: for each inline version the pieces of generated code that ask it.
-- e = who is eligible, v = what the check says, f = the message if it raised.
create or replace function flywheel._inline_parts()
returns table (slot integer, name text, version_id uuid, version integer, blocks boolean, verdict_type text, safe_filter text, eligible text, verdict text)
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select dispatched.slot, dispatched.name, dispatched.version_id, dispatched.version,
         dispatched.action = 'block' and not dispatched.shadow,
         flywheel._known_type(dispatched.definition),
         flywheel._filter_sql(dispatched.name, dispatched.definition),
         flywheel._eligible_sql(dispatched.name, dispatched.definition),
         format('case when %s then %s end', flywheel._eligible_sql(dispatched.name, dispatched.definition), flywheel._question_sql(dispatched.definition))
    from flywheel._dispatched as dispatched
   where dispatched.lane = 'inline'
   order by dispatched.slot
$function$;
comment on function flywheel._inline_parts is 'Internal: the pieces of generated code for each inline version.';

-- _pass_sql: all inline checks and all ids in one pass. If one check raises, they are asked again one by one,
-- so that it costs the application nothing and the other checks their verdicts nothing.
create or replace function flywheel._pass_sql(source text) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$
  began := pg_catalog.clock_timestamp();
  begin
    select array_agg(%1$s)%2$s%3$s
      into keys%4$s%5$s
      from %6$s;
  exception when others or assert_failure then
    select array_agg(%1$s)%2$s%7$s
      into keys%4$s%8$s
      from %6$s;%9$s
  end;
  if keys is null then
    return null;                                -- the statement inserted nothing
  end if;$code$,
    flywheel._key_sql(), queue.aggregates,
    string_agg(format(', array_agg(%s), array_agg(%s)', eligible, verdict), '' order by slot), queue.variables,
    string_agg(format(', e%1$s, v%1$s', slot), '' order by slot), source,
    string_agg(format(', array_agg(%s)', safe_filter), '' order by slot),
    string_agg(format(', e%s', slot), '' order by slot),
    string_agg(format($guard$
    begin
      select array_agg(%2$s), array_agg(%3$s) into e%1$s, v%1$s from %4$s;
    exception when others or assert_failure then
      f%1$s := sqlerrm;
    end;$guard$, slot, eligible, verdict, source), '' order by slot))
    from flywheel._inline_parts()
    left join flywheel._queue_targets_sql() as queue on true
   group by queue.aggregates, queue.variables
$function$;
comment on function flywheel._pass_sql is 'Internal: code that asks the inline checks and collects the ids; null = no inline checks.';

-- _watch_sql: when a statement's checks passed their limit, each is timed again alone; the slow one is paused.
create or replace function flywheel._watch_sql(source text) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$
  allowed_ms := %1$s * greatest(1, cardinality(keys) / 1000.0);
  if extract(epoch from pg_catalog.clock_timestamp() - began) * 1000 > allowed_ms then
    allowed_ms := greatest(2, allowed_ms * least(1, 100.0 / cardinality(keys)));%2$s
  end if;$code$,
    flywheel._setting('inline_limit_ms'),
    string_agg(format($probe$
    if f%1$s is null then
      began := pg_catalog.clock_timestamp();
      begin
        for probe in select (%2$s)::text as answer from %3$s limit 100 loop
          exit when extract(epoch from pg_catalog.clock_timestamp() - began) * 1000 > allowed_ms;
        end loop;
      exception when others or assert_failure then
        null;                                   -- it raised only now: its first answers stand
      end;
      if extract(epoch from pg_catalog.clock_timestamp() - began) * 1000 > allowed_ms then
        perform flywheel._record_fault(%4$L, 'slow',
          format('took more than %%s ms in a statement of %%s spans', round(allowed_ms), cardinality(keys)), cardinality(keys));
      end if;
    end if;$probe$, slot, verdict, source, version_id), '' order by slot))
    from flywheel._inline_parts()
  having count(*) > 0
$function$;
comment on function flywheel._watch_sql is 'Internal: code that times inline checks and pauses slow ones.';

create or replace function flywheel._block_sql() returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select string_agg(
    case verdict_type when 'boolean' then
      format($code$
  place := array_position(v%1$s, false);
  if place is not null then
    perform flywheel._reject_span(%2$L, %3$s, (keys[place]).span_id, null);
  end if;$code$, slot, name, version)
    else
      format($code$
  select min(said.place) into place from unnest(v%1$s) with ordinality as said(passed, value, critique, place)
   where not said.passed and coalesce(said.value between 0 and 1, true);
  if place is not null then
    perform flywheel._reject_span(%2$L, %3$s, (keys[place]).span_id, (v%1$s[place]).critique);
  end if;$code$, slot, name, version)
    end, '' order by slot)
    from flywheel._inline_parts()
   where blocks
$function$;
comment on function flywheel._block_sql is 'Internal: code that rejects the statement when a blocking check says fail; null = none blocks.';

-- _score_sql: a verdict as the last columns of a score; a value outside [0, 1] is no verdict, and never an error of the insert.
create or replace function flywheel._score_sql() returns text
language sql immutable security invoker parallel safe
begin atomic
  select 'case when said.misused then null else said.passed end,
         case when said.misused then null else said.value end,
         said.critique,
         case when said.misused then ''wrong_type'' when said.passed is not null then null
              when said.fault is null then ''no_verdict'' else ''raised'' end,
         case when said.misused then pg_catalog.format(''value is %s, not in [0, 1]'', said.value) when said.passed is null then said.fault end';
end;
comment on function flywheel._score_sql is 'Internal: select list that turns the row said into passed, value, critique, reason and detail.';

create or replace function flywheel._write_inline_sql() returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$%1$s
  insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique, unscored_reason, unscored_detail)
  select judged.span_id, judged.revision, said.version_id, judged.started_at, judged.trace_id, judged.project,
         %2$s
    from unnest(keys%3$s) as judged(span_id, revision, started_at, trace_id, project%4$s)
   cross join lateral (values %5$s) as said(version_id, eligible, passed, value, critique, fault, misused)
   where said.eligible
      on conflict do nothing;$code$,
    string_agg(format($fault$
  if f%1$s is not null then
    perform flywheel._record_fault(%2$L, 'raised', f%1$s, cardinality(keys));
  end if;$fault$, slot, version_id), '' order by slot),
    flywheel._score_sql(),
    string_agg(format(', e%1$s, v%1$s', slot), '' order by slot),
    string_agg(format(case verdict_type when 'boolean' then ', e%1$s, p%1$s' else ', e%1$s, p%1$s, x%1$s, c%1$s' end, slot), '' order by slot),
    string_agg(format(
      case verdict_type
        when 'boolean' then '(%2$L::uuid, judged.e%1$s, judged.p%1$s, null::double precision, null::text, f%1$s, false)'
        else '(%2$L::uuid, judged.e%1$s, judged.p%1$s, judged.x%1$s, judged.c%1$s, f%1$s, coalesce(not judged.x%1$s between 0 and 1, false))'
      end, slot, version_id), ', ' order by slot))
    from flywheel._inline_parts()
  having count(*) > 0
$function$;
comment on function flywheel._write_inline_sql is 'Internal: code that writes the scores of the inline checks; null = none.';

create or replace function flywheel._declare_sql() returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select E'#variable_conflict use_column\ndeclare\n  bulk_ids uuid[]; earliest timestamptz; latest timestamptz; queued boolean := false;\n'
      || case when exists (select from flywheel._inline_parts())
              then E'  keys flywheel._span_key[]; began timestamptz; allowed_ms double precision; probe record; place integer;\n' else '' end
      || coalesce((select string_agg(format(E'  judge_ids_%s uuid[];\n', slot), '' order by slot) from flywheel._dispatched where lane = 'judge'), '')
      || coalesce((select string_agg(format(E'  e%1$s boolean[]; v%1$s %2$s[]; f%1$s text;\n', slot,
                          case verdict_type when 'boolean' then 'boolean' else 'flywheel.verdict' end), '' order by slot)
                     from flywheel._inline_parts()), '')
$function$;
comment on function flywheel._declare_sql is 'Internal: the variables of a generated trigger function.';

-- _dispatch_sql: the whole body of a trigger function over a source of new spans, and what else that trigger is to do.
create or replace function flywheel._dispatch_sql(source text, beside text) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._declare_sql() || 'begin'
      || coalesce(
           flywheel._pass_sql(source) || flywheel._watch_sql(source) || coalesce(flywheel._block_sql(), '') || flywheel._write_inline_sql(),
           (select format(E'\n  select %s into %s from %s;', substr(queue.aggregates, 3), substr(queue.variables, 3), source)
              from flywheel._queue_targets_sql() as queue where queue.aggregates is not null),
           '')
      || _dispatch_sql.beside || replace(coalesce(flywheel._enqueue_sql(), ''), '@install@', 'flywheel'::regnamespace::oid::text)
      || E'\n  return null;\nend'
$function$;
comment on function flywheel._dispatch_sql is 'Internal: the generated body of a trigger function.';

-- _guard_sql: the same inline checks asked about one text, without a row and without sampling.
create or replace function flywheel._guard_sql() returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select 'begin' || coalesce(string_agg(format($code$
  begin
    for said in
      select (asked.verdict).passed, (asked.verdict).value, (asked.verdict).critique
        from (select (_guard.span).*) as span
       cross join lateral (select case when %2$s then %3$s end as verdict offset 0) as asked
       where span.%1$s is not null and (%2$s)
    loop
      validator := %4$L; version := %5$s; action := %6$L; severity := %7$L;
      misused := coalesce(not said.value between 0 and 1, false);
      passed := case when not misused then said.passed end; value := case when not misused then said.value end;
      critique := said.critique;
      unscored_reason := case when misused then 'wrong_type' when said.passed is null then 'no_verdict' end; detail := null;
      return next;
    end loop;
  exception when others or assert_failure then
    validator := %4$L; version := %5$s; action := %6$L; severity := %7$L;
    passed := null; value := null; critique := null; unscored_reason := 'raised'; detail := sqlerrm;
    return next;
  end;$code$, target, flywheel._eligible_sql(name, definition #- '{filter,node_kind}' #- '{filter,release}', false),  -- a guard cannot know these
      case flywheel._known_type(definition) when 'boolean' then format('row(%s, null, null)::flywheel.verdict', flywheel._question_sql(definition))
        else flywheel._question_sql(definition) end,
      name, version, action, severity), '' order by slot), '') || E'\nend'
    from flywheel._dispatched
   where lane = 'inline' and not shadow and target in ('input', 'output')
$function$;
comment on function flywheel._guard_sql is 'Internal: the generated body of _guard.';

-- compile_dispatch: one compiler at a time; every connection runs the new code from its next statement on.
create or replace function flywheel.compile_dispatch() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  revised text := '(select fresh.* from new_spans as fresh join old_spans as stale
    on (stale.span_id, stale.started_at) = (fresh.span_id, fresh.started_at) where fresh.revision > stale.revision) as span';
  form text := 'create or replace function flywheel.%I() returns trigger language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L';
begin
  perform flywheel._win_turn('dispatch', true);
  -- a repeatable read transaction that began before another one compiled would leave its validator out: it fails here (40001)
  update flywheel._lanes set paused_reason = paused_reason where lane = 'bulk';
  execute format(form, '_dispatch_insert', flywheel._dispatch_sql('new_spans as span', flywheel._count_sql()));
  execute format(form, '_dispatch_update', flywheel._dispatch_sql(revised, ''));
  execute format(
    'create or replace function flywheel._guard(span flywheel.spans)
     returns table (validator text, version integer, action text, severity text, passed boolean, value double precision,
                    critique text, unscored_reason text, detail text)
     language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L',
    E'#variable_conflict use_column\ndeclare\n  said flywheel.verdict; misused boolean;\n' || flywheel._guard_sql());
  comment on function flywheel._dispatch_insert is 'Internal, generated by compile_dispatch(): judge, queue and count the spans of an insert.';
  comment on function flywheel._dispatch_update is 'Internal, generated by compile_dispatch(): judge and queue the new revisions of an update.';
  comment on function flywheel._guard is 'Internal, generated by compile_dispatch(): ask the inline validators about one span.';
end
$function$;
comment on function flywheel.compile_dispatch is
  'Generate the trigger functions from the active validators. Runs by itself when a status changes; call it after changing a setting or a check''s function.';
