-- Who may do what. Files that bring a word of their own grant what belongs to it themselves; here is the rest.

revoke all on schema flywheel, flywheel_bi from public;
revoke all on all tables in schema flywheel, flywheel_bi from public;
revoke all on all functions in schema flywheel from public;

-- Everyone: ids, and the pure helpers that checks and views call.
select flywheel._grant(role, 'usage on schema flywheel')
  from unnest(array['flywheel_writer', 'flywheel_worker', 'flywheel_reviewer', 'flywheel_analyst', 'flywheel_admin']) as role;

-- Writer: insert, and ask the guardrails first. Replays need no select: on conflict do nothing reads nothing.
select flywheel._grant('flywheel_writer', privilege) from unnest(array[
  'insert on flywheel.spans, flywheel.traces, flywheel.feedback',
  'execute on function flywheel.new_id(), flywheel.guard(text, text, text, text, text)']) as privilege;

-- Analyst: read views and the public tables of logs; no queue, no settings, no functions that change anything.
select flywheel._grant('flywheel_analyst', privilege) from unnest(array[
  'usage on schema flywheel_bi',
  'select on all tables in schema flywheel_bi',
  'select on flywheel.traces, flywheel.trace_summary, flywheel.current_scores, flywheel.score_history, flywheel.accounts,
             flywheel.queue_status, flywheel.dead_jobs, flywheel.validator_status, flywheel.worker_status, flywheel.run_log',
  'execute on function flywheel.why(uuid), flywheel._explain_span_briefly(uuid)']) as privilege;

-- What the views queue_status and accounts call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel._id_time(uuid)')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant(role, 'execute on function flywheel._accounts()')
  from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;

-- Worker: the queue's functions; what they write they write as the owner.
do $block$
declare
  act record;
begin
  for act in
    select procs.oid::regprocedure as signature from pg_catalog.pg_proc as procs
     where procs.pronamespace = 'flywheel'::regnamespace and procs.proname in (
       '_heartbeat', '_leave', '_claim', '_claim_calls', '_lock_fences', '_finish', '_split', '_bury', '_retry', '_hold', '_promote_later',
       '_give_back', '_give_back_strays', '_read_calls', '_lane_runs', '_reap', '_log_run', '_complete', '_run_sql_checks', '_read_spans', '_write_scores', '_mark_unscored', '_record_fault',
       '_reconcile_recent', '_maintain_partitions', '_running_spans', 'reconcile', 'new_id')
  loop
    perform flywheel._grant('flywheel_worker', format('execute on function %s', act.signature));
  end loop;
end
$block$;
select flywheel._grant('flywheel_worker', privilege) from unnest(array[
  'select on flywheel.validators, flywheel.validator_versions, flywheel.validator_status, flywheel.queue_status, flywheel.worker_status, flywheel.settings,
             flywheel.alembic_version, flywheel._ready, flywheel._running, flywheel._later, flywheel._lanes',
  'maintain on flywheel._ready, flywheel._running, flywheel._later, flywheel._workers']) as privilege
 where privilege not like 'maintain%' or current_setting('server_version_num')::integer >= 170000;

-- Admin: define and switch validators, read everything people read. A validator's SQL runs as the owner of the install:
-- whoever is given this role is trusted with it.
select flywheel._grant('flywheel_admin', privilege) from unnest(array[
  'usage on schema flywheel_bi',
  'select on all tables in schema flywheel_bi',
  'select on flywheel.spans, flywheel.feedback, flywheel.scores, flywheel.validators, flywheel.validator_versions, flywheel.traces, flywheel.trace_summary,
             flywheel.current_scores, flywheel.score_history, flywheel.accounts, flywheel.queue_status, flywheel.dead_jobs,
             flywheel.validator_status, flywheel.worker_status, flywheel.run_log, flywheel.settings, flywheel.alembic_version, flywheel.spans_default',
  'update (status, paused_reason, paused_detail) on flywheel.validator_versions',
  'update (value) on flywheel.settings',
  'execute on function flywheel.define_validator(text, jsonb), flywheel.approve_validator(text, integer), flywheel.activate_validator(text, integer),
     flywheel.shadow_validator(text, integer), flywheel.pause_validator(text, text), flywheel.retire_validator(text), flywheel.compile_dispatch(),
     flywheel.test_validator(jsonb, uuid), flywheel.test_validator(jsonb, text, text), flywheel.guard(text, text, text, text, text), flywheel.why(uuid), flywheel._explain_span(uuid),
     flywheel.ensure_partitions(date, date), flywheel.purge(timestamptz), flywheel.replay_dead(uuid), flywheel.pause_lane(text, text), flywheel.resume_lane(text),
     flywheel.reconcile(timestamptz, timestamptz, integer), flywheel.plan_backfill(text, timestamptz, timestamptz),
     flywheel.start_backfill(text, timestamptz, timestamptz, text), flywheel.advance_backfill(uuid, integer), flywheel.judge_unscored(text, timestamptz, timestamptz), flywheel.new_id()']) as privilege;
