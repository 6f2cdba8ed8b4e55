-- Roles: they belong to the server, so an installer without CREATEROLE leaves them out and doctor says so.

do $block$
declare
  wanted text;
begin
  foreach wanted in array array['flywheel_writer', 'flywheel_worker', 'flywheel_reviewer', 'flywheel_analyst', 'flywheel_admin'] loop
    if to_regrole(wanted) is null then
      begin
        execute format('create role %I nologin', wanted);
      exception
        when insufficient_privilege then
          raise notice 'role % was not created: the installer lacks CREATEROLE', wanted;
        when duplicate_object or unique_violation then
          null;                                 -- another install made it at the same moment
      end;
    end if;
  end loop;
end
$block$;

-- _grant: a statement about a role that exists; nothing where the installer could not make it.
create or replace function flywheel._grant(role text, privilege text) returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if to_regrole(role) is not null then
    execute format('grant %s to %I', privilege, role);
  end if;
end
$function$;
comment on function flywheel._grant is 'Internal: grant a privilege if the role is there.';
revoke all on function flywheel._grant from public;
