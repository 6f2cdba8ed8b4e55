-- Sign-offs: policies, signing, releasing and revoking examples, and frozen sets of shots.

-- set_example_policy: a looser policy serves what is signed enough by it; a stricter one leaves alone what is servable.
create or replace function flywheel.set_example_policy(project text, sign_off text default 'auto', max_per_user integer default 20)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if sign_off not in ('auto', 'one', 'two') or max_per_user < 1 then
    raise exception using errcode = 'WF009', message = format('a policy of sign-off %s with at most %s per user is not possible', sign_off, max_per_user),
      hint = 'sign_off is auto, one or two; max_per_user is at least 1.';
  end if;
  insert into flywheel.example_policies as known (project, sign_off, max_per_user)
  values (set_example_policy.project, set_example_policy.sign_off, set_example_policy.max_per_user)
    on conflict on constraint example_policies_pkey do update
       set sign_off = excluded.sign_off, max_per_user = excluded.max_per_user, changed_at = now();
  return (select count(*) filter (where flywheel._serve_signed(e.example_id) = 'servable')
            from flywheel.examples as e where e.project = set_example_policy.project and e.status = 'candidate');
end
$function$;
comment on function flywheel.set_example_policy is
  'Say how many people besides the author sign the examples of a project (auto, one, two), and how many one end user may own; returns how many become servable by it.';

-- _serve_signed: enough signatures approve a candidate; what is approved is shown. Whoever signs it now is waited for, and counted.
create or replace function flywheel._serve_signed(example_id uuid) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  needed integer;
  signed integer;
  now_status text;
begin
  perform from flywheel.examples as e where e.example_id = _serve_signed.example_id for no key update;
  select (flywheel._example_policy(e.project)).signers, e.status into needed, now_status
    from flywheel.examples as e where e.example_id = _serve_signed.example_id;
  select count(*) into signed from flywheel.sign_offs
    join flywheel.examples as e using (example_id)
   where sign_offs.example_id = _serve_signed.example_id and sign_offs.signer <> e.author;
  if now_status in ('candidate', 'approved') and signed >= needed then
    now_status := 'servable';
  end if;
  update flywheel.examples as e
     set status = now_status, changed_at = case when e.status <> now_status then now() else e.changed_at end,
         trust = greatest(e.trust, case when signed > 1 then 1 when signed = 1 then 0.8 else 0 end)
   where e.example_id = _serve_signed.example_id and e.status in ('candidate', 'approved');
  return now_status;
end
$function$;
comment on function flywheel._serve_signed is 'Internal: make a candidate servable when it is signed by enough people; returns its status.';

create or replace function flywheel._locked_example(example_id uuid, allowed text[], act text) returns flywheel.examples
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  known flywheel.examples;
begin
  select * into known from flywheel.examples as e where e.example_id = _locked_example.example_id for update;
  if known.example_id is null then
    raise exception using errcode = 'WF012', message = format('there is no example %s', _locked_example.example_id),
      hint = 'List them: pgflywheel examples list.';
  elsif known.status <> all (allowed) then
    raise exception using errcode = 'WF004', message = format('example %s is %s and cannot be %s', known.example_id, known.status, act),
      detail = coalesce(known.quarantined_reason, known.revoked_reason, ''), hint = format('It must be %s.', array_to_string(allowed, ' or '));
  end if;
  return known;
end
$function$;
comment on function flywheel._locked_example is 'Internal: an example in one of some statuses, locked; raises WF012 and WF004.';

create or replace function flywheel._sign(known flywheel.examples, signer text, note text) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require_person(_sign.signer);
  if coalesce(btrim(signer), '') = '' then
    raise exception using errcode = 'WF009', message = 'a sign-off needs the name of who signs';
  end if;
  if signer = known.author and (flywheel._example_policy(known.project)).signers > 0 then
    raise exception using errcode = 'WF011', message = format('%s wrote example %s and cannot sign it', signer, known.example_id),
      hint = 'Let somebody else sign it.';
  end if;
  insert into flywheel.sign_offs (example_id, signer, note) values (known.example_id, _sign.signer, _sign.note)
    on conflict on constraint sign_offs_pkey do update set note = coalesce(excluded.note, sign_offs.note);
  return flywheel._serve_signed(known.example_id);
end
$function$;
comment on function flywheel._sign is 'Internal: record a signature; returns the status of the example.';

create or replace function flywheel.sign_example(example_id uuid, signer text, note text default null) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return flywheel._sign(flywheel._locked_example(sign_example.example_id, array['candidate', 'approved', 'servable'], 'signed'),
    sign_example.signer, sign_example.note);
end
$function$;
comment on function flywheel.sign_example is
  'Sign an example; never its author where the project wants signatures. Returns its status: servable once enough people signed.';

create or replace function flywheel.release_example(example_id uuid, signer text, note text) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  known flywheel.examples := flywheel._locked_example(release_example.example_id, array['quarantined'], 'released');
begin
  update flywheel.examples as e
     set status = 'candidate', quarantined_reason = null, quarantined_detail = null, changed_at = now(), compared_at = now()
   where e.example_id = known.example_id;
  return flywheel._sign(known, release_example.signer, release_example.note);
end
$function$;
comment on function flywheel.release_example is
  'Let an example out of quarantine, which counts as a signature; it is not held back for the same again. Returns its status.';

create or replace function flywheel.example_uses(example_id uuid)
returns table (validator text, version integer, span_id uuid, started_at timestamptz, revision integer, passed boolean, scored_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select validators.name, versions.version, scores.span_id, scores.started_at, scores.revision, scores.passed, scores.scored_at
    from flywheel.scores
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id)
   where scores.shots @> array[example_uses.example_id]
   order by scores.scored_at desc
$function$;
comment on function flywheel.example_uses is 'The scores for which a judge was shown an example.';

-- _judge_again: scores of versions that still judge are deleted and their spans queued, so that they are scored without the example.
create or replace function flywheel._judge_again(example_id uuid) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  work record;
  queued bigint := 0;
begin
  for work in
    with taken as (
      delete from flywheel.scores
       using flywheel.validator_versions as versions
       where scores.shots @> array[_judge_again.example_id] and versions.version_id = scores.version_id and versions.status in ('active', 'shadow')
      returning scores.version_id, scores.span_id, scores.started_at, versions.lane
    )
    select taken.version_id, taken.lane, array_agg(taken.span_id) as span_ids, min(taken.started_at) as earliest, max(taken.started_at) as latest
      from taken group by taken.version_id, taken.lane
  loop
    perform flywheel._enqueue(work.lane, 2::smallint, array[work.version_id], work.span_ids, work.earliest, work.latest, 'replay');
    queued := queued + cardinality(work.span_ids);
  end loop;
  if queued > 0 then
    perform flywheel._wake();
  end if;
  return queued;
end
$function$;
comment on function flywheel._judge_again is 'Internal: queue the spans that were scored with an example; returns how many.';

-- revoke_example: a judge pinned to a set that holds it stops, since what was signed can no longer be shown.
create or replace function flywheel.revoke_example(example_id uuid, reason text, requeue boolean default false) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  known flywheel.examples := flywheel._locked_example(revoke_example.example_id,
    array['candidate', 'approved', 'servable', 'quarantined', 'revoked'], 'revoked');
  touched bigint;
begin
  if coalesce(btrim(reason), '') = '' then
    raise exception using errcode = 'WF009', message = format('example %s is revoked without a reason', known.example_id), hint = 'Say why, in a few words.';
  end if;
  update flywheel.examples as e set status = 'revoked', revoked_reason = revoke_example.reason, changed_at = now() where e.example_id = known.example_id;
  perform flywheel._set_status(versions.version_id, 'paused', 'shot_set', format('example %s of its frozen set is revoked', known.example_id))
     from flywheel.validator_versions as versions
     join flywheel.shot_sets on shot_sets.shot_set = versions.definition #>> '{shots,shot_set}'
    where versions.status = 'active' and known.example_id = any (shot_sets.example_ids);
  select count(*) into touched from flywheel.scores where scores.shots @> array[known.example_id];
  if requeue then
    perform flywheel._judge_again(known.example_id);
  end if;
  return touched;
end
$function$;
comment on function flywheel.revoke_example is
  'Never show an example again; returns how many scores it touched. requeue: judge their spans again by the versions that still judge. A judge whose frozen set holds it is paused.';

create or replace function flywheel._content_of(example_ids uuid[]) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select encode(sha256(convert_to(string_agg(concat_ws(E'\x1f', e.example_id, e.input, e.output, e.corrected_output, e.passed, e.critique), E'\x1e' order by listed.place), 'UTF8')), 'hex')
    from unnest(example_ids) with ordinality as listed(example_id, place) join flywheel.examples as e using (example_id)
$function$;
comment on function flywheel._content_of is 'Internal: a hash of everything a list of examples says.';

create or replace function flywheel.freeze_shots(name text, validator text, example_ids uuid[], signer text, note text default null) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  question uuid := flywheel._question_of(flywheel._find_version(freeze_shots.validator, null));
  wrong uuid;
  hash text := flywheel._content_of(freeze_shots.example_ids);
begin
  perform flywheel._require_person(freeze_shots.signer);
  perform from flywheel.examples as e where e.example_id = any (freeze_shots.example_ids) order by e.example_id for key share;  -- revoked before or after
  wrong := (select listed.example_id from unnest(freeze_shots.example_ids) as listed(example_id)
             where not exists (select from flywheel.examples as e where e.example_id = listed.example_id and e.status = 'servable' and e.validator_id = question)
             limit 1);
  if coalesce(btrim(name), '') = '' or coalesce(btrim(signer), '') = '' or cardinality(example_ids) is distinct from (select count(distinct each) from unnest(example_ids) as each) then
    raise exception using errcode = 'WF009', message = format('shot set %s needs a name, a signer and different examples', freeze_shots.name);
  elsif wrong is not null then
    raise exception using errcode = 'WF012', message = format('example %s is no servable example of validator %s', wrong, freeze_shots.validator),
      hint = 'Freeze what may be shown: pgflywheel examples list --status servable.';
  end if;
  insert into flywheel.shot_sets (shot_set, validator_id, example_ids, content_hash, note, signed_by)
  values (freeze_shots.name, question, freeze_shots.example_ids, hash, freeze_shots.note, freeze_shots.signer)
      on conflict do nothing;
  if not found then
    raise exception using errcode = 'WF004', message = format('shot set %s is there already', freeze_shots.name),
      detail = 'What was signed does not change.', hint = 'Freeze the new choice under another name.';
  end if;
  return hash;
end
$function$;
comment on function flywheel.freeze_shots is
  'Sign a set of examples in the order they are to be shown; a judge with shots.shot_set = name shows these and no others. Returns the hash of their content.';

-- _frozen_shots: what was signed, or an error that says why it cannot be shown.
create or replace function flywheel._frozen_shots(shot_set text) returns uuid[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  known flywheel.shot_sets;
  lost uuid;
begin
  select * into known from flywheel.shot_sets as sets where sets.shot_set = _frozen_shots.shot_set;
  select listed.example_id into lost from unnest(known.example_ids) as listed(example_id)
   where not exists (select from flywheel.examples as e where e.example_id = listed.example_id and e.status = 'servable') limit 1;
  if lost is not null then
    raise exception using errcode = 'WF004', message = format('shot set %s cannot be shown: example %s is no longer servable', _frozen_shots.shot_set, lost),
      hint = 'Freeze another set and give the judge a version that names it.';
  end if;
  return known.example_ids;
end
$function$;
comment on function flywheel._frozen_shots is 'Internal: the examples of a frozen set; raises WF004 when one of them may not be shown any more.';

select flywheel._grant('flywheel_admin', 'execute on function ' || act.oid::regprocedure)
  from pg_catalog.pg_proc as act
 where act.pronamespace = 'flywheel'::regnamespace
   and act.proname in ('set_example_policy', 'sign_example', 'release_example', 'revoke_example', 'example_uses', 'freeze_shots');
select flywheel._grant(role, 'select on flywheel.sign_offs, flywheel.shot_sets, flywheel.example_policies')
  from unnest(array['flywheel_admin', 'flywheel_reviewer']) as role;
select flywheel._grant('flywheel_admin', 'select on flywheel.examples');
select flywheel._grant('flywheel_reviewer', 'execute on function flywheel.sign_example(uuid, text, text)');
