-- Cascade: what the tiers of a question decided, and what each of them cost.

create or replace view flywheel.question_verdicts as
  with tiers as (
    select scores.span_id, scores.revision, scores.started_at, scores.trace_id, scores.project, asked.name as question,
           validators.name as validator, versions.version, scores.passed, scores.confidence, scores.scored_at, scores.cost_usd,
           scores.passed is not null
             and (not versions.definition ? 'escalates_to' or scores.confidence >= calibrations.threshold) is true as trusted
      from flywheel.scores
      join flywheel.validator_versions as versions using (version_id)
      join flywheel.validators using (validator_id)
      join flywheel.validators as asked on asked.validator_id = flywheel._question_of(versions)
      left join flywheel.calibrations using (version_id)
     where versions.status not in ('shadow', 'draft', 'approved')
       and (versions.definition ? 'escalates_to' or versions.definition ->> 'runs' = 'escalated')
  ), decided as (
    select distinct on (span_id, revision, question)
           span_id, revision, started_at, trace_id, project, question, passed, confidence, trusted, validator, version,
           sum(cost_usd) filter (where cost_usd < 1e15) over (partition by span_id, revision, question) as cost_usd,
           count(*) over (partition by span_id, revision, question) as tiers
      from tiers
     order by span_id, revision, question, trusted desc, scored_at desc
  )
  select decided.question as validator, decided.span_id, decided.revision, decided.started_at, decided.trace_id, decided.project,
         coalesce(gold.passed, decided.passed) as passed,
         case when gold.passed is not null then 'person' else decided.validator end as decided_by,
         case when gold.passed is null then decided.version end as version,
         decided.trusted or gold.passed is not null as settled,
         decided.confidence, decided.tiers, decided.cost_usd
    from decided
    left join flywheel.gold_labels as gold on gold.validator = decided.question
          and (gold.span_id, gold.revision, gold.started_at) = (decided.span_id, decided.revision, decided.started_at);
comment on view flywheel.question_verdicts is
  'For questions asked by a cascade: the verdict of the first tier that is trusted, or of a person; otherwise the last one so far, not settled.';
comment on column flywheel.question_verdicts.validator is 'The validator whose question it is.';
comment on column flywheel.question_verdicts.span_id is 'The span judged.';
comment on column flywheel.question_verdicts.revision is 'The revision of the span that was judged.';
comment on column flywheel.question_verdicts.started_at is 'started_at of the span.';
comment on column flywheel.question_verdicts.trace_id is 'Trace of the span.';
comment on column flywheel.question_verdicts.project is 'Project of the span.';
comment on column flywheel.question_verdicts.passed is 'The verdict; null = no tier gave one.';
comment on column flywheel.question_verdicts.decided_by is 'The tier it comes from, or person.';
comment on column flywheel.question_verdicts.version is 'Version of that tier; null for a person.';
comment on column flywheel.question_verdicts.settled is 'Whether that tier is sure enough, is the last one, or is a person.';
comment on column flywheel.question_verdicts.confidence is 'How sure the tier was.';
comment on column flywheel.question_verdicts.tiers is 'How many tiers judged the span.';
comment on column flywheel.question_verdicts.cost_usd is 'What they cost in all; null = nothing was called, or unknown.';

create or replace view flywheel.cascade_status as
  select asked.name as question, validators.name as validator, versions.version,
         count(*) as judged,
         count(*) filter (where kept.trusted) as kept,
         count(*) filter (where not kept.trusted) as handed_on,
         count(*) filter (where scores.passed is null) as unscored,
         sum(scores.cost_usd) filter (where scores.cost_usd < 1e15) as cost_usd,
         sum(scores.cost_usd) filter (where scores.cost_usd < 1e15) / nullif(count(*) filter (where kept.trusted), 0) as cost_per_kept_usd,
         percentile_cont(0.5) within group (order by scores.latency_ms) as latency_ms
    from flywheel.scores
    join flywheel.validator_versions as versions using (version_id)
    join flywheel.validators using (validator_id)
    join flywheel.validators as asked on asked.validator_id = flywheel._question_of(versions)
    left join flywheel.calibrations using (version_id)
   cross join lateral (
     select scores.passed is not null
              and (not versions.definition ? 'escalates_to' or scores.confidence >= calibrations.threshold) is true as trusted) as kept
   where versions.status not in ('shadow', 'draft', 'approved')
     and (versions.definition ? 'escalates_to' or versions.definition ->> 'runs' = 'escalated')
   group by asked.name, validators.name, versions.version;
comment on view flywheel.cascade_status is 'For each tier of a cascade: how many verdicts it kept, how many spans it handed on, and what it cost.';
comment on column flywheel.cascade_status.question is 'The validator whose question it is.';
comment on column flywheel.cascade_status.validator is 'The tier.';
comment on column flywheel.cascade_status.version is 'Version of the tier.';
comment on column flywheel.cascade_status.judged is 'Spans it judged.';
comment on column flywheel.cascade_status.kept is 'Verdicts it was sure of; for the last tier, all its verdicts.';
comment on column flywheel.cascade_status.handed_on is 'Spans it was not sure of, or gave no verdict on.';
comment on column flywheel.cascade_status.unscored is 'Spans it gave no verdict on.';
comment on column flywheel.cascade_status.cost_usd is 'What its calls cost; null = nothing was called, or unknown.';
comment on column flywheel.cascade_status.cost_per_kept_usd is 'Cost for each verdict it kept.';
comment on column flywheel.cascade_status.latency_ms is 'Median milliseconds its calls took for one span.';
select flywheel._grant(role, 'select on flywheel.question_verdicts') from unnest(array['flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant(role, 'select on flywheel.cascade_status') from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_reviewer']) as role;
