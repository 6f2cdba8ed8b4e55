-- What a shop did in its last fortnight: 600 requests of three steps each, judged, labelled, watched and paid.

with requests as (
  select n, flywheel.new_id() as trace_id, now() - make_interval(secs => case n % 4 when 1 then (n + 1) * 2016 - 60 else n * 2016 end) as at,  -- and asked again
         case when n % 10 = 0 then 'staging' else 'production' end as environment,
         case when n < 300 then 'r2' else 'r1' end as release
    from generate_series(1, 600) as n
), steps as (
  select requests.*, step.*, case when node = 'answer' then trace_id else flywheel.new_id() end as span_id
    from requests,
         (values ('answer', 'app', 900.0), ('route', 'classifier', 80.0), ('search', 'retriever', 200.0))
           as step(node, node_kind, ms)
)
insert into flywheel.spans (span_id, trace_id, parent_span_id, project, environment, release, session_id, user_id, node,
                            node_kind, input, output, model, provider, input_tokens, output_tokens, cost_usd, status,
                            started_at, ended_at, attributes)
select span_id, trace_id, case when node <> 'answer' then trace_id end, 'shop', environment, release,
       'session-' || n / 4, 'user-' || n / 8, node, node_kind,
       case n % 4 when 1 then 'Where is my parcel, number ' || n / 4 else 'Where has my parcel gone, number ' || n / 4 end,
       case when node = 'route' then case when n % 3 = 0 then 'billing' else 'shipping' end
            else repeat('It is on its way. ', 1 + n % 7) end,
       'small-1', 'acme', 100 + n % 50, 20 + n % 30, 0.001 + (n % 9) * 0.0002,
       case when n % 37 = 0 then 'error' else 'ok' end, at, at + make_interval(secs => ms / 1000.0 * (0.5 + (n % 17) / 8.0)),
       case when node = 'route' then jsonb_build_object('expected', case when n % 4 = 0 then 'billing' else 'shipping' end,
                                                        'confidence', 0.5 + (n % 10) / 20.0) else '{}' end
  from steps;

with judged as (
  select *, row_number() over (order by started_at desc) as n from flywheel.spans where node = 'answer'
), scored as (
  insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value, critique,
                               unscored_reason, annotator_kind, cost_usd, input_tokens, output_tokens, latency_ms)
  select span_id, 1, (select version_id from flywheel.validator_status where validator = 'polite'), started_at, trace_id, project, verdict.passed, case when verdict.passed then 0.9 else 0.2 end,
         'It says so.', case when verdict.passed is null then 'timed_out' end, 'neighbours', 0.0004, 300, 40, 700
    from judged, lateral (select case when n % 29 = 0 then null else n % 7 <> 0 end) as verdict(passed)
), called as (
  insert into flywheel.calls (call_id, started_at, purpose, version_id, span_id, revision, trace_id, project, attempt,
                              provider, model, request_hash, outcome, input_tokens, cached_tokens, output_tokens, cost_usd, latency_ms)
  select flywheel.new_id(), started_at, 'score', (select version_id from flywheel.validator_status where validator = 'polite'), span_id, 1, trace_id, project, 1, 'acme', 'judge-1',
         md5(n::text), case when n % 29 = 0 then 'timed_out' else 'answered' end, 300, 100, 40, 0.0004, 700
    from judged
)
insert into flywheel.labels (label_id, validator_id, span_id, started_at, revision, trace_id, project, annotator, passed,
                             critique, lane, incl_prob, stratum, group_key, split, blind, labelled_at)
select flywheel.new_id(), versions.validator_id, span_id, started_at, 1, trace_id, project, reviewer, n % 7 <> 0 and n % 23 <> 0,
       'So.', 'estimation', 0.2, case when n % 7 <> 0 then 'pass' else 'fail' end, session_id, 'dev', true, started_at
  from judged join flywheel.validator_versions as versions on version_id = (select version_id from flywheel.validator_status where validator = 'polite'),
       unnest(array['ada', 'ben']) as reviewer
 where n % 3 = 0 and (reviewer = 'ada' or n % 2 = 0);

insert into flywheel.feedback (trace_id, span_id, project, kind, value, created_at)
select trace_id, span_id, project, kinds.kind, kinds.value, started_at + interval '5 minutes'
  from flywheel.spans,
       lateral (values ('thumb', case when random() < 0.8 then 1.0 else -1.0 end), ('rating', 4.0)) as kinds(kind, value)
 where node = 'answer';

insert into flywheel.drift_tests (test_id, tested_at, kind, subject, slice, project, version_id, window_from, window_until,
                                  statistic, threshold, effect, n_reference, n_current, drifted)
select flywheel.new_id(), now() - make_interval(days => day), kind, 'polite', 'project=shop', 'shop', (select version_id from flywheel.validator_status where validator = 'polite'),
       now() - make_interval(days => day + 1), now() - make_interval(days => day), 0.1 / day, 0.05, 0.1 / day, 500, 80, day < 2
  from generate_series(1, 10) as day, unnest(array['cusum', 'psi', 'ks', 'sentinels', 'novelty']) as kind;

insert into flywheel.alert_rules (rule, metric, severity, definition) values ('slow', 'latency', 'high', '{}');
insert into flywheel.alerts (alert_id, rule, metric, severity, slice, opened_at, last_seen_at, closed_at, closed_because, value, threshold, n, evidence)
select flywheel.new_id(), 'slow', 'latency', 'high', jsonb_build_object('project', 'shop', 'node', 'node ' || n),
       now() - make_interval(hours => n), now(), case when n > 1 then now() end, case when n > 1 then 'clear' end, 900, 500, 40, '{}'
  from generate_series(1, 3) as n;
insert into flywheel.budgets (budget_id, scope, name, period, cap_usd) values (flywheel.new_id(), 'project', 'shop', 'day', 5);
insert into flywheel.run_log (run_id, started_at, finished_at, worker_id, lane, jobs, spans, scores, outcome)
select flywheel.new_id(), now() - make_interval(mins => n), now() - make_interval(mins => n), flywheel.new_id(), 'bulk', 2, 40, 40, 'completed'
  from generate_series(1, 50) as n;
select flywheel._heartbeat(flywheel.new_id(), 'w', '{bulk,judge}', 60, true, 0, '0', true);

insert into flywheel.alert_channels (channel, url) values ('chat', 'https://chat.example.org/hook');
insert into flywheel.providers (provider, base_url) values ('acme', 'https://acme.example.org/v1');
insert into flywheel._batches (batch_id, provider, model) values (flywheel.new_id(), 'acme', 'judge-1');

insert into flywheel._dead (lane, priority, job_id, version_ids, span_ids, started_from, started_until, attempt, reason, died_at)
select 'judge', 1, flywheel.new_id(), array[version_id], array[flywheel.new_id()], now(), now(), 5, 'timed_out', now()
  from flywheel.validator_status where validator = 'polite';

insert into flywheel.calibrations (version_id, method, parameters, labels, brier, calibration_error, threshold, alpha, delta)
select version_id, 'platt', '{"trusted": 80, "errors": 1, "basis": "dev"}', 120, 0.1, 0.03, 0.9, 0.05, 0.1
  from flywheel.validator_status where validator = 'polite';

with chosen as (
  insert into flywheel.sentinels (sentinel_id, validator_id, span_id, started_at, revision, passed, item)
  select flywheel.new_id(), validator_id, span_id, started_at, revision, passed, '{}' from flywheel.gold_labels where validator = 'polite' limit 20
  returning sentinel_id, passed
)
insert into flywheel.sentinel_runs (version_id, run_at, sentinel_id, passed, cost_usd)
select version_id, now() - make_interval(days => day), sentinel_id, passed, 0.0004
  from chosen, flywheel.validator_status, generate_series(1, 5) as day where validator = 'polite';

insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, confidence, annotator_kind, cost_usd, latency_ms)
select span_id, 1, (select version_id from flywheel.validator_status where validator = 'surely_polite'), started_at, trace_id, project, true, 0.95, 'neighbours', 0.002, 900
  from flywheel.spans where node = 'answer' order by started_at desc limit 40;

select flywheel.define_metric('polite_by_node', '{"measure": "pass_rate", "validator": "polite", "by": ["node"], "storage": "materialized"}');

insert into flywheel._novelties (day, project, span_id, started_at, distance, percentile)
select started_at::date as day, project, span_id, started_at, 0.9, 0.999 from flywheel.spans where node = 'answer' order by started_at desc limit 5;

with direction as (
  select place, flywheel.new_id() as cluster_id, (select array_agg(0.01 + (i % 2 = place)::integer * 0.05) from generate_series(1, 384) as i)::real[]::public.vector as vector
    from generate_series(0, 1) as place
), made as (
  insert into flywheel._clusters (cluster_id, project, embedder_id, words, n, total, first_seen_at, last_seen_at)
  select cluster_id, 'shop', embedder_id, case place when 0 then 'parcel, late' else 'parcel, lost' end, 100, vector, now() - interval '14 days', now()
    from direction, flywheel.embedders where status = 'serving'
)
insert into flywheel._cluster_members (span_id, started_at, embedder_id, project, part, cluster_id, embedding)
select span_id, started_at, embedder_id, 'shop', 'input', cluster_id, vector::public.halfvec
  from (select *, row_number() over (order by started_at desc) as n from flywheel.spans where node = 'answer') as asked
  join direction on place = n % 2, flywheel.embedders
 where embedders.status = 'serving' and n <= 400;
