-- Embedders: add, sample, serve and retire them. One serves, others are filling beside it.

create or replace function flywheel._embedder(name text) returns flywheel.embedders
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  wanted flywheel.embedders;
begin
  perform from flywheel.embedders order by embedder_id for update;
  select * into wanted from flywheel.embedders where embedders.name = _embedder.name;
  if not found then
    raise exception using errcode = 'WF009', message = format('there is no embedder %s', _embedder.name),
      hint = 'List them: select name from flywheel.embedder_status.';
  end if;
  return wanted;
end
$function$;
comment on function flywheel._embedder is 'Internal: an embedder by its name; all of them stay locked.';

create or replace function flywheel._require_embedder(name text, kind text, model text, provider text, dimensions integer, parameters jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  problem text := case
    when name is null or name !~ '^[a-z][a-z0-9_-]{0,62}$' then format('%s is no name of 1 to 63 lower-case letters, digits, - and _', coalesce(name, 'null'))
    when exists (select from flywheel.embedders where embedders.name = _require_embedder.name) then 'there is one of this name'
    when kind is null or kind not in ('hashing', 'openai', 'sentence_transformers') then
      format('%s is not one of hashing, openai, sentence_transformers', coalesce(kind, 'null'))
    when (kind = 'hashing') <> (model is null) then case when model is null then format('kind %s needs a model', kind) else 'kind hashing has no model' end
    when (kind = 'openai') <> (provider is not null) then
      case when provider is null then 'kind openai needs a provider' else format('kind %s has no provider', kind) end
    when dimensions is null or dimensions not between 8 and 4000 then format('%s dimensions are not from 8 to 4000', coalesce(dimensions::text, 'null'))
    when jsonb_typeof(parameters) is distinct from 'object' then 'parameters are not an object'
  end;
begin
  if problem is not null then
    raise exception using errcode = 'WF009', message = format('embedder %s cannot be added: %s', name, problem),
      hint = 'As in flywheel.add_embedder(''small'', ''openai'', ''text-embedding-3-small'', ''openai'', 512).';
  elsif provider is not null and not exists (select from flywheel.providers where providers.provider = _require_embedder.provider) then
    raise exception using errcode = 'WF013', message = format('there is no provider %s', provider), hint = 'Set it first: pgflywheel providers set FILE.';
  end if;
end
$function$;
comment on function flywheel._require_embedder is 'Internal: raise WF009 or WF013 where an embedder cannot be added.';

create or replace function flywheel.add_embedder(
  name text, kind text, model text default null, provider text default null, dimensions integer default 384, parameters jsonb default '{}',
  span_permille integer default 0)
returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  made flywheel.embedders;
begin
  perform flywheel._require_embedder(name, kind, model, provider, dimensions, parameters);
  insert into flywheel.embedders (embedder_id, name, kind, model, provider, dimensions, parameters)
  values (flywheel.new_id(), add_embedder.name, add_embedder.kind, add_embedder.model, add_embedder.provider, add_embedder.dimensions, add_embedder.parameters)
  returning embedders.* into made;
  perform flywheel.sample_embedder(made.name, add_embedder.span_permille);
  perform flywheel._queue_missing(made);
  perform flywheel._wake();
  return made.embedder_id;
end
$function$;
comment on function flywheel.add_embedder is
  'Add an embedder and queue every example for it; another one serves meanwhile. parameters {"switch": true}: it serves as soon as it is complete.';

create or replace function flywheel.sample_embedder(name text, permille integer) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  wanted flywheel.embedders := flywheel._embedder(name);
begin
  if permille is null or permille not between 0 and 1000 then
    raise exception using errcode = 'WF009', message = format('%s is not a share of traces from 0 to 1000 per thousand', coalesce(permille::text, 'null'));
  end if;
  update flywheel.embedders set span_permille = permille,
         checked_at = case when embedders.span_permille = 0 then now() else embedders.checked_at end  -- spans from now on
   where embedders.embedder_id = wanted.embedder_id;
end
$function$;
comment on function flywheel.sample_embedder is 'Embed also the spans of so many traces of a thousand, of those that come from now on; 0 = none.';

create or replace function flywheel.serve_embedder(name text, force boolean default false) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  wanted flywheel.embedders := flywheel._embedder(name);
  missing bigint := (select count(*) from flywheel._unembedded(wanted.embedder_id));
begin
  if wanted.status = 'retired' or (missing > 0 and not force) then
    raise exception using errcode = 'WF004', message = format('embedder %s cannot serve', wanted.name),
      detail = case when wanted.status = 'retired' then 'It is retired, and its vectors are deleted.'
                    else format('%s examples have no vector of it yet.', missing) end,
      hint = case when wanted.status = 'retired' then 'Add it anew under another name.'
                  else 'Wait for a worker with lane embed, or force it: those examples are found without similarity until then.' end;
  end if;
  if wanted.status = 'filling' then
    update flywheel.embedders set status = 'filling', changed_at = now() where status = 'serving';
    update flywheel.embedders set status = 'serving', changed_at = now(), parameters = embedders.parameters - 'switch'
     where embedders.embedder_id = wanted.embedder_id;
  end if;
end
$function$;
comment on function flywheel.serve_embedder is
  'Let retrieval use another embedder; it must have a vector of every example unless forced. The one before stays up to date until it is retired.';

create or replace function flywheel.retire_embedder(name text) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  wanted flywheel.embedders := flywheel._embedder(name);
  named_by text := (
    select min(validators.name) from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
     where versions.status in ('active', 'shadow', 'paused') and versions.definition #>> '{shots,embedder}' = wanted.name);
  deleted bigint;
begin
  if wanted.status = 'serving' or named_by is not null then
    raise exception using errcode = 'WF004', message = format('embedder %s cannot be retired', wanted.name),
      detail = case when named_by is null then 'It is the one that serves.' else format('Validator %s names it.', named_by) end,
      hint = case when named_by is null then 'Let another one serve first: select flywheel.serve_embedder(name).' else 'Retire that version, or let it name another.' end;
  end if;
  update flywheel.embedders set status = 'retired', changed_at = now() where embedders.embedder_id = wanted.embedder_id;
  delete from flywheel._ready where version_ids = array[wanted.embedder_id];
  delete from flywheel._later where version_ids = array[wanted.embedder_id];
  delete from flywheel._dead where version_ids = array[wanted.embedder_id];
  delete from flywheel._example_embeddings as made where made.embedder_id = wanted.embedder_id;
  get diagnostics deleted = row_count;
  return deleted;
end
$function$;
comment on function flywheel.retire_embedder is 'End an embedder and delete its vectors of examples; returns how many. Those of spans go with their days.';

-- _queue_embeddings: what past triggers came, and the embedder that is to serve once complete. That one first: it locks all embedders in
-- their order, which nobody can who has one of them in hand.
create or replace function flywheel._queue_embeddings() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  wanted flywheel.embedders;
  touched bigint := 0;
begin
  for wanted in
    select * from flywheel.embedders where status = 'filling' and parameters @> '{"switch": true}' order by embedder_id
  loop
    if not exists (select from flywheel._unembedded(wanted.embedder_id)) then
      perform flywheel.serve_embedder(wanted.name);
      touched := touched + 1;
    end if;
  end loop;
  for wanted in
    select * from flywheel.embedders
     where status <> 'retired' and (parameters @> '{"switch": true}' or checked_at < now() - interval '1 minute')
     order by embedder_id
  loop
    touched := touched + flywheel._queue_missing(wanted);
  end loop;
  if touched > 0 then
    perform flywheel._wake();
  end if;
  return touched;
end
$function$;
comment on function flywheel._queue_embeddings is 'Internal: queue what has no vector yet, and switch to an embedder that is complete; returns how many of both.';

create or replace view flywheel.embedder_status as
  select embedders.name, embedders.kind, embedders.model, embedders.provider, embedders.dimensions, embedders.status, embedders.span_permille,
         known.examples, made.embedded, known.examples - made.embedded as waiting, failed.dead, embedders.created_at, embedders.changed_at
    from flywheel.embedders
   cross join (select count(*) as examples from flywheel.examples where examples.status <> 'revoked') as known
   cross join lateral (
     select count(*) as embedded from flywheel._example_embeddings as vectors join flywheel.examples using (example_id)
      where vectors.embedder_id = embedders.embedder_id and vectors.part = 'item' and examples.status <> 'revoked') as made
   cross join lateral (
     select coalesce(sum(cardinality(dead.span_ids)), 0)::bigint as dead from flywheel._dead as dead
      where dead.version_ids = array[embedders.embedder_id]) as failed;
comment on view flywheel.embedder_status is 'The embedders, and how far each is.';
comment on column flywheel.embedder_status.name is 'Its name.';
comment on column flywheel.embedder_status.kind is 'hashing, openai or sentence_transformers.';
comment on column flywheel.embedder_status.model is 'Model name or directory; null for hashing.';
comment on column flywheel.embedder_status.provider is 'Provider of kind openai.';
comment on column flywheel.embedder_status.dimensions is 'Length of its vectors.';
comment on column flywheel.embedder_status.status is 'serving, filling (vectors are being made and kept) or retired.';
comment on column flywheel.embedder_status.span_permille is 'Traces of a thousand whose spans are embedded, too.';
comment on column flywheel.embedder_status.examples is 'Examples there are, without revoked ones.';
comment on column flywheel.embedder_status.embedded is 'Those with a vector of it.';
comment on column flywheel.embedder_status.waiting is 'Those without.';
comment on column flywheel.embedder_status.dead is 'Examples and spans it was given up for; see flywheel.replay_dead().';
comment on column flywheel.embedder_status.created_at is 'When it was added.';
comment on column flywheel.embedder_status.changed_at is 'When its status last changed.';

select flywheel._grant('flywheel_worker', privilege) from unnest(array[
  'select on flywheel.embedders, flywheel.embedder_status',
  'execute on function flywheel._queue_embeddings()']) as privilege;
select flywheel._grant('flywheel_analyst', 'select on flywheel.embedder_status');
select flywheel._grant('flywheel_admin', privilege) from unnest(array[
  'select on flywheel.embedders, flywheel.embedder_status',
  'execute on function flywheel.add_embedder(text, text, text, text, integer, jsonb, integer), flywheel.sample_embedder(text, integer),
     flywheel.serve_embedder(text, boolean), flywheel.retire_embedder(text)']) as privilege;
