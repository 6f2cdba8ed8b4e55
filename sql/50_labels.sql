-- Labels: what people say of a span. They copy what they need: they outlive their span.

create or replace function flywheel._refuse_label(problem text, hint text, detail text default null) returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if _refuse_label.detail is null then
    raise exception using errcode = 'WF011', message = problem, hint = hint;
  end if;
  raise exception using errcode = 'WF011', message = problem, hint = hint, detail = _refuse_label.detail;
end
$function$;
comment on function flywheel._refuse_label is 'Internal: raise WF011 in one form.';

create or replace function flywheel._labelled_span(span_id uuid) returns flywheel.spans
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  found_span flywheel.spans;
begin
  select * into found_span from flywheel.spans where spans.span_id = _labelled_span.span_id order by spans.started_at desc limit 1;
  if found_span.span_id is null then
    raise exception using errcode = 'WF010', message = format('there is no span %s', _labelled_span.span_id),
      hint = 'A purged day takes its spans along; their labels stay.';
  end if;
  return found_span;
end
$function$;
comment on function flywheel._labelled_span is 'Internal: the span with an id; raises WF010.';

-- _question: labels belong to a question, whichever of its validators was named.
create or replace function flywheel._question(name text, out validator_id uuid, out version_id uuid, out definition jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._question_of(found), found.version_id, found.definition from flywheel._find_version(_question.name, null) as found
$function$;
comment on function flywheel._question is 'Internal: the validator whose labels a validator goes by, and its newest wording; raises WF002.';

create or replace function flywheel._subject_lock(validator_id uuid, span_id uuid) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select hashtextextended(concat_ws(' ', validator_id, span_id), 'flywheel'::regnamespace::oid::bigint)
$function$;
comment on function flywheel._subject_lock is 'Internal: key of the advisory lock of a span under a question.';

-- _lock_subject: what is believed of a span is decided by one label at a time.
create or replace function flywheel._lock_subject(validator_id uuid, span_id uuid) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select pg_advisory_xact_lock(flywheel._subject_lock(validator_id, span_id))
$function$;
comment on function flywheel._lock_subject is 'Internal: hold what is said of a span under a question until the end of the transaction.';

-- _try_subject: for who would rather leave a span alone than wait for whoever labels it.
create or replace function flywheel._try_subject(validator_id uuid, span_id uuid) returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select pg_try_advisory_xact_lock(flywheel._subject_lock(validator_id, span_id))
$function$;
comment on function flywheel._try_subject is 'Internal: as _lock_subject, but false at once where somebody else labels the span.';

-- _add_label: the one insert. Whoever labels again replaces their own label and stays in the draw it came from.
-- An old snapshot does not show what was said since it was taken, so two people would differ and nobody would know.
create or replace function flywheel._add_label(said flywheel.labels) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  own flywheel.labels;
begin
  if said.passed is null then
    perform flywheel._refuse_label('a label says neither pass nor fail', 'Pass true or false; leave a span you cannot decide with defer_label().');
  elsif flywheel._filled(said.annotator) is null then
    perform flywheel._refuse_label('a label has no annotator', 'Name who says it.');
  elsif not said.passed and not said.withdrawn and said.annotator_kind = 'human' and flywheel._filled(said.critique) is null then
    perform flywheel._refuse_label('a label that says fail has no critique', 'Say in a sentence what is wrong: judges learn from it.');
  elsif said.incl_prob < 1e-9 then
    perform flywheel._refuse_label(format('a span is not drawn with probability %s', said.incl_prob), 'Give the probability of its draw, above 1e-9.');
  elsif current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    perform flywheel._refuse_label(format('a label cannot be recorded in a %s transaction', current_setting('transaction_isolation')),
      'Begin with: set transaction isolation level read committed.', 'It would not see what others said of the span meanwhile.');
  end if;
  select labels.* into own
    from flywheel._current_labels as mine join flywheel.labels using (label_id)
   where (mine.validator_id, mine.span_id, mine.revision, mine.annotator, mine.annotator_kind)
       = (said.validator_id, said.span_id, said.revision, said.annotator, said.annotator_kind)
   order by mine.label_id desc limit 1;
  if own.label_id is not null then
    said.supersedes := own.label_id;
    said.adjudicated := said.adjudicated or own.adjudicated;
    if own.lane = 'estimation' and said.lane <> 'estimation' then
      said.lane := own.lane; said.incl_prob := own.incl_prob; said.stratum := own.stratum;
    end if;
  end if;
  insert into flywheel.labels (label_id, validator_id, version_id, span_id, started_at, revision, trace_id, project, annotator, annotator_kind,
    passed, critique, blind, adjudicated, lane, incl_prob, stratum, group_key, split, supersedes, withdrawn, labelled_at)
  values (coalesce(said.label_id, flywheel.new_id()), said.validator_id, said.version_id, said.span_id, said.started_at, said.revision, said.trace_id,
    said.project, said.annotator, said.annotator_kind, said.passed, flywheel._filled(said.critique), said.blind, said.adjudicated, said.lane,
    said.incl_prob, said.stratum, said.group_key, flywheel._split(said.group_key), said.supersedes, said.withdrawn,
    coalesce(said.labelled_at, now()))
  returning labels.label_id into said.label_id;
  perform flywheel._settle_items(said.validator_id, said.span_id, said.revision);
  return said.label_id;
end
$function$;
comment on function flywheel._add_label is 'Internal: write a label over the annotator''s own earlier one, and settle the items of its span; raises WF011.';

-- _blank_label: what every label of a span says, whoever writes it.
create or replace function flywheel._blank_label(span flywheel.spans, validator_id uuid, version_id uuid) returns flywheel.labels
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  blank flywheel.labels;
begin
  blank.validator_id := _blank_label.validator_id;
  blank.version_id := _blank_label.version_id;
  blank.span_id := span.span_id;
  blank.started_at := span.started_at;
  blank.revision := span.revision;
  blank.trace_id := span.trace_id;
  blank.project := span.project;
  blank.group_key := flywheel._group_key(span);
  blank.annotator_kind := 'human';
  blank.blind := true;
  blank.adjudicated := false;
  blank.lane := 'triage';
  blank.withdrawn := false;
  return blank;
end
$function$;
comment on function flywheel._blank_label is 'Internal: a label of a span without its verdict.';

-- _claimed_item: the item a label is an answer to. One that is not claimed is nobody's answer, so its label is triage.
create or replace function flywheel._claimed_item(item_id uuid, validator_id uuid, span flywheel.spans, reviewer text) returns flywheel._label_items
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  item flywheel._label_items;
begin
  select items.* into item
    from flywheel._label_items as items join flywheel._label_claims as claims using (item_id)
   where items.validator_id = _claimed_item.validator_id and items.span_id = span.span_id and claims.reviewer = _claimed_item.reviewer
     and claims.state = 'leased' and items.closed_at is null and items.item_id = coalesce(_claimed_item.item_id, items.item_id)
   order by items.lane, items.item_id limit 1
     for update of items, claims;                    -- given to somebody else meanwhile, it is no longer theirs
  if _claimed_item.item_id is not null and item.item_id is null then
    perform flywheel._refuse_label(format('item %s is not held by %s', _claimed_item.item_id, _claimed_item.reviewer),
      'Claim it again: select * from flywheel.claim_labels(validator, reviewer).', 'Its lease ended, or it is of another span or validator.');
  elsif _claimed_item.item_id is not null and item.revision <> span.revision then
    perform flywheel._refuse_label(format('span %s has changed since it was claimed', span.span_id),
      'Claim it again and read what it says now.', format('Revision %s was shown, revision %s is current.', item.revision, span.revision));
  end if;
  return case when item.revision = span.revision then item end;
end
$function$;
comment on function flywheel._claimed_item is 'Internal: the item a reviewer holds for a span; null = none; raises WF011 when the one named is not held.';

-- _settle_items: an item is closed when it has its labels and they agree, or one settled them; labels that
-- disagree make it (or a new one) an item for somebody who has not said anything yet.
create or replace function flywheel._settle_items(validator_id uuid, span_id uuid, revision integer) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._label_items (item_id, validator_id, span_id, started_at, revision, lane, wanted, adjudication, components, priority)
  select flywheel.new_id(), gold.validator_id, gold.span_id, gold.started_at, gold.revision, 'triage', 2, true, '{"disagreement": 1}', 1
    from flywheel.gold_labels as gold
   where (gold.validator_id, gold.span_id, gold.revision) = (_settle_items.validator_id, _settle_items.span_id, _settle_items.revision)
     and gold.disputed
     and not exists (select from flywheel._label_items as items
                      where (items.validator_id, items.span_id, items.revision) = (gold.validator_id, gold.span_id, gold.revision))
      on conflict do nothing;
  update flywheel._label_items as items
     set adjudication = said.complete and said.disputed,
         closed_at = case when said.complete and not said.disputed then coalesce(items.closed_at, now()) end
    from (select every.item_id,
                 count(labels.label_id) filter (where every.lane = 'triage' or labels.lane = 'estimation') >= every.wanted as complete,
                 count(distinct labels.passed) > 1 and not coalesce(bool_or(labels.adjudicated), false) as disputed
            from flywheel._label_items as every
            left join flywheel._current_labels as labels
              on (labels.validator_id, labels.span_id, labels.revision, labels.annotator_kind)
               = (every.validator_id, every.span_id, every.revision, 'human')
           where (every.validator_id, every.span_id, every.revision) = (_settle_items.validator_id, _settle_items.span_id, _settle_items.revision)
           group by every.item_id) as said
   where said.item_id = items.item_id
     and (items.adjudication, items.closed_at is null)
         is distinct from (said.complete and said.disputed, not (said.complete and not said.disputed));
end
$function$;
comment on function flywheel._settle_items is 'Internal: close, reopen or hand on the items of a span after its labels changed.';

create or replace function flywheel.record_label(span_id uuid, validator text, passed boolean, annotator text,
  critique text default null, blind boolean default true, item_id uuid default null)
returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  span flywheel.spans := flywheel._labelled_span(record_label.span_id);
  asked record;
  item flywheel._label_items;
  said flywheel.labels;
begin
  perform flywheel._require_person(record_label.annotator);
  select * into asked from flywheel._question(record_label.validator);
  perform flywheel._lock_subject(asked.validator_id, span.span_id);
  item := flywheel._claimed_item(record_label.item_id, asked.validator_id, span, record_label.annotator);
  said := flywheel._blank_label(span, asked.validator_id, asked.version_id);
  said.passed := record_label.passed;
  said.annotator := record_label.annotator;
  said.critique := record_label.critique;
  said.blind := coalesce(record_label.blind, true);
  if item.item_id is not null then
    said.lane := item.lane;
    said.incl_prob := item.incl_prob;
    said.stratum := item.stratum;
    said.adjudicated := item.adjudication;
    update flywheel._label_claims as claims set state = 'done', leased_until = null, changed_at = now()
     where (claims.item_id, claims.reviewer) = (item.item_id, record_label.annotator);
  end if;
  return flywheel._add_label(said);
end
$function$;
comment on function flywheel.record_label is
  'Say whether the current revision of a span passes a validator. A fail needs a critique. blind = no judge''s verdict was seen. Lane and probability come from the claimed item; without one the label is triage. Returns the label''s id.';

-- _own_label: a label somebody else gave is not theirs to change: two opinions are a finding.
create or replace function flywheel._own_label(label_id uuid, annotator text) returns flywheel.labels
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  own flywheel.labels;
begin
  perform flywheel._require_person(_own_label.annotator);
  select * into own from flywheel.labels where labels.label_id = _own_label.label_id;
  if own.label_id is null then
    perform flywheel._refuse_label(format('there is no label %s', _own_label.label_id), 'List them: select * from flywheel.current_labels.');
  end if;
  perform flywheel._lock_subject(own.validator_id, own.span_id);
  if own.annotator_kind = 'judge' then
    perform flywheel._refuse_label(format('label %s is a judge''s', own.label_id), 'Use confirm_label() or overturn_label().');
  elsif own.annotator is distinct from _own_label.annotator then
    perform flywheel._refuse_label(format('label %s is by %s, not by %s', own.label_id, own.annotator, coalesce(_own_label.annotator, 'nobody')),
      'Record a label of your own; where two people differ a third one settles it.');
  elsif own.withdrawn or not exists (select from flywheel._current_labels as current where current.label_id = own.label_id) then
    perform flywheel._refuse_label(format('label %s was replaced or withdrawn already', own.label_id), 'Change the current one: select * from flywheel.current_labels.');
  end if;
  return own;
end
$function$;
comment on function flywheel._own_label is 'Internal: a current label of its annotator; raises WF011.';

create or replace function flywheel.relabel(label_id uuid, passed boolean, annotator text, critique text default null) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  said flywheel.labels := flywheel._own_label(relabel.label_id, relabel.annotator);
begin
  said.label_id := null;
  said.labelled_at := null;
  said.passed := relabel.passed;
  said.critique := relabel.critique;
  return flywheel._add_label(said);
end
$function$;
comment on function flywheel.relabel is 'Replace a label of one''s own by another one, also when its span is gone. Returns the new label''s id.';

create or replace function flywheel.withdraw_label(label_id uuid, annotator text) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  said flywheel.labels := flywheel._own_label(withdraw_label.label_id, withdraw_label.annotator);
begin
  said.label_id := null;
  said.labelled_at := null;
  said.withdrawn := true;
  update flywheel._label_claims as claims set state = 'deferred', changed_at = now()
    from flywheel._label_items as items
   where items.item_id = claims.item_id and claims.reviewer = said.annotator and claims.state = 'done'
     and (items.validator_id, items.span_id, items.revision) = (said.validator_id, said.span_id, said.revision);
  return flywheel._add_label(said);
end
$function$;
comment on function flywheel.withdraw_label is 'Take a label of one''s own back; its item waits for a reviewer again. Returns the id of the record of it.';

select flywheel._grant(role, privilege)
  from unnest(array['flywheel_reviewer', 'flywheel_admin']) as role
 cross join unnest(array[
   'execute on function flywheel.record_label(uuid, text, boolean, text, text, boolean, uuid)',
   'execute on function flywheel.relabel(uuid, boolean, text, text)',
   'execute on function flywheel.withdraw_label(uuid, text)',
   'execute on function flywheel.new_id()']) as privilege;
