-- Alignment: how far a judge agrees with people, by version and split, and whether it may decide.
--
-- A labelled span counts on the revision its reviewer saw. No span is ever shown an example of its own group, so labels of the
-- train split measure a judge, too (each with its group left out). The test split stands apart: read_test_split() shows it,
-- once a version. A question with fewer than 60 labels to hold out has nothing to hold out: all are looked at together.

create or replace view flywheel._judged_labels as
  with judges as materialized (
    select versions.version_id, versions.version, versions.status, validators.name, flywheel._question_of(versions) as question_id
      from flywheel.validator_versions as versions join flywheel.validators using (validator_id)
     where versions.kind in ('judge', 'neighbours')
  ), questions as materialized (
    select gold.validator_id, count(*) filter (where gold.split in ('dev', 'test')) < 60 as few
      from flywheel._gold_labels as gold where gold.passed is not null group by gold.validator_id
  )
  select judges.name as validator, judges.version, judges.version_id, judges.status, judges.question_id,
         gold.span_id, gold.started_at, gold.revision, gold.trace_id,
         spans.project, spans.environment, spans.release, spans.node,
         gold.split, gold.group_key, gold.lane, gold.incl_prob, gold.stratum, questions.few,
         questions.few or gold.split <> 'test' as visible,
         scores.passed as judge_passed, gold.passed as human_passed, scores.value, scores.confidence,
         scores.critique as judge_critique, gold.critique as human_critique, scores.unscored_reason,
         scores.cost_usd, scores.latency_ms, scores.scored_at, gold.labelled_at, gold.own
    from flywheel._gold_labels as gold
    join questions using (validator_id)
    join judges on judges.question_id = gold.validator_id
    join flywheel.spans on (spans.span_id, spans.started_at) = (gold.span_id, gold.started_at)  -- before scores, as purge() locks them
    join flywheel.scores on (scores.span_id, scores.revision, scores.version_id, scores.started_at)
                          = (gold.span_id, gold.revision, judges.version_id, gold.started_at)
   where gold.passed is not null;
comment on view flywheel._judged_labels is 'Internal: what people and judges said of the same span, the test split too.';

-- A reviewer finds no verdict on a span that somebody else has labelled: it may be theirs to label next.
create or replace view flywheel.judged_labels with (security_barrier) as
  select validator, version, version_id, span_id, started_at, revision, trace_id, project, environment, release, node, split, group_key,
         lane, incl_prob, stratum, judge_passed, human_passed, value, confidence, judge_critique, human_critique, unscored_reason,
         cost_usd, latency_ms, scored_at, labelled_at
    from flywheel._judged_labels
   where visible and (own or (select flywheel._sees_verdicts(current_user)));
comment on view flywheel.judged_labels is
  'What people and judges said of the same span: one row for each label and judge version of its question. Labels of the test split are left out once there are 60 to hold out. Reviewers see those they recorded.';

-- _alignment: grouped by split; by whether it may be seen, which is split all; and by project and node of what may be seen.
create or replace view flywheel._alignment as
  select cells.validator, cells.version, cells.version_id, cells.status, cells.part, cells.visible, cells.split, cells.project, cells.node,
         cells.tp + cells.fp + cells.fn + cells.tn as labels, cells.tp, cells.fp, cells.fn, cells.tn, cells.unscored,
         metrics.accuracy, metrics.tpr, metrics.tpr_low, metrics.tpr_high, metrics.tnr, metrics.tnr_low, metrics.tnr_high,
         metrics.fail_precision, metrics.mcc, metrics.kappa, metrics.n_pass, metrics.n_fail,
         cells.drawn, cells.weighted_tpr, cells.weighted_tnr
    from (
      select validator, version, version_id, status, visible, split, project, node,
             case when grouping(split) = 0 then 'split' when grouping(node) = 0 then 'slice' else 'all' end as part,
             count(*) filter (where judge_passed and human_passed) as tp,
             count(*) filter (where judge_passed and not human_passed) as fp,
             count(*) filter (where not judge_passed and human_passed) as fn,
             count(*) filter (where not judge_passed and not human_passed) as tn,
             count(*) filter (where judge_passed is null) as unscored,
             count(*) filter (where judge_passed is not null and lane = 'estimation') as drawn,
             coalesce(sum(1 / incl_prob) filter (where judge_passed and human_passed), 0)
               / sum(1 / incl_prob) filter (where judge_passed is not null and human_passed) as weighted_tpr,
             coalesce(sum(1 / incl_prob) filter (where not judge_passed and not human_passed), 0)
               / sum(1 / incl_prob) filter (where judge_passed is not null and not human_passed) as weighted_tnr
        from flywheel._judged_labels
       group by grouping sets (
         (validator, version, version_id, status, split),
         (validator, version, version_id, status, visible),
         (validator, version, version_id, status, visible, project, node))
    ) as cells
   cross join lateral flywheel.confusion_metrics(cells.tp, cells.fp, cells.fn, cells.tn) as metrics;
comment on view flywheel._alignment is 'Internal: agreement of each judge version with people, by split and by slice, the test split too.';

create or replace view flywheel.alignment as
  select validator, version, status, coalesce(split, 'all') as split, labels, tp, fp, fn, tn, unscored, accuracy, tpr, tpr_low, tpr_high,
         tnr, tnr_low, tnr_high, fail_precision, mcc, kappa, n_pass, n_fail, fp + fn as disagreements, drawn, weighted_tpr, weighted_tnr
    from flywheel._alignment
   where (part = 'split' and split <> 'test') or (part = 'all' and visible);
comment on view flywheel.alignment is
  'How far each judge version agrees with people: by split, and over all that may be seen. The test split: select * from flywheel.read_test_split(validator).';

create or replace view flywheel.alignment_slices as
  select validator, version, status, project, node, labels, tp, fp, fn, tn, unscored, accuracy, tpr, tpr_low, tpr_high,
         tnr, tnr_low, tnr_high, fail_precision, mcc, kappa, n_pass, n_fail, fp + fn as disagreements, drawn, weighted_tpr, weighted_tnr
    from flywheel._alignment
   where part = 'slice' and visible;
comment on view flywheel.alignment_slices is 'The same as alignment, over all that may be seen, for each project and node.';

-- judge_disagreements: settled once a person has labelled the span again in sight of the verdict, or has corrected a label.
create or replace view flywheel.judge_disagreements with (security_barrier) as
  select judged.validator, judged.version, case when judged.judge_passed then 'false_pass' else 'false_fail' end as kind,
         judged.span_id, judged.started_at, judged.revision, judged.project, judged.node, judged.split, judged.confidence,
         judged.judge_critique, judged.human_critique, judged.scored_at, judged.labelled_at,
         exists (select from flywheel.labels
                  where (labels.validator_id, labels.span_id, labels.revision) = (judged.question_id, judged.span_id, judged.revision)
                    and labels.annotator_kind = 'human' and not labels.withdrawn
                    and labels.labelled_at > judged.scored_at and (not labels.blind or labels.supersedes is not null)) as reviewed
    from flywheel._judged_labels as judged
   where judged.visible and judged.judge_passed <> judged.human_passed and (judged.own or (select flywheel._sees_verdicts(current_user)));
comment on view flywheel.judge_disagreements is
  'Labelled spans on which a judge version and people differ. Each ends as a new example, a clearer definition, or a corrected label. Reviewers see those they labelled.';

create or replace function flywheel._gate(
  n_pass bigint, n_fail bigint, tpr double precision, tnr double precision,
  tpr_low double precision, tnr_low double precision, out provisional boolean, out reason text)
language sql immutable parallel safe security invoker
begin atomic
  select not coalesce(tpr > 0.8 and tnr > 0.8 and tpr_low >= 0.75 and tnr_low >= 0.75, false),
         case
           when tpr is null or tnr is null then
             format('not enough data: %s labels say pass, %s say fail', coalesce(n_pass, 0), coalesce(n_fail, 0))
           when tpr <= 0.8 or tnr <= 0.8 then
             format('TPR %s and TNR %s: both must be above 0.80', round(tpr::numeric, 2), round(tnr::numeric, 2))
           when tpr_low < 0.75 or tnr_low < 0.75 then
             format('TPR %s and TNR %s would do, but of %s and %s labels they may be as low as %s and %s: 0.75 is the floor',
               round(tpr::numeric, 2), round(tnr::numeric, 2), n_pass, n_fail, round(tpr_low::numeric, 2), round(tnr_low::numeric, 2))
           else format('TPR %s and TNR %s of %s and %s labels', round(tpr::numeric, 2), round(tnr::numeric, 2), n_pass, n_fail)
         end;
end;
comment on function flywheel._gate is 'Internal: whether labels let a judge decide, and why; the bounds are the lower ends of 80 % intervals.';

-- _measured: what the gate looks at. Dev labels, or all where there are few; of those the ones drawn for estimation, weighted
-- by how likely they were drawn, where they are 30 of each verdict. Unequal weights count as fewer labels (Kish).
-- A worker asks once a minute, so labels are read once, and of questions that have many only those of the dev split.
create or replace view flywheel._measured as
  with judges as materialized (
    select versions.version_id, flywheel._question_of(versions) as question_id
      from flywheel.validator_versions as versions where versions.kind in ('judge', 'neighbours')
  ), gold as materialized (
    select held.validator_id, held.span_id, held.started_at, held.revision, held.passed, held.split, held.lane, held.incl_prob,
           count(*) filter (where held.split in ('dev', 'test')) over (partition by held.validator_id) < 60 as few
      from flywheel.gold_labels as held where held.passed is not null
  ), judged as (
    select judges.version_id, gold.passed as human_passed, scores.passed as judge_passed, gold.lane, gold.incl_prob
      from gold
      join judges on judges.question_id = gold.validator_id
      join flywheel.spans on (spans.span_id, spans.started_at) = (gold.span_id, gold.started_at)  -- before scores, as purge() locks them
      join flywheel.scores on (scores.span_id, scores.revision, scores.version_id, scores.started_at)
                            = (gold.span_id, gold.revision, judges.version_id, gold.started_at)
     where gold.few or gold.split = 'dev'
  ), counted as (
    select judged.version_id, part.only_drawn,
           count(*) filter (where human_passed) as n_pass, count(*) filter (where not human_passed) as n_fail,
           sum(weight) filter (where human_passed) as pass_weight, sum(weight * weight) filter (where human_passed) as pass_squares,
           sum(weight) filter (where not human_passed) as fail_weight, sum(weight * weight) filter (where not human_passed) as fail_squares,
           sum(weight) filter (where human_passed and judge_passed) as tp, sum(weight) filter (where not human_passed and not judge_passed) as tn
      from judged
     cross join (values (false), (true)) as part(only_drawn)
     cross join lateral (select case when part.only_drawn then 1 / judged.incl_prob else 1 end) as weighed(weight)
     where judged.judge_passed is not null and (not part.only_drawn or judged.lane = 'estimation')
     group by judged.version_id, part.only_drawn
  ), chosen as (
    select distinct on (version_id) version_id, n_pass, n_fail,
           coalesce(tp, 0) / pass_weight as tpr, coalesce(tn, 0) / fail_weight as tnr,
           floor(pass_weight * pass_weight / pass_squares + 1e-6)::bigint as worth_pass, floor(fail_weight * fail_weight / fail_squares + 1e-6)::bigint as worth_fail
      from counted
     order by version_id, only_drawn and n_pass >= 30 and n_fail >= 30 desc, only_drawn
  )
  select version_id, n_pass, n_fail, tpr, tnr,
         (flywheel.wilson_interval(round(tpr * worth_pass)::bigint, worth_pass, 0.8)).low as tpr_low,
         (flywheel.wilson_interval(round(tnr * worth_fail)::bigint, worth_fail, 0.8)).low as tnr_low
    from chosen;
comment on view flywheel._measured is 'Internal: TPR and TNR by which a judge version is allowed to decide, with the lower ends of their 80 % intervals.';

create or replace function flywheel._refresh_standings() returns bigint
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with gated as (
    select versions.version_id, gate.provisional, gate.reason, coalesce(measured.n_pass, 0) as n_pass, coalesce(measured.n_fail, 0) as n_fail,
           measured.tpr, measured.tnr
      from flywheel.validator_versions as versions
      left join flywheel._measured as measured using (version_id)
     cross join lateral flywheel._gate(measured.n_pass, measured.n_fail, measured.tpr, measured.tnr, measured.tpr_low, measured.tnr_low) as gate
     where versions.kind in ('judge', 'neighbours') and versions.status <> 'retired'
  ), changed as (
    insert into flywheel._standings as known (version_id, provisional, reason, n_pass, n_fail, tpr, tnr)
    select * from gated
    on conflict (version_id) do update
       set (provisional, reason, n_pass, n_fail, tpr, tnr, refreshed_at)
         = (excluded.provisional, excluded.reason, excluded.n_pass, excluded.n_fail, excluded.tpr, excluded.tnr, now())
     where (known.provisional, known.reason, known.n_pass, known.n_fail, known.tpr, known.tnr)
           is distinct from (excluded.provisional, excluded.reason, excluded.n_pass, excluded.n_fail, excluded.tpr, excluded.tnr)
    returning 1
  )
  select count(*) from changed
$function$;
comment on function flywheel._refresh_standings is 'Internal: ask the labels again which judge versions may decide; returns how many standings changed. Workers call it.';

create or replace view flywheel.judge_standing as
  select validators.name as validator, versions.version, versions.status, versions.kind,
         coalesce(standings.provisional, true) as provisional, coalesce(standings.reason, 'its labels were not looked at yet') as reason,
         coalesce(standings.n_pass, 0) as n_pass, coalesce(standings.n_fail, 0) as n_fail, standings.tpr, standings.tnr, standings.refreshed_at
    from flywheel.validator_versions as versions
    join flywheel.validators using (validator_id)
    left join flywheel._standings as standings using (version_id)
   where versions.kind in ('judge', 'neighbours') and versions.status <> 'retired';
comment on view flywheel.judge_standing is 'Whether each judge version may decide, and why: TPR and TNR above 0.80, and surely not below 0.75.';

-- read_test_split: a split that is looked at again and again is a dev split.
create or replace function flywheel.read_test_split(validator text, version integer default null, again boolean default false)
returns setof flywheel.alignment
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(read_test_split.validator, read_test_split.version);
  seen flywheel._alignment;
  last_read flywheel.test_reads;
begin
  perform flywheel._lock_validator(read_test_split.validator);
  select * into seen from flywheel._alignment where version_id = chosen.version_id and part = 'split' and split = 'test';
  if coalesce(seen.labels, 0) = 0 then
    raise exception using errcode = 'WF009',
      message = format('version %s of %s has judged no labelled span of the test split', chosen.version, read_test_split.validator),
      hint = format('Let it: pgflywheel judges align %s --split test.', read_test_split.validator);
  end if;
  select * into last_read from flywheel.test_reads where version_id = chosen.version_id order by read_number desc limit 1;
  if last_read.read_number > 0 and not again then
    raise exception using errcode = 'WF014',
      message = format('the test split was read by version %s of %s', chosen.version, read_test_split.validator),
      detail = format('%s read it at %s, with %s labels.', last_read.read_by, last_read.read_at, last_read.labels),
      hint = 'Tune on dev. again => true reads it once more, and is recorded.';
  end if;
  insert into flywheel.test_reads (version_id, read_number, labels)
  values (chosen.version_id, coalesce(last_read.read_number, 0) + 1, seen.labels);
  return query
    select seen.validator, seen.version, seen.status, seen.split, seen.labels, seen.tp, seen.fp, seen.fn, seen.tn, seen.unscored,
           seen.accuracy, seen.tpr, seen.tpr_low, seen.tpr_high, seen.tnr, seen.tnr_low, seen.tnr_high, seen.fail_precision,
           seen.mcc, seen.kappa, seen.n_pass, seen.n_fail, seen.fp + seen.fn, seen.drawn, seen.weighted_tpr, seen.weighted_tnr;
end
$function$;
comment on function flywheel.read_test_split is
  'Agreement on the test split, once a judge version (default: the newest); the second reading is refused with WF014 unless again is true. Each is recorded.';

-- _queue_labelled: behind live work. Spans whose revision has moved on since the label are left out: nobody judges an old one.
-- Split all is what may be seen, as in the view alignment.
create or replace function flywheel._queue_labelled(version_id uuid, splits text[]) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions;
  missing record;
begin
  select * into chosen from flywheel.validator_versions as versions where versions.version_id = _queue_labelled.version_id;
  with gold as materialized (
    select labels.*, count(*) filter (where labels.split in ('dev', 'test')) over () < 60 as few
      from flywheel.gold_labels as labels where labels.validator_id = flywheel._question_of(chosen) and labels.passed is not null
  ), waiting as materialized (
    select pending.span_id from flywheel._pending_spans(chosen.version_id) as pending
  )
  select array_agg(spans.span_id order by spans.started_at) as span_ids, min(spans.started_at) as earliest, max(spans.started_at) as latest
    into missing
    from gold
    join flywheel.spans on (spans.span_id, spans.started_at, spans.revision) = (gold.span_id, gold.started_at, gold.revision)
   where (gold.split = any (splits) or ('all' = any (splits) and (gold.few or gold.split <> 'test')))
     and not exists (select from flywheel.scores
           where (scores.span_id, scores.revision, scores.version_id, scores.started_at) = (spans.span_id, spans.revision, chosen.version_id, spans.started_at))
     and not exists (select from waiting where waiting.span_id = spans.span_id);
  if missing.span_ids is null then
    return 0;
  end if;
  perform flywheel._enqueue(case chosen.lane when 'judge' then 'judge' else 'bulk' end, 2::smallint, array[chosen.version_id],
    missing.span_ids, missing.earliest, missing.latest, 'replay');
  perform flywheel._wake();
  return cardinality(missing.span_ids);
end
$function$;
comment on function flywheel._queue_labelled is
  'Internal: queue the labelled spans of some splits (all: of every split that may be seen) that a judge version has not judged; returns how many.';

-- _waiting_for: what a worker will do in the next minute, and what it will not: later, held, or dead. Spans without a label do not
-- concern agreement: behind an import there may be a million of them.
create or replace function flywheel._waiting_for(version_id uuid, out soon bigint, out stuck bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with jobs as (
    select span_ids, true as is_soon from flywheel._ready where version_ids @> array[_waiting_for.version_id]
    union all
    select span_ids, true from flywheel._running where version_ids @> array[_waiting_for.version_id]
    union all
    select span_ids, run_at < now() + interval '1 minute' from flywheel._later where version_ids @> array[_waiting_for.version_id]
    union all
    select span_ids, false from flywheel._dead where version_ids @> array[_waiting_for.version_id]
  )
  select count(*) filter (where jobs.is_soon), count(*) filter (where not jobs.is_soon)
    from jobs cross join unnest(jobs.span_ids) as waiting(span_id)
   where waiting.span_id in (select labels.span_id from flywheel.labels
           join flywheel.validator_versions as versions on versions.version_id = _waiting_for.version_id and labels.validator_id = flywheel._question_of(versions))
$function$;
comment on function flywheel._waiting_for is 'Internal: labelled spans a version waits for: in the queue for the next minute, and put off, held or dead.';

-- Comments on columns: one meaning each, in whichever of these views they stand.
do $block$
declare
  said record;
begin
  for said in
    select format('comment on column %s.%I is %L', shown.attrelid::regclass, shown.attname, own.meaning) as statement
      from (values
        ('validator', 'Name of the validator.'), ('version', 'Which version of it judged.'), ('version_id', 'Id of that version.'),
        ('status', 'What that version is now.'), ('kind', 'judge or neighbours; of a disagreement: false_pass (the judge passed what a person failed) or false_fail.'),
        ('question_id', 'The validator whose labels and examples the version goes by.'),
        ('span_id', 'The span.'), ('started_at', 'started_at of the span.'), ('revision', 'The revision both saw.'), ('trace_id', 'Trace of the span.'),
        ('project', 'Project of the span.'), ('environment', 'Environment of the span.'), ('release', 'Release of the span.'), ('node', 'Node of the span.'),
        ('split', 'train, dev or test; all = every label that may be seen.'), ('group_key', 'What splits are cut by.'),
        ('lane', 'estimation (drawn at random) or triage.'), ('incl_prob', 'Probability with which it was drawn; null in triage.'), ('stratum', 'Stratum of the draw.'),
        ('few', 'Whether the question has fewer than 60 labels of dev and test.'), ('visible', 'Whether it may be looked at: not of the test split, or there are few.'),
        ('judge_passed', 'What the judge says; null = unscored.'), ('human_passed', 'What people say.'), ('value', 'The judge''s value in [0, 1]; null = it gave none.'),
        ('confidence', 'How sure the judge was; null = not known.'), ('judge_critique', 'Why, in the judge''s words.'), ('human_critique', 'Why, in a person''s words.'),
        ('unscored_reason', 'Why the judge gave no verdict.'), ('cost_usd', 'What the judge''s calls cost; null = unknown.'), ('latency_ms', 'Milliseconds they took.'),
        ('scored_at', 'When the judge said it.'), ('labelled_at', 'When people said it.'), ('own', 'Whether who reads this recorded a label of it.'), ('reviewed', 'Whether a person has looked at it since.'),
        ('part', 'split, all or slice: what the row is about.'), ('labels', 'Labelled spans the version gave a verdict on.'),
        ('tp', 'Both pass.'), ('fp', 'The judge passes what a person fails.'), ('fn', 'The judge fails what a person passes.'), ('tn', 'Both fail.'),
        ('unscored', 'Labelled spans the version gave no verdict on; in no other number.'), ('accuracy', 'Share on which they agree; flatters a judge that always says the commoner verdict.'),
        ('tpr', 'Share of what people pass that the judge passes; null = people passed none.'), ('tpr_low', 'Lower end of its interval.'), ('tpr_high', 'Upper end of its interval.'),
        ('tnr', 'Share of what people fail that the judge fails; null = people failed none.'), ('tnr_low', 'Lower end of its interval.'), ('tnr_high', 'Upper end of its interval.'),
        ('fail_precision', 'Share of what the judge fails that people fail; null = it failed none.'), ('mcc', 'Matthews correlation; null = one of them always says the same.'),
        ('kappa', 'Cohen''s kappa; low where one verdict is rare, so not a gate.'), ('n_pass', 'Labels that say pass.'), ('n_fail', 'Labels that say fail.'),
        ('disagreements', 'fp + fn.'), ('drawn', 'Labels of lane estimation among them.'), ('weighted_tpr', 'TPR over all spans, from the drawn labels by 1 / incl_prob; null = none.'),
        ('weighted_tnr', 'TNR over all spans, from the drawn labels by 1 / incl_prob; null = none.'),
        ('provisional', 'True = its verdicts are shown apart and decide nothing.'), ('reason', 'Why, in words.'), ('refreshed_at', 'When the standing last changed; null = never looked at.')
      ) as own(name, meaning)
      join pg_catalog.pg_attribute as shown on shown.attname = own.name and shown.attnum > 0
     where shown.attrelid = any (array['flywheel._judged_labels', 'flywheel.judged_labels', 'flywheel._alignment', 'flywheel.alignment', 'flywheel.alignment_slices',
                                       'flywheel.judge_disagreements', 'flywheel._measured', 'flywheel.judge_standing']::regclass[])
  loop
    execute said.statement;
  end loop;
end
$block$;

select flywheel._grant(role, privilege)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_admin']) as role, unnest(array[
  'select on flywheel.judged_labels, flywheel.alignment, flywheel.alignment_slices, flywheel.judge_disagreements, flywheel.judge_standing',
  'execute on function flywheel._question_of(flywheel.validator_versions)']) as privilege;
select flywheel._grant('flywheel_admin', 'execute on function flywheel.read_test_split(text, integer, boolean), flywheel._queue_labelled(uuid, text[]),
  flywheel._waiting_for(uuid)');
select flywheel._grant('flywheel_admin', 'select on flywheel.test_reads');
select flywheel._grant(role, 'execute on function flywheel._refresh_standings()') from unnest(array['flywheel_worker', 'flywheel_admin']) as role;
