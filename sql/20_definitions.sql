-- Definitions: what a validator's definition may say, and the SQL it means.

-- _setting: settings are read when the dispatch is compiled or a worker acts, never per row.
create or replace function flywheel._setting(name text) returns double precision
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select (settings.value #>> '{}')::double precision from flywheel.settings where settings.name = _setting.name
$function$;
comment on function flywheel._setting is 'Internal: the number a setting holds.';

create or replace function flywheel._definition_defaults() returns jsonb
language sql immutable security invoker parallel safe
begin atomic
  select '{"target": "output", "lane": "bulk", "action": "flag", "sample": 1, "filter": {},
           "severity": "medium", "description": ""}'::jsonb;
end;
comment on function flywheel._definition_defaults is 'Internal: what a definition means where it says nothing.';

-- _whole_definition: a key that is null is a key left out; inside of parameters a null is a value (a JSON Schema's const).
create or replace function flywheel._whole_definition(definition jsonb) returns jsonb
language sql immutable security invoker parallel safe
begin atomic
  select flywheel._definition_defaults() || case definition ->> 'kind' when 'judge' then '{"lane": "judge"}'::jsonb else '{}'::jsonb end || case
    when jsonb_typeof(definition -> 'parameters') = 'object'
      then jsonb_strip_nulls(definition - 'parameters') || jsonb_build_object('parameters', definition -> 'parameters')
    else jsonb_strip_nulls(definition)
  end;
end;
comment on function flywheel._whole_definition is 'Internal: a definition with its defaults and without keys that are null.';

create or replace function flywheel._definition_keys() returns text[]
language sql immutable security invoker parallel safe
begin atomic
  select array['kind', 'target', 'expression', 'function', 'callable', 'lane', 'action', 'sample', 'filter', 'where',
               'severity', 'description', 'columns', 'parameters', 'time_limit_ms', 'memory_limit_mb'] || flywheel._judge_keys();
end;
comment on function flywheel._definition_keys is 'Internal: every key a definition may have.';

create or replace function flywheel._filter_keys() returns text[]
language sql immutable security invoker parallel safe
begin atomic
  select array['project', 'environment', 'release', 'node', 'node_kind'];
end;
comment on function flywheel._filter_keys is 'Internal: every key a filter may have; each is a column of spans.';

create or replace function flywheel._reject_definition(name text, problem text, hint text) returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  raise exception using errcode = 'WF003',
    message = format('definition of validator %s is not valid: %s', name, problem), hint = hint;
end
$function$;
comment on function flywheel._reject_definition is 'Internal: raise WF003 in one form.';

-- _word_problem: the keys that take one word of a few.
create or replace function flywheel._word_problem(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('%s is %s, not one of %s', known.key, coalesce(definition ->> known.key, 'missing'),
                array_to_string(known.allowed, ', '))
    from (values
      (1, 'kind', array['sql', 'python', 'judge', 'neighbours']), (2, 'target', array['input', 'output', 'span']),
      (3, 'lane', array['inline', 'bulk', 'judge']), (4, 'action', array['flag', 'block']),
      (5, 'severity', array['info', 'low', 'medium', 'high', 'critical'])) as known(place, key, allowed)
   where not coalesce(definition ->> known.key = any (known.allowed), false)
   order by known.place
   limit 1
$function$;
comment on function flywheel._word_problem is 'Internal: which key of a definition is not one of its words; null = none.';

create or replace function flywheel._filter_problem(filter jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when jsonb_typeof(filter) is distinct from 'object' then format('filter is %s, not an object', filter)
    else (
      select case
          when part.key <> all (flywheel._filter_keys()) then
            format('filter.%s is not one of %s', part.key, array_to_string(flywheel._filter_keys(), ', '))
          else format('filter.%s is %s, neither a text nor a list of texts', part.key, part.value)
        end
        from jsonb_each(filter) as part
       where part.key <> all (flywheel._filter_keys())
          or not (jsonb_typeof(part.value) = 'string'
                  or (jsonb_typeof(part.value) = 'array' and part.value <> '[]'
                      and not part.value @? '$[*] ? (@.type() != "string")'))
       limit 1)
  end
$function$;
comment on function flywheel._filter_problem is 'Internal: the first thing wrong with a filter; null = none.';

-- _kind_problem: what each kind needs, and which lane and action fit it.
create or replace function flywheel._kind_problem(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when definition ->> 'kind' = 'judge' and flywheel._judge_problem(definition) is not null then flywheel._judge_problem(definition)
    when definition ->> 'kind' = 'neighbours' and flywheel._neighbours_problem(definition) is not null then flywheel._neighbours_problem(definition)
    when definition ->> 'kind' in ('judge', 'neighbours')
         and definition ?| array['expression', 'function', 'callable', 'columns', 'parameters', 'memory_limit_mb'] then
      format('%s is for kind sql or python', (select key from jsonb_object_keys(definition) as key
        where key in ('expression', 'function', 'callable', 'columns', 'parameters', 'memory_limit_mb') limit 1))
    when definition ->> 'kind' in ('sql', 'python') and definition ?| flywheel._judge_keys() then
      format('%s is for kind judge', (select key from jsonb_object_keys(definition) as key where key = any (flywheel._judge_keys()) limit 1))
    when definition ->> 'kind' = 'sql' and (definition ? 'expression') = (definition ? 'function') then
      'kind sql needs either expression or function'
    when definition ->> 'kind' = 'sql' and definition ->> 'lane' = 'judge' then
      'a sql check runs in lane inline or bulk, not judge'
    when definition ->> 'kind' = 'sql' and definition ? 'callable' then
      format('callable is for kind python, and here it is %s', definition -> 'callable')
    when definition ->> 'kind' = 'python' and definition ?| array['expression', 'function'] then
      format('%s is for kind sql', case when definition ? 'expression' then 'expression' else 'function' end)
    when definition ->> 'kind' = 'python' and not coalesce(definition ->> 'callable' ~ '^[\w.]+:\w+$', false) then
      format('callable is %s, not module:function', coalesce(definition ->> 'callable', 'missing'))
    when definition ->> 'kind' = 'python' and definition ->> 'lane' = 'inline' then
      'a python check runs in lane bulk or judge, not inline'
    when definition ->> 'action' = 'block' and definition ->> 'lane' <> 'inline' then
      'action block needs lane inline'
    when definition ? 'columns' and jsonb_typeof(definition -> 'columns') <> 'array' then
      format('columns is %s, not a list of span columns', definition -> 'columns')
    when definition ? 'parameters' and jsonb_typeof(definition -> 'parameters') <> 'object' then
      format('parameters is %s, not an object', definition -> 'parameters')
    when jsonb_typeof(definition -> 'time_limit_ms') <> 'number' or (definition ->> 'time_limit_ms')::numeric <= 0 then
      format('time_limit_ms is %s, not a positive number', definition -> 'time_limit_ms')
    when jsonb_typeof(definition -> 'memory_limit_mb') <> 'number' or (definition ->> 'memory_limit_mb')::numeric <= 0 then
      format('memory_limit_mb is %s, not a positive number', definition -> 'memory_limit_mb')
  end
$function$;
comment on function flywheel._kind_problem is 'Internal: what a kind of validator lacks; null = nothing.';

create or replace function flywheel._column_problem(columns jsonb) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('columns names %s, which spans does not have', wanted.name)
    from jsonb_array_elements_text(columns) as wanted(name)
   where not exists (
     select from pg_catalog.pg_attribute
      where attrelid = 'flywheel.spans'::regclass and attname = wanted.name and attnum > 0 and not attisdropped)
   limit 1
$function$;
comment on function flywheel._column_problem is 'Internal: the first column that spans does not have; null = none.';

-- _definition_problem: the first thing wrong, in words an author can act on.
create or replace function flywheel._definition_problem(definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when jsonb_typeof(definition) is distinct from 'object' then 'it is not an object'
    when definition ->> 'target' in ('trace', 'session') then
      format('target %s is reserved: it comes with call graphs in a later release', definition ->> 'target')
    when exists (select from jsonb_object_keys(definition) as key where key <> all (flywheel._definition_keys())) then (
      select format('key %s is not one of %s', key, array_to_string(flywheel._definition_keys(), ', '))
        from jsonb_object_keys(definition) as key where key <> all (flywheel._definition_keys()) limit 1)
    when jsonb_typeof(definition -> 'sample') <> 'number' then
      format('sample is %s, not a number', definition -> 'sample')
    when not ((definition ->> 'sample')::numeric > 0 and (definition ->> 'sample')::numeric <= 1) then
      format('sample is %s, not a share above 0 and up to 1', definition -> 'sample')
    else coalesce(flywheel._word_problem(definition), flywheel._filter_problem(definition -> 'filter'),
                  flywheel._kind_problem(definition), flywheel._column_problem(definition -> 'columns'))
  end
$function$;
comment on function flywheel._definition_problem is 'Internal: the first thing wrong with a definition; null = nothing.';

-- _literal_list: a filter value (text or list of texts) as an SQL array.
create or replace function flywheel._literal_list(value jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('%L::text[]', array(
    select jsonb_array_elements_text(case jsonb_typeof(value) when 'array' then value else jsonb_build_array(value) end)))
$function$;
comment on function flywheel._literal_list is 'Internal: a filter value as an SQL array literal.';

-- _sample_sql: the same traces at every replay, and a higher rate takes in the traces of a lower one.
create or replace function flywheel._sample_sql(name text, sample double precision) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case when sample < 1 then
    format('(pg_catalog.uuid_hash_extended(span.trace_id, %s) & 9223372036854775807) < %s',
      pg_catalog.hashtextextended(name, 0), trunc(sample::numeric * 9223372036854775807))
  end
$function$;
comment on function flywheel._sample_sql is 'Internal: predicate over the row span that samples traces; null = all.';

-- _filter_sql: who is meant, without the author's own SQL: it cannot raise.
create or replace function flywheel._filter_sql(name text, definition jsonb, sampled boolean default true) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(string_agg(part.predicate, ' and ' order by part.place), 'true')
    from (
      select 1 as place, format('span.%s is not null', definition ->> 'target') as predicate
       where definition ->> 'target' in ('input', 'output')
      union all
      select 2, format('span.%I = any (%s)', filter.key, flywheel._literal_list(filter.value))
        from jsonb_each(definition -> 'filter') as filter
      union all
      select 3, flywheel._sample_sql(name, (definition ->> 'sample')::double precision)
       where sampled
      union all
      select 4, 'not span.attributes ? ''pgflywheel.judge''' where definition ->> 'kind' = 'judge'  -- a judge's own spans
      union all
      select 5, format('exists (select from flywheel._escalations as handed where handed.validator_id = %L and handed.span_id = span.span_id
                          and handed.revision = span.revision and handed.started_at = span.started_at)',
                       (select validator_id from flywheel.validators where validators.name = _filter_sql.name))
       where definition ->> 'runs' = 'escalated'
    ) as part
   where part.predicate is not null
$function$;
comment on function flywheel._filter_sql is
  'Internal: predicate over the row span from target, filter and sample; never raises.';

-- _eligible_sql: _filter_sql and the author's own predicate, which may raise.
create or replace function flywheel._eligible_sql(name text, definition jsonb, sampled boolean default true) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when definition ? 'where' then
      format(E'case when %s then coalesce((%s\n), false) else false end',
        flywheel._filter_sql(name, definition, sampled), definition ->> 'where')
    else flywheel._filter_sql(name, definition, sampled)
  end
$function$;
comment on function flywheel._eligible_sql is 'Internal: predicate over the row span: is this span for this validator.';

-- _may_be_eligible: for one span, where the author's predicate raises on some: what raises is for the worker to find.
create or replace function flywheel._may_be_eligible(name text, definition jsonb, span flywheel.spans) returns boolean
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  meant boolean;
begin
  execute format('select %s from (select ($1).*) as span', flywheel._eligible_sql(name, definition)) into meant using span;
  return coalesce(meant, false);
exception when others or assert_failure then
  return true;
end
$function$;
comment on function flywheel._may_be_eligible is 'Internal: whether a span is for a validator; true when the where of its definition raises.';

create or replace function flywheel._may_be_eligible_sql(name text, definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('flywheel._may_be_eligible(%L, %L, row(span.*)::flywheel.spans)', name, definition)
$function$;
comment on function flywheel._may_be_eligible_sql is 'Internal: like _eligible_sql, slow, and never raises.';

-- _check_sql: the author's question as an expression over the row span.
-- A function takes the span or its target text; the transition row of a trigger is cast to a span first.
create or replace function flywheel._check_sql(definition jsonb) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when definition ? 'expression' then format(E'(%s\n)', definition ->> 'expression')
    when to_regprocedure(format('%s(flywheel.spans)', definition ->> 'function')) is not null then
      format('%s(row(span.*)::flywheel.spans)', to_regprocedure(format('%s(flywheel.spans)', definition ->> 'function'))::regproc)
    when to_regprocedure(format('%s(text)', definition ->> 'function')) is not null and definition ->> 'target' <> 'span' then
      format('%s(span.%s)', to_regprocedure(format('%s(text)', definition ->> 'function'))::regproc, definition ->> 'target')
  end
$function$;
comment on function flywheel._check_sql is 'Internal: the check of a sql validator as an expression over the row span; null = no such function.';

-- _check_type: parsed and planned against no rows, so nothing of it runs.
create or replace function flywheel._check_type(definition jsonb) returns text
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  answer text;
begin
  execute format(
    'select pg_typeof(answer.verdict)::text from (select 1) as one
       left join lateral (select %s as verdict from (select spans.* from flywheel.spans where false) as span where %s limit 1) as answer on true',
    flywheel._check_sql(definition), flywheel._eligible_sql('type_of_check', definition))
    into answer;
  return case answer when 'boolean' then 'boolean' when 'flywheel.verdict' then 'verdict' else answer end;
end
$function$;
comment on function flywheel._check_type is 'Internal: what a sql check returns: boolean, verdict or the name of another type.';

-- _known_type: for code generated later. What a check calls or reads may be gone by then: asking it raises, and that is isolated.
create or replace function flywheel._known_type(definition jsonb) returns text
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  return case flywheel._check_type(definition) when 'verdict' then 'verdict' else 'boolean' end;
exception when others then
  return 'boolean';
end
$function$;
comment on function flywheel._known_type is 'Internal: boolean or verdict, whatever became of the check since it was defined.';

create or replace function flywheel._raise_missing(function text) returns boolean
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  raise exception using errcode = 'undefined_function', message = format('function %s is gone', function),
    hint = 'Create it again, or pause the validator.';
end
$function$;
comment on function flywheel._raise_missing is 'Internal: stands in generated code for a check''s function that was dropped.';

-- _question_sql: _check_sql for generated code, which must compile whatever was dropped.
create or replace function flywheel._question_sql(definition jsonb) returns text
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(flywheel._check_sql(definition), format('flywheel._raise_missing(%L)', definition ->> 'function'))
$function$;
comment on function flywheel._question_sql is 'Internal: the check of a sql validator as an expression over the row span; raises when its function is gone.';

-- _regex_problem: a pattern is compiled only when it meets a text, so it meets one here. Other errors depend on the text.
create or replace function flywheel._regex_problem(definition jsonb) returns text
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  execute format(E'select %s, (%s\n) from jsonb_populate_record(null::flywheel.spans, ''{"input": "x", "output": "x"}'') as span',
    flywheel._check_sql(definition), coalesce(definition ->> 'where', 'true'));
  return null;
exception
  when invalid_regular_expression then
    return sqlerrm;
  when others or assert_failure then
    return null;
end
$function$;
comment on function flywheel._regex_problem is 'Internal: what is wrong with a regular expression in a definition; null = nothing.';

-- _run_problem: a check is parsed as it will run: in an aggregate over the spans of a statement.
create or replace function flywheel._run_problem(definition jsonb) returns text
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  answer text;
begin
  if flywheel._check_sql(definition) is null then
    return format('function %s takes neither a flywheel.spans nor a text', definition ->> 'function');
  end if;
  execute format('select array_agg(case when %s then %s end) from (select spans.* from flywheel.spans where false) as span',
    flywheel._eligible_sql('under_test', definition), flywheel._check_sql(definition));
  answer := flywheel._check_type(definition);
  return case when answer not in ('boolean', 'verdict') then format('it gives %s, neither boolean nor flywheel.verdict', answer)
              else flywheel._regex_problem(definition) end;
exception when others then
  return sqlerrm;
end
$function$;
comment on function flywheel._run_problem is 'Internal: why the SQL of a definition cannot run; null = it can.';

-- _require_runnable: a sql check must parse and give a boolean or a verdict before it is stored; of a python one, its where.
create or replace function flywheel._require_runnable(name text, definition jsonb) returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  problem text := flywheel._run_problem(case definition ->> 'kind' when 'sql' then definition else definition || '{"expression": "true"}' end);
begin
  if problem is not null then
    perform flywheel._reject_definition(name, problem,
      'Write columns as span.output, span.latency_ms ... and functions with their schema; create a function before the definition that calls it.');
  end if;
end
$function$;
comment on function flywheel._require_runnable is 'Internal: raise WF003 unless the SQL of a definition parses and gives a verdict.';
