-- What an analyst reads, and logins that are analysts. After all grants, because it takes some of them back.

-- Content stays with admins: of a view that has some, an analyst reads the other columns.
do $block$
declare
  holding record;
begin
  for holding in
    select relations.oid::regclass as name,
           string_agg(quote_ident(attname), ', ' order by attnum) filter (where attname <> all (flywheel._content_columns())) as others
      from pg_catalog.pg_class as relations join pg_catalog.pg_attribute on attrelid = relations.oid
     where to_regrole('flywheel_analyst') is not null and relations.relnamespace = 'flywheel'::regnamespace and relations.relkind in ('r', 'p', 'v')
       and relations.relname <> 'rollup_status'                    -- its attributes are names of dimensions
       and attnum > 0 and not attisdropped and has_column_privilege('flywheel_analyst', relations.oid, attname, 'select')
     group by relations.oid having bool_or(attname = any (flywheel._content_columns()))
  loop
    execute format('revoke select on %s from flywheel_analyst', holding.name);
    execute format('grant select (%s) on %s to flywheel_analyst', holding.others, holding.name);
  end loop;
end
$block$;

-- So does what an analyst may not read, though it has a flat view.
do $block$
declare
  apart regclass;
begin
  for apart in
    select flat.oid
      from pg_catalog.pg_class as flat
      left join pg_catalog.pg_class as source on source.relnamespace = 'flywheel'::regnamespace and source.relname = flat.relname
     where to_regrole('flywheel_analyst') is not null and flat.relnamespace = 'flywheel_bi'::regnamespace
       and (flat.relname like 'content\_%'
            or flat.relname not in ('spans', 'scores') and not has_any_column_privilege('flywheel_analyst', source.oid, 'select'))
  loop
    execute format('revoke all on %s from flywheel_analyst', apart);
  end loop;
end
$block$;

-- The limits of a session that logs in as the role itself. A member has its own: make_analyst().
do $block$
begin
  if not exists (select from pg_catalog.pg_db_role_setting where setrole = to_regrole('flywheel_analyst') and setdatabase = 0) then
    alter role flywheel_analyst set statement_timeout = '30s';
    alter role flywheel_analyst set default_transaction_read_only = on;
  end if;
exception
  when insufficient_privilege or undefined_object or unique_violation or internal_error then
    null;                                       -- not ours to set, or another install sets it at this moment
end
$block$;

-- make_analyst: settings are read at login, and from the login's own, never from the roles it is a member of.
create or replace function flywheel.make_analyst(login text, time_limit interval default '30 seconds') returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  limit_ms bigint := round(extract(epoch from time_limit) * 1000);
  setting text;
begin
  if not exists (select from pg_roles where rolname = login and rolcanlogin and not rolsuper) then
    raise exception using errcode = 'WF009', message = format('%s is no login that can be an analyst', coalesce(login, 'null')),
      detail = 'It has to be there, be allowed to log in, and be no superuser.', hint = format('Create it first: create role %I login password ''…''.', coalesce(login, 'name'));
  end if;
  if coalesce(limit_ms not between 1 and 2147483647, true) then
    raise exception using errcode = 'WF009', message = format('a statement cannot be limited to %s', coalesce(time_limit::text, 'null')),
      detail = 'Without a limit one query can hold back the vacuum of the queue.', hint = 'Give an interval of at least a millisecond, such as 30 seconds.';
  end if;
  execute format('grant flywheel_analyst to %I', login);
  foreach setting in array array[
    format('statement_timeout = %L', limit_ms), 'default_transaction_read_only = on', 'idle_in_transaction_session_timeout = ''5min''',
    'enable_partitionwise_join = on',           -- a filter by time names days of scores: of spans no others are read then
    'work_mem = ''32MB''']                        -- a month by the hour is counted without files
  loop
    execute format('alter role %I in database %I set %s', login, current_database(), setting);
  end loop;
end
$function$;
comment on function flywheel.make_analyst is
  'Make a login an analyst of this database from its next session on: a member of the role, read-only, every statement limited to time_limit, with what large reads of few rows need (work_mem, enable_partitionwise_join). Needs CREATEROLE and admin of the login.';
revoke all on function flywheel.make_analyst from public;
