-- Trial: Postgres cannot interrupt a part of a statement, so an inline check is tried before it may slow an application.

-- _hostile_texts: what makes a careless check slow, in growing sizes, so that a bad one is caught while it is still cheap.
create or replace function flywheel._hostile_texts() returns table (size integer, body text)
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select sizes.size, left(repeat(seed.body, sizes.size / length(seed.body) + 1), sizes.size) || seed.ending
    from (values (12), (20), (28), (40), (100), (1000), (10000), (100000)) as sizes(size)
   cross join (values
     ('a', '!'), ('a ', E'\n'), ('0', 'x'), ('4111 ', ''), ('a@', ''), ('[{"a":', ''), (E'\\', '"'), ('(((', ')'), ('ÿ中😀', '')) as seed(body, ending)
   order by sizes.size
$function$;
comment on function flywheel._hostile_texts is 'Internal: texts that make careless checks slow, smallest first.';

create or replace function flywheel._hostile_span(body text) returns flywheel.spans
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select jsonb_populate_record(null::flywheel.spans, jsonb_build_object(
    'span_id', gen_random_uuid(), 'trace_id', gen_random_uuid(), 'project', 'trial', 'environment', 'trial', 'node', 'trial',
    'node_kind', 'other', 'status', 'ok', 'attributes', '{}'::jsonb, 'revision', 1, 'started_at', now(), 'ingested_at', now(),
    'input', body, 'output', body))
$function$;
comment on function flywheel._hostile_span is 'Internal: a span whose input and output are a text.';

-- _trial_ms: how long a check takes for one span. An error ends the trial of that span: raising is isolated later.
create or replace function flywheel._trial_ms(definition jsonb, span flywheel.spans) returns double precision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  began timestamptz := clock_timestamp();
begin
  begin
    execute format(E'select %s, (%s\n)::text from (select ($1).*) as span',
      flywheel._check_sql(definition), coalesce(definition ->> 'where', 'true')) using span;
  exception when others or assert_failure then
    null;
  end;
  return extract(epoch from clock_timestamp() - began) * 1000;
end
$function$;
comment on function flywheel._trial_ms is 'Internal: milliseconds a sql check takes for one span.';

-- _fair_trial_ms: on a busy server a quick check may look slow once. What passes its limit is tried again, and its best time counts;
-- not when it is so far off that trying again would only cost time.
create or replace function flywheel._fair_trial_ms(definition jsonb, span flywheel.spans, limit_ms double precision) returns double precision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  best double precision := flywheel._trial_ms(definition, span);
begin
  for again in 1..2 loop
    exit when best <= limit_ms or best > 10 * limit_ms;
    best := least(best, flywheel._trial_ms(definition, span));
  end loop;
  return best;
end
$function$;
comment on function flywheel._fair_trial_ms is 'Internal: milliseconds a sql check takes for one span, the best of three when the first is over the limit.';

-- _slowest_trial: the first span that takes longer than its limit; null = none does.
create or replace function flywheel._slowest_trial(definition jsonb) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  limit_ms double precision := flywheel._setting('inline_limit_ms');
  hostile record;
  recent flywheel.spans;
  allowed double precision;
  took double precision;
begin
  perform flywheel._trial_ms(definition, flywheel._hostile_span('x'));   -- the first call pays for loading and planning
  for hostile in select * from flywheel._hostile_texts() loop
    allowed := limit_ms * greatest(1, hostile.size / 10000);
    took := flywheel._fair_trial_ms(definition, flywheel._hostile_span(hostile.body), allowed);
    if took > allowed then
      return format('%s ms for a text of %s characters beginning with %L', round(took), length(hostile.body), left(hostile.body, 12));
    end if;
  end loop;
  for recent in select * from flywheel.spans order by spans.span_id desc limit 50 loop
    took := flywheel._fair_trial_ms(definition, recent, limit_ms);
    if took > limit_ms then
      return format('%s ms for span %s', round(took), recent.span_id);
    end if;
  end loop;
  return null;
end
$function$;
comment on function flywheel._slowest_trial is 'Internal: try a sql check on hostile and recent spans; what was too slow, or null.';

create or replace function flywheel._require_fast(name text, definition jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  slow text := flywheel._slowest_trial(definition);
begin
  if slow is not null then
    raise exception using errcode = 'WF005',
      message = format('validator %s is too slow for lane inline: it took %s', name, slow),
      detail = format('The limit is %s ms (setting inline_limit_ms); an inline check makes every insert of the application wait.', flywheel._setting('inline_limit_ms')),
      hint = 'Use lane bulk, or a simpler expression.';
  end if;
end
$function$;
comment on function flywheel._require_fast is 'Internal: raise WF005 when an inline check is slow on hostile or recent spans.';
