-- Sentinels: labelled items a judge is asked about every day. They never change, so if its verdicts do, the judge did:
-- its model behind the same name, or its examples. What changes without them is the application.

-- choose_sentinels: of the dev split, half of each verdict, by hash; those chosen before stay. What is shown of each is kept.
create or replace function flywheel.choose_sentinels(validator text, n integer default 40) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  version flywheel.validator_versions;
  question uuid;
begin
  select versions.* into version from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
   where validators.name = choose_sentinels.validator and versions.kind = 'judge' order by versions.status = 'active' desc, versions.version desc limit 1;
  if version.version_id is null then
    raise exception using errcode = '22023', message = format(
      case when exists (select from flywheel.validators where validators.name = choose_sentinels.validator)
           then '%s is not a judge that asks a model' else 'there is no judge %s' end, choose_sentinels.validator),
      detail = 'Sentinels tell whether a model changed.', hint = 'List judges and their models: pgflywheel judges list.';
  end if;
  perform flywheel._require(n between 2 and 1000, format('%s sentinels cannot be chosen', n), 'Choose 2 to 1000; forty show a change of an eighth of the verdicts.');
  question := flywheel._question_of(version);
  insert into flywheel.sentinels (sentinel_id, validator_id, span_id, started_at, revision, passed, item)
  select flywheel.new_id(), question, listed.span_id, listed.started_at, listed.revision, listed.passed, listed.item
    from (select gold.span_id, gold.started_at, gold.revision, gold.passed,
                 jsonb_build_object('trace_id', span.trace_id, 'project', span.project, 'node', span.node, 'input', span.input, 'output', span.output,
                   'messages', span.messages, 'documents', span.documents, 'parents', flywheel._parent_steps(span.trace_id, span.parent_span_id, span.started_at),
                   'session', flywheel._session_turns(span, 20)) as item,
                 row_number() over (partition by gold.passed order by flywheel._hash01(gold.span_id, 'sentinel'), gold.revision)
                   + (select count(*) from flywheel.sentinels as kept where kept.validator_id = question and kept.retired_at is null and kept.passed = gold.passed) as place
            from flywheel.gold_labels as gold
            join flywheel.spans as span on (span.span_id, span.started_at, span.revision) = (gold.span_id, gold.started_at, gold.revision)
           where gold.validator_id = question and gold.split = 'dev' and gold.passed is not null
             and not exists (select from flywheel.sentinels as kept where (kept.validator_id, kept.span_id, kept.revision) = (question, gold.span_id, gold.revision))) as listed
   where listed.place <= (n + 1) / 2
      on conflict do nothing;                        -- two at once choose the same
  return (select count(*) from flywheel.sentinels as kept where kept.validator_id = question and kept.retired_at is null);
end
$function$;
comment on function flywheel.choose_sentinels is
  'Keep labelled spans of the dev split, half of each verdict, to ask the judge about every day; those chosen before stay. Returns how many there are now.';

create or replace function flywheel.retire_sentinels(validator text) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  retired integer;
begin
  update flywheel.sentinels set retired_at = now()
    from flywheel.validators
   where validators.name = retire_sentinels.validator and sentinels.validator_id = validators.validator_id and sentinels.retired_at is null;
  get diagnostics retired = row_count;
  if retired = 0 and not exists (select from flywheel.validators where validators.name = retire_sentinels.validator) then
    raise exception using errcode = '22023', message = format('there is no judge %s', retire_sentinels.validator), hint = 'List judges: pgflywheel judges list.';
  end if;
  return retired;
end
$function$;
comment on function flywheel.retire_sentinels is 'Ask about the sentinels of a validator no more; returns how many. What was said of them stays.';

-- _sentinels_due: active judges whose question has sentinels that were not asked lately.
create or replace function flywheel._sentinels_due() returns table (version_id uuid)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select versions.version_id
    from flywheel.validator_versions as versions
   where versions.kind = 'judge' and versions.status = 'active'
     and exists (select from flywheel.sentinels where sentinels.validator_id = flywheel._question_of(versions) and sentinels.retired_at is null)
     and not exists (select from flywheel.sentinel_runs as runs where runs.version_id = versions.version_id
                        and runs.run_at > now() - make_interval(secs => flywheel._setting('sentinel_hours') * 3600))
$function$;
comment on function flywheel._sentinels_due is 'Internal: judge versions that are to be asked about their sentinels now.';

create or replace function flywheel._sentinel_items(version_id uuid)
returns table (fence uuid, span_id uuid, revision integer, started_at timestamptz, trace_id uuid, project text, node text, input text, output text,
  messages jsonb, documents jsonb, parents jsonb, session jsonb, sampled boolean, exemplified boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select sentinels.sentinel_id, sentinels.span_id, sentinels.revision, sentinels.started_at, (sentinels.item ->> 'trace_id')::uuid, sentinels.item ->> 'project',
         sentinels.item ->> 'node', sentinels.item ->> 'input', sentinels.item ->> 'output', nullif(sentinels.item -> 'messages', 'null'),
         nullif(sentinels.item -> 'documents', 'null'), sentinels.item -> 'parents', sentinels.item -> 'session', true, true
    from flywheel.validator_versions as versions
    join flywheel.sentinels on sentinels.validator_id = flywheel._question_of(versions) and sentinels.retired_at is null
   where versions.version_id = _sentinel_items.version_id
   order by sentinels.sentinel_id
$function$;
comment on function flywheel._sentinel_items is 'Internal: the sentinels of a version as a judge is shown them; fence is the id of the sentinel.';

-- _sentinel_changes: what a run says against the majority of the seven runs before it, item by item. Verdicts also differ
-- from run to run where nothing changed: how often, three earlier runs can tell.
create or replace function flywheel._sentinel_changes(version_id uuid, run_at timestamptz,
  out n bigint, out agreed bigint, out agreed_before bigint, out changed bigint, out worse bigint, out better bigint, out noise double precision, out p_value double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with earlier as materialized (
    select runs.run_at from flywheel.sentinel_runs as runs
     where runs.version_id = _sentinel_changes.version_id and runs.run_at < _sentinel_changes.run_at
     group by 1 order by 1 desc limit 7
  ), usual as materialized (
    select runs.sentinel_id, avg(runs.passed::integer) >= 0.5 as passed, least(avg(runs.passed::integer), 1 - avg(runs.passed::integer)) * count(runs.passed) as odd, count(runs.passed) as said
      from flywheel.sentinel_runs as runs join earlier using (run_at)
     where runs.version_id = _sentinel_changes.version_id and runs.passed is not null group by 1
  ), paired as (
    select sentinels.passed as truth, usual.passed as before, runs.passed as after
      from flywheel.sentinel_runs as runs join usual using (sentinel_id) join flywheel.sentinels using (sentinel_id)
     where (runs.version_id, runs.run_at) = (_sentinel_changes.version_id, _sentinel_changes.run_at) and runs.passed is not null
  ), counted as (
    select count(*) as n, count(*) filter (where after = truth) as agreed, count(*) filter (where before = truth) as agreed_before, count(*) filter (where after <> before) as changed,
           count(*) filter (where before = truth and after <> truth) as worse, count(*) filter (where before <> truth and after = truth) as better from paired
  ), chance as (
    select case when (select count(*) from earlier) >= 3 then greatest(0.02, flywheel.clopper_pearson_upper(round(sum(odd))::bigint, sum(said)::bigint, 0.1)) else 0.05 end as noise from usual
  )
  select counted.n, counted.agreed, counted.agreed_before, counted.changed, counted.worse, counted.better, chance.noise,
         case when counted.n >= 30 then least(1, 2 * least(flywheel.mcnemar_exact(counted.worse, counted.better),
           case when counted.changed = 0 then 1 else 1 - flywheel._binomial_cdf(counted.changed - 1, counted.n, chance.noise) end)) end
    from counted cross join chance
$function$;
comment on function flywheel._sentinel_changes is 'Internal: how verdicts of a run differ from those before: changed in all, for the worse, for the better, and the chance of that if nothing changed.';

-- _write_sentinel_run: the run and the test, together.
create or replace function flywheel._write_sentinel_run(version_id uuid, run_at timestamptz, said jsonb) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  written integer;
begin
  insert into flywheel.sentinel_runs (version_id, run_at, sentinel_id, passed, value, unscored_reason, unscored_detail, answered_by, cost_usd)
  select _write_sentinel_run.version_id, _write_sentinel_run.run_at, told.sentinel_id, told.passed, told.value,
         case when told.passed is null then coalesce(told.reason, 'no_verdict') end, left(told.detail, 2000), told.answered_by, told.cost_usd
    from jsonb_to_recordset(said) as told(sentinel_id uuid, passed boolean, value double precision, reason text, detail text, answered_by text, cost_usd double precision)
      on conflict do nothing;
  get diagnostics written = row_count;
  perform flywheel._note_drift(row(null, null, 'sentinels', flywheel._version_text(_write_sentinel_run.version_id), 'sentinels', null, _write_sentinel_run.version_id,
            _write_sentinel_run.run_at, clock_timestamp(), null, _write_sentinel_run.run_at, -ln(greatest(changes.p_value, 1e-12)), -ln(0.003),
            case when changes.n >= 30 then (changes.agreed - changes.agreed_before)::double precision / changes.n end, changes.n, changes.n, changes.p_value < 0.003,
            to_jsonb(changes))::flywheel.drift_tests)
     from flywheel._sentinel_changes(_write_sentinel_run.version_id, _write_sentinel_run.run_at) as changes;
  return written;
end
$function$;
comment on function flywheel._write_sentinel_run is 'Internal: write what a judge said of its sentinels, and test it against the runs before; returns how many were new.';

create or replace view flywheel.judge_drift as
  select validators.name as validator, versions.version, last.run_at, coalesce(changes.n, 0) as n,
         last.agreed::double precision / nullif(last.said, 0) as agreement, wilson.low as agreement_low, wilson.high as agreement_high,
         changes.agreed_before::double precision / nullif(changes.n, 0) as usual_agreement,
         changes.changed, 1 - changes.changed::double precision / nullif(changes.n, 0) as identical_share, changes.noise, changes.p_value,
         flywheel.paired_log_e(changes.worse, changes.better) as log_e,
         coalesce(changes.p_value < 0.003, false) as judge_changed, coalesce(cardinality(own.alarms) + cardinality(others.alarms) > 0, false) as application_alarmed,
         case when changes.p_value is null then 'not enough data'
              when changes.p_value < 0.003 and cardinality(others.alarms) > 0 then 'both'
              when changes.p_value < 0.003 then 'the judge changed'
              when cardinality(own.alarms) + cardinality(others.alarms) > 0 then 'the application changed'
              else 'nothing changed' end as verdict,
         array_to_string(own.alarms || others.alarms, '; ') as alarms
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
   cross join lateral (
     select runs.run_at, count(runs.passed) as said, count(*) filter (where runs.passed = sentinels.passed) as agreed
       from flywheel.sentinel_runs as runs join flywheel.sentinels using (sentinel_id)
      where runs.version_id = versions.version_id group by 1 order by 1 desc limit 1) as last
   cross join lateral flywheel._sentinel_changes(versions.version_id, last.run_at) as changes
   cross join lateral flywheel.wilson_interval(last.agreed, last.said) as wilson
   cross join lateral (
     select coalesce(array_agg(format('%s: %s (%s)', status.kind, status.subject, status.slice) order by status.kind, status.subject, status.slice), '{}') as alarms
       from flywheel.drift_status as status
      where status.drifted and status.kind not in ('sentinels') and (status.validator, status.version) = (validators.name, versions.version)) as own
   cross join lateral (
     select coalesce(array_agg(format('%s: %s (%s)', status.kind, status.subject, status.slice) order by status.kind, status.subject, status.slice), '{}') as alarms
       from flywheel.drift_status as status
       left join flywheel.validators as named on named.name = status.validator
       left join flywheel.validator_versions as other on (other.validator_id, other.version) = (named.validator_id, status.version)
      where status.drifted and (status.validator is null or other.kind in ('sql', 'python'))
        and exists (select from flywheel._monitors as monitors where monitors.version_id = versions.version_id and monitors.project = status.project)) as others
   where versions.status in ('active', 'paused');
comment on view flywheel.judge_drift is
  'Whether a judge or the application changed: the verdicts on sentinels against those before, and what else gives alarm where the judge is used.';
comment on column flywheel.judge_drift.validator is 'The judge.';
comment on column flywheel.judge_drift.version is 'Its version.';
comment on column flywheel.judge_drift.run_at is 'When its sentinels were asked last.';
comment on column flywheel.judge_drift.n is 'Sentinels with a verdict now and before.';
comment on column flywheel.judge_drift.agreement is 'Share of the sentinels on which it agrees with people now.';
comment on column flywheel.judge_drift.agreement_low is 'Lower end of its 95 % interval.';
comment on column flywheel.judge_drift.agreement_high is 'Upper end.';
comment on column flywheel.judge_drift.usual_agreement is 'The same of the majority of the seven runs before.';
comment on column flywheel.judge_drift.changed is 'Sentinels whose verdict is not the usual one.';
comment on column flywheel.judge_drift.identical_share is 'Share whose verdict is.';
comment on column flywheel.judge_drift.noise is 'Share of verdicts that may differ by chance, from earlier runs.';
comment on column flywheel.judge_drift.p_value is 'Chance of such a change if nothing changed; null = fewer than 30 sentinels, or no earlier run.';
comment on column flywheel.judge_drift.log_e is 'Evidence that agreement became worse or better: the logarithm of an e-value (paired_log_e).';
comment on column flywheel.judge_drift.judge_changed is 'Whether p_value is below 0.003.';
comment on column flywheel.judge_drift.application_alarmed is 'Whether anything else gives alarm: the pass rate of the judge, of checks in its projects, distributions, embeddings.';
comment on column flywheel.judge_drift.verdict is 'the judge changed, the application changed, both, nothing changed, or not enough data.';
comment on column flywheel.judge_drift.alarms is 'The tests that give alarm, besides the sentinels.';

create or replace view flywheel.sentinel_status as
  select validators.name as validator, sentinels.sentinel_id, sentinels.span_id, sentinels.started_at, sentinels.revision, sentinels.passed,
         last.version, last.run_at, runs.passed as said, runs.value, runs.unscored_reason, runs.passed = sentinels.passed as agrees,
         sentinels.chosen_by, sentinels.chosen_at, sentinels.retired_at
    from flywheel.sentinels
    join flywheel.validators using (validator_id)
    left join (select distinct on (1) flywheel._question_of(versions) as validator_id, versions.version_id, versions.version, asked.run_at
                 from flywheel.validator_versions as versions
                cross join lateral (select each.run_at from flywheel.sentinel_runs as each where each.version_id = versions.version_id
                                     order by each.run_at desc limit 1) as asked
                where versions.kind = 'judge' order by 1, asked.run_at desc, versions.version_id) as last using (validator_id)
    left join flywheel.sentinel_runs as runs on (runs.version_id, runs.run_at, runs.sentinel_id) = (last.version_id, last.run_at, sentinels.sentinel_id);
comment on view flywheel.sentinel_status is 'Every sentinel, without its texts, and what the judge said of it when it was asked last.';

create or replace view flywheel.sentinel_history as
  select asked.run_at, validators.name as validator, versions.version, asked.n, asked.judged, asked.n - asked.judged as unscored, asked.agreed,
         asked.agreed::double precision / nullif(asked.judged, 0) as agreement, wilson.low as agreement_low, wilson.high as agreement_high,
         tests.p_value, tests.drifted, asked.answered_by, asked.cost_usd
    from (select runs.version_id, runs.run_at, count(*) as n, count(runs.passed) as judged, count(*) filter (where runs.passed = sentinels.passed) as agreed,
                 max(runs.answered_by) as answered_by, case when count(*) = count(runs.cost_usd) then sum(runs.cost_usd) end as cost_usd
            from flywheel.sentinel_runs as runs join flywheel.sentinels using (sentinel_id) group by 1, 2) as asked
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id)
    left join (select made.version_id, made.window_from as run_at, bool_or(made.drifted) as drifted, min((made.evidence ->> 'p_value')::double precision) as p_value
                 from flywheel.drift_tests as made where made.kind = 'sentinels' group by 1, 2) as tests using (version_id, run_at)
   cross join lateral flywheel.wilson_interval(asked.agreed, asked.judged) as wilson;
comment on view flywheel.sentinel_history is 'Every time a judge was asked about its sentinels: how far it agreed with people, and whether its verdicts had changed.';

do $block$
declare
  said record;
begin
  for said in
    select own.view, own.name, own.meaning from (values
      ('sentinel_status', 'validator', 'Whose labels it has.'),
      ('sentinel_status', 'sentinel_id', 'Its id.'),
      ('sentinel_status', 'span_id', 'The span it is a copy of, which may be gone.'),
      ('sentinel_status', 'started_at', 'When that began.'),
      ('sentinel_status', 'revision', 'Its revision.'),
      ('sentinel_status', 'passed', 'What people say.'),
      ('sentinel_status', 'version', 'Version of the judge that was asked last; null = never asked.'),
      ('sentinel_status', 'run_at', 'When it was.'),
      ('sentinel_status', 'said', 'What the judge said; null = no verdict, or this one was not asked then.'),
      ('sentinel_status', 'value', 'Its value, where it gave one.'),
      ('sentinel_status', 'unscored_reason', 'Why it gave no verdict.'),
      ('sentinel_status', 'agrees', 'Whether the judge said what people say.'),
      ('sentinel_status', 'chosen_by', 'Who chose it.'),
      ('sentinel_status', 'chosen_at', 'When.'),
      ('sentinel_status', 'retired_at', 'Since when it is asked about no more; null = it is.'),
      ('sentinel_history', 'run_at', 'When the judge was asked.'),
      ('sentinel_history', 'validator', 'The judge.'),
      ('sentinel_history', 'version', 'Its version.'),
      ('sentinel_history', 'n', 'Sentinels it was asked about.'),
      ('sentinel_history', 'judged', 'Those with a verdict.'),
      ('sentinel_history', 'unscored', 'Those without.'),
      ('sentinel_history', 'agreed', 'Those on which it said what people say.'),
      ('sentinel_history', 'agreement', 'agreed / judged.'),
      ('sentinel_history', 'agreement_low', 'Lower end of its 95 % Wilson interval.'),
      ('sentinel_history', 'agreement_high', 'Upper end of its 95 % Wilson interval.'),
      ('sentinel_history', 'p_value', 'Chance of such a change against the seven runs before if nothing changed; null = fewer than 30 sentinels, or no earlier run.'),
      ('sentinel_history', 'drifted', 'Whether it is below 0.003; null = not enough data, or the test is older than settings.drift_days_kept.'),
      ('sentinel_history', 'answered_by', 'Model that answered, as the endpoint names it.'),
      ('sentinel_history', 'cost_usd', 'What the run cost; null = not all of it is known.')) as own(view, name, meaning)
  loop
    execute format('comment on column flywheel.%I.%I is %L', said.view, said.name, said.meaning);
  end loop;
end
$block$;

-- What is shown of a sentinel is what a span holds, so analysts see everything but that.
select flywheel._grant('flywheel_analyst', 'select (sentinel_id, validator_id, span_id, started_at, revision, passed, chosen_by, chosen_at, retired_at) on flywheel.sentinels');
select flywheel._grant('flywheel_analyst', 'select (version_id, run_at, sentinel_id, passed, value, unscored_reason, answered_by, cost_usd) on flywheel.sentinel_runs');
select flywheel._grant('flywheel_admin', 'select on flywheel.sentinels, flywheel.sentinel_runs');
select flywheel._grant(role, 'select on flywheel.judge_drift, flywheel.sentinel_status, flywheel.sentinel_history') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant(role, 'execute on function flywheel._sentinel_changes(uuid, timestamptz)') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_admin', 'execute on function flywheel.choose_sentinels(text, integer), flywheel.retire_sentinels(text)');
select flywheel._grant('flywheel_worker', 'execute on function flywheel._sentinels_due(), flywheel._sentinel_items(uuid), flywheel._write_sentinel_run(uuid, timestamptz, jsonb)');
