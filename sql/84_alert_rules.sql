-- Alert rules and channels: what a definition may say, and setting, changing and dropping them.

-- _alert_metrics: for each metric its defaults, the keys it takes beside the common ones, and of what it can be a slice.
create or replace function flywheel._alert_metrics()
returns table (metric text, defaults jsonb, keys text[], slices text[])
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  with known (metric, defaults, keys, slices) as (
    values
      ('pass_rate', '{}'::jsonb, array['test', 'threshold', 'window', 'baseline'], 'score'),
      ('unscored_rate', '{}', array['test', 'threshold', 'window', 'baseline'], 'score'),
      ('error_rate', '{}', array['test', 'threshold', 'window', 'baseline'], 'span'),
      ('corrected_pass_rate', '{"window": "7d", "minimum_effect": 0.01}', array['threshold', 'window'], 'score'),
      ('latency_p95', '{"window": "15m", "minimum_effect": 0}', array['threshold', 'window'], 'span'),
      ('cost_usd', '{"window": "1h", "baseline": "7d", "threshold": 2, "minimum_effect": 1}', array['threshold', 'window', 'baseline'], 'span'),
      ('canary', '{"window": "7d", "alpha": 0.05, "minimum_effect": 0.02}', array['window', 'alpha', 'candidate', 'against'], 'canary'),
      ('backlog_seconds', '{"threshold": 300, "minimum_n": 1, "minimum_effect": 0, "hold": "1m"}', array['threshold'], 'lane'),
      ('dead_spans', '{"threshold": 1, "minimum_n": 1, "minimum_effect": 0}', array['threshold'], 'lane'),
      ('budget_used', '{"threshold": 0.8, "minimum_n": 0, "minimum_effect": 0}', array['threshold'], 'budget'),
      ('judge_standing', '{"threshold": 1, "minimum_effect": 0}', array[]::text[], 'judge'),
      ('drift', '{"minimum_effect": 0}', array[]::text[], 'drift')
  )
  select known.metric, '{"severity": "medium", "description": "", "slice": {}, "by": [], "minimum_n": 30, "hold": "0s", "clear_hold": "15m"}'::jsonb || known.defaults, known.keys,
         case known.slices when 'score' then array['validator', 'project', 'environment', 'release', 'node', 'attribute_1', 'attribute_2', 'attribute_3']
                           when 'canary' then array['validator', 'project', 'environment', 'node', 'attribute_1', 'attribute_2', 'attribute_3']
                           when 'span' then array['project', 'environment', 'release', 'node', 'attribute_1', 'attribute_2', 'attribute_3']
                           when 'lane' then array['lane'] when 'budget' then array['scope', 'name', 'period'] when 'judge' then array['validator']
                           else array['kind', 'subject', 'part', 'project'] end
    from known
$function$;
comment on function flywheel._alert_metrics is 'Internal: every metric an alert rule may watch.';

-- _whole_rule: with its defaults. Scores are never summed over validators: each is a slice of its own.
create or replace function flywheel._whole_rule(definition jsonb) returns jsonb
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select given.rule || jsonb_build_object('by', case
           when metrics.slices @> array['node', 'validator'] and jsonb_typeof(given.rule -> 'by') = 'array' then
             (select jsonb_agg(distinct part.key) from jsonb_array_elements(given.rule -> 'by' || '["validator"]') as part(key)) else given.rule -> 'by' end)
    from flywheel._alert_metrics() as metrics
   cross join lateral (select case
           when not metrics.keys @> array['test'] then '{}'::jsonb
           when coalesce(definition ->> 'test', case when definition ? 'threshold' then 'threshold' else 'change' end) = 'change'
             then '{"test": "change", "window": "7d", "baseline": "28d", "minimum_effect": 0.02}'::jsonb
           else '{"test": "threshold", "window": "1h", "minimum_effect": 0.01}'::jsonb end) as of_test(defaults)
   cross join lateral (select metrics.defaults || of_test.defaults || jsonb_strip_nulls(definition) as rule) as given
   where metrics.metric = definition ->> 'metric'
$function$;
comment on function flywheel._whole_rule is 'Internal: the definition of a rule with its defaults; null where its metric is not known.';

create or replace function flywheel._alert_slice_problem(whole jsonb, known text[]) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    flywheel._unknown_key(whole -> 'slice', 'slice', known),
    (select format('slice.%s is %s, not a text of up to 120 characters', part.key, left(part.value::text, 200))
       from jsonb_each(case jsonb_typeof(whole -> 'slice') when 'object' then whole -> 'slice' else '{}' end) as part where jsonb_typeof(part.value) <> 'string' or length(part.value #>> '{}') > 120 limit 1),
    case when jsonb_typeof(whole -> 'by') <> 'array' then format('by is %s, not a list', whole -> 'by') end,
    (select format('by holds %s, which is not one of %s', part.key, array_to_string(known, ', ')) from jsonb_array_elements(case jsonb_typeof(whole -> 'by') when 'array' then whole -> 'by' else '[]' end) as part(key)
      where jsonb_typeof(part.key) <> 'string' or part.key #>> '{}' <> all (known) limit 1),
    case when jsonb_array_length(case jsonb_typeof(whole -> 'by') when 'array' then whole -> 'by' else '[]' end) > 4 then
      format('by is %s: at most 4 keys', whole -> 'by') end,
    case when not known @> array['node'] and whole -> 'by' <> '[]' then format('by is %s: metric %s has its slices already', whole -> 'by', whole ->> 'metric') end)
$function$;
comment on function flywheel._alert_slice_problem is 'Internal: the first thing wrong with slice or by of a rule; null = nothing.';

create or replace function flywheel._alert_time_problem(whole jsonb) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select format('%s is %s, not a duration from %s to %s like 15m, 1h or 7d', known.key, whole -> known.key, known.lowest, known.highest)
    from (values (1, 'window', '1m', '90d'), (2, 'baseline', '1d', '365d'), (3, 'hold', '0s', '30d'), (4, 'clear_hold', '0s', '30d')) as known(place, key, lowest, highest)
   where whole ? known.key
     and (jsonb_typeof(whole -> known.key) <> 'string'
          or (flywheel._alert_seconds(whole ->> known.key) between flywheel._alert_seconds(known.lowest) and flywheel._alert_seconds(known.highest)) is not true)
   order by known.place limit 1
$function$;
comment on function flywheel._alert_time_problem is 'Internal: which duration of a rule is none; null = none.';

create or replace function flywheel._alert_number_problem(whole jsonb, keys text[]) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    case when whole ->> 'test' = 'change' and whole ? 'threshold' then format('threshold is %s: test change compares with the past, not with a threshold', whole -> 'threshold')
         when whole ->> 'test' not in ('change', 'threshold') then format('test is %s, neither change nor threshold', whole -> 'test')
         when whole ->> 'test' = 'threshold' and whole ? 'baseline' then format('baseline is %s: only test change has one', whole -> 'baseline')
         when 'threshold' = any (keys) and whole ->> 'test' is distinct from 'change' and not whole ? 'threshold' then 'threshold is missing' end,
    flywheel._number_problem(whole, '', 'threshold', 0, case when whole ->> 'metric' like '%\_rate' or whole ->> 'metric' = 'budget_used' then 1 else 1000000000 end, false),
    case when whole ->> 'metric' = 'latency_p95' and whole -> 'threshold' = '0' then 'threshold is 0, not milliseconds' end,
    case when jsonb_typeof(whole -> 'minimum_n') = 'number' and whole ->> 'minimum_n' like '%.%' then format('minimum_n is %s, not a whole number', whole -> 'minimum_n') end,
    flywheel._number_problem(whole, '', 'minimum_n', 0, 1000000000, true),
    flywheel._number_problem(whole, '', 'minimum_effect', 0, 1000000000, false),
    flywheel._number_problem(whole, '', 'alpha', 0.000001, 0.5, false))
$function$;
comment on function flywheel._alert_number_problem is 'Internal: the first thing wrong with the numbers of a rule; null = nothing.';

create or replace function flywheel._alert_rule_problem(rule text, definition jsonb) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    case when rule is null or rule !~ '^[a-z][a-z0-9_-]{0,62}$' then 'a name is 1 to 63 lower-case letters, digits, - and _, and starts with a letter' end,
    case when jsonb_typeof(definition) is distinct from 'object' then format('it is %s, not a table', coalesce(definition::text, 'null')) end,
    case when metrics.metric is null then
      format('metric is %s, not one of %s', coalesce((definition -> 'metric')::text, 'missing'), (select string_agg(known.metric, ', ') from flywheel._alert_metrics() as known)) end,
    flywheel._unknown_key(definition, 'rule', array['metric', 'severity', 'description', 'slice', 'by', 'minimum_n', 'minimum_effect', 'hold', 'clear_hold', 'channels'] || metrics.keys),
    case when not coalesce(whole ->> 'severity' = any (array['info', 'low', 'medium', 'high', 'critical']), false) then
      format('severity is %s, not one of info, low, medium, high, critical', whole -> 'severity') end,
    case when jsonb_typeof(whole -> 'description') <> 'string' then format('description is %s, not a text', whole -> 'description') end,
    flywheel._alert_slice_problem(whole, metrics.slices),
    flywheel._alert_time_problem(whole),
    flywheel._alert_number_problem(whole, metrics.keys),
    flywheel._text_problem(whole, array(select key from unnest(array['candidate', 'against']) as key where whole ? key)),
    case when whole ? 'channels' and jsonb_typeof(whole -> 'channels') <> 'array' then format('channels is %s, not a list', whole -> 'channels') end,
    (select format('channels holds %s, which is not a channel that is set', part.name)
       from jsonb_array_elements(case jsonb_typeof(whole -> 'channels') when 'array' then whole -> 'channels' else '[]' end) as part(name)
      where jsonb_typeof(part.name) <> 'string' or not exists (select from flywheel.alert_channels as known where known.channel = part.name #>> '{}') limit 1))
    from (select flywheel._whole_rule(case jsonb_typeof(definition) when 'object' then jsonb_strip_nulls(definition) end) as whole) as given
    left join flywheel._alert_metrics() as metrics on metrics.metric = definition ->> 'metric'
$function$;
comment on function flywheel._alert_rule_problem is 'Internal: the first thing wrong with a rule; null = nothing.';

create or replace function flywheel._require_rule(rule text, definition jsonb) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  problem text := flywheel._alert_rule_problem(rule, definition);
begin
  if problem is not null then
    raise exception using errcode = 'WF009', message = left(format('alert rule %s is not valid: %s', coalesce(rule, 'null'), problem), 2000),
      hint = 'See docs/how-to/alerts.md for the keys of each metric.';
  end if;
  return flywheel._whole_rule(jsonb_strip_nulls(definition));
end
$function$;
comment on function flywheel._require_rule is 'Internal: the whole definition of a rule, or an error that says what is wrong.';

-- set_alert_rule: what the definition leaves out goes back to its default, so that a file is the whole truth. Channels it names stay
-- until it is there: who drops one finds the rule.
create or replace function flywheel.set_alert_rule(name text, definition jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  whole jsonb;
  before flywheel.alert_rules;
begin
  perform from flywheel.alert_channels as known where definition -> 'channels' ? known.channel order by known.channel for key share;
  whole := flywheel._require_rule(name, definition);
  select * into before from flywheel.alert_rules as known where known.rule = name for update;
  if before.definition = whole then
    return false;
  end if;
  insert into flywheel.alert_rules as known (rule, metric, severity, definition)
  values (name, whole ->> 'metric', whole ->> 'severity', whole)
      on conflict (rule) do update
     set metric = excluded.metric, severity = excluded.severity, definition = excluded.definition, changed_at = now();
  insert into flywheel._alert_evaluations as known (rule) values (name)
      on conflict (rule) do update set next_at = '-infinity', problem = null;
  if before.metric <> whole ->> 'metric' then
    perform flywheel._close_rule(name, 'rule changed');
  end if;
  return true;
end
$function$;
comment on function flywheel.set_alert_rule is 'Watch a metric, or change how; returns whether anything changed. Keys: see docs/how-to/alerts.md.';

create or replace function flywheel.drop_alert_rule(name text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  delete from flywheel.alert_rules as known where known.rule = name;
  if not found then
    return false;
  end if;
  delete from flywheel._alert_evaluations as known where known.rule = name;
  perform flywheel._close_rule(name, 'rule dropped');
  return true;
end
$function$;
comment on function flywheel.drop_alert_rule is 'Watch no longer; open alerts of the rule close, its closed ones stay. Returns whether there was such a rule.';

create or replace function flywheel._close_rule(name text, because text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  delete from flywheel._alert_states as states where states.rule = name;
  update flywheel.alerts set closed_at = clock_timestamp(), closed_because = because, changed_at = clock_timestamp()
   where alerts.rule = name and alerts.closed_at is null;
$function$;
comment on function flywheel._close_rule is 'Internal: close what is open of a rule, without a message.';

create or replace function flywheel._alert_channel_problem(name text, definition jsonb) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(
    case when name is null or name !~ '^[a-z][a-z0-9_-]{0,62}$' then 'a name is 1 to 63 lower-case letters, digits, - and _, and starts with a letter' end,
    case when definition is null then 'it is null' end,
    flywheel._unknown_key(definition, 'channel', array['url', 'url_variable', 'secret_variable', 'insecure']),
    case when (definition ? 'url') = (definition ? 'url_variable') then 'it needs either url or url_variable' end,
    flywheel._text_problem(definition, array(select key from unnest(array['url', 'url_variable', 'secret_variable']) as key where definition ? key)),
    (select format('%s is not the name of an environment variable', key) from unnest(array['url_variable', 'secret_variable']) as key
      where definition ->> key !~ '^[A-Za-z_][A-Za-z0-9_]*$' limit 1),
    case when definition ? 'insecure' and jsonb_typeof(definition -> 'insecure') <> 'boolean' then format('insecure is %s, neither true nor false', definition -> 'insecure') end,
    case when definition ->> 'url' !~* '^https?://[^\s/?#]+[^\s[:cntrl:]]*$' then format('url is %s, not an http address', definition -> 'url') end,
    case when definition ->> 'url' ~ '^[^/]*//[^/?#]*@' then 'url holds a user or a password, which would be stored: name an environment variable in url_variable' end,
    case when definition ->> 'url' ~* '^http:' and definition -> 'insecure' is distinct from 'true' then format('url is %s: write https, or insecure = true', definition -> 'url') end)
$function$;
comment on function flywheel._alert_channel_problem is 'Internal: the first thing wrong with a channel; null = nothing.';

create or replace function flywheel.set_alert_channel(name text, definition jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  whole jsonb := case jsonb_typeof(definition) when 'object' then jsonb_strip_nulls(definition) else definition end;
  problem text := flywheel._alert_channel_problem(name, whole);
  touched integer;
begin
  if problem is not null then
    raise exception using errcode = 'WF009', message = left(format('alert channel %s is not valid: %s', coalesce(name, 'null'), problem), 2000),
      hint = 'Its keys are url or url_variable, secret_variable, insecure.';
  end if;
  insert into flywheel.alert_channels as known (channel, url, url_variable, secret_variable, insecure)
  values (name, whole ->> 'url', whole ->> 'url_variable', whole ->> 'secret_variable', coalesce((whole ->> 'insecure')::boolean, false))
      on conflict (channel) do update
     set url = excluded.url, url_variable = excluded.url_variable, secret_variable = excluded.secret_variable, insecure = excluded.insecure, changed_at = now()
   where (known.url, known.url_variable, known.secret_variable, known.insecure) is distinct from (excluded.url, excluded.url_variable, excluded.secret_variable, excluded.insecure);
  get diagnostics touched = row_count;
  return touched > 0;
end
$function$;
comment on function flywheel.set_alert_channel is
  'Name an address alerts are posted to, or change it; returns whether anything changed. Secrets are named by environment variables of the workers, never stored.';

create or replace function flywheel.drop_alert_channel(name text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  users text;
begin
  perform from flywheel.alert_channels as known where known.channel = name for update;     -- who is about to name it is waited for
  users := (select string_agg(known.rule, ', ' order by known.rule) from flywheel.alert_rules as known where known.definition -> 'channels' ? name);
  if users is not null then
    raise exception using errcode = 'WF009', message = format('channel %s is named by rules', name), detail = users, hint = 'Change those rules first.';
  end if;
  delete from flywheel.alert_channels as known where known.channel = name;
  if not found then
    return false;
  end if;
  update flywheel._deliveries as waiting set dead_at = clock_timestamp(), last_problem = 'its channel was dropped'
   where waiting.channel = name and waiting.sent_at is null and waiting.dead_at is null;
  return true;
end
$function$;
comment on function flywheel.drop_alert_channel is 'Send nothing more to a channel; returns whether there was one. Rules must not name it.';

-- _was_stopped: a statement that is cancelled before its time is up was ended by somebody, such as a worker that leaves.
create or replace function flywheel._was_stopped() returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select time_limit = interval '0' or clock_timestamp() - statement_timestamp() < time_limit
    from cast(current_setting('statement_timeout') as interval) as time_limit
$function$;
comment on function flywheel._was_stopped is 'Internal: whether this statement, cancelled, still had time.';

select flywheel._grant('flywheel_admin', privilege) from unnest(array[
  'select on flywheel.alert_rules, flywheel.alert_channels',
  'execute on function flywheel.set_alert_rule(text, jsonb), flywheel.drop_alert_rule(text), flywheel.set_alert_channel(text, jsonb), flywheel.drop_alert_channel(text)']) as privilege;
