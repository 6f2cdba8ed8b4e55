-- Dimensions of rollups: minutes, slices, and up to three own dimensions, each a path into the attributes of a span.

-- _minute: bins start at a fixed instant, so they are UTC minutes, hours and days whatever the session's time zone.
create or replace function flywheel._minute(moment timestamptz) returns timestamptz
language sql immutable parallel safe security invoker
begin atomic
  select date_bin('1 minute', moment, timestamptz '2000-01-01 00:00:00+00');
end;
comment on function flywheel._minute is 'Internal: start of the minute of a time.';

create or replace function flywheel._cuts(minute timestamptz) returns table (grain text, bucket timestamptz)
language sql immutable parallel safe security invoker
begin atomic
  select cut.grain, cut.bucket
    from (values ('minute', minute), ('hour', date_bin('1 hour', minute, timestamptz '2000-01-01 00:00:00+00')),
                 ('day', date_bin('1 day', minute, timestamptz '2000-01-01 00:00:00+00'))) as cut(grain, bucket);
end;
comment on function flywheel._cuts is 'Internal: the minute, the hour and the UTC day that a minute lies in.';

-- _summable: one NaN or infinity would stay in a sum for good; what cannot be added up counts as unknown.
create or replace function flywheel._summable(amount double precision) returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select case when amount > -1e15 and amount < 1e15 then amount end;
end;
comment on function flywheel._summable is 'Internal: an amount that sums can hold; null = unknown, not a number, or beyond 1e15.';

-- _latency_bin: eight bins for each doubling, so a quantile read from bins is off by 4.5 % at most.
create or replace function flywheel._latency_bin(latency_ms double precision) returns smallint
language sql immutable parallel safe security invoker
begin atomic
  select case when latency_ms is null or latency_ms <> latency_ms then -999
              else greatest(-80, least(400, floor(11.541560327111707 * ln(greatest(latency_ms, 0.001))))) end::smallint;
end;
comment on function flywheel._latency_bin is 'Internal: floor(8 * log2(milliseconds)); -999 = unknown.';

create or replace function flywheel._value_bin(value double precision) returns smallint
language sql immutable parallel safe security invoker
begin atomic
  select case when value is null then -1 else least(19, floor(value * 20)) end::smallint;
end;
comment on function flywheel._value_bin is 'Internal: the twentieth of [0, 1] a value lies in, 0 to 19; -1 = no value.';

-- _slice_id: a hash, so that who counts needs to ask nobody for a number.
create or replace function flywheel._slice_id(project text, environment text, release text, node text, node_kind text, root boolean,
  attribute_1 text, attribute_2 text, attribute_3 text)
returns uuid
language sql immutable parallel safe security invoker
begin atomic
  select md5(jsonb_build_array(project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3)::text)::uuid;
end;
comment on function flywheel._slice_id is 'Internal: the id of a combination of dimensions.';

-- _attribute_sql: what is generated is a literal array of literals, or one of two column names.
create or replace function flywheel._attribute_sql(path text) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case when path is null then 'null::text'
              when path in ('model', 'provider') then format('left(%I, 200)', path)
              else format('left(attributes #>> array[%s]::text[], 200)',
                     (select string_agg(format('%L', step), ', ' order by place) from unnest(string_to_array(path, '.')) with ordinality as steps(step, place)))
         end
$function$;
comment on function flywheel._attribute_sql is 'Internal: expression over attributes, model and provider that reads an own dimension.';

create or replace function flywheel._compile_attributes() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  paths text[] := (select array(select jsonb_array_elements_text(value)) from flywheel.settings where name = 'rollup_attributes');
begin
  for place in 1..3 loop
    execute format($code$
      create or replace function flywheel._attribute_%1$s(attributes jsonb, model text, provider text) returns text
      language sql immutable parallel safe security invoker
      begin atomic
        select %2$s;
      end$code$, place, flywheel._attribute_sql(paths[place]));
    execute format('comment on function flywheel._attribute_%s is %L', place,
      'Internal, generated: own dimension ' || place || ' of a span; null = it has none.');
    execute format('revoke all on function flywheel._attribute_%s from public', place);
  end loop;
end
$function$;
comment on function flywheel._compile_attributes is 'Internal: write the functions that read the own dimensions in settings.rollup_attributes.';

select flywheel._compile_attributes();

-- _named: the same answer for what is folded, what is not yet, and a recount. Once a value had to be counted as (other),
-- which the mark of that name remembers, no further value is counted by name until the days are counted anew.
create or replace function flywheel._named(attribute integer, value text) returns text
language sql stable parallel safe security invoker
begin atomic
  select case when value is null
                or exists (select from flywheel._slice_values as known where known.attribute = _named.attribute and known.value = _named.value)
                or not exists (select from flywheel._slice_values as known where known.attribute = _named.attribute and known.value = '(other)')
              then value else '(other)' end;
end;
comment on function flywheel._named is 'Internal: the value an own dimension is counted under: itself, or (other).';

-- _admit_values: names are given first come, first served, up to a limit; then the list is closed.
create or replace function flywheel._admit_values(attribute integer, seen text[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  places bigint := flywheel._setting('rollup_attribute_values')
    - (select count(*) from flywheel._slice_values as known where known.attribute = _admit_values.attribute);
  fresh text[] := array(
    select distinct given.value from unnest(seen) as given(value)
     where given.value <> '(other)' and flywheel._named(_admit_values.attribute, given.value) = given.value
       and not exists (select from flywheel._slice_values as known where (known.attribute, known.value) = (_admit_values.attribute, given.value))
     order by 1);
begin
  insert into flywheel._slice_values (attribute, value)
  select _admit_values.attribute, given.value from unnest(fresh[:greatest(places, 0)]) as given(value)
      on conflict do nothing;
  if cardinality(fresh) > places then
    insert into flywheel._slice_values (attribute, value) values (_admit_values.attribute, '(other)') on conflict do nothing;
  end if;
end
$function$;
comment on function flywheel._admit_values is 'Internal: let values of an own dimension be counted by name while there are places.';
