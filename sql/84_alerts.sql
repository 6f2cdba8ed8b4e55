-- Alerts: one open row for each rule and slice; opened, seen again, closed by itself, told to people.
--
--   firing for `hold` --> open --clear for `clear_hold`--> closed --fires again within an hour--> the same one open again

-- _open_alert: two evaluators may come here at once; the index lets one of them in.
create or replace function flywheel._open_alert(watched flywheel.alert_rules, slice jsonb, reading jsonb, at timestamptz)
returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  touched uuid;
begin
  update flywheel.alerts as known
     set last_seen_at = greatest(known.last_seen_at, at), value = (reading ->> 'value')::double precision, threshold = (reading ->> 'threshold')::double precision,
         effect = (reading ->> 'effect')::double precision, n = (reading ->> 'n')::bigint, evidence = coalesce(reading -> 'evidence', '{}'), severity = watched.severity
   where known.rule = watched.rule and known.slice = _open_alert.slice and known.closed_at is null;
  if found then
    return '[]';
  end if;
  update flywheel.alerts as known
     set closed_at = null, closed_because = null, reopened = known.reopened + 1, incident_id = null, last_seen_at = at, changed_at = clock_timestamp(),
         value = (reading ->> 'value')::double precision, effect = (reading ->> 'effect')::double precision, n = (reading ->> 'n')::bigint, evidence = coalesce(reading -> 'evidence', '{}')
   where known.alert_id = (select closed.alert_id from flywheel.alerts as closed
                            where (closed.rule, closed.metric) = (watched.rule, watched.metric) and closed.slice = _open_alert.slice and closed.closed_because = 'cleared' and closed.closed_at > at - interval '1 hour'
                            order by closed.closed_at desc limit 1)
  returning known.alert_id into touched;
  if found then
    return jsonb_build_array(jsonb_build_object('alert_id', touched, 'state', 'reopened'));
  end if;
  insert into flywheel.alerts (alert_id, rule, metric, severity, slice, opened_at, last_seen_at, value, threshold, effect, n, evidence, snoozed_until, snoozed_by)
  select flywheel.new_id(), watched.rule, watched.metric, watched.severity, _open_alert.slice, at, at, (reading ->> 'value')::double precision, (reading ->> 'threshold')::double precision,
         (reading ->> 'effect')::double precision, (reading ->> 'n')::bigint, coalesce(reading -> 'evidence', '{}'), earlier.snoozed_until, earlier.snoozed_by
    from (select) as one
    left join lateral (select old.snoozed_until, old.snoozed_by from flywheel.alerts as old      -- who wants no messages of it wants none of the next
                        where old.rule = watched.rule and old.slice = _open_alert.slice and old.snoozed_until > at order by old.snoozed_until desc limit 1) as earlier on true
      on conflict do nothing
  returning alerts.alert_id into touched;
  return case when touched is null then '[]' else jsonb_build_array(jsonb_build_object('alert_id', touched, 'state', 'opened')) end;
end
$function$;
comment on function flywheel._open_alert is 'Internal: open the alert of a slice, or say that it still fires; returns what is to be told.';

create or replace function flywheel._close_alerts(rule text, slices jsonb, because text, at timestamptz) returns jsonb
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with closed as (
    update flywheel.alerts as known set closed_at = greatest(at, known.opened_at), closed_because = because, changed_at = clock_timestamp()
     where known.rule = _close_alerts.rule and known.closed_at is null and known.slice in (select jsonb_array_elements(slices))
    returning known.alert_id
  )
  select coalesce(jsonb_agg(jsonb_build_object('alert_id', closed.alert_id, 'state', 'closed')), '[]') from closed
$function$;
comment on function flywheel._close_alerts is 'Internal: close the open alerts of some slices; returns what is to be told.';

-- _alert_reading_rows: only slices that fire, or of which something is known; the other ten thousand leave no trace. A level
-- whose subject is gone is clear; of a rate without rows nothing is known.
create or replace function flywheel._alert_reading_rows(watched flywheel.alert_rules, at timestamptz, out readings jsonb, out slices bigint)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with found as materialized (
    select * from flywheel._alert_readings((watched).rule, (watched).definition, at)
  ), open as materialized (
    select known.slice, known.last_seen_at from flywheel.alerts as known where known.rule = (watched).rule and known.closed_at is null and not known.slice ?| array['others', 'problem']
  ), rows as (
    select found.slice, to_jsonb(found) as reading from found
     where found.firing or found.slice in (select open.slice from open)
        or exists (select from flywheel._alert_states as states where states.rule = (watched).rule and states.slice = found.slice)
    union all
    select open.slice, jsonb_build_object('slice', open.slice, 'firing', case when (watched).metric in ('backlog_seconds', 'dead_spans', 'budget_used', 'judge_standing', 'drift') then false end)
      from open where not exists (select from found where found.slice = open.slice)
  )
  select coalesce(jsonb_agg(rows.reading order by (rows.reading ->> 'effect')::double precision desc nulls last), '[]'), (select count(*) from found) from rows
$function$;
comment on function flywheel._alert_reading_rows is 'Internal: the readings of a rule that may change anything, and how many slices it has.';

-- _note_states: since when a slice fires or is clear. Nothing known changes nothing; a clock set back shortens no hold.
create or replace function flywheel._note_states(watched flywheel.alert_rules, readings jsonb, at timestamptz) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  insert into flywheel._alert_states as states (rule, slice, firing_since, clear_since)
  select (watched).rule, reading -> 'slice', case when (reading ->> 'firing')::boolean then at end, case when not (reading ->> 'firing')::boolean then at end
    from jsonb_array_elements(readings) as reading
   where (reading ->> 'firing') is not null
      on conflict on constraint _alert_states_pkey do update
     set firing_since = case when excluded.firing_since is not null then least(states.firing_since, at) end,
         clear_since = case when excluded.clear_since is not null then least(states.clear_since, at) end
$function$;
comment on function flywheel._note_states is 'Internal: keep since when slices of a rule fire or are clear.';

-- _open_due: the worst slices open an alert each; what is beyond the limit is one alert together.
create or replace function flywheel._open_due(watched flywheel.alert_rules, readings jsonb, at timestamptz) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  told jsonb := '[]';
  free bigint;
  beyond jsonb := '[]';
  reading jsonb;
begin
  select flywheel._setting('alerts_per_rule') - count(*) into free from flywheel.alerts as known
   where known.rule = watched.rule and known.closed_at is null and not known.slice ?| array['others', 'problem'];
  for reading in
    select given.reading from jsonb_array_elements(readings) with ordinality as given(reading, place)
      join flywheel._alert_states as states on states.rule = watched.rule and states.slice = given.reading -> 'slice'
     where (given.reading ->> 'firing')::boolean and at - states.firing_since >= flywheel._alert_interval(watched.definition, 'hold')
     order by given.place
  loop
    if exists (select from flywheel.alerts as known where known.rule = watched.rule and known.slice = reading -> 'slice' and known.closed_at is null) then
      told := told || flywheel._open_alert(watched, reading -> 'slice', reading, at);
    elsif free > 0 then
      told := told || flywheel._open_alert(watched, reading -> 'slice', reading, at);
      free := free - 1;
    else
      beyond := beyond || jsonb_build_array(reading -> 'slice');
    end if;
  end loop;
  if beyond <> '[]' then
    return told || flywheel._open_alert(watched, '{"others": ""}', jsonb_build_object('value', null, 'n', jsonb_array_length(beyond),
      'evidence', jsonb_build_object('slices', jsonb_array_length(beyond), 'some', jsonb_path_query_array(beyond, '$[0 to 9]'))), at);
  end if;
  return told || flywheel._close_alerts(watched.rule, '[{"others": ""}]', 'cleared', at);
end
$function$;
comment on function flywheel._open_due is 'Internal: open alerts of slices that fire for long enough; returns what is to be told.';

create or replace function flywheel._close_due(watched flywheel.alert_rules, at timestamptz) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  cleared jsonb;
  stale jsonb;
begin
  select coalesce(jsonb_agg(known.slice), '[]') into cleared
    from flywheel.alerts as known join flywheel._alert_states as states on states.rule = known.rule and states.slice = known.slice
   where known.rule = watched.rule and known.closed_at is null and at - states.clear_since >= flywheel._alert_interval(watched.definition, 'clear_hold');
  select coalesce(jsonb_agg(known.slice), '[]') into stale
    from flywheel.alerts as known left join flywheel._alert_states as states on states.rule = known.rule and states.slice = known.slice
   where known.rule = watched.rule and known.closed_at is null and states.clear_since is null and not known.slice ? 'problem'
     and known.last_seen_at < at - make_interval(days => flywheel._setting('alert_stale_days')::integer);
  update flywheel._alert_states as states set counts_from = at     -- what was told and is over is not counted again
   where states.rule = watched.rule and states.slice in (select jsonb_array_elements(cleared || stale));
  delete from flywheel._alert_states as states
   where states.rule = watched.rule and states.firing_since is null
     and coalesce(states.counts_from, '-infinity') < at - coalesce(flywheel._alert_interval(watched.definition, 'window'), '0s')
     and not exists (select from flywheel.alerts as known where known.rule = states.rule and known.slice = states.slice and known.closed_at is null
                        and known.slice not in (select jsonb_array_elements(cleared || stale)));
  return flywheel._close_alerts(watched.rule, cleared, 'cleared', at) || flywheel._close_alerts(watched.rule, stale, 'no data', at);
end
$function$;
comment on function flywheel._close_due is 'Internal: close alerts that are clear for long enough, or without data for days; returns what is to be told.';

create or replace function flywheel._evaluate_rule(watched flywheel.alert_rules, at timestamptz, out told jsonb, out slices bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  readings jsonb;
begin
  select found.readings, found.slices into readings, slices from flywheel._alert_reading_rows(watched, at) as found;
  perform flywheel._note_states(watched, readings, at);
  told := flywheel._open_due(watched, readings, at) || flywheel._close_due(watched, at);
end
$function$;
comment on function flywheel._evaluate_rule is 'Internal: look at one rule; returns what is to be told, and how many slices it has.';

-- _evaluate_safely: a rule that cannot be evaluated is an alert itself, and keeps no other from being looked at.
create or replace function flywheel._evaluate_safely(watched flywheel.alert_rules, at timestamptz) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  began timestamptz := clock_timestamp();
  told jsonb := '[]';
  seen bigint;
  wrong text;
  took interval;
begin
  begin
    select found.told, found.slices into told, seen from flywheel._evaluate_rule(watched, at) as found;
  exception
    when lock_not_available or deadlock_detected or serialization_failure then
      return '[]';                                       -- somebody is at its alerts: it is due at the next turn
    when query_canceled or others then                   -- cancelled: by the time limit of a chore, which would end them all
      if sqlstate = '57014' and flywheel._was_stopped() then
        raise;
      end if;
      wrong := left(sqlerrm, 500);
      told := flywheel._open_alert(watched, '{"problem": "the rule cannot be evaluated"}', jsonb_build_object('evidence', jsonb_build_object('problem', wrong)), at);
  end;
  if wrong is null then
    told := told || flywheel._close_alerts(watched.rule, '[{"problem": "the rule cannot be evaluated"}]', 'cleared', at);
  end if;
  took := clock_timestamp() - began;
  update flywheel._alert_evaluations as evaluated
     set evaluated_at = at, took_ms = extract(epoch from took) * 1000, problem = wrong, slices = coalesce(seen, evaluated.slices),
         next_at = at + greatest(20 * took, case when watched.definition ->> 'test' = 'change' or flywheel._alert_seconds(watched.definition ->> 'window') > 21600 then interval '60 seconds'
                                                 else interval '15 seconds' end) - interval '1 second'
   where evaluated.rule = watched.rule;
  return told;
end
$function$;
comment on function flywheel._evaluate_safely is 'Internal: look at one rule, and note when it is due again: a slow one the later.';

create or replace function flywheel._end_snoozes(at timestamptz) returns jsonb
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with woken as (
    update flywheel.alerts as known set snoozed_until = null, changed_at = clock_timestamp()
     where known.closed_at is null and known.snoozed_until <= at
    returning known.alert_id
  )
  select coalesce(jsonb_agg(jsonb_build_object('alert_id', woken.alert_id, 'state', 'still open')), '[]') from woken
$function$;
comment on function flywheel._end_snoozes is 'Internal: alerts that are still open when their snooze ends; returns what is to be told.';

-- _gather_incidents: enough alerts of one release are one incident. Returns the incidents that are new.
create or replace function flywheel._gather_incidents(at timestamptz) returns uuid[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  made uuid[];
begin
  with crowded as (
    select coalesce(known.slice ->> 'project', '') as project, known.slice ->> 'release' as release
      from flywheel.alerts as known where known.closed_at is null and known.slice ->> 'release' <> ''
     group by 1, 2 having count(*) >= flywheel._setting('incident_alerts')
  ), opened as (
    insert into flywheel._incidents (incident_id, project, release, opened_at)
    select flywheel.new_id(), crowded.project, crowded.release, at from crowded
        on conflict do nothing
    returning incident_id
  )
  select coalesce(array_agg(opened.incident_id), '{}') into made from opened;
  update flywheel.alerts as known set incident_id = incidents.incident_id
    from flywheel._incidents as incidents
   where incidents.closed_at is null and known.closed_at is null and known.incident_id is null
     and known.slice ->> 'release' = incidents.release and coalesce(known.slice ->> 'project', '') = incidents.project;
  return made;
end
$function$;
comment on function flywheel._gather_incidents is 'Internal: put open alerts of one release together.';

create or replace function flywheel._tell_incidents(incident_ids uuid[], state text, at timestamptz) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._queue_delivery(channels.channel, 'incident', jsonb_build_object('kind', 'incident', 'state', state, 'at', at,
           'text', flywheel._plain_words(format('INCIDENT %s: release %s%s, %s alerts: %s', state, incidents.release,
                     case when incidents.project <> '' then ' of ' || incidents.project else '' end, inside.alerts, array_to_string(inside.rules, ', ')), 600),
           'incident', jsonb_build_object('incident_id', incidents.incident_id, 'project', incidents.project, 'release', incidents.release, 'alerts', inside.alerts, 'rules', to_jsonb(inside.rules),
                                          'opened_at', incidents.opened_at, 'closed_at', incidents.closed_at)), at)
    from flywheel._incidents as incidents
   cross join lateral (select count(*) as alerts, array_agg(distinct alerts.rule) as rules from flywheel.alerts where alerts.incident_id = incidents.incident_id) as inside
   cross join flywheel.alert_channels as channels
   where incidents.incident_id = any (incident_ids)
     and exists (select from flywheel.alert_rules as rules where rules.rule = any (inside.rules) and (not rules.definition ? 'channels' or rules.definition -> 'channels' ? channels.channel))
$function$;
comment on function flywheel._tell_incidents is 'Internal: one message of an incident for each channel of its rules.';

create or replace function flywheel._close_incidents(at timestamptz) returns uuid[]
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with closed as (
    update flywheel._incidents as incidents set closed_at = at
     where incidents.closed_at is null
       and not exists (select from flywheel.alerts where alerts.incident_id = incidents.incident_id and alerts.closed_at is null)
    returning incidents.incident_id
  )
  select coalesce(array_agg(closed.incident_id), '{}') from closed
$function$;
comment on function flywheel._close_incidents is 'Internal: close incidents whose alerts are all closed; returns which.';

-- _announce: who is told alone, who as a part of an incident, and who not at all: snoozed, or known to be noise.
create or replace function flywheel._announce(told jsonb, at timestamptz) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  new_incidents uuid[] := flywheel._gather_incidents(at);
  news record;
  announced integer := 0;
begin
  for news in
    select known as alert, given.said ->> 'state' as state
      from jsonb_array_elements(told) with ordinality as given(said, place)
      join flywheel.alerts as known on known.alert_id = (given.said ->> 'alert_id')::uuid
     where coalesce(known.snoozed_until, '-infinity') <= at and not (known.verdict is not distinct from 'noise' and given.said ->> 'state' = 'reopened')
     order by given.place
  loop
    perform pg_notify('flywheel_alert', jsonb_build_object('id', (news.alert).alert_id, 'rule', (news.alert).rule, 'state', news.state)::text);
    announced := announced + 1;
    perform flywheel._queue_delivery(channels.channel, 'alert', flywheel._alert_body(news.alert, news.state, at), at)
       from flywheel.alert_rules as rules
       join flywheel.alert_channels as channels on not rules.definition ? 'channels' or rules.definition -> 'channels' ? channels.channel
      where rules.rule = (news.alert).rule and (news.alert).incident_id is null
      order by channels.channel;
  end loop;
  perform flywheel._tell_incidents(new_incidents, 'opened', at);
  perform flywheel._tell_incidents(flywheel._close_incidents(at), 'closed', at);
  return announced;
end
$function$;
comment on function flywheel._announce is 'Internal: notify listeners and queue messages of what changed; returns how many alerts are told.';

create or replace function flywheel._evaluate_alerts(at timestamptz default clock_timestamp()) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  due record;
  watched flywheel.alert_rules;
  told jsonb := '[]';
begin
  for due in
    select evaluated.rule from flywheel._alert_evaluations as evaluated
     where evaluated.next_at <= at
     order by evaluated.next_at, evaluated.rule
       for update skip locked
  loop
    select * into watched from flywheel.alert_rules as known where known.rule = due.rule;  -- only now: nobody changes it from here on
    if found then
      told := told || flywheel._evaluate_safely(watched, at);
    end if;
  end loop;
  told := told || flywheel._end_snoozes(at);
  delete from flywheel._deliveries as old where old.created_at < at - interval '30 days';
  return flywheel._announce(told, at);
end
$function$;
comment on function flywheel._evaluate_alerts is 'Internal: look at the rules that are due; returns how many alerts opened, closed or opened again. Workers call it.';

create or replace function flywheel.test_alert_rule(definition jsonb, at timestamptz default clock_timestamp())
returns table (slice text, n bigint, value double precision, threshold double precision, effect double precision, firing boolean, evidence jsonb)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._slice_words(found.slice), found.n, found.value, found.threshold, found.effect, found.firing, found.evidence
    from flywheel._alert_readings(null, flywheel._require_rule('tried', definition), at) as found
   order by found.firing desc nulls last, found.effect desc nulls last, 1
$function$;
comment on function flywheel.test_alert_rule is 'What a rule would say of each slice now, without setting it; firing null = not enough data, or in between.';

create or replace function flywheel._require_alert(id uuid) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not exists (select from flywheel.alerts where alerts.alert_id = id) then
    raise exception using errcode = 'WF009', message = format('there is no alert %s', id), hint = 'List them: pgflywheel alerts list --all.';
  end if;
end
$function$;
comment on function flywheel._require_alert is 'Internal: refuse an id no alert has.';

create or replace function flywheel.acknowledge_alert(id uuid, by text, verdict text, note text default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require_person(by);
  perform flywheel._require_alert(id);
  if verdict is null or verdict not in ('real', 'noise') then
    raise exception using errcode = 'WF009', message = format('verdict is %s, neither real nor noise', coalesce(verdict, 'null'));
  elsif coalesce(btrim(by), '') = '' then
    raise exception using errcode = 'WF009', message = 'nobody acknowledges the alert', hint = 'Say who looked at it.';
  end if;
  update flywheel.alerts as known
     set verdict = acknowledge_alert.verdict, note = left(acknowledge_alert.note, 2000), acknowledged_by = left(by, 200), acknowledged_at = clock_timestamp(), changed_at = clock_timestamp()
   where known.alert_id = id;
end
$function$;
comment on function flywheel.acknowledge_alert is 'Say who looked at an alert, and whether it was real or noise; the share that was real is kept for each rule.';

create or replace function flywheel.snooze_alert(id uuid, until timestamptz, by text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require_person(by);
  perform flywheel._require_alert(id);
  if until is null or until = 'infinity' or coalesce(btrim(by), '') = '' then
    raise exception using errcode = 'WF009', message = format('an alert cannot be snoozed until %s by %s', coalesce(until::text, 'null'), coalesce(by, 'null')),
      hint = 'Say until when, and who asks for it.';
  end if;
  update flywheel.alerts as known set snoozed_until = until, snoozed_by = left(by, 200), changed_at = clock_timestamp() where known.alert_id = id;
end
$function$;
comment on function flywheel.snooze_alert is 'Send no message of an alert before a time; if it is open then, it is told again.';
