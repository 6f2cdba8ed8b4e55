-- Status: what one UPDATE of validator_versions.status sets off.

-- _retire_others: a validator asks one question, so a version that becomes active replaces the one before it.
create or replace function flywheel._retire_others(chosen flywheel.validator_versions) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform from flywheel.validators where validators.validator_id = chosen.validator_id for no key update;  -- one activation at a time
  update flywheel.validator_versions as others set status = 'retired'
   where others.validator_id = chosen.validator_id and others.version_id <> chosen.version_id and others.status in ('active', 'paused');
end
$function$;
comment on function flywheel._retire_others is 'Internal: retire the active or paused version of the same validator.';

-- _check_status: a version's content never changes; its status moves along known ways.
create or replace function flywheel._check_status() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  validator_name text := (select validators.name from flywheel.validators where validators.validator_id = old.validator_id);
begin
  if (new.version_id, new.validator_id, new.version, new.definition, new.content_hash, new.kind, new.target, new.lane, new.action, new.severity, new.sample)
     is distinct from
     (old.version_id, old.validator_id, old.version, old.definition, old.content_hash, old.kind, old.target, old.lane, old.action, old.severity, old.sample) then
    raise exception using errcode = 'WF008', message = format('version %s of validator %s cannot be changed', old.version, validator_name),
      hint = 'Define a new version: select flywheel.define_validator(name, definition).';
  end if;
  if new.status = old.status then
    return new;
  end if;
  if not (old.status, new.status) in (
    ('draft', 'approved'), ('draft', 'active'), ('draft', 'shadow'), ('draft', 'retired'),
    ('approved', 'active'), ('approved', 'shadow'), ('approved', 'retired'),
    ('shadow', 'active'), ('shadow', 'approved'), ('shadow', 'retired'), ('active', 'shadow'), ('active', 'paused'), ('active', 'retired'),
    ('paused', 'active'), ('paused', 'shadow'), ('paused', 'retired'), ('retired', 'active'), ('retired', 'shadow')) then
    raise exception using errcode = 'WF004',
      message = format('version %s of validator %s is %s and cannot become %s', old.version, validator_name, old.status, new.status),
      hint = 'The ways are draft, approved, active or shadow, paused, retired.';
  end if;
  if new.status in ('approved', 'active', 'shadow') and new.approved_at is null then
    new.approved_by := session_user;            -- who activates a draft approves it
    new.approved_at := now();
  end if;
  if new.status in ('active', 'shadow') and new.lane = 'inline' then
    perform flywheel._require_fast(validator_name, new.definition);
  end if;
  if new.status = 'active' then
    perform flywheel._retire_others(new);
  end if;
  new.paused_reason := case when new.status = 'paused' then coalesce(new.paused_reason, 'manual') end;
  new.paused_detail := case when new.status = 'paused' then new.paused_detail end;
  new.changed_at := clock_timestamp();
  return new;
end
$function$;
comment on function flywheel._check_status is 'Internal: guard the content and the status of a version.';

-- _record_activation: accounts and reconciler ask whether a span came while its validator was judging.
create or replace function flywheel._record_activation() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if old.status in ('active', 'shadow') and new.status not in ('active', 'shadow') then
    update flywheel._activations as activations set ended_at = new.changed_at
     where activations.version_id = new.version_id and activations.ended_at is null;
  elsif old.status not in ('active', 'shadow') and new.status in ('active', 'shadow') then
    insert into flywheel._activations (version_id, started_at) values (new.version_id, new.changed_at);
  end if;
  if old.status = 'paused' and new.status <> 'paused' then
    perform flywheel._resume_held(new.version_id);
  end if;
  return null;
end
$function$;
comment on function flywheel._record_activation is 'Internal: record since and until when a version judges new spans.';

-- _check_setting: a chunk of 0 spans would end every insert of the application in an error. What `db upgrade` wrote, it
-- believes: the names of what it may drop are in a setting.
create or replace function flywheel._check_setting() returns trigger
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if jsonb_typeof(old.value) = 'boolean' then
    if jsonb_typeof(new.value) <> 'boolean' then
      raise exception using errcode = 'WF009', message = format('setting %s is %s, neither true nor false', new.name, new.value),
        hint = 'Give true or false.';
    end if;
  elsif jsonb_typeof(old.value) <> 'number' then
    if not pg_has_role((select relowner from pg_class where oid = 'flywheel.settings'::regclass), 'usage') then
      raise exception using errcode = 'WF009', message = format('setting %s cannot be changed', old.name),
        detail = 'It is a record that db upgrade keeps.';
    end if;
  elsif jsonb_typeof(new.value) <> 'number' or new.value not between '1' and '1000000000' then
    raise exception using errcode = 'WF009', message = format('setting %s is %s, not a number from 1 to 1000000000', new.name, new.value);
  end if;
  return new;
end
$function$;
comment on function flywheel._check_setting is 'Internal: refuse a setting that is not of its kind or too small, and changes of the installer''s records.';

create or replace function flywheel._recompile() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel.compile_dispatch();
  return null;
end
$function$;
comment on function flywheel._recompile is 'Internal: a status or setting changed, so the dispatch is generated again.';

create or replace trigger check_status before update on flywheel.validator_versions
  for each row execute function flywheel._check_status();
create or replace trigger record_activation after update of status on flywheel.validator_versions
  for each row execute function flywheel._record_activation();
create or replace trigger recompile after update of status on flywheel.validator_versions
  for each statement execute function flywheel._recompile();
create or replace trigger check_setting before update on flywheel.settings
  for each row execute function flywheel._check_setting();
create or replace trigger recompile after update on flywheel.settings
  for each statement execute function flywheel._recompile();

select flywheel.compile_dispatch();

create or replace trigger dispatch_insert after insert on flywheel.spans
  referencing new table as new_spans
  for each statement execute function flywheel._dispatch_insert();
create or replace trigger dispatch_update after update on flywheel.spans
  referencing old table as old_spans new table as new_spans
  for each statement execute function flywheel._dispatch_update();

-- guard: ask before calling the model, or before showing its answer.
create or replace function flywheel.guard(project text, node text, target text, text text, environment text default 'production')
returns table (validator text, version integer, action text, severity text, passed boolean, value double precision,
               critique text, unscored_reason text, detail text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if target is null or target not in ('input', 'output') then
    raise exception using errcode = 'WF009', message = format('target is %s, neither input nor output', coalesce(target, 'null'));
  end if;
  return query
    select answers.* from flywheel._guard(jsonb_populate_record(null::flywheel.spans, jsonb_build_object(
      'span_id', gen_random_uuid(), 'trace_id', gen_random_uuid(), 'project', guard.project, 'environment', guard.environment,
      'node', guard.node, 'node_kind', 'other', 'status', 'ok', 'started_at', now(), 'attributes', '{}'::jsonb, 'revision', 1,
      guard.target, guard.text))) as answers;
end
$function$;
comment on function flywheel.guard is
  'Ask every active inline validator of a project and node about a text (target input or output); one row each, nothing is written. A row with action block and passed false means: do not go on.';
