-- Classification: how often a node that sorts its input into classes is right, where somebody or something knows.
--
-- Predicted is the output. Expected is, in this order: the newest fix of that revision; attributes ->> 'expected'; the
-- output itself, where people's labels of that revision say pass and none says fail. Where a label says fail and nobody said
-- what it should have been, the output was wrong and what was expected is unknown: it counts in accuracy and precision.

-- _share: attributes are anybody's text; what is no plain number in [0, 1] is unknown, and never an error.
create or replace function flywheel._share(words text) returns double precision
language sql immutable parallel safe security invoker
begin atomic
  select case when words ~ '^ *[0-9]{0,20}[.]?[0-9]{1,40}([eE][+-]?[0-9]{1,2})? *$'
              then case when words::double precision between 0 and 1 then words::double precision end end;
end;
comment on function flywheel._share is 'Internal: the number in [0, 1] a text says; null where it says none.';

-- _class: an output that is an essay is no class; its beginning stands for it.
create or replace function flywheel._class(words text) returns text
language sql immutable parallel safe security invoker
begin atomic
  select left(btrim(words, E' \t\r\n'), 200);
end;
comment on function flywheel._class is 'Internal: an output as the name of a class: without space around it, 200 characters at most.';

-- classified: found from fixes and labels by key and from an index on what carries its expected class; never by reading all spans.
create or replace function flywheel.classified(since timestamptz, until timestamptz)
returns table ("time" timestamptz, span_id uuid, project text, environment text, release text, node text,
  predicted text, expected text, correct boolean, known_from text, confidence double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with known as materialized (
    select fixes.span_id, fixes.started_at from flywheel.fixes where fixes.started_at >= since and fixes.started_at < until
     union
    select labels.span_id, labels.started_at from flywheel.labels where labels.started_at >= since and labels.started_at < until
     union
    select spans.span_id, spans.started_at from flywheel.spans
     where spans.node_kind = 'classifier' and spans.attributes ? 'expected' and spans.started_at >= since and spans.started_at < until
  ), told as (
    select spans.*, fixed.output as fixed, labelled.passed
      from known
      join flywheel.spans on (spans.span_id, spans.started_at) = (known.span_id, known.started_at)
      left join lateral (
        select fixes.output from flywheel.fixes
         where (fixes.span_id, fixes.started_at, fixes.revision) = (spans.span_id, spans.started_at, spans.revision)
         order by fixes.fixed_at desc, fixes.fix_id desc limit 1) as fixed on true
      left join lateral (
        select bool_and(said.passed) as passed from flywheel._current_labels as said
         where (said.span_id, said.started_at, said.revision) = (spans.span_id, spans.started_at, spans.revision)
           and said.annotator_kind = 'human') as labelled on true
     where spans.node_kind = 'classifier' and spans.status <> 'running'
  )
  select told.started_at, told.span_id, told.project, told.environment, told.release, told.node, answer.predicted, answer.expected,
         coalesce(answer.predicted = answer.expected, false), answer.known_from, flywheel._share(told.attributes ->> 'confidence')
    from told
   cross join lateral (
     select coalesce(flywheel._class(told.output), ''),
            flywheel._class(coalesce(told.fixed, told.attributes ->> 'expected', case when told.passed then coalesce(told.output, '') end)),
            case when told.fixed is not null then 'fix' when told.attributes ->> 'expected' is not null then 'attribute'
                 when told.passed is not null then 'label' end) as answer (predicted, expected, known_from)
   where answer.known_from is not null
$function$;
comment on function flywheel.classified is
  'Spans of classifier nodes in [since, until) of which it is known whether they are right: predicted and expected class, where that is known from (fix, attribute or label) and the confidence in attributes. expected null = a label says it is wrong, and nobody said what is right.';

-- classification_metrics: a class nobody predicted has no precision, one nobody expected no recall; f1 is defined for both.
create or replace function flywheel.classification_metrics(since timestamptz, until timestamptz)
returns table (project text, node text, release text, class text, support bigint, predicted bigint, correct bigint,
  "precision" double precision, precision_low double precision, precision_high double precision,
  recall double precision, recall_low double precision, recall_high double precision, f1 double precision,
  n bigint, accuracy double precision, accuracy_low double precision, accuracy_high double precision, macro_f1 double precision, classes bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with answers as materialized (
    select * from flywheel.classified(since, until)
  ), totals as (
    select answers.project, answers.node, answers.release, count(*) as n, count(*) filter (where answers.correct) as correct
      from answers group by 1, 2, 3
  ), per_class as (
    select sides.project, sides.node, sides.release, sides.class, sum(sides.support)::bigint as support,
           sum(sides.predicted)::bigint as predicted, sum(sides.correct)::bigint as correct
      from (select answers.project, answers.node, answers.release, answers.expected, 1, 0, answers.correct::integer from answers where answers.expected is not null
             union all
            select answers.project, answers.node, answers.release, answers.predicted, 0, 1, 0 from answers
           ) as sides (project, node, release, class, support, predicted, correct)
     group by 1, 2, 3, 4
  ), rated as (
    select per_class.*, 2.0 * per_class.correct / (per_class.support + per_class.predicted) as f1 from per_class
  )
  select rated.project, rated.node, rated.release, rated.class, rated.support, rated.predicted, rated.correct,
         rated.correct::double precision / nullif(rated.predicted, 0), precise.low, precise.high,
         rated.correct::double precision / nullif(rated.support, 0), found.low, found.high, rated.f1::double precision,
         totals.n, totals.correct::double precision / totals.n, right_.low, right_.high,
         (avg(rated.f1) over whole)::double precision, count(*) over whole
    from rated
    join totals on (totals.project, totals.node) = (rated.project, rated.node) and totals.release is not distinct from rated.release
   cross join lateral flywheel.wilson_interval(rated.correct, rated.predicted) as precise
   cross join lateral flywheel.wilson_interval(rated.correct, rated.support) as found
   cross join lateral flywheel.wilson_interval(totals.correct, totals.n) as right_
  window whole as (partition by rated.project, rated.node, rated.release)
   order by 1, 2, 3, rated.support desc, 4
$function$;
comment on function flywheel.classification_metrics(timestamptz, timestamptz) is
  'Precision, recall and F1 of each class, and accuracy and macro F1 of its node and release, over what classified(since, until) knows.';

create or replace function flywheel.classification_confusion(since timestamptz, until timestamptz)
returns table (project text, node text, release text, predicted text, expected text, n bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select answers.project, answers.node, answers.release, answers.predicted, answers.expected, count(*)
    from flywheel.classified(since, until) as answers
   group by 1, 2, 3, 4, 5 order by 1, 2, 3, 6 desc, 4, 5
$function$;
comment on function flywheel.classification_confusion(timestamptz, timestamptz) is
  'How often each class was predicted where another was expected, over what classified(since, until) knows.';

create or replace function flywheel.classification_calibration(since timestamptz, until timestamptz)
returns table (project text, node text, release text, bin integer, confidence_low double precision, confidence_high double precision,
  n bigint, mean_confidence double precision, accuracy double precision, accuracy_low double precision, accuracy_high double precision,
  total bigint, brier double precision, calibration_error double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with answers as materialized (
    select known.project, known.node, known.release, known.confidence, known.correct, least(10, width_bucket(known.confidence, 0, 1, 10)) as bin
      from flywheel.classified(since, until) as known where known.confidence is not null
  ), totals as (
    select answers.project, answers.node, answers.release, count(*) as total,
           flywheel.brier_score(array_agg(answers.confidence order by answers.confidence, answers.correct), array_agg(answers.correct order by answers.confidence, answers.correct)) as brier,
           flywheel.calibration_error(array_agg(answers.confidence order by answers.confidence, answers.correct), array_agg(answers.correct order by answers.confidence, answers.correct)) as error
      from answers group by 1, 2, 3
  ), bins as (
    select answers.project, answers.node, answers.release, answers.bin, count(*) as n, avg(answers.confidence) as mean_confidence,
           count(*) filter (where answers.correct) as correct
      from answers group by 1, 2, 3, 4
  )
  select bins.project, bins.node, bins.release, bins.bin, (bins.bin - 1) / 10.0::double precision, bins.bin / 10.0::double precision,
         bins.n, bins.mean_confidence, bins.correct::double precision / bins.n, likely.low, likely.high, totals.total, totals.brier, totals.error
    from bins
    join totals on (totals.project, totals.node) = (bins.project, bins.node) and totals.release is not distinct from bins.release
   cross join lateral flywheel.wilson_interval(bins.correct, bins.n) as likely
   order by 1, 2, 3, 4
$function$;
comment on function flywheel.classification_calibration(timestamptz, timestamptz) is
  'Whether a confidence of 0.8 is right 8 times in 10: ten bins of attributes ->> ''confidence'', with Brier score and expected calibration error of the node and release, over what classified(since, until) knows.';

create or replace view flywheel.classification_metrics as
  select * from flywheel.classification_metrics(date_bin('1 day', now(), '2000-01-01 00:00:00+00') - interval '696 hours', 'infinity');
comment on view flywheel.classification_metrics is
  'Precision, recall and F1 by project, node, release and class of classifier nodes, with accuracy and macro F1 of the node and release: the last 30 UTC days. Another time: the function of the same name.';

create or replace view flywheel.classification_confusion as
  select * from flywheel.classification_confusion(date_bin('1 day', now(), '2000-01-01 00:00:00+00') - interval '696 hours', 'infinity');
comment on view flywheel.classification_confusion is
  'Which class was predicted where which was expected: the last 30 UTC days. Another time: the function of the same name.';

create or replace view flywheel.classification_calibration as
  select * from flywheel.classification_calibration(date_bin('1 day', now(), '2000-01-01 00:00:00+00') - interval '696 hours', 'infinity');
comment on view flywheel.classification_calibration is
  'How far the confidence of classifier nodes can be believed, in ten bins: the last 30 UTC days. Another time: the function of the same name.';

do $block$
declare
  said record;
begin
  for said in
    select own.view, own.name, own.meaning from (values
      ('classification_metrics', 'class', 'The class, 200 characters at most.'),
      ('classification_metrics', 'support', 'Spans of which this class was expected.'),
      ('classification_metrics', 'predicted', 'Spans of which it was predicted.'),
      ('classification_metrics', 'correct', 'Spans of which it was both.'),
      ('classification_metrics', 'precision', 'correct / predicted; null where it was never predicted.'),
      ('classification_metrics', 'precision_low', 'Lower end of its 95 % Wilson interval.'),
      ('classification_metrics', 'precision_high', 'Upper end of its 95 % Wilson interval.'),
      ('classification_metrics', 'recall', 'correct / support; null where it was never expected.'),
      ('classification_metrics', 'recall_low', 'Lower end of its 95 % Wilson interval.'),
      ('classification_metrics', 'recall_high', 'Upper end of its 95 % Wilson interval.'),
      ('classification_metrics', 'f1', '2 correct / (predicted + support).'),
      ('classification_metrics', 'n', 'Spans of the node and release of which it is known whether they are right: the same in each of its rows, as all that follows.'),
      ('classification_metrics', 'accuracy', 'Share of them that are right.'),
      ('classification_metrics', 'accuracy_low', 'Lower end of its 95 % Wilson interval.'),
      ('classification_metrics', 'accuracy_high', 'Upper end of its 95 % Wilson interval.'),
      ('classification_metrics', 'macro_f1', 'Mean of f1 over the classes, each weighing the same.'),
      ('classification_metrics', 'classes', 'Classes predicted or expected.'),
      ('classification_confusion', 'predicted', 'Class that was predicted; empty = there was no output.'),
      ('classification_confusion', 'expected', 'Class that was expected; null = a label says it is wrong, and nobody said what is right.'),
      ('classification_confusion', 'n', 'Spans.'),
      ('classification_calibration', 'bin', '1 to 10, by confidence.'),
      ('classification_calibration', 'confidence_low', 'Where the bin begins.'),
      ('classification_calibration', 'confidence_high', 'Where it ends.'),
      ('classification_calibration', 'n', 'Spans in it.'),
      ('classification_calibration', 'mean_confidence', 'Their mean confidence.'),
      ('classification_calibration', 'accuracy', 'Share of them that are right; a node that knows itself has about mean_confidence here.'),
      ('classification_calibration', 'accuracy_low', 'Lower end of its 95 % Wilson interval.'),
      ('classification_calibration', 'accuracy_high', 'Upper end of its 95 % Wilson interval.'),
      ('classification_calibration', 'total', 'Spans of the node and release with a confidence: the same in each of its rows, as all that follows.'),
      ('classification_calibration', 'brier', 'Mean squared distance of confidence from being right: 0 is perfect, 0.25 is what always saying 0.5 gets.'),
      ('classification_calibration', 'calibration_error', 'Expected calibration error: distance of mean_confidence from accuracy, averaged over the bins by their spans.')
      ) as own(view, name, meaning)
    union all
    select shown.view, own.name, own.meaning
      from (values ('classification_metrics'), ('classification_confusion'), ('classification_calibration')) as shown(view),
           (values ('project', 'Which LLM application.'), ('node', 'The classifier node.'), ('release', 'Which version of the application; null = unknown.')) as own(name, meaning)
  loop
    execute format('comment on column flywheel.%I.%I is %L', said.view, said.name, said.meaning);
  end loop;
end
$block$;

select flywheel._grant(role, 'select on flywheel.classification_metrics, flywheel.classification_confusion, flywheel.classification_calibration')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant(role, 'execute on function flywheel.' || name || '(timestamptz, timestamptz)')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role,
       unnest(array['classified', 'classification_metrics', 'classification_confusion', 'classification_calibration']) as name;
