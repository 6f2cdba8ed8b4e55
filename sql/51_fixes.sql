-- Fixes: what people say an output should have been. They copy what they need, as labels do.

create or replace function flywheel.record_fix(span_id uuid, output text, annotator text, validator text default null,
  wrong text default null, why text default null)
returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  span flywheel.spans := flywheel._labelled_span(record_fix.span_id);
  made uuid := flywheel.new_id();
  asked uuid;
begin
  perform flywheel._require_person(record_fix.annotator);
  if record_fix.validator is not null then
    select question.validator_id into asked from flywheel._question(record_fix.validator) as question;
  end if;
  perform flywheel._lock_subject(asked, span.span_id);      -- of two fixes at once, one is the newer
  if flywheel._filled(record_fix.annotator) is null then
    perform flywheel._refuse_label('a fix has no annotator', 'Name who says it.');
  elsif flywheel._filled(record_fix.output) is null then
    perform flywheel._refuse_label('a fix has no output', 'Give the whole text that the output should have been.');
  elsif record_fix.output = span.output then
    perform flywheel._refuse_label(format('the fix of span %s is what its output says already', span.span_id), 'Nothing to fix: record a label that says pass.');
  end if;
  insert into flywheel.fixes (fix_id, validator_id, span_id, started_at, revision, trace_id, project, annotator, output, wrong, why, group_key, split)
  values (made, asked, span.span_id, span.started_at, span.revision, span.trace_id, span.project, record_fix.annotator, record_fix.output,
          flywheel._filled(record_fix.wrong), flywheel._filled(record_fix.why), flywheel._group_key(span), flywheel._split(flywheel._group_key(span)));
  return made;
end
$function$;
comment on function flywheel.record_fix is
  'Say what the output of a span should have been, what was wrong and why; validator = the question it failed, null = none in particular. Returns the fix''s id.';

select flywheel._grant(role, 'execute on function flywheel.record_fix(uuid, text, text, text, text, text)')
  from unnest(array['flywheel_reviewer', 'flywheel_admin']) as role;
