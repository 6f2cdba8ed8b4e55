-- Purge: whole days are dropped; the day that holds `before` stays.
--
-- Who drops a day must have it alone, and a statement somebody wrote may hold scores and then want spans. So the locks are
-- taken within half of the time after which anybody looks for a deadlock: when they are not given by then, purge is the one
-- to let go of all it has, and tries again. Until then others wait no longer than that either.

-- _lock_days: in the order in which writers lock: a span, its scores, the run, and what judging leaves.
create or replace function flywheel._lock_days(before timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  patience constant double precision := least(500, (select setting::double precision / 2 from pg_settings where name = 'deadlock_timeout'));
  began constant timestamptz := clock_timestamp();
  wanted record;
begin
  for wanted in
    select format('only flywheel.%I', each.relation) as name, 'access exclusive' as mode, each.place, 1 as part, null::date as day
      from unnest(flywheel._relations()) with ordinality as each(relation, place)
     where exists (select from flywheel._partitions as parts
                    where parts.relation = each.relation and flywheel._day_start(parts.day + 1) <= _lock_days.before)
     union all
    select format('flywheel.%I', parts.partition), 'access exclusive', array_position(flywheel._relations(), parts.relation), 2, parts.day
      from flywheel._partitions as parts where flywheel._day_start(parts.day + 1) <= _lock_days.before
     union all
    select format('flywheel.%I', each.relation || '_default'), 'exclusive', each.place, 3, null
      from unnest(flywheel._relations()) with ordinality as each(relation, place)
     union all
    select 'flywheel.feedback, flywheel._faults, flywheel._escalations, flywheel._dead', 'exclusive', 100, 4, null
     order by 3, 4, 5
  loop
    perform set_config('lock_timeout', greatest(1, patience - 1000 * extract(epoch from clock_timestamp() - began))::integer::text, true);
    execute format('lock table %s in %s mode', wanted.name, wanted.mode);
  end loop;
end
$function$;
comment on function flywheel._lock_days is 'Internal: have all that purge() drops or deletes to oneself, or raise lock_not_available before anybody looks for a deadlock.';

create or replace function flywheel._drop_days(before timestamptz)
returns table (relation text, partition text, day date)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  cut_day date := (_drop_days.before at time zone 'UTC')::date;
  day_is_cut boolean;
begin
  perform flywheel._lock_days(_drop_days.before);
  perform set_config('lock_timeout', '100', true);    -- a row somebody holds: with all this in hand nobody waits for long
  for relation, partition, day in
    select parts.relation, parts.partition, parts.day
      from flywheel._partitions as parts
     where flywheel._day_start(parts.day + 1) <= _drop_days.before
     order by array_position(flywheel._relations(), parts.relation), parts.day
  loop
    execute format('drop table flywheel.%I', partition);
    return next;
  end loop;
  day_is_cut := not isfinite(_drop_days.before)
    or exists (select from flywheel.spans_default where started_at >= flywheel._day_start(cut_day) and started_at < _drop_days.before)
    or exists (select from flywheel.scores_default where started_at >= flywheel._day_start(cut_day) and started_at < _drop_days.before);
  delete from flywheel.spans_default where started_at < _drop_days.before;
  delete from flywheel.scores_default where started_at < _drop_days.before;
  delete from flywheel.run_log_default where started_at < _drop_days.before;
  delete from flywheel.calls_default where started_at < _drop_days.before;
  delete from flywheel.span_embeddings_default where started_at < _drop_days.before;
  delete from flywheel.feedback where created_at < _drop_days.before;
  delete from flywheel._faults where occurred_at < _drop_days.before;
  delete from flywheel._escalations where started_at < _drop_days.before;
  delete from flywheel._dead as dead
   where dead.started_until < _drop_days.before
     and not exists (select from flywheel.spans where spans.span_id = any (dead.span_ids) and spans.started_at between dead.started_from and dead.started_until);
  perform flywheel._forget_before(_drop_days.before);
  perform flywheel._forget_members(_drop_days.before);
  if day_is_cut then
    perform flywheel._rebuild_rollups(cut_day);
  end if;
end
$function$;
comment on function flywheel._drop_days is 'Internal: one try of purge().';

-- _interrupt_vacuum: autovacuum steps aside for whoever waited for deadlock_timeout, so somebody has to: with nothing in hand.
create or replace function flywheel._interrupt_vacuum(before timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  part regclass;
begin
  for part in
    select distinct held.relation::regclass
      from pg_locks as held join pg_class on pg_class.oid = held.relation and pg_class.relnamespace = 'flywheel'::regnamespace
      left join flywheel._partitions as parts on parts.partition = pg_class.relname
     where held.locktype = 'relation' and held.database = (select oid from pg_database where datname = current_database())
       and held.mode = 'ShareUpdateExclusiveLock' and held.granted and held.pid <> pg_backend_pid()
       and (flywheel._day_start(parts.day + 1) <= _interrupt_vacuum.before or pg_class.relname = any (select unnest(flywheel._relations()) || '_default'))
  loop
    begin
      perform set_config('lock_timeout', ((select setting::integer from pg_settings where name = 'deadlock_timeout') + 200)::text, true);
      execute format('lock table %s in access exclusive mode', part);
      raise lock_not_available;                 -- to let go of it
    exception
      when lock_not_available or undefined_table then
        null;
    end;
  end loop;
end
$function$;
comment on function flywheel._interrupt_vacuum is 'Internal: have autovacuum leave tables that purge() waits for.';

create or replace function flywheel.purge(before timestamptz)
returns table (relation text, partition text, day date)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  former constant text := current_setting('lock_timeout');
  until timestamptz;
begin
  perform flywheel._win_turn('purge', true);     -- a second purge looks when the first is done
  perform flywheel._win_turn('fold', true);      -- a fold would wait for a table that is dropped
  perform flywheel._win_turn('clusters', true);  -- so would who forms clusters
  until := clock_timestamp() + make_interval(secs => flywheel._setting('purge_wait_seconds'));
  loop
    begin
      return query select * from flywheel._drop_days(purge.before);
      perform set_config('lock_timeout', former, true);
      return;
    exception
      when lock_not_available or deadlock_detected then
        if clock_timestamp() > until then
          raise exception using errcode = 'lock_not_available', message = 'the days cannot be dropped while spans or scores are in use',
            detail = format('A lock was not given within %s seconds (settings.purge_wait_seconds); nothing was dropped.', flywheel._setting('purge_wait_seconds')),
            hint = 'Look for long transactions: pgflywheel doctor, or select * from pg_stat_activity order by xact_start.';
        end if;
    end;
    perform flywheel._interrupt_vacuum(purge.before);
    perform pg_sleep(0.2 + 0.3 * random());       -- whoever stood behind us goes first
  end loop;
end
$function$;
comment on function flywheel.purge is
  'Drop the days of spans, scores, runs, calls and embeddings of spans that ended before a time, and older feedback and dead jobs; returns the partitions dropped. While somebody uses them it lets go and tries again, for settings.purge_wait_seconds.';
