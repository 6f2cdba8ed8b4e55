-- Provisional labels: a judge's verdict put before people, who confirm or overturn it. No number ever counts one.

create or replace function flywheel.propose_labels(validator text, n integer default 20) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  asked record;
  proposed flywheel.labels;
  verdict record;
  made integer := 0;
begin
  select * into asked from flywheel._question(propose_labels.validator);
  perform flywheel._lock_subject(asked.validator_id, null);    -- two at once would propose the same
  for verdict in
    select span.*::flywheel.spans as span, scores.version_id, scores.passed, scores.critique, format('%s v%s', validators.name, versions.version) as judge
      from flywheel.spans as span
      join flywheel.scores on (scores.span_id, scores.started_at, scores.revision) = (span.span_id, span.started_at, span.revision)
      join flywheel.validator_versions as versions using (version_id)
      join flywheel.validators using (validator_id)
     where scores.version_id = asked.version_id and scores.annotator_kind in ('judge', 'neighbours') and scores.passed is not null
       and not exists (select from flywheel.labels
                        where (labels.validator_id, labels.span_id, labels.revision) = (asked.validator_id, span.span_id, span.revision))
     order by span.started_at desc, span.span_id limit propose_labels.n
  loop
    continue when not flywheel._try_subject(asked.validator_id, (verdict.span).span_id) or exists (  -- labelled since the look at it
      select from flywheel.labels where (labels.validator_id, labels.span_id, labels.revision) = (asked.validator_id, (verdict.span).span_id, (verdict.span).revision));
    proposed := flywheel._blank_label(verdict.span, asked.validator_id, verdict.version_id);
    proposed.annotator := verdict.judge;
    proposed.annotator_kind := 'judge';
    proposed.passed := verdict.passed;
    proposed.critique := verdict.critique;
    proposed.blind := false;
    perform flywheel._add_label(proposed);
    made := made + 1;
  end loop;
  return made;
end
$function$;
comment on function flywheel.propose_labels is
  'Make provisional labels of what the newest version of a judge says of the newest spans nobody has labelled; people confirm or overturn them. Returns how many.';

-- _decide_label: the person saw the verdict, so the label is not blind, and was not drawn, so it is triage.
create or replace function flywheel._decide_label(label_id uuid, annotator text, agrees boolean, critique text) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  said flywheel.labels;
begin
  perform flywheel._require_person(_decide_label.annotator);
  select labels.* into said from flywheel.labels where labels.label_id = _decide_label.label_id;
  if said.label_id is null or said.annotator_kind <> 'judge' then
    perform flywheel._refuse_label(format('there is no provisional label %s', _decide_label.label_id), 'Make some: select flywheel.propose_labels(validator).');
  end if;
  perform flywheel._lock_subject(said.validator_id, said.span_id);
  if not exists (select from flywheel._current_labels as current where current.label_id = said.label_id) then
    perform flywheel._refuse_label(format('provisional label %s was decided already', said.label_id), 'Record a label of your own with record_label().');
  elsif exists (select from flywheel._current_labels as own
                 where (own.validator_id, own.span_id, own.revision, own.annotator, own.annotator_kind)
                     = (said.validator_id, said.span_id, said.revision, _decide_label.annotator, 'human')) then
    perform flywheel._refuse_label(format('%s has labelled span %s already', _decide_label.annotator, said.span_id), 'Change that label with relabel().');
  end if;
  said.supersedes := said.label_id;
  said.label_id := null;
  said.labelled_at := null;
  said.annotator := _decide_label.annotator;
  said.annotator_kind := 'human';
  said.passed := said.passed = agrees;
  said.critique := coalesce(flywheel._filled(_decide_label.critique), case when agrees then said.critique end);
  return flywheel._add_label(said);
end
$function$;
comment on function flywheel._decide_label is 'Internal: put a person''s label in the place of a provisional one; raises WF011.';

create or replace function flywheel.confirm_label(label_id uuid, annotator text, critique text default null) returns uuid
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._decide_label(confirm_label.label_id, confirm_label.annotator, true, confirm_label.critique)
$function$;
comment on function flywheel.confirm_label is
  'Say that a provisional label is right: it becomes a label of the annotator''s, not blind, with the judge''s critique unless another is given. Returns the new label''s id.';

create or replace function flywheel.overturn_label(label_id uuid, annotator text, critique text default null) returns uuid
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._decide_label(overturn_label.label_id, overturn_label.annotator, false, overturn_label.critique)
$function$;
comment on function flywheel.overturn_label is
  'Say that a provisional label is wrong: the opposite verdict becomes a label of the annotator''s, not blind; a fail needs a critique. Returns the new label''s id.';

-- label_verdicts: what judges said is told to whoever has said something themselves. Who acts is the role that was set, if one was.
create or replace function flywheel.label_verdicts(label_id uuid)
returns table (validator text, version integer, passed boolean, confidence double precision, critique text, unscored_reason text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select validators.name, versions.version, scores.passed, scores.confidence, scores.critique, scores.unscored_reason
    from flywheel.labels
    join flywheel.scores on (scores.span_id, scores.started_at, scores.revision) = (labels.span_id, labels.started_at, labels.revision)
    join flywheel.validator_versions as versions on versions.version_id = scores.version_id and flywheel._question_of(versions) = labels.validator_id
    join flywheel.validators on validators.validator_id = versions.validator_id
   where labels.label_id = label_verdicts.label_id
     and (labels.recorded_by = session_user or flywheel._sees_verdicts(coalesce(nullif(current_setting('role'), 'none'), session_user)::name))
   order by scores.scored_at desc, versions.version desc
$function$;
comment on function flywheel.label_verdicts is 'What the versions of a validator say of the revision a label is of, the newest verdict first: to be shown once the label is saved. Nothing of a label that another login recorded, unless the reader is an analyst too.';

-- _imported_label: a span that is gone is replaced by what the line says of it.
create or replace function flywheel._imported_label(line jsonb) returns flywheel.labels
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  given flywheel.labels := jsonb_populate_record(null::flywheel.labels, _imported_label.line - array['validator_id', 'version_id', 'supersedes', 'split', 'recorded_by']);
  span flywheel.spans;
  asked record;
begin
  select * into asked from flywheel._question(_imported_label.line ->> 'validator');
  select * into span from flywheel.spans where spans.span_id = given.span_id order by spans.started_at desc limit 1;
  if span.span_id is null and (given.started_at, given.trace_id, given.project, given.group_key) is null then
    span := flywheel._labelled_span(given.span_id);
  end if;
  given.validator_id := asked.validator_id;
  given.version_id := case when given.revision is not distinct from span.revision or given.revision is null then asked.version_id end;
  given.started_at := coalesce(span.started_at, given.started_at);
  given.trace_id := coalesce(span.trace_id, given.trace_id);
  given.project := coalesce(span.project, given.project);
  given.revision := coalesce(given.revision, span.revision, 1);
  given.group_key := coalesce(given.group_key, flywheel._group_key(span));
  given.annotator_kind := coalesce(given.annotator_kind, 'human');
  given.blind := coalesce(given.blind, true);
  given.adjudicated := coalesce(given.adjudicated, false);
  given.lane := coalesce(given.lane, 'triage');
  given.labelled_at := least(given.labelled_at, now());        -- nobody has the last word for ever
  given.withdrawn := false;
  return given;
end
$function$;
comment on function flywheel._imported_label is 'Internal: a label from one object of a file; raises WF002 and WF010.';

create or replace function flywheel.import_label(label jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  given flywheel.labels := flywheel._imported_label(import_label.label);
begin
  perform flywheel._require_person(given.annotator);
  perform flywheel._lock_subject(given.validator_id, given.span_id);
  if exists (select from flywheel.labels where labels.label_id = given.label_id)
     or exists (select from flywheel._current_labels as current
                 where (current.validator_id, current.span_id, current.revision, current.annotator, current.annotator_kind, current.passed)
                     = (given.validator_id, given.span_id, given.revision, given.annotator, given.annotator_kind, given.passed)
                   and current.critique is not distinct from flywheel._filled(given.critique)) then
    return false;
  end if;
  perform flywheel._add_label(given);
  return true;
end
$function$;
comment on function flywheel.import_label is
  'Record a label from a file: span_id, validator, passed, annotator, and what else an export says of it. False = it is there already. Lane and probability are taken as given.';

select flywheel._grant(role, privilege)
  from unnest(array['flywheel_reviewer', 'flywheel_admin']) as role
 cross join unnest(array[
   'execute on function flywheel.propose_labels(text, integer)',
   'execute on function flywheel.confirm_label(uuid, text, text)',
   'execute on function flywheel.overturn_label(uuid, text, text)',
   'execute on function flywheel.label_verdicts(uuid)']) as privilege;
-- A file may say of a label that it was drawn, or settles a disagreement: whoever imports is believed.
select flywheel._grant('flywheel_admin', 'execute on function flywheel.import_label(jsonb)');
