-- Deliveries: messages of alerts to channels, few enough to be read, each sent by one worker until it is taken.
--
--   waiting --claim--> leased --settled--> sent
--                        |--problem, or lease over--> waiting (later each time; dead after a day)

-- _plain_words: names come from spans. No control characters, no marks of Slack's, no end without end.
create or replace function flywheel._plain_words(words text, most integer default 200) returns text
language sql immutable parallel safe security invoker
begin atomic
  select replace(replace(replace(
           case when length(cleaned.words) > most then left(cleaned.words, most - 1) || '…' else cleaned.words end, '&', '&amp;'), '<', '&lt;'), '>', '&gt;')
    from (select regexp_replace(left(coalesce(words, ''), most * 4), '[[:cntrl:]\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+', ' ', 'g')) as cleaned(words);
end;
comment on function flywheel._plain_words is 'Internal: a name or text on one line, fit for a chat.';

-- _slice_words: said as people say it; JSON keeps a name from looking like two.
create or replace function flywheel._slice_words(slice jsonb) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(string_agg(format('%s %s', part.key, case when part.value = '' then 'unknown' when part.value ~ '^[\w.:/@-]+$' then part.value else to_json(part.value)::text end), ', ' order by
           array_position(array['validator', 'project', 'environment', 'release', 'node', 'scope', 'name', 'period', 'kind', 'subject'], part.key), part.key), 'everything')
    from jsonb_each_text(slice) as part
$function$;
comment on function flywheel._slice_words is 'Internal: a slice in words.';

create or replace function flywheel._alert_words(alert flywheel.alerts, state text) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._plain_words(format('%s: %s %s (%s)%s', upper(alert.severity), alert.rule, state, flywheel._slice_words(alert.slice),
           case when alert.value is not null then
             format('; %s is %s%s%s', alert.metric, round(alert.value::numeric, 4)::double precision,
                    coalesce(format(' against %s', round(alert.threshold::numeric, 4)::double precision), ''), coalesce(format(', n = %s', alert.n), '')) end), 600)
$function$;
comment on function flywheel._alert_words is 'Internal: an alert in one sentence.';

create or replace function flywheel._alert_body(alert flywheel.alerts, state text, at timestamptz) returns jsonb
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select jsonb_build_object('kind', 'alert', 'state', state, 'at', at, 'text', flywheel._alert_words(alert, state),
           'alert', jsonb_build_object('alert_id', alert.alert_id, 'rule', alert.rule, 'metric', alert.metric, 'severity', alert.severity, 'slice', alert.slice,
             'value', alert.value, 'threshold', alert.threshold, 'effect', alert.effect, 'n', alert.n, 'opened_at', alert.opened_at, 'closed_at', alert.closed_at, 'reopened', alert.reopened))
$function$;
comment on function flywheel._alert_body is 'Internal: what a channel is sent of an alert.';

-- _queue_delivery: what is over the limit of the hour is gathered in one summary, sent when the hour is over. A summary that
-- was tried once is not changed any more: one id, one content.
create or replace function flywheel._queue_delivery(channel text, kind text, body jsonb, at timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  id uuid := flywheel.new_id();
  sent bigint;
  free_at timestamptz;
begin
  perform from flywheel.alert_channels as known where known.channel = _queue_delivery.channel for no key update;  -- counted by one at a time
  if not found then
    return;
  end if;
  select count(*), coalesce(min(recent.created_at), at) + interval '1 hour' into sent, free_at from flywheel._deliveries as recent
   where recent.channel = _queue_delivery.channel and recent.kind <> 'summary' and recent.created_at > at - interval '1 hour';
  if sent < flywheel._setting('alert_notifications_per_hour') or kind = 'test' then
    insert into flywheel._deliveries (delivery_id, channel, kind, body, created_at, run_at)
    values (id, _queue_delivery.channel, _queue_delivery.kind, body || jsonb_build_object('id', id), at, at);
    return;
  end if;
  update flywheel._deliveries as summary
     set body = flywheel._more_of(summary.body, _queue_delivery.body)
   where summary.channel = _queue_delivery.channel and summary.kind = 'summary' and summary.attempt = 0 and summary.sent_at is null and summary.dead_at is null;
  if not found then
    insert into flywheel._deliveries (delivery_id, channel, kind, body, created_at, run_at)
    values (id, _queue_delivery.channel, 'summary', flywheel._more_of(jsonb_build_object('id', id, 'kind', 'summary', 'at', at, 'count', 0, 'messages', '[]'::jsonb), body), at, free_at);
  end if;
end
$function$;
comment on function flywheel._queue_delivery is 'Internal: send a message to a channel, or put it into the summary of the hour.';

create or replace function flywheel._more_of(summary jsonb, body jsonb) returns jsonb
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select summary || jsonb_build_object('count', more.count, 'text', format('%s more messages of alerts in an hour; see pgflywheel alerts list', more.count),
           'messages', case when more.count > 50 then summary -> 'messages' else summary -> 'messages' || jsonb_build_array(body -> 'text') end)
    from (select (summary ->> 'count')::integer + 1) as more(count)
$function$;
comment on function flywheel._more_of is 'Internal: a summary with one message more; it lists the first 50.';

-- _claim_deliveries: the oldest of each channel nobody is at, so that one that hangs keeps no other waiting. Channels are locked first:
-- the second statement sees what others claimed before.
create or replace function flywheel._claim_deliveries(lease_seconds double precision)
returns table (delivery_id uuid, fence uuid, channel text, url text, url_variable text, secret_variable text, insecure boolean, body text, attempt integer)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  free text[] := array(select known.channel from flywheel.alert_channels as known order by known.channel for no key update skip locked);
begin
  return query
  with chosen as materialized (
    select known.channel, known.url, known.url_variable, known.secret_variable, known.insecure, due.delivery_id
      from flywheel.alert_channels as known
     cross join lateral (
       select waiting.delivery_id from flywheel._deliveries as waiting
        where waiting.channel = known.channel and waiting.sent_at is null and waiting.dead_at is null
          and waiting.run_at <= clock_timestamp() and coalesce(waiting.leased_until, '-infinity') < clock_timestamp()
        order by waiting.run_at, waiting.delivery_id limit 1
          for update skip locked) as due
     where known.channel = any (free) and not exists (
       select from flywheel._deliveries as busy
        where busy.channel = known.channel and busy.sent_at is null and busy.dead_at is null and busy.leased_until >= clock_timestamp())
  )
  update flywheel._deliveries as taken
     set fence = gen_random_uuid(), leased_until = clock_timestamp() + make_interval(secs => lease_seconds), attempt = taken.attempt + 1
    from chosen where taken.delivery_id = chosen.delivery_id
  returning taken.delivery_id, taken.fence, chosen.channel, chosen.url, chosen.url_variable, chosen.secret_variable, chosen.insecure, taken.body::text, taken.attempt;
end
$function$;
comment on function flywheel._claim_deliveries is 'Internal: take at most one waiting message of each channel, under a lease.';

-- _settle_delivery: 2, 4, 8 … seconds up to an hour, give or take a quarter; given up after a day.
create or replace function flywheel._settle_delivery(delivery_id uuid, fence uuid, problem text) returns boolean
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with settled as (
    update flywheel._deliveries as held
       set fence = null, leased_until = null, last_problem = left(problem, 500), sent_at = case when problem is null then clock_timestamp() end,
           dead_at = case when problem is not null and held.created_at < clock_timestamp() - interval '1 day' then clock_timestamp() end,
           run_at = case when problem is null then held.run_at
                         else clock_timestamp() + make_interval(secs => least(3600, power(2, least(held.attempt, 12))) * (0.75 + random() / 2)) end
     where held.delivery_id = _settle_delivery.delivery_id and held.fence = _settle_delivery.fence
    returning 1
  )
  select count(*) > 0 from settled
$function$;
comment on function flywheel._settle_delivery is 'Internal: a message was taken (no problem), or is tried again later; false = the claim did not hold any more.';

create or replace function flywheel.test_alert_channel(name text) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  if not exists (select from flywheel.alert_channels as known where known.channel = name) then
    raise exception using errcode = 'WF009', message = format('there is no channel %s', name), hint = 'List them: pgflywheel alerts channels list.';
  end if;
  perform flywheel._queue_delivery(name, 'test', jsonb_build_object('kind', 'test', 'at', clock_timestamp(), 'text', format('A test of channel %s.', name)), clock_timestamp());
  return (select made.delivery_id from flywheel._deliveries as made where made.channel = name and made.kind = 'test' order by made.created_at desc, made.delivery_id desc limit 1);
end
$function$;
comment on function flywheel.test_alert_channel is 'Send a message that says it is a test; returns its id.';

create or replace view flywheel.alert_channel_status as
  select known.channel, known.url, known.url_variable, known.secret_variable is not null as signed,
         count(held.delivery_id) filter (where held.sent_at > now() - interval '1 hour') as sent_last_hour,
         count(held.delivery_id) filter (where held.sent_at is null and held.dead_at is null) as waiting,
         count(held.delivery_id) filter (where held.dead_at is not null) as dead,
         (array_agg(held.last_problem order by held.created_at desc) filter (where held.sent_at is null and held.last_problem is not null))[1] as last_problem,
         max(held.sent_at) as last_sent_at
    from flywheel.alert_channels as known
    left join flywheel._deliveries as held using (channel)
   group by known.channel;
comment on view flywheel.alert_channel_status is 'Channels of alerts, and how their messages fare.';
comment on column flywheel.alert_channel_status.channel is 'Name of the channel.';
comment on column flywheel.alert_channel_status.url is 'Where its messages are posted to; null = see url_variable.';
comment on column flywheel.alert_channel_status.url_variable is 'Environment variable of the workers that holds the address.';
comment on column flywheel.alert_channel_status.signed is 'Whether its messages are signed.';
comment on column flywheel.alert_channel_status.sent_last_hour is 'Messages taken in the last hour.';
comment on column flywheel.alert_channel_status.waiting is 'Messages that wait or are tried again.';
comment on column flywheel.alert_channel_status.dead is 'Messages given up after a day, in the last 30 days.';
comment on column flywheel.alert_channel_status.last_problem is 'Why the newest message not taken was refused; null = none.';
comment on column flywheel.alert_channel_status.last_sent_at is 'When a message was taken last.';

select flywheel._grant('flywheel_worker', 'execute on function flywheel._claim_deliveries(double precision), flywheel._settle_delivery(uuid, uuid, text)');
select flywheel._grant('flywheel_admin', privilege) from unnest(array[
  'select on flywheel.alert_channel_status', 'execute on function flywheel.test_alert_channel(text)']) as privilege;
