-- Validators: define, approve, activate, shadow, pause, retire.

-- define_validator: the same definition again changes nothing; a new one is a new draft version.
create or replace function flywheel.define_validator(name text, definition jsonb)
returns table (validator text, version integer, status text, content_hash text, changed boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  whole jsonb := flywheel._whole_definition(define_validator.definition);
  hash text := encode(sha256(convert_to(whole::text, 'UTF8')), 'hex');
  problem text := coalesce(flywheel._definition_problem(whole), flywheel._reference_problem(define_validator.name, whole));
  owner_id uuid;
  made flywheel.validator_versions;
begin
  if not coalesce(name ~ '^[a-z][a-z0-9_]{0,62}$', false) then
    problem := 'its name is not lower-case letters, digits and underscores';
  end if;
  if problem is not null then
    perform flywheel._reject_definition(name, problem, 'See the keys of a definition in docs/reference/validators.md.');
  end if;
  perform flywheel._require_runnable(name, whole);
  insert into flywheel.validators as known (validator_id, name) values (flywheel.new_id(), define_validator.name)
    on conflict on constraint validator_name_is_unique do update set name = excluded.name  -- locks the row: versions are numbered one by one
    returning known.validator_id into owner_id;
  insert into flywheel.validator_versions
         (version_id, validator_id, version, definition, content_hash, kind, target, lane, action, severity, sample)
  select flywheel.new_id(), owner_id, 1 + coalesce(max(versions.version), 0), whole, hash, whole ->> 'kind', whole ->> 'target',
         whole ->> 'lane', whole ->> 'action', whole ->> 'severity', (whole ->> 'sample')::double precision
    from flywheel.validator_versions as versions where versions.validator_id = owner_id
      on conflict on constraint validator_version_content_is_new do nothing
  returning * into made;
  changed := made.version_id is not null;
  if not changed then
    select * into made from flywheel.validator_versions as versions
     where versions.validator_id = owner_id and versions.content_hash = hash;
  end if;
  return query select define_validator.name, made.version, made.status, hash, changed;
end
$function$;
comment on function flywheel.define_validator is
  'Store a definition as a new draft version of a validator; a definition it already has changes nothing.';

-- _find_version: the version meant by a name and an optional number; otherwise the newest, a retired one only if all are.
create or replace function flywheel._find_version(name text, version integer) returns flywheel.validator_versions
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  found_version flywheel.validator_versions;
begin
  select versions.* into found_version
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
   where validators.name = _find_version.name
     and (versions.version = _find_version.version or _find_version.version is null)
   order by versions.status = 'retired', versions.version desc
   limit 1;
  if found_version.version_id is null then
    raise exception using errcode = 'WF002',
      message = format('there is no validator %s%s', _find_version.name, ' version ' || _find_version.version),
      hint = 'List them: select * from flywheel.validator_status.';
  end if;
  return found_version;
end
$function$;
comment on function flywheel._find_version is 'Internal: a version by name and number (null = the newest, one not retired if there is one); raises WF002.';

-- _set_status: the one UPDATE behind every act; the trigger on it checks, records and recompiles.
create or replace function flywheel._set_status(wanted_id uuid, wanted text, reason text, detail text)
returns setof flywheel.version_status
language sql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
  update flywheel.validator_versions as versions
     set status = wanted, paused_reason = reason, paused_detail = detail
    from flywheel.validators
   where versions.version_id = wanted_id and validators.validator_id = versions.validator_id
  returning validators.name, versions.version, versions.status
$function$;
comment on function flywheel._set_status is 'Internal: give one version a status.';

create or replace function flywheel._require_status(name text, found_version flywheel.validator_versions, allowed text[], act text) returns void
language plpgsql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if found_version.status <> all (allowed) then
    raise exception using errcode = 'WF004',
      message = format('version %s of validator %s is %s and cannot be %s', found_version.version, name, found_version.status, act),
      hint = format('It must be %s.', array_to_string(allowed, ' or '));
  end if;
end
$function$;
comment on function flywheel._require_status is 'Internal: raise WF004 unless a version has one of the statuses.';

create or replace function flywheel.approve_validator(name text, version integer default null)
returns setof flywheel.version_status
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(approve_validator.name, approve_validator.version);
begin
  perform flywheel._require_status(approve_validator.name, chosen, array['draft', 'approved'], 'approved');
  return query select * from flywheel._set_status(chosen.version_id, 'approved', null, null);
end
$function$;
comment on function flywheel.approve_validator is 'Approve a draft; it may then be activated.';

-- _lock_validator: acts that touch several versions of a validator wait for one another here, before they lock any.
create or replace function flywheel._lock_validator(name text) returns void
language sql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select from flywheel.validators where validators.name = _lock_validator.name for no key update
$function$;
comment on function flywheel._lock_validator is 'Internal: keep other acts on a validator waiting until the end of the transaction.';

-- activate_validator: one active version a validator; the trigger on the status retires the one before it.
create or replace function flywheel.activate_validator(name text, version integer default null)
returns setof flywheel.version_status
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(activate_validator.name, activate_validator.version);
begin
  perform flywheel._lock_validator(activate_validator.name);
  return query select * from flywheel._set_status(chosen.version_id, 'active', null, null);
end
$function$;
comment on function flywheel.activate_validator is
  'Let a version (default: the newest) judge new spans from the next statement on; approves a draft, resumes a paused one, retires the version before it.';

create or replace function flywheel.shadow_validator(name text, version integer default null)
returns setof flywheel.version_status
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(shadow_validator.name, shadow_validator.version);
begin
  return query select * from flywheel._set_status(chosen.version_id, 'shadow', null, null);
end
$function$;
comment on function flywheel.shadow_validator is 'Let a version judge new spans for show: its scores stand apart and it blocks nothing.';

create or replace function flywheel.pause_validator(name text, reason text)
returns setof flywheel.version_status
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions;
begin
  perform flywheel._find_version(pause_validator.name, null);
  select versions.* into chosen
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
   where validators.name = pause_validator.name and versions.status in ('active', 'paused');
  if chosen.version_id is null then
    raise exception using errcode = 'WF004', message = format('validator %s is not active', pause_validator.name),
      hint = 'Only an active validator can be paused.';
  end if;
  return query select * from flywheel._set_status(chosen.version_id, 'paused', 'manual', pause_validator.reason);
end
$function$;
comment on function flywheel.pause_validator is
  'Stop the active version from the next statement on and hold its queued jobs; activate_validator() resumes it.';

create or replace function flywheel.retire_validator(name text)
returns setof flywheel.version_status
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._find_version(retire_validator.name, null);
  perform flywheel._lock_validator(retire_validator.name);
  return query
    select done.* from flywheel.validator_versions as versions
      join flywheel.validators using (validator_id)
     cross join lateral flywheel._set_status(versions.version_id, 'retired', null, null) as done
     where validators.name = retire_validator.name and versions.status <> 'retired';
end
$function$;
comment on function flywheel.retire_validator is 'End every version of a validator; its scores stay, its queued jobs are finished.';
