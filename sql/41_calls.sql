-- Calls: what the judge lane reads. One job is one span there, so each answer keeps the claim it belongs to.

-- _read_calls: like _read_spans, with the fence beside each key.
create or replace function flywheel._read_calls(
  fences uuid[], version_id uuid, columns text[], out held uuid[], out keys flywheel._span_key[], out texts text[])
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  work record;
  eligible text;
  read record := flywheel._columns_sql(_read_calls.columns);
begin
  select flywheel._eligible_sql(validators.name, versions.definition) into eligible
    from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
   where versions.version_id = _read_calls.version_id;
  select * into work from flywheel._running_spans(_read_calls.fences);
  execute format('select held, keys, %s from (select array_agg(running.fence) as held, array_agg(%s) as keys%s
                    from flywheel._running as running
                    join flywheel.spans as span
                      on span.span_id = running.span_ids[1] and span.started_at between running.started_from and running.started_until
                   where running.fence = any ($1) and span.span_id = any ($2) and span.started_at between $3 and $4 and %s) as picked',
      read.whole, flywheel._key_sql(), read.pieces, eligible)
    into held, keys, texts using _read_calls.fences, work.span_ids, work.started_from, work.started_until;
end
$function$;
comment on function flywheel._read_calls is
  'Internal: fences and keys of claimed calls whose span a version means, and the declared columns as text: all of the first, then the second ...';
