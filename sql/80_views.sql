-- Views people and programs read. Columns are only ever appended.

create or replace view flywheel.traces as
  select span_id, trace_id, project, environment, release, session_id, user_id, node, node_kind, input, output, messages, documents,
         model, provider, input_tokens, output_tokens, cost_usd, status, error, started_at, ended_at, latency_ms, attributes, revision, ingested_at
    from flywheel.spans
   where parent_span_id is null;
comment on view flywheel.traces is 'Root spans: one row for each request. An application with one call for each request may insert here.';

create or replace view flywheel.trace_summary as
  select trace_id, min(project) as project, min(environment) as environment, min(release) as release, min(session_id) as session_id,
         min(started_at) as started_at, max(ended_at) as ended_at,
         extract(epoch from max(ended_at) - min(started_at))::double precision * 1000 as duration_ms,
         count(*) as spans, count(*) filter (where status = 'error') as errors,
         sum(input_tokens) as input_tokens, sum(output_tokens) as output_tokens, sum(cost_usd) filter (where cost_usd < 1e15) as cost_usd,
         bool_or(parent_span_id is null) as has_root
    from flywheel.spans
   group by trace_id;
comment on view flywheel.trace_summary is 'Totals for each trace. Sums leave unknown values out; null = none is known.';

create or replace view flywheel.score_history as
  select scores.span_id, validators.name as validator, versions.version, scores.passed, scores.value, scores.critique,
         scores.unscored_reason, scores.unscored_detail, scores.annotator_kind, scores.scored_at, scores.started_at,
         scores.trace_id, scores.project, scores.revision, versions.severity, versions.status as version_status
    from flywheel.scores
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id);
comment on view flywheel.score_history is 'Every score ever written: of each revision, by each version, shadows too.';

create or replace view flywheel.current_scores as
  select scores.span_id, validators.name as validator, versions.version, scores.passed, scores.value, scores.critique,
         scores.unscored_reason, scores.unscored_detail, scores.annotator_kind, scores.scored_at, scores.started_at,
         scores.trace_id, scores.project, scores.revision, versions.severity,
         spans.environment, spans.release, spans.node, spans.node_kind, spans.session_id,
         versions.kind in ('judge', 'neighbours') and coalesce(standings.provisional, true) as provisional
    from flywheel.spans                           -- first, so that a reader locks in the order in which writers and purge() do
    join flywheel.scores on (spans.span_id, spans.started_at, spans.revision) = (scores.span_id, scores.started_at, scores.revision)
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id)
    left join flywheel._standings as standings using (version_id)
   where versions.status not in ('shadow', 'draft', 'approved')  -- a draft has scores where it was measured on labels
     and not exists (
       select from flywheel.validator_versions as newer
         join flywheel.scores as later_score on later_score.version_id = newer.version_id
        where newer.validator_id = versions.validator_id and newer.version > versions.version and newer.status not in ('shadow', 'draft', 'approved')
          and newer.version > 1                   -- a first version replaces none: without second versions nothing is looked up
          and (later_score.span_id, later_score.revision, later_score.started_at) = (scores.span_id, scores.revision, scores.started_at));
comment on view flywheel.current_scores is
  'One row for each span and validator: what the newest version that judged it says of the span''s current revision. Shadows and drafts stand apart.';

create or replace view flywheel.accounts as
  select validator, version, status, eligible, scored, unscored, queued, running, later, dead, missing,
         eligible = scored + unscored + queued + running + later + dead as balanced
    from flywheel._accounts();
comment on view flywheel.accounts is
  'For each version that ever judged: eligible = scored + unscored + queued + running + later + dead, recounted from the spans. missing > 0 until the reconciler has run.';

create or replace view flywheel.queue_status as
  select lanes.lane,
         (select count(*) from flywheel._ready as ready where ready.lane = lanes.lane) as ready_jobs,
         (select coalesce(sum(cardinality(ready.span_ids)), 0) from flywheel._ready as ready where ready.lane = lanes.lane) as ready_spans,
         (select coalesce(sum(cardinality(running.span_ids)), 0) from flywheel._running as running where running.lane = lanes.lane)
           + (select count(distinct (lines.version_id, lines.span_id)) from flywheel._batch_lines as lines where lanes.lane = 'batch') as running_spans,
         (select coalesce(sum(cardinality(later.span_ids)), 0) from flywheel._later as later where later.lane = lanes.lane) as later_spans,
         (select coalesce(sum(cardinality(dead.span_ids)), 0) from flywheel._dead as dead where dead.lane = lanes.lane) as dead_spans,
         (select extract(epoch from now() - min(flywheel._id_time(ready.job_id)))::double precision
            from flywheel._ready as ready where ready.lane = lanes.lane) as oldest_ready_seconds,
         lanes.paused_reason is not null as paused, lanes.paused_reason,
         (select count(*) from flywheel._later as later where later.lane = lanes.lane and later.run_at < 'infinity') as retrying_jobs,
         (select count(*) from flywheel._running as running where running.lane = lanes.lane) as running_jobs
    from flywheel._lanes as lanes;
comment on view flywheel.queue_status is 'How much work waits in each lane.';

create or replace view flywheel.dead_jobs as
  select dead.job_id, dead.lane, array_to_string(array(
           select validators.name from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
            where versions.version_id = any (dead.version_ids) order by 1), ', ') as validators,
         cardinality(dead.span_ids) as spans, dead.attempt as attempts, dead.reason, dead.detail, dead.died_at, dead.origin
    from flywheel._dead as dead;
comment on view flywheel.dead_jobs is 'Jobs given up. select flywheel.replay_dead(job_id) queues one again.';

create or replace view flywheel.validator_status as
  select validators.name as validator, versions.version, versions.status, versions.kind, versions.target, versions.lane, versions.action,
         versions.severity, versions.sample, versions.definition ->> 'description' as description, versions.paused_reason, versions.paused_detail,
         versions.changed_at, versions.approved_by, versions.created_by, versions.created_at, versions.content_hash, versions.definition, versions.version_id
    from flywheel.validators join flywheel.validator_versions as versions using (validator_id);
comment on view flywheel.validator_status is 'Every version of every validator with its status.';

create or replace view flywheel.worker_status as
  select worker_id, name, lanes, listening, in_hand, release, started_at, last_seen_at, leased_until, leased_until > now() as alive
    from flywheel._workers;
comment on view flywheel.worker_status is 'The workers, with their last heartbeat.';
