-- Embeddings: which texts need a vector, the queue for them, and the vectors' indexes.
--
-- Jobs of lane embed name an embedder where others name versions, and examples or spans where others name spans.

insert into flywheel.embedders (embedder_id, name, kind, dimensions, status)
select flywheel.new_id(), 'hashing', 'hashing', 384, 'serving' where not exists (select from flywheel.embedders);

create or replace function flywheel._text_parts(target text, input text, output text) returns table (part text, body text)
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select 'item', coalesce(flywheel._item_text(target, input, output), '')
   union all
  select 'input', input where input is not null
$function$;
comment on function flywheel._text_parts is 'Internal: the texts that are embedded: what is judged, and the input alone.';

-- _embed_target: what the question of an example is about; a fix for no question is about the output.
create or replace function flywheel._embed_target(validator_id uuid) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce((
    select versions.target from flywheel.validator_versions as versions
     where versions.validator_id = _embed_target.validator_id
     order by versions.status in ('active', 'shadow') desc, versions.version desc limit 1), 'output')
$function$;
comment on function flywheel._embed_target is 'Internal: the target of a validator''s version that runs, or of its newest.';

create or replace function flywheel._text_hash(body text) returns text
language sql immutable security invoker parallel safe
begin atomic
  select encode(sha256(convert_to(body, 'UTF8')), 'hex');
end;
comment on function flywheel._text_hash is 'Internal: SHA-256 of a text, in hexadecimal.';

-- _queue_subjects: in jobs small enough that the texts of one fit a worker's memory, however long they are.
create or replace function flywheel._queue_subjects(
  embedder_id uuid, subject_ids uuid[], priority integer, started_from timestamptz, started_until timestamptz, origin text)
returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with queued as (
    insert into flywheel._ready (lane, priority, job_id, version_ids, span_ids, started_from, started_until, origin)
    select 'embed', _queue_subjects.priority::smallint, flywheel.new_id(), array[_queue_subjects.embedder_id], subject_ids[chunk.first : chunk.first + 199],
           _queue_subjects.started_from, _queue_subjects.started_until, _queue_subjects.origin
      from generate_series(1, coalesce(cardinality(subject_ids), 0), 200) as chunk(first)
    returning 1
  )
  select coalesce(cardinality(subject_ids), 0) from (select count(*) from queued) as done
$function$;
comment on function flywheel._queue_subjects is 'Internal: queue examples or spans for an embedder; returns how many.';

create or replace function flywheel._embed_new_examples() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  added uuid[];
begin
  select array_agg(new_examples.example_id) into added from new_examples where new_examples.status <> 'revoked';
  if added is not null then
    perform flywheel._queue_subjects(embedders.embedder_id, added, 1, now(), now(), 'live') from flywheel.embedders where embedders.status <> 'retired';
    perform flywheel._wake();
  end if;
  return null;
end
$function$;
comment on function flywheel._embed_new_examples is 'Internal: queue new examples for every embedder.';

-- _follow_examples: vectors know whether their example is servable, so that an index can hold just those.
create or replace function flywheel._follow_examples() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  moved uuid[];
  changed uuid[];
begin
  select array_agg(new_examples.example_id) filter (
           where (new_examples.status, new_examples.validator_id) is distinct from (old_examples.status, old_examples.validator_id)),
         array_agg(new_examples.example_id) filter (
           where new_examples.status <> 'revoked' and (new_examples.content_hash <> old_examples.content_hash or old_examples.status = 'revoked'))
    into moved, changed
    from new_examples join old_examples using (example_id);
  if moved is not null then
    update flywheel._example_embeddings as embeddings
       set servable = examples.status = 'servable', validator_id = examples.validator_id
      from flywheel.examples
     where embeddings.example_id = any (moved) and examples.example_id = embeddings.example_id
       and (embeddings.servable, embeddings.validator_id) is distinct from (examples.status = 'servable', examples.validator_id);
  end if;
  if changed is not null then
    perform flywheel._queue_subjects(embedders.embedder_id, changed, 1, now(), now(), 'live') from flywheel.embedders where embedders.status <> 'retired';
    perform flywheel._wake();
  end if;
  return null;
end
$function$;
comment on function flywheel._follow_examples is 'Internal: tell the vectors of examples what became of them, and queue those whose text changed.';

create or replace trigger embed_new_examples after insert on flywheel.examples
  referencing new table as new_examples for each statement execute function flywheel._embed_new_examples();
create or replace trigger follow_examples after update on flywheel.examples
  referencing old table as old_examples new table as new_examples for each statement execute function flywheel._follow_examples();

-- _running_subjects: the texts behind running jobs, with the hash of each; no example that was taken back. Two jobs may hold the same
-- subject, queued at different times: it is one.
create or replace function flywheel._running_subjects(fences uuid[])
returns table (embedder_id uuid, subject_id uuid, started_at timestamptz, revision integer, part text, content_hash text, body text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with work as materialized (
    select distinct running.version_ids[1] as embedder_id, subject.id, running.started_from, running.started_until
      from flywheel._running as running cross join unnest(running.span_ids) as subject(id)
     where running.fence = any (_running_subjects.fences)
  ), found as (
    select work.embedder_id, work.id, null::timestamptz as started_at, null::integer as revision, texts.part, texts.body
      from work join flywheel.examples on examples.example_id = work.id and examples.status <> 'revoked'
     cross join lateral flywheel._text_parts(flywheel._embed_target(examples.validator_id), examples.input, examples.output) as texts
    union all
    select work.embedder_id, work.id, span.started_at, span.revision, texts.part, texts.body
      from work join flywheel.spans as span on span.span_id = work.id and span.started_at between work.started_from and work.started_until
     cross join lateral (
       select parts.part, parts.body from flywheel._text_parts('output', span.input, span.output) as parts
       union all
       select 'output', span.output where span.output is not null) as texts
  )
  select distinct on (found.embedder_id, found.id, found.started_at, found.part)
         found.embedder_id, found.id, found.started_at, found.revision, found.part, flywheel._text_hash(found.body), found.body
    from found
$function$;
comment on function flywheel._running_subjects is 'Internal: the texts of running jobs of lane embed: of examples, and of spans (which have a start).';

-- _read_embeddings: a text that has its vector is not made again. Of a very long one both ends are enough.
create or replace function flywheel._read_embeddings(fences uuid[])
returns table (embedder_id uuid, subject_id uuid, part text, content_hash text, body text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select wanted.embedder_id, wanted.subject_id, wanted.part, wanted.content_hash,
         case when length(wanted.body) <= 32768 then wanted.body else left(wanted.body, 16384) || ' ' || right(wanted.body, 16384) end
    from flywheel._running_subjects(fences) as wanted
   where not exists (
           select from flywheel._example_embeddings as made
            where (made.example_id, made.embedder_id, made.part, made.content_hash) = (wanted.subject_id, wanted.embedder_id, wanted.part, wanted.content_hash))
     and not exists (
           select from flywheel.span_embeddings as made
            where (made.span_id, made.embedder_id, made.part, made.started_at, made.content_hash)
                = (wanted.subject_id, wanted.embedder_id, wanted.part, wanted.started_at, wanted.content_hash))
$function$;
comment on function flywheel._read_embeddings is 'Internal: the texts of running jobs that have no vector yet.';

-- _write_embeddings: vectors lie one behind another in `embeddings`. A text that changed meanwhile keeps its old vector:
-- the change has queued it again. The examples stay locked, so that none changes its status between here and the commit.
create or replace function flywheel._write_embeddings(
  worker_id uuid, fences uuid[], embedder_id uuid, subject_ids uuid[], parts text[], content_hashes text[], embeddings real[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  held uuid[] := flywheel._lock_fences(_write_embeddings.worker_id, _write_embeddings.fences);
  size integer;
begin
  select embedders.dimensions into size from flywheel.embedders
   where embedders.embedder_id = _write_embeddings.embedder_id and embedders.status <> 'retired' for share;
  if found then
    perform from flywheel.examples where examples.example_id = any (subject_ids) order by examples.example_id for share;
    with made as materialized (
      select wanted.*, (_write_embeddings.embeddings[(given.place - 1) * size + 1 : given.place * size])::public.halfvec as vector
        from unnest(subject_ids, parts, content_hashes) with ordinality as given(id, part, hash, place)
        join flywheel._running_subjects(held) as wanted
          on (wanted.subject_id, wanted.part, wanted.content_hash, wanted.embedder_id) = (given.id, given.part, given.hash, _write_embeddings.embedder_id)
    ), of_examples as (
      insert into flywheel._example_embeddings as stored (example_id, embedder_id, part, validator_id, servable, content_hash, embedding)
      select made.subject_id, made.embedder_id, made.part, examples.validator_id, examples.status = 'servable', made.content_hash, made.vector
        from made join flywheel.examples on examples.example_id = made.subject_id
       where made.started_at is null
          on conflict on constraint _example_embeddings_pkey do update
         set (servable, content_hash, embedding, embedded_at) = (excluded.servable, excluded.content_hash, excluded.embedding, now())
    )
    insert into flywheel.span_embeddings as stored (span_id, started_at, revision, embedder_id, part, content_hash, embedding)
    select made.subject_id, made.started_at, made.revision, made.embedder_id, made.part, made.content_hash, made.vector
      from made where made.started_at is not null
        on conflict on constraint span_embeddings_pkey do update
       set (revision, content_hash, embedding, embedded_at) = (excluded.revision, excluded.content_hash, excluded.embedding, now());
  end if;
  return flywheel._finish(_write_embeddings.worker_id, held);
end
$function$;
comment on function flywheel._write_embeddings is 'Internal: store the vectors of running jobs and end the jobs; returns how many were still the worker''s.';

create or replace function flywheel._unembedded(embedder_id uuid) returns table (example_id uuid)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select examples.example_id from flywheel.examples
   where examples.status <> 'revoked'
     and not exists (select from flywheel._example_embeddings as made
                      where (made.example_id, made.embedder_id, made.part) = (examples.example_id, _unembedded.embedder_id, 'item'))
$function$;
comment on function flywheel._unembedded is 'Internal: examples that have no vector of an embedder.';

-- _sampled_spans: spans of sampled traces that arrived since. The hash is of the trace: all its spans, or none.
create or replace function flywheel._sampled_spans(embedder flywheel.embedders, max_spans integer)
returns table (span_id uuid, started_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select span.span_id, span.started_at
    from flywheel.spans as span
   where embedder.span_permille > 0
     and span.ingested_at >= embedder.checked_at - interval '2 minutes'
     and flywheel._hash01(span.trace_id, 'embed') < embedder.span_permille / 1000.0
     and not exists (select from flywheel.span_embeddings as made
                      where (made.span_id, made.embedder_id, made.part, made.started_at) = (span.span_id, embedder.embedder_id, 'item', span.started_at))
     and not exists (select from flywheel._pending_spans(embedder.embedder_id) as pending where pending.span_id = span.span_id)
   limit max_spans
$function$;
comment on function flywheel._sampled_spans is 'Internal: sampled spans that have no vector of an embedder and none on its way.';

create or replace function flywheel._queue_missing(embedder flywheel.embedders) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  examples uuid[] := array(
    select missing.example_id from flywheel._unembedded(embedder.embedder_id) as missing
     where not exists (select from flywheel._pending_spans(embedder.embedder_id) as pending where pending.span_id = missing.example_id));
  spans record;
  queued integer := flywheel._queue_subjects(embedder.embedder_id, examples, 2, now(), now(), 'reconcile');
begin
  select array_agg(span_id) as ids, min(started_at) as earliest, max(started_at) as latest into spans
    from flywheel._sampled_spans(embedder, 10000);
  queued := queued + flywheel._queue_subjects(embedder.embedder_id, spans.ids, 2, spans.earliest, spans.latest, 'live');
  update flywheel.embedders set checked_at = now()
   where embedders.embedder_id = embedder.embedder_id and coalesce(cardinality(spans.ids), 0) < 10000;  -- else the rest comes next time
  return queued;
end
$function$;
comment on function flywheel._queue_missing is 'Internal: queue what an embedder has no vector of: examples, and sampled spans; returns how many.';

-- _index_name: one index for each question, embedder and part.
create or replace function flywheel._index_name(embedder_id uuid, validator_id uuid, part text) returns text
language sql immutable security invoker parallel safe
begin atomic
  select '_hnsw_' || left(md5(embedder_id::text || validator_id::text || part), 16);
end;
comment on function flywheel._index_name is 'Internal: name of the index of one question''s vectors.';

-- _kept_indexes: each with what its comment says of its last building: when, over how many rows, of how many bytes each.
create or replace function flywheel._kept_indexes()
returns table (index_name text, valid boolean, bytes bigint, fresh_at timestamptz, fresh_rows bigint, fresh_bytes bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select classes.relname::text, indexes.indisvalid, pg_relation_size(classes.oid), said.words[1]::timestamptz, said.words[2]::bigint, said.words[3]::bigint
    from pg_catalog.pg_index as indexes join pg_catalog.pg_class as classes on classes.oid = indexes.indexrelid
    left join lateral regexp_match(obj_description(classes.oid, 'pg_class'), 'built (\S+), ([0-9]+) rows of ([0-9]+) bytes') as said(words) on true
   where indexes.indrelid = 'flywheel._example_embeddings'::regclass and classes.relname like '\_hnsw\_%'
$function$;
comment on function flywheel._kept_indexes is 'Internal: the indexes of vectors, and what each was like when it was built.';

-- _index_work: statements that cannot run inside of a transaction, for whoever keeps the indexes; none while one is being built.
-- An index that failed to build is dropped first. One is built anew once a tenth of it is dead, or it grew to twice its size a row:
-- docs/explanation/index-upkeep.md has the measurements. Rows taken back = rows then + rows since - rows now.
create or replace function flywheel._index_work() returns table (action text, index_name text, statement text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with counted as materialized (
    select flywheel._index_name(made.embedder_id, made.validator_id, made.part) as index_name, made.embedder_id, made.validator_id, made.part,
           embedders.dimensions, count(*) as vectors
      from flywheel._example_embeddings as made join flywheel.embedders using (embedder_id)
     where made.servable and made.validator_id is not null and embedders.status <> 'retired'
     group by made.embedder_id, made.validator_id, made.part, embedders.dimensions
  ), kept as materialized (
    select kept.*, counted.vectors, kept.fresh_rows - counted.vectors + since.vectors as dead
      from flywheel._kept_indexes() as kept left join counted using (index_name)
      left join lateral (
        select count(*) as vectors from flywheel._example_embeddings as made
         where (made.embedder_id, made.validator_id, made.part) = (counted.embedder_id, counted.validator_id, counted.part)
           and made.servable and made.embedded_at > kept.fresh_at) as since on true
  ), limits as (
    select flywheel._setting('index_examples_from') as fewest
  ), work as (
    select 1 as place, 'drop' as action, kept.index_name, format('drop index concurrently if exists flywheel.%I', kept.index_name) as statement
      from kept cross join limits where not kept.valid or coalesce(kept.vectors, 0) < limits.fewest / 2
    union all
    select 2, 'create', counted.index_name, format(
             'create index concurrently if not exists %I on flywheel._example_embeddings using hnsw ((embedding::public.halfvec(%s)) public.halfvec_cosine_ops)
               where embedder_id = %L and validator_id = %L and part = %L and servable',
             counted.index_name, counted.dimensions, counted.embedder_id, counted.validator_id, counted.part)
      from counted cross join limits left join kept using (index_name) where kept.index_name is null and counted.vectors >= limits.fewest
    union all
    select 3, 'reindex', kept.index_name, format('reindex index concurrently flywheel.%I', kept.index_name)
      from kept cross join limits
     where kept.valid and kept.vectors >= limits.fewest / 2 and (kept.dead >= kept.vectors / 10.0 or kept.bytes > 2 * kept.fresh_bytes * kept.vectors)
  )
  select work.action, work.index_name, work.statement from work
   where not exists (select from pg_catalog.pg_stat_progress_create_index as building where building.relid = 'flywheel._example_embeddings'::regclass)
   order by work.place, work.index_name
$function$;
comment on function flywheel._index_work is 'Internal: what is to be done to the indexes of vectors, as statements to run one by one.';

create or replace function flywheel._index_done(index_name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  vectors bigint := (
    select count(*) from flywheel._example_embeddings as made
     where made.servable and flywheel._index_name(made.embedder_id, made.validator_id, made.part) = index_name);
begin
  if to_regclass(format('flywheel.%I', index_name)) is not null and vectors > 0 then
    execute format('comment on index flywheel.%I is %L', index_name, format('Internal: vectors of one question; built %s, %s rows of %s bytes.',
      to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), vectors,
      pg_relation_size(format('flywheel.%I', index_name)::regclass) / vectors));
  end if;
end
$function$;
comment on function flywheel._index_done is 'Internal: note with an index what it is like just after it was built.';

select flywheel._grant('flywheel_worker',
  'execute on function flywheel._read_embeddings(uuid[]), flywheel._write_embeddings(uuid, uuid[], uuid, uuid[], text[], text[], real[]),
     flywheel._index_work(), flywheel._index_done(text)');
