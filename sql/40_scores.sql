-- Scores: what workers read and write. A score's key is (span, revision, version), so its effect happens once.

-- _running_spans: the spans of running jobs, and the time they lie in.
create or replace function flywheel._running_spans(fences uuid[], out span_ids uuid[], out started_from timestamptz, out started_until timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select array_agg(span_id), min(running.started_from), max(running.started_until)
    from flywheel._running as running
   cross join unnest(running.span_ids) as span_id
   where running.fence = any (fences)
$function$;
comment on function flywheel._running_spans is 'Internal: all spans of running jobs, with bounds on their started_at.';

-- _bulk_sql: one set-based insert for several sql versions over many spans ($1 ids, $2 and $3 bounds).
create or replace function flywheel._bulk_sql(version_ids uuid[]) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format($code$
  insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique, unscored_reason, unscored_detail)
  select span.span_id, span.revision, said.version_id, span.started_at, span.trace_id, span.project,
         %1$s
    from flywheel.spans as span%2$s
   cross join lateral (values %3$s) as said(version_id, eligible, passed, value, critique, fault, misused)
   where span.span_id = any ($1) and span.started_at between $2 and $3 and said.eligible
      on conflict do nothing$code$,
    flywheel._score_sql(),
    coalesce(string_agg(format(' cross join lateral (select case when %2$s then %3$s end as verdict offset 0) as q%1$s', slot, eligible, question), '')
               filter (where answer = 'verdict'), ''),
    string_agg(case answer when 'verdict'
      then format('(%1$L::uuid, %2$s, (q%3$s.verdict).passed, (q%3$s.verdict).value, (q%3$s.verdict).critique, null::text, coalesce(not (q%3$s.verdict).value between 0 and 1, false))',
             version_id, eligible, slot)
      else format('(%1$L::uuid, %2$s, case when %2$s then %3$s end, null::double precision, null::text, null::text, false)', version_id, eligible, question)
      end, ', ' order by slot))
    from (
      select row_number() over (order by versions.version_id) as slot, versions.version_id,
             flywheel._known_type(versions.definition) as answer,
             flywheel._eligible_sql(validators.name, versions.definition) as eligible,
             flywheel._question_sql(versions.definition) as question
        from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
       where versions.version_id = any (_bulk_sql.version_ids) and versions.kind = 'sql'
    ) as asked
  having count(*) > 0
$function$;
comment on function flywheel._bulk_sql is 'Internal: the insert that scores spans by sql versions; null when none of them is sql.';

-- _run_sql_checks: raises what a check raises; the worker then splits the job to find the span.
create or replace function flywheel._run_sql_checks(fences uuid[], version_ids uuid[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  work record;
  code text := flywheel._bulk_sql(_run_sql_checks.version_ids);
  written integer;
begin
  if code is null then
    return 0;
  end if;
  select * into work from flywheel._running_spans(_run_sql_checks.fences);
  execute code using work.span_ids, work.started_from, work.started_until;
  get diagnostics written = row_count;
  return written;
end
$function$;
comment on function flywheel._run_sql_checks is
  'Internal: write the scores of the sql versions among version_ids for the spans of running jobs; returns how many.';

-- _complete: the last act on jobs, in the transaction that wrote the scores of their python versions (written) before.
-- Fewer jobs than fences means that a lease was lost.
create or replace function flywheel._complete(
  worker_id uuid, fences uuid[], version_ids uuid[], started_at timestamptz, written integer default 0, out jobs integer, out scores integer)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  held uuid[] := flywheel._lock_fences(_complete.worker_id, _complete.fences);
begin
  jobs := cardinality(held);
  scores := written;
  if jobs > 0 then
    scores := scores + flywheel._run_sql_checks(held, _complete.version_ids);
    perform flywheel._log_run(_complete.worker_id, 'bulk', jobs, cardinality(work.span_ids), scores, _complete.started_at, 'completed', null)
       from flywheel._running_spans(held) as work;
    perform flywheel._finish(_complete.worker_id, held);
  end if;
end
$function$;
comment on function flywheel._complete is
  'Internal: score running jobs by the sql versions among version_ids, end and log them; returns the jobs ended (fewer = a lease was lost) and the scores written in all.';

-- _require_readable: arrays are built in memory, and an allocation that fails takes the server's other work along.
-- Sizes are known without reading the texts. 53200 makes the worker cut the job; one span may be of any size.
create or replace function flywheel._require_readable(span_ids uuid[], started_from timestamptz, started_until timestamptz, columns text[])
returns void
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  total bigint;
  most constant bigint := 128 * 1024 * 1024;
  sizes text := (select string_agg(format('coalesce(octet_length(span.%1$I), 0)', read.name), ' + ')
                   from unnest(_require_readable.columns) as read(name) where read.name in ('input', 'output', 'error'));
begin
  if sizes is null or cardinality(_require_readable.span_ids) < 2 then
    return;
  end if;
  execute format('select sum((%s)::bigint) from flywheel.spans as span where span.span_id = any ($1) and span.started_at between $2 and $3', sizes)
    into total using _require_readable.span_ids, _require_readable.started_from, _require_readable.started_until;
  if total > most then
    raise exception using errcode = '53200',
      message = format('%s MB of text are too much to read together', total / 1024 / 1024);
  end if;
end
$function$;
comment on function flywheel._require_readable is 'Internal: raise 53200 when the texts of several spans are too large to read together.';

-- _columns_sql: the declared columns as aggregates of text, and as one array of all of the first, then all of the second ...
create or replace function flywheel._columns_sql(columns text[], out pieces text, out whole text)
language sql immutable security invoker parallel safe
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(string_agg(format(', array_agg(span.%I::text) as c%s', name, place), '' order by place), ''),
         coalesce(string_agg(format('c%s', place), ' || ' order by place), 'null::text[]')
    from unnest(_columns_sql.columns) with ordinality as wanted(name, place)
$function$;
comment on function flywheel._columns_sql is 'Internal: select lists over the row span that put declared columns into one array of texts.';

-- _read_spans: only the spans meant by the version and only the columns its check declares, column by column in one array.
create or replace function flywheel._read_spans(fences uuid[], version_id uuid, columns text[], out keys flywheel._span_key[], out texts text[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  work record;
  eligible text;
  read record := flywheel._columns_sql(_read_spans.columns);
begin
  select flywheel._eligible_sql(validators.name, versions.definition) into eligible
    from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
   where versions.version_id = _read_spans.version_id;
  select * into work from flywheel._running_spans(_read_spans.fences);
  perform flywheel._require_readable(work.span_ids, work.started_from, work.started_until, _read_spans.columns);
  execute format('select keys, %s from (select array_agg(%s) as keys%s from flywheel.spans as span
                   where span.span_id = any ($1) and span.started_at between $2 and $3 and %s) as picked',
      read.whole, flywheel._key_sql(), read.pieces, eligible)
    into keys, texts using work.span_ids, work.started_from, work.started_until;
end
$function$;
comment on function flywheel._read_spans is
  'Internal: keys of the spans of running jobs that a version means, and the declared columns as text: all of the first, then all of the second ...';

-- _write_scores: arrays of one length with keys; a null array means null for all.
create or replace function flywheel._write_scores(
  version_id uuid, keys flywheel._span_key[], passed boolean[], "values" double precision[] default null,
  critiques text[] default null, reasons text[] default null, details text[] default null)
returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with written as (
    insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique, unscored_reason, unscored_detail)
    select said.span_id, said.revision, _write_scores.version_id, said.started_at, said.trace_id, said.project,
           said.passed, said.value, said.critique, said.reason, said.detail
      from unnest(keys, passed, "values", critiques, reasons, details)
        as said(span_id, revision, started_at, trace_id, project, passed, value, critique, reason, detail)
        on conflict do nothing
    returning 1
  )
  select count(*)::integer from written
$function$;
comment on function flywheel._write_scores is 'Internal: write the verdicts of one version on many spans; returns how many were new.';

-- _mark_unscored: eligible by the filters that cannot raise; the author's where may be what raised.
create or replace function flywheel._mark_unscored(fences uuid[], version_id uuid, reason text, detail text) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  work record;
  eligible text;
  written integer;
begin
  select flywheel._filter_sql(validators.name, versions.definition) into eligible
    from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
   where versions.version_id = _mark_unscored.version_id;
  select * into work from flywheel._running_spans(_mark_unscored.fences);
  execute format(
    'insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, unscored_reason, unscored_detail)
     select span.span_id, span.revision, $4, span.started_at, span.trace_id, span.project, $5, $6
       from flywheel.spans as span where span.span_id = any ($1) and span.started_at between $2 and $3 and %s
         on conflict do nothing', eligible)
    using work.span_ids, work.started_from, work.started_until, _mark_unscored.version_id, _mark_unscored.reason, left(_mark_unscored.detail, 2000);
  get diagnostics written = row_count;
  return written;
end
$function$;
comment on function flywheel._mark_unscored is 'Internal: record why a version gives no verdict on the spans of running jobs; returns how many.';

-- test_validator: what a sql definition says, with nothing written.
create or replace function flywheel._test_span(definition jsonb, span flywheel.spans)
returns table (eligible boolean, passed boolean, value double precision, critique text, unscored_reason text, detail text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  whole jsonb := flywheel._whole_definition(_test_span.definition);
  said flywheel.verdict;
  answer text;
begin
  if whole ->> 'kind' is distinct from 'sql' then
    perform flywheel._reject_definition('under test', format('kind %s does not run in the database', whole ->> 'kind'),
      'Test a python check with: pgflywheel validators test.');
  end if;
  perform flywheel._require_runnable('under_test', whole);
  answer := flywheel._check_type(whole);
  begin
    execute format('select %s from (select ($1).*) as span', flywheel._eligible_sql('under_test', whole, false)) into eligible using span;
    execute format(E'select (answer.verdict).* from (select ($1).*) as span cross join lateral (select %s as verdict offset 0) as answer',
      case answer when 'boolean' then format(E'row(%s, null, null)::flywheel.verdict', flywheel._check_sql(whole)) else flywheel._check_sql(whole) end)
      into said using span;
  exception when others or assert_failure then
    unscored_reason := 'raised';
    detail := sqlerrm;
  end;
  critique := said.critique;
  if said.value between 0 and 1 or said.value is null then
    passed := said.passed;
    value := said.value;
    unscored_reason := coalesce(unscored_reason, case when said.passed is null then 'no_verdict' end);
  else
    unscored_reason := 'wrong_type';
    detail := format('value is %s, not in [0, 1]', said.value);
  end if;
  return next;
end
$function$;
comment on function flywheel._test_span is 'Internal: ask a sql definition about one span.';

create or replace function flywheel.test_validator(definition jsonb, span_id uuid)
returns table (eligible boolean, passed boolean, value double precision, critique text, unscored_reason text, detail text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  subject flywheel.spans;
begin
  select * into subject from flywheel.spans where spans.span_id = test_validator.span_id;
  if not found then
    raise exception using errcode = 'WF010', message = format('there is no span %s', test_validator.span_id);
  end if;
  return query select * from flywheel._test_span(test_validator.definition, subject);
end
$function$;
comment on function flywheel.test_validator(jsonb, uuid) is 'What a sql definition says of a stored span; writes nothing.';

create or replace function flywheel.test_validator(definition jsonb, input text, output text)
returns table (eligible boolean, passed boolean, value double precision, critique text, unscored_reason text, detail text)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select tested.*
    from flywheel._test_span(test_validator.definition,
      jsonb_populate_record(flywheel._hostile_span(null), jsonb_build_object('input', test_validator.input, 'output', test_validator.output))) as tested
$function$;
comment on function flywheel.test_validator(jsonb, text, text) is 'What a sql definition says of an input and output; writes nothing.';
