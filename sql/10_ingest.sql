-- Ingest: ids, defaults, partitions, and the revision of a changed span.

-- new_id: a time-ordered uuid (version 7), so that keys made together lie together in an index. The 12 bits after the
-- version are a fraction of the millisecond, as uuidv7() has them: of two jobs made in one millisecond the first goes first.
-- Postgres 18 brings one written in C; before that it is put together from the clock and a random uuid.
do $block$
begin
  if current_setting('server_version_num')::integer >= 180000 then
    create or replace function flywheel.new_id() returns uuid
    language sql volatile security invoker parallel safe
    begin atomic
      select pg_catalog.uuidv7();
    end;
  else
    create or replace function flywheel.new_id() returns uuid
    language sql volatile security invoker parallel safe
    begin atomic
      select encode(
        overlay(
          overlay(uuid_send(gen_random_uuid())
            placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6)
          placing int2send((28672 + floor(mod(extract(epoch from clock_timestamp()) * 1000, 1) * 4096))::smallint) from 7 for 2),
        'hex')::uuid;
    end;
  end if;
end
$block$;
comment on function flywheel.new_id is 'A new time-ordered uuid (version 7).';

-- _id_time: when an id was made; exact to the millisecond.
create or replace function flywheel._id_time(id uuid) returns timestamptz
language sql immutable security invoker parallel safe
begin atomic
  select to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0);
end;
comment on function flywheel._id_time is 'Internal: the time inside a uuid made by new_id().';

alter table flywheel.spans alter column span_id set default flywheel.new_id();
alter table flywheel.spans alter column trace_id set default flywheel.new_id();
alter table flywheel.feedback alter column feedback_id set default flywheel.new_id();

-- _partition_name: where the rows of a day lie.
create or replace function flywheel._partition_name(relation text, day date) returns text
language sql immutable security invoker parallel safe
begin atomic
  select relation || '_' || to_char(day::timestamp, 'YYYYMMDD');
end;
comment on function flywheel._partition_name is 'Internal: name of the partition of a relation that holds one UTC day.';

-- _day_start: days are UTC days, whatever the session's time zone.
create or replace function flywheel._day_start(day date) returns timestamptz
language sql immutable security invoker parallel safe
begin atomic
  select day::timestamp at time zone 'UTC';
end;
comment on function flywheel._day_start is 'Internal: first instant of a UTC day.';

-- _make_partition: rows that already fell into the default partition move into the new one.
-- The new table is filled before it is attached, so no trigger sees the move.
-- A row of today on its way into the default partition would find that it no longer belongs there and fail its
-- application's insert: before a day is made that writers may be at, they are let through and kept out.
-- Bounds go through text: in another DateStyle the name of a time zone may be read back as another one (IST).
create or replace function flywheel._make_partition(relation text, day date) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO'
as $function$
declare
  part text := flywheel._partition_name(_make_partition.relation, _make_partition.day);
  day_start timestamptz := flywheel._day_start(_make_partition.day);
  day_end timestamptz := flywheel._day_start(_make_partition.day + 1);
  columns text;
begin
  select string_agg(quote_ident(attname), ', ' order by attnum) into columns
    from pg_catalog.pg_attribute
   where attrelid = format('flywheel.%I', _make_partition.relation)::regclass
     and attnum > 0 and not attisdropped and attgenerated = '';
  execute format('lock table flywheel.%I in %s mode', _make_partition.relation,
    case when day_start <= now() then 'share row exclusive' else 'share update exclusive' end);
  if to_regclass(format('flywheel.%I', part)) is not null then
    return;                                   -- somebody else made it while we waited
  end if;
  execute format('lock table flywheel.%I in access exclusive mode', relation || '_default');
  execute format('create table flywheel.%I (like flywheel.%I including all)', part, relation);
  execute format(
    'with moved as (delete from flywheel.%I where started_at >= $1 and started_at < $2 returning *)
     insert into flywheel.%I (%s) select %s from moved',
    relation || '_default', part, columns, columns) using day_start, day_end;
  execute format('alter table flywheel.%I attach partition flywheel.%I for values from (%L) to (%L)',
    relation, part, day_start, day_end);
end
$function$;
comment on function flywheel._make_partition is 'Internal: make the partition of one day unless it is there.';

-- _relations: what is cut into days, in the order in which writers lock: a span, its scores, the run, and what judging leaves.
create or replace function flywheel._relations() returns text[]
language sql immutable security invoker parallel safe
begin atomic
  select array['spans', 'scores', 'run_log', 'calls', 'span_embeddings'];
end;
comment on function flywheel._relations is 'Internal: the tables with daily partitions, in the order in which everybody locks them.';

-- ensure_partitions: call it before loading old spans, so that they do not land in the default partition.
-- All days of spans come first: a writer holds spans while it waits for scores, never the other way round.
create or replace function flywheel.ensure_partitions(first_day date, last_day date) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  made integer := 0;
  missing record;
begin
  if last_day - first_day > 3660 then
    raise exception using errcode = 'WF009',
      message = format('%s to %s is more than ten years of partitions', first_day, last_day),
      hint = 'Look for a wrong time stamp, or make the partitions in smaller pieces.';
  end if;
  for missing in
    select parent.relation, first_day + offset_days as day
      from unnest(flywheel._relations()) with ordinality as parent(relation, place)
     cross join generate_series(0, last_day - first_day) as offset_days
     where to_regclass(format('flywheel.%I', flywheel._partition_name(parent.relation, first_day + offset_days))) is null
     order by parent.place, 2
  loop
    perform flywheel._make_partition(missing.relation, missing.day);
    made := made + 1;
  end loop;
  return made;
end
$function$;
comment on function flywheel.ensure_partitions is
  'Make the daily (UTC) partitions of spans, scores, run_log, calls and span_embeddings from first_day to last_day; returns how many were missing.';

-- _partitions: one row for each daily partition, with its day read from its name.
create or replace view flywheel._partitions as
  select parent.relname::text as relation, child.relname::text as partition,
         to_date(right(child.relname, 8), 'YYYYMMDD') as day
    from pg_catalog.pg_inherits as link
    join pg_catalog.pg_class as parent on parent.oid = link.inhparent
    join pg_catalog.pg_class as child on child.oid = link.inhrelid
   where parent.relnamespace = 'flywheel'::regnamespace
     and parent.relkind = 'p'
     and child.relname ~ '_\d{8}$';
comment on view flywheel._partitions is 'Internal: the daily partitions of this install.';
comment on column flywheel._partitions.relation is 'spans, scores, run_log, calls or span_embeddings.';
comment on column flywheel._partitions.partition is 'Name of the partition.';
comment on column flywheel._partitions.day is 'UTC day it holds.';

-- _next_revision: what a validator reads is new text, so older scores become stale; other columns change nothing.
create or replace function flywheel._next_revision() returns trigger
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if (new.span_id, new.started_at) is distinct from (old.span_id, old.started_at) then
    raise exception using errcode = 'WF006',
      message = format('span_id and started_at of span %s cannot be changed', old.span_id),
      detail = 'Scores and jobs refer to a span by both.',
      hint = 'Delete the span and insert it again.';
  end if;
  new.revision := old.revision;
  if (new.input, new.output, new.documents) is distinct from (old.input, old.output, old.documents) then
    new.revision := old.revision + 1;
    new.ingested_at := now();                   -- who judges it is decided by when its text came
  end if;
  return new;
end
$function$;
comment on function flywheel._next_revision is 'Internal: count a new revision when input, output or documents change.';
comment on column flywheel.spans.ingested_at is 'When the row arrived here; of a later revision, when that did.';

create or replace trigger next_revision before update on flywheel.spans
  for each row execute function flywheel._next_revision();
