-- Cascade: a tier that is not sure hands its spans on to the next validator, or to a person.

-- _successor: whom a version hands on to, and from which confidence on it keeps a verdict. Only what decides hands on: a shadow does not.
create or replace function flywheel._successor(
  version_id uuid, out question_id uuid, out to_person boolean, out validator_id uuid, out next_version_id uuid, out lane text, out threshold double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._question_of(versions), versions.definition ->> 'escalates_to' = 'person', heir.validator_id,
         heirs.version_id, case heirs.lane when 'judge' then 'judge' else 'bulk' end, calibrations.threshold
    from flywheel.validator_versions as versions
    left join flywheel.calibrations using (version_id)
    left join flywheel.validators as heir on heir.name = versions.definition ->> 'escalates_to'
    left join flywheel.validator_versions as heirs on heirs.validator_id = heir.validator_id and heirs.status in ('active', 'paused')
   where versions.version_id = _successor.version_id
     and versions.definition ? 'escalates_to'
     and versions.status in ('active', 'paused', 'retired')
$function$;
comment on function flywheel._successor is
  'Internal: the next tier of a version, and the confidence from which the version keeps its verdict (null = it hands everything on).';

-- _hand_on: called by the functions that write scores of judges and neighbours, with the scores that were new.
create or replace function flywheel._hand_on(
  version_id uuid, span_ids uuid[], revisions integer[], started_ats timestamptz[], confidences double precision[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  heir record;
  handed record;
begin
  select * into heir from flywheel._successor(_hand_on.version_id);
  if heir.question_id is null then
    return 0;
  end if;
  select array_agg(span_id) as span_ids, array_agg(revision) as revisions, array_agg(started_at) as started_ats,
         array_agg(confidence) as confidences, min(started_at) as earliest, max(started_at) as latest
    into handed
    from unnest(_hand_on.span_ids, _hand_on.revisions, _hand_on.started_ats, _hand_on.confidences)
      as said(span_id, revision, started_at, confidence)
   where (said.confidence >= heir.threshold) is not true;
  if handed.span_ids is null then
    return 0;
  end if;
  if heir.to_person then
    insert into flywheel._label_items (item_id, validator_id, span_id, started_at, revision, lane, priority, components)
    select flywheel.new_id(), heir.question_id, span_id, started_at, revision, 'triage', 2 - 2 * coalesce(confidence, 0.5),
           jsonb_build_object('escalated', 1, 'confidence', confidence)
      from unnest(handed.span_ids, handed.revisions, handed.started_ats, handed.confidences) as said(span_id, revision, started_at, confidence)
        on conflict do nothing;
  else
    insert into flywheel._escalations (validator_id, span_id, revision, started_at, from_version_id, confidence)
    select heir.validator_id, span_id, revision, started_at, _hand_on.version_id, confidence
      from unnest(handed.span_ids, handed.revisions, handed.started_ats, handed.confidences) as said(span_id, revision, started_at, confidence)
        on conflict do nothing;
    if heir.next_version_id is not null then
      perform flywheel._enqueue(heir.lane, 1::smallint, array[heir.next_version_id], handed.span_ids, handed.earliest, handed.latest, 'live');
      perform flywheel._wake();
    end if;
  end if;
  return cardinality(handed.span_ids);
end
$function$;
comment on function flywheel._hand_on is
  'Internal: hand the spans of new scores on whose confidence is below the threshold of their version (or unknown); returns how many.';
