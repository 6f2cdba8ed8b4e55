-- People: whose name may be given where a function asks who acts. The login is session_user: inside of a function that runs as its
-- owner current_user is the owner, and set role changes current_user only.

create or replace function flywheel._login_name() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select session_user::text from flywheel.settings where settings.name = 'people_are_logins' and settings.value = 'true'
$function$;
comment on function flywheel._login_name is 'Internal: the login of the session where names of people are logins; null = any name may be given.';

-- _require_person: an admin acts for others, and could turn the setting off anyway.
create or replace function flywheel._require_person(person text) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  login text := flywheel._login_name();
begin
  if login <> coalesce(person, '') and not coalesce(pg_has_role(login::name, to_regrole('flywheel_admin')::oid, 'member'), false) then
    raise exception using errcode = 'WF011', message = format('%s is logged in and cannot act as %s', login, coalesce(nullif(person, ''), 'nobody')),
      detail = 'Names of people are logins here: settings.people_are_logins is true.',
      hint = format('Give the name %s, or log in as who acts. A login that acts for others, such as an application''s, needs the role flywheel_admin.', login);
  end if;
end
$function$;
comment on function flywheel._require_person is 'Internal: raise WF011 when a login gives another name than its own where settings.people_are_logins says that names are logins; admins may.';

select flywheel._grant(role, 'execute on function flywheel._login_name()') from unnest(array['flywheel_reviewer', 'flywheel_admin']) as role;
