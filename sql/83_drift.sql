-- Drift: what every test writes, and the watch on pass rates.
--
-- A monitor is a slice of one validator version: a new version is a new monitor. It learns how often the slice fails, then
-- two CUSUMs add up evidence for twice as many fails and for half as many. docs/explanation/drift.md has the reasons.

-- _take_turn: work that takes longer than a statement is done by one worker at a time; who dies leaves it for the next.
create or replace function flywheel._take_turn(name text, seconds double precision) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._drift_turns as turns (name, taken_until)
  values (_take_turn.name, clock_timestamp() + make_interval(secs => _take_turn.seconds))
      on conflict on constraint _drift_turns_pkey do update set taken_until = excluded.taken_until
   where turns.taken_until <= clock_timestamp();
  return found;
end
$function$;
comment on function flywheel._take_turn is 'Internal: take some work for so many seconds, unless another has it.';

-- _slice_text: names come from applications, so odd ones are quoted.
create or replace function flywheel._slice_text(project text, environment text, node text, release text) returns text
language sql immutable parallel safe security invoker
begin atomic
  select concat_ws(', ', 'project ' || quote_ident(project), 'environment ' || quote_ident(environment),
                   'node ' || quote_ident(node), 'release ' || quote_ident(release));
end;
comment on function flywheel._slice_text is 'Internal: a slice in words; null is left out.';

create or replace function flywheel._version_text(version_id uuid) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select format('%s version %s', validators.name, versions.version)
    from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
   where versions.version_id = _version_text.version_id
$function$;
comment on function flywheel._version_text is 'Internal: a validator version in words.';

-- _note_drift: the same window tested again is the same row. Numbers that are no numbers are unknown.
create or replace function flywheel._note_drift(test flywheel.drift_tests) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  insert into flywheel.drift_tests as known
  select md5(jsonb_build_array(test.kind, test.subject, test.slice, test.version_id, test.window_from)::text)::uuid, clock_timestamp(), test.kind, test.subject,
         test.slice, test.project, test.version_id, test.window_from, test.window_until, test.reference_from, test.reference_until,
         nullif(test.statistic, 'NaN'), nullif(test.threshold, 'NaN'), nullif(test.effect, 'NaN'), test.n_reference, test.n_current,
         test.drifted, coalesce(test.evidence, '{}')
      on conflict on constraint drift_tests_pkey do update
     set (tested_at, window_until, reference_from, reference_until, statistic, threshold, effect, n_reference, n_current, drifted, evidence)
       = (excluded.tested_at, excluded.window_until, excluded.reference_from, excluded.reference_until, excluded.statistic, excluded.threshold,
          excluded.effect, excluded.n_reference, excluded.n_current, excluded.drifted, excluded.evidence)
$function$;
comment on function flywheel._note_drift is 'Internal: write a test; test_id and tested_at are filled in.';

-- _watched_slices: what monitors could be about, with what was judged there since.
create or replace function flywheel._watched_slices(grain text, since timestamptz, until timestamptz)
returns table (monitor_id uuid, version_id uuid, project text, environment text, node text, release text, bucket timestamptz, passed bigint, failed bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select md5(jsonb_build_array(counts.version_id, counts.project, cut.environment, cut.node, cut.release)::text)::uuid,
         counts.version_id, counts.project, cut.environment, cut.node, cut.release, counts.bucket, sum(counts.passed)::bigint, sum(counts.failed)::bigint
    from (select coalesce((select settings.value from flywheel.settings where settings.name = 'drift_by'), '[]') as by) as wanted
   cross join flywheel._score_counts as counts
    join flywheel.validator_versions as versions on versions.version_id = counts.version_id and versions.status = 'active'
   cross join lateral (select case when wanted.by ? 'environment' then counts.environment end as environment, case when wanted.by ? 'node' then counts.node end as node,
                              case when wanted.by ? 'release' then coalesce(counts.release, '') end as release) as cut
   where counts.grain = _watched_slices.grain and counts.bucket >= _watched_slices.since and counts.bucket < _watched_slices.until and counts.reason = ''
   group by 1, 2, 3, 4, 5, 6, 7
$function$;
comment on function flywheel._watched_slices is 'Internal: verdicts of active versions by monitor and bucket.';

-- watch_by: monitors of other slices than before end; those of the new ones learn first. Who advances monitors now is waited for: it
-- may be adding some.
create or replace function flywheel.watch_by(dimensions text[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  wrong text := (select coalesce(quote_literal(given.name), 'null') from unnest(dimensions) as given(name)
                  where coalesce(given.name not in ('environment', 'node', 'release'), true) limit 1);
begin
  perform flywheel._require(dimensions is not null, 'pass rates cannot be watched by null', 'Watch by any of environment, node and release, or by project alone: {}.');
  perform flywheel._require(coalesce(array_ndims(dimensions), 1) = 1, format('pass rates cannot be watched by lists of lists: %s', dimensions),
    'Give one list of names: {environment,node}.');
  perform flywheel._require(wrong is null, format('pass rates cannot be watched by %s', wrong),
    'Watch by any of environment, node and release, or by project alone: {}.');
  perform flywheel._win_turn('monitors', true);
  update flywheel.settings set value = to_jsonb(dimensions) where settings.name = 'drift_by' and settings.value <> to_jsonb(dimensions);
  if found then
    delete from flywheel._monitors;
  end if;
end
$function$;
comment on function flywheel.watch_by is
  'Watch pass rates by these dimensions too (environment, node, release), not by project alone; all monitors begin anew. By release, each release learns what is usual for itself.';

-- _add_monitors: the largest slices first. What was judged before is what is usual; from this minute on is watched.
create or replace function flywheel._add_monitors() returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with found as materialized (
    select slices.monitor_id, slices.version_id, slices.project, slices.environment, slices.node, slices.release, sum(slices.passed + slices.failed) as n
      from flywheel._watched_slices('day', date_trunc('day', now(), 'UTC') - interval '48 hours', now()) as slices
     where not exists (select from flywheel._monitors as known where known.monitor_id = slices.monitor_id)
     group by 1, 2, 3, 4, 5, 6 having sum(slices.passed + slices.failed) > 0
     order by n desc
     limit greatest(0, flywheel._setting('drift_monitors')::integer - (select count(*) from flywheel._monitors))
  ), before as (
    select days.* from flywheel._watched_slices('day', date_trunc('day', now(), 'UTC') - interval '720 hours', date_trunc('day', now(), 'UTC')) as days
     where exists (select from found)
     union all
    select minutes.* from flywheel._watched_slices('minute', date_trunc('day', now(), 'UTC'), date_trunc('minute', now())) as minutes
     where exists (select from found)
  ), added as (
    insert into flywheel._monitors (monitor_id, version_id, project, environment, node, release, counted_from, baseline_n, baseline_failed)
    select found.monitor_id, found.version_id, found.project, found.environment, found.node, found.release, date_trunc('minute', now()),
           coalesce(sum(before.passed + before.failed), 0), coalesce(sum(before.failed), 0)
      from found left join before using (monitor_id)
     group by 1, 2, 3, 4, 5, 6
        on conflict do nothing
    returning 1
  )
  select count(*)::integer from added
$function$;
comment on function flywheel._add_monitors is 'Internal: begin to watch slices that are new; returns how many.';

-- _fresh_minutes: verdicts of closed minutes that were not counted yet. Those that came late count now; those taken away
-- are forgotten without evidence for the better.
create or replace function flywheel._fresh_minutes()
returns table (monitor_id uuid, minute timestamptz, passed bigint, failed bigint, new_passed bigint, new_failed bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select slices.monitor_id, slices.bucket, slices.passed, slices.failed,
         greatest(0, slices.passed - coalesce(counted.passed, 0)), greatest(0, slices.failed - coalesce(counted.failed, 0))
    from flywheel._watched_slices('minute', now() - make_interval(hours => flywheel._setting('drift_late_hours')::integer), date_trunc('minute', now())) as slices
    join flywheel._monitors as monitors on monitors.monitor_id = slices.monitor_id and monitors.counted_from <= slices.bucket
    left join flywheel._monitor_minutes as counted on (counted.monitor_id, counted.minute) = (slices.monitor_id, slices.bucket)
   where (slices.passed, slices.failed) is distinct from (counted.passed, counted.failed)
$function$;
comment on function flywheel._fresh_minutes is 'Internal: minutes of monitors in which verdicts came or went since they were counted.';

-- _run_cusum: minute after minute. The order inside of a minute is not known, so its verdicts are one step. At the
-- threshold the statistic is held: it alarms until passes have brought it back to 0.
create or replace function flywheel._run_cusum(before flywheel._cusums, passes bigint[], fails bigint[]) returns flywheel._cusums
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  after flywheel._cusums := before;
begin
  for place in 1 .. cardinality(passes) loop
    after.statistic := least(after.threshold, flywheel.cusum_step(after.statistic, fails[place], passes[place], after.q0, after.q1));
    after.seen := case when after.statistic > 0 then after.seen + passes[place] + fails[place] else 0 end;
    after.failed := case when after.statistic > 0 then after.failed + fails[place] else 0 end;
    after.alarmed_at := case when after.statistic >= after.threshold then coalesce(after.alarmed_at, now())
                             when after.statistic > 0 then after.alarmed_at end;
  end loop;
  after.stepped_at := now();
  return after;
end
$function$;
comment on function flywheel._run_cusum is 'Internal: a CUSUM after some minutes, in order of time.';

-- _fit_monitors: the usual rate is known from a few hundred verdicts only, so each side takes the limit that makes false
-- alarms rarer. It learns on up to 3,000 verdicts, and its limit follows the number of verdicts and of monitors once a day.
create or replace function flywheel._fit_monitors(most integer) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  budget double precision := flywheel._setting('drift_false_alarms_per_month');
  watched integer := greatest(1, 2 * (select count(*) from flywheel._monitors where baseline_n >= flywheel._setting('drift_baseline')));
  due uuid[] := array(
    select monitors.monitor_id from flywheel._monitors as monitors
     where monitors.baseline_n >= flywheel._setting('drift_baseline')
       and (monitors.fitted_n is null or monitors.baseline_n >= 1.5 * monitors.fitted_n or monitors.fitted_at < now() - interval '1 day')
     order by monitors.fitted_at nulls first, monitors.monitor_id limit most);
begin
  if cardinality(due) = 0 then
    return 0;
  end if;
  update flywheel._monitors as monitors
     set fitted_n = monitors.baseline_n, fitted_at = now(), items_per_month = greatest(1, volume.n / volume.days * 30.44)
    from (select wanted.monitor_id, coalesce(sum(slices.passed + slices.failed), 0) as n,
                 greatest(1, least(7, extract(epoch from now() - min(slices.bucket)) / 86400)) as days
            from unnest(due) as wanted(monitor_id)
            left join flywheel._watched_slices('day', date_trunc('day', now(), 'UTC') - interval '168 hours', now()) as slices using (monitor_id)
           group by 1) as volume
   where volume.monitor_id = monitors.monitor_id;
  insert into flywheel._cusums as known (monitor_id, direction, q0, q1, threshold)
  select monitors.monitor_id, rates.direction, rates.q0, rates.q1,
         flywheel.cusum_limit(rates.q0, rates.q1, monitors.items_per_month, watched, budget)
    from flywheel._monitors as monitors
   cross join lateral flywheel._cusum_rates(monitors.baseline_failed, monitors.baseline_n) as rates
   where monitors.monitor_id = any (due)
      on conflict on constraint _cusums_pkey do update
     set (q0, q1, threshold, statistic) = (excluded.q0, excluded.q1, excluded.threshold,
           case when known.alarmed_at is null then least(known.statistic, excluded.threshold * 0.999) else least(known.statistic, excluded.threshold) end);
  return cardinality(due);
end
$function$;
comment on function flywheel._fit_monitors is 'Internal: compute rates and limits of monitors that learned enough; returns of how many.';

create or replace function flywheel._cusum_rates(failed bigint, n bigint) returns table (direction text, q0 double precision, q1 double precision)
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select 'more fails', usual.high, least(0.95, 2 * usual.high)
    from (select greatest(0.005, (failed + 0.5) / (n + 1.0), wilson.high) as high from flywheel.wilson_interval(failed, n, 0.8) as wilson) as usual
   where usual.high <= 0.9
  union all
  select 'fewer fails', usual.low, usual.low / 2
    from (select least(0.98, wilson.low) as low from flywheel.wilson_interval(failed, n, 0.8) as wilson) as usual
   where usual.low >= 0.01
$function$;
comment on function flywheel._cusum_rates is
  'Internal: what is usual and what is to be noticed, from an 80 % interval of the fail rate; where hardly anything fails, nobody watches for less, where hardly anything passes, nobody for more.';

-- _step_monitors: count, step and learn in one statement, so that all three see the same verdicts. Nothing is learned while
-- evidence for a change is more than half of what an alarm takes.
create or replace function flywheel._step_monitors() returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with fresh as materialized (
    select * from flywheel._fresh_minutes()
  ), counted as (
    insert into flywheel._monitor_minutes as known (monitor_id, minute, passed, failed)
    select fresh.monitor_id, fresh.minute, fresh.passed, fresh.failed from fresh
        on conflict on constraint _monitor_minutes_pkey do update set (passed, failed) = (excluded.passed, excluded.failed)
  ), told as materialized (
    select fresh.monitor_id, array_agg(fresh.new_passed order by fresh.minute) as passes, array_agg(fresh.new_failed order by fresh.minute) as fails,
           sum(fresh.new_passed + fresh.new_failed)::bigint as n, sum(fresh.new_failed)::bigint as failed
      from fresh group by 1
  ), moved as materialized (
    select after.* from flywheel._cusums as cusums join told on told.monitor_id = cusums.monitor_id
     cross join lateral flywheel._run_cusum(cusums, told.passes, told.fails) as after
  ), stepped as (
    update flywheel._cusums as cusums
       set (statistic, seen, failed, alarmed_at, stepped_at) = (moved.statistic, moved.seen, moved.failed, moved.alarmed_at, moved.stepped_at)
      from moved where (moved.monitor_id, moved.direction) = (cusums.monitor_id, cusums.direction)
  ), learned as (
    update flywheel._monitors as monitors
       set baseline_n = monitors.baseline_n + told.n, baseline_failed = monitors.baseline_failed + told.failed
      from told
     where told.monitor_id = monitors.monitor_id and monitors.baseline_n < 3000
       and not exists (select from moved where moved.monitor_id = monitors.monitor_id and (moved.alarmed_at is not null or moved.statistic > moved.threshold / 2))
  )
  select count(*)::integer from told
$function$;
comment on function flywheel._step_monitors is 'Internal: bring all monitors up to the last closed minute; returns how many moved.';

create or replace function flywheel._note_monitors(since timestamptz) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._note_drift(row(null, null, 'cusum', format('%s, %s', flywheel._version_text(monitors.version_id), cusums.direction),
           flywheel._slice_text(monitors.project, monitors.environment, monitors.node, monitors.release), monitors.project, monitors.version_id,
           date_trunc('day', now(), 'UTC'), date_trunc('minute', now()), null, monitors.counted_from, cusums.statistic, cusums.threshold,
           cusums.failed / nullif(cusums.seen, 0)::double precision - monitors.baseline_failed::double precision / monitors.baseline_n,
           monitors.baseline_n, cusums.seen, cusums.alarmed_at is not null,
           jsonb_build_object('direction', cusums.direction, 'usual_fail_rate', monitors.baseline_failed::double precision / monitors.baseline_n, 'q0', cusums.q0,
             'q1', cusums.q1, 'failed', cusums.failed, 'alarmed_at', cusums.alarmed_at, 'verdicts_a_month', monitors.items_per_month))::flywheel.drift_tests)
    from flywheel._cusums as cusums join flywheel._monitors as monitors using (monitor_id)
   where cusums.stepped_at >= _note_monitors.since
$function$;
comment on function flywheel._note_monitors is 'Internal: write the tests of the monitors that moved.';

-- _advance_drift: one at a time; who comes second leaves it to the first.
create or replace function flywheel._advance_drift() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  touched integer;
begin
  if not flywheel._win_turn('monitors', false) then
    return 0;
  end if;
  delete from flywheel._monitors as monitors using flywheel.validator_versions as versions
   where versions.version_id = monitors.version_id and versions.status not in ('active', 'paused');
  touched := flywheel._add_monitors() + flywheel._step_monitors();
  perform flywheel._note_monitors(now());
  touched := touched + flywheel._fit_monitors(50);
  delete from flywheel._monitor_minutes where minute < now() - make_interval(hours => flywheel._setting('drift_late_hours')::integer + 1);
  return touched;
end
$function$;
comment on function flywheel._advance_drift is 'Internal: watch the verdicts that came since; returns how many monitors were touched.';

-- drift_status: monitors nobody has looked at for eight days, and those of versions that run no more, are over.
create or replace view flywheel.drift_status as
  select latest.tested_at, latest.kind, latest.subject, latest.slice, latest.project, validators.name as validator, versions.version,
         latest.window_from, latest.window_until, latest.reference_from, latest.reference_until, latest.statistic, latest.threshold, latest.effect,
         latest.n_reference, latest.n_current, latest.drifted, latest.evidence
    from (select distinct on (tests.kind, tests.subject, tests.slice, tests.version_id) tests.*
            from flywheel.drift_tests as tests
           where tests.tested_at > now() - interval '8 days'
           order by tests.kind, tests.subject, tests.slice, tests.version_id, tests.window_from desc nulls last, tests.tested_at desc) as latest
    left join flywheel.validator_versions as versions using (version_id)
    left join flywheel.validators using (validator_id)
   where latest.version_id is null or versions.status in ('active', 'paused');
comment on view flywheel.drift_status is 'The latest test of each monitor, with how large the difference is and on how many rows.';
comment on column flywheel.drift_status.tested_at is 'When, the last time.';
comment on column flywheel.drift_status.kind is 'cusum, psi, js, ks, embedding_mmd, domain_classifier, novelty or sentinels.';
comment on column flywheel.drift_status.subject is 'What was tested.';
comment on column flywheel.drift_status.slice is 'Of which spans.';
comment on column flywheel.drift_status.project is 'Their project.';
comment on column flywheel.drift_status.validator is 'The validator; null = none is concerned.';
comment on column flywheel.drift_status.version is 'Its version.';
comment on column flywheel.drift_status.window_from is 'Start of the window that was tested.';
comment on column flywheel.drift_status.window_until is 'Its end.';
comment on column flywheel.drift_status.reference_from is 'Start of what it was compared with.';
comment on column flywheel.drift_status.reference_until is 'Its end.';
comment on column flywheel.drift_status.statistic is 'The statistic; null = not enough data.';
comment on column flywheel.drift_status.threshold is 'From where on it says drift; null = it is shown only.';
comment on column flywheel.drift_status.effect is 'Size of the difference: of a cusum, fail rate since the change began, less what is usual.';
comment on column flywheel.drift_status.n_reference is 'Rows it was compared with.';
comment on column flywheel.drift_status.n_current is 'Rows of the window; of a cusum, verdicts since the evidence was last 0.';
comment on column flywheel.drift_status.drifted is 'Whether it says drift; null = not enough data, or it is shown only.';
comment on column flywheel.drift_status.evidence is 'What else there is to see.';

select flywheel._grant(role, 'select on flywheel.drift_tests, flywheel.drift_status') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_admin', 'execute on function flywheel.watch_by(text[])');
select flywheel._grant('flywheel_worker', 'execute on function flywheel._advance_drift(), flywheel._take_turn(text, double precision),
  flywheel._note_drift(flywheel.drift_tests)');
