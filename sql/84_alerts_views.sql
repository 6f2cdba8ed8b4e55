-- Alerts as people read them.

create or replace view flywheel.open_alerts as
  select alerts.alert_id, alerts.severity, alerts.rule, alerts.metric, flywheel._slice_words(alerts.slice) as what, alerts.value, alerts.threshold, alerts.effect, alerts.n,
         alerts.opened_at, alerts.last_seen_at, alerts.reopened, alerts.incident_id, alerts.verdict, alerts.note, alerts.acknowledged_by, alerts.snoozed_until
    from flywheel.alerts
   where alerts.closed_at is null;
comment on view flywheel.open_alerts is 'What is wrong now: one row for each rule and slice.';
comment on column flywheel.open_alerts.alert_id is 'Its id.';
comment on column flywheel.open_alerts.severity is 'info, low, medium, high or critical.';
comment on column flywheel.open_alerts.rule is 'Name of the rule.';
comment on column flywheel.open_alerts.metric is 'What the rule watches.';
comment on column flywheel.open_alerts.what is 'The slice in words.';
comment on column flywheel.open_alerts.value is 'The metric when the rule fired last.';
comment on column flywheel.open_alerts.threshold is 'What it was compared with: a threshold, or its own past.';
comment on column flywheel.open_alerts.effect is 'How far the value is on the wrong side.';
comment on column flywheel.open_alerts.n is 'Rows the value is made of.';
comment on column flywheel.open_alerts.opened_at is 'When it was opened.';
comment on column flywheel.open_alerts.last_seen_at is 'When the rule fired last.';
comment on column flywheel.open_alerts.reopened is 'How often it was opened again within an hour after it had closed.';
comment on column flywheel.open_alerts.incident_id is 'The incident it is told with; null = it is told alone.';
comment on column flywheel.open_alerts.verdict is 'What people say of it: real or noise; null = nobody has looked.';
comment on column flywheel.open_alerts.note is 'What they note.';
comment on column flywheel.open_alerts.acknowledged_by is 'Who looked.';
comment on column flywheel.open_alerts.snoozed_until is 'No message before; null = none is held back.';

create or replace view flywheel.alert_precision as
  select judged.rule, judged.alerts, judged.real, judged.noise, judged.alerts - judged.real - judged.noise as unjudged,
         judged.real::double precision / nullif(judged.real + judged.noise, 0) as precision,
         case when judged.real + judged.noise >= 4 and judged.real < judged.noise
              then 'less than half were real: raise the threshold, minimum_effect or hold, or drop the rule' end as advice
    from (select alerts.rule, count(*) as alerts, count(*) filter (where alerts.verdict = 'real') as real, count(*) filter (where alerts.verdict = 'noise') as noise
            from flywheel.alerts group by alerts.rule) as judged;
comment on view flywheel.alert_precision is 'How often the alerts of each rule were worth looking at.';
comment on column flywheel.alert_precision.rule is 'Name of the rule, of dropped ones too.';
comment on column flywheel.alert_precision.alerts is 'Alerts it has raised.';
comment on column flywheel.alert_precision.real is 'Of those, acknowledged as real.';
comment on column flywheel.alert_precision.noise is 'Of those, acknowledged as noise.';
comment on column flywheel.alert_precision.unjudged is 'Of those, not acknowledged.';
comment on column flywheel.alert_precision.precision is 'real / (real + noise), 0 to 1; null = none is acknowledged.';
comment on column flywheel.alert_precision.advice is 'What to do where four or more are acknowledged and most were noise; null = nothing.';

create or replace view flywheel.alert_rule_status as
  select rules.rule, rules.metric, rules.severity, rules.definition ->> 'description' as description,
         case when evaluated.problem is not null then 'broken' when open.alerts > 0 then 'firing' when evaluated.evaluated_at is null then 'waiting'
              when evaluated.slices = 0 then 'no data' else 'clear' end as state,
         open.alerts as open_alerts, evaluated.slices, evaluated.evaluated_at, evaluated.took_ms, evaluated.problem, rules.changed_at
    from flywheel.alert_rules as rules
    left join flywheel._alert_evaluations as evaluated using (rule)
   cross join lateral (select count(*) as alerts from flywheel.alerts where alerts.rule = rules.rule and alerts.closed_at is null and not alerts.slice ? 'problem') as open;
comment on view flywheel.alert_rule_status is 'The rules, and what came of looking at them last.';
comment on column flywheel.alert_rule_status.rule is 'Name of the rule.';
comment on column flywheel.alert_rule_status.metric is 'What it watches.';
comment on column flywheel.alert_rule_status.severity is 'info, low, medium, high or critical.';
comment on column flywheel.alert_rule_status.description is 'What it is for.';
comment on column flywheel.alert_rule_status.state is 'clear, firing, broken (see problem), no data, or waiting for its first look.';
comment on column flywheel.alert_rule_status.open_alerts is 'Its open alerts.';
comment on column flywheel.alert_rule_status.slices is 'Slices it has data of.';
comment on column flywheel.alert_rule_status.evaluated_at is 'When it was looked at last; null = never.';
comment on column flywheel.alert_rule_status.took_ms is 'How long that took.';
comment on column flywheel.alert_rule_status.problem is 'Why it could not be evaluated; null = it could.';
comment on column flywheel.alert_rule_status.changed_at is 'When it changed last.';

-- What the view calls is run as whoever reads it.
select flywheel._grant(role, privilege) from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_admin']) as role, unnest(array[
  'select on flywheel.alerts, flywheel.open_alerts, flywheel.alert_precision, flywheel.alert_rule_status',
  'execute on function flywheel._slice_words(jsonb)']) as privilege;
select flywheel._grant('flywheel_analyst', 'select on flywheel.alert_rules');
select flywheel._grant(role, 'execute on function flywheel.acknowledge_alert(uuid, text, text, text), flywheel.snooze_alert(uuid, timestamptz, text)')
  from unnest(array['flywheel_reviewer', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_admin', 'execute on function flywheel.test_alert_rule(jsonb, timestamptz)');
select flywheel._grant('flywheel_worker', 'execute on function flywheel._evaluate_alerts(timestamptz)');
