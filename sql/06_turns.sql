-- Turns: chores that one transaction at a time may do. A turn is the lock of a table that is always empty, which only its
-- owner can take: an advisory lock, whose key is no secret, can be held by any login for as long as it likes.
-- Who wants several takes them in the order maintenance, purge, fold, clusters. A lock needs no transaction id.

create or replace function flywheel._win_turn(chore text, waits boolean) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  execute format('lock table flywheel.%I in share update exclusive mode%s', '_turn_' || chore, case when waits then '' else ' nowait' end);
  return true;
exception
  when lock_not_available then
    if waits then
      raise;
    end if;
    return false;
end
$function$;
comment on function flywheel._win_turn is
  'Internal: be the only one to do a chore until the end of the transaction; waits for the turn, or returns false while another one has it.';
revoke all on function flywheel._win_turn from public;
select flywheel._grant('flywheel_worker', 'execute on function flywheel._win_turn(text, boolean)');
