-- Agreement: of a judge with people, and of people with each other. Pass is the positive class.

-- confusion_metrics: kappa and mcc from whole numbers, so that "undefined" is an exact zero and never a rounding.
create or replace function flywheel.confusion_metrics(
  tp bigint, fp bigint, fn bigint, tn bigint,
  out accuracy double precision,
  out tpr double precision, out tpr_low double precision, out tpr_high double precision,
  out tnr double precision, out tnr_low double precision, out tnr_high double precision,
  out fail_precision double precision, out mcc double precision, out kappa double precision,
  out n_pass bigint, out n_fail bigint)
language sql immutable strict parallel safe security invoker
begin atomic
  select (tp + tn) / nullif(n, 0),
         tp::double precision / nullif(tp + fn, 0), of_pass.low, of_pass.high,
         tn::double precision / nullif(tn + fp, 0), of_fail.low, of_fail.high,
         tn::double precision / nullif(tn + fn, 0),
         (tp::double precision * tn - fp::double precision * fn)
           / nullif(sqrt((tp + fp)::double precision * (tp + fn)) * sqrt((tn + fp)::double precision * (tn + fn)), 0),
         (n * (tp + tn) - chance) / nullif(n * n - chance, 0),
         tp + fn, tn + fp
    from (select (tp + fp + fn + tn)::double precision,
                 (tp + fp)::double precision * (tp + fn) + (fn + tn)::double precision * (fp + tn)) as totals (n, chance),
         flywheel.wilson_interval(tp, tp + fn) as of_pass,
         flywheel.wilson_interval(tn, tn + fp) as of_fail;
end;
comment on function flywheel.confusion_metrics is
  'How a judge agrees with people. tp: both pass; fp: judge pass, person fail; fn: judge fail, person pass; tn: both fail. TPR, TNR with 95 % Wilson intervals; null where undefined.';

create or replace function flywheel.cohen_kappa(first_verdicts boolean[], second_verdicts boolean[]) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select metrics.kappa
    from (select count(*) filter (where one and two), count(*) filter (where one and not two),
                 count(*) filter (where not one and two), count(*) filter (where not one and not two)
            from unnest(first_verdicts, second_verdicts) as pair (one, two)) as cells (pp, pf, fp, ff),
         flywheel.confusion_metrics(pp, pf, fp, ff) as metrics;
end;
comment on function flywheel.cohen_kappa is
  'Agreement of two people on the same items, in the same order, beyond chance; pairs with a null do not count. Null where one verdict is all both gave.';

create or replace function flywheel.krippendorff_alpha(items text[], verdicts boolean[]) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select 1 - (sum(passes + fails) - 1) * sum(passes * fails / (passes + fails - 1)) / nullif(sum(passes) * sum(fails), 0)
    from (select count(*) filter (where verdict)::double precision, count(*) filter (where not verdict)::double precision
            from unnest(items, verdicts) as label (item, verdict)
           where item is not null and verdict is not null
           group by item
          having count(*) >= 2) as unit (passes, fails);
end;
comment on function flywheel.krippendorff_alpha is
  'Agreement of any number of people, one element per label; items with one label do not count. Below 0.67: mend the rubric first. Null where all verdicts are the same.';

-- _dawid_skene_step: annotators are as good as they agree with what is believed (M), items are what good annotators
-- say (E). A person with few labels has one accuracy, others one per verdict. In logarithms, clipped, never 0 or 1.
create or replace function flywheel._dawid_skene_step(
  item_ids integer[], annotator_ids integer[], verdicts boolean[], believed double precision[],
  smoothing double precision, minimum_labels integer)
returns double precision[]
language sql immutable strict parallel safe security invoker
begin atomic
  with labels as (
    select item, annotator, verdict, believed[item] as p
      from unnest(item_ids, annotator_ids, verdicts) as label (item, annotator, verdict)
  ), raw as (
    select annotator, count(*) < minimum_labels as one_coin,
           (sum(case when verdict then p else 1 - p end) + smoothing) / (count(*) + 2 * smoothing) as accuracy,
           (sum(p) filter (where verdict) + smoothing) / nullif(sum(p) + 2 * smoothing, 0) as says_pass_of_pass,
           (sum(1 - p) filter (where verdict) + smoothing) / nullif(sum(1 - p) + 2 * smoothing, 0) as says_pass_of_fail
      from labels group by annotator
  ), skill as (
    select annotator,
           least(1 - 1e-10, greatest(1e-10, case when one_coin then accuracy else says_pass_of_pass end)) as of_pass,
           least(1 - 1e-10, greatest(1e-10, case when one_coin then 1 - accuracy else says_pass_of_fail end)) as of_fail
      from raw
  ), prior as (
    select ln(rate / (1 - rate)) as log_odds
      from (select least(1 - 1e-10, greatest(1e-10, avg(p))) from unnest(believed) as p) as mean (rate)
  ), evidence as (
    select item, sum(case when verdict then ln(of_pass / of_fail) else ln((1 - of_pass) / (1 - of_fail)) end) as log_odds
      from labels join skill using (annotator)
     group by item
  )
  select array_agg(1 / (1 + exp(-least(700, greatest(-700, prior.log_odds + evidence.log_odds)))) order by item)
    from evidence, prior;
end;
comment on function flywheel._dawid_skene_step is 'Internal: one round of Dawid and Skene''s EM; p(pass) of items 1 to n.';

create or replace function flywheel.dawid_skene(
  items text[], annotators text[], verdicts boolean[], iterations integer default 100,
  smoothing double precision default 0.01, minimum_labels integer default 20)
returns table (item text, p_pass double precision)
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  item_ids integer[];
  annotator_ids integer[];
  kept boolean[];
  names text[];
  before double precision[];
  believed double precision[];
begin
  select array_agg(coded.item_id), array_agg(coded.annotator_id), array_agg(coded.verdict)
    into item_ids, annotator_ids, kept
    from (select dense_rank() over (order by label.item), dense_rank() over (order by label.annotator), label.verdict
            from unnest(items, annotators, verdicts) as label (item, annotator, verdict)
           where label.item is not null and label.annotator is not null and label.verdict is not null
         ) as coded (item_id, annotator_id, verdict);
  select array_agg(share.item order by share.item), array_agg(share.passes order by share.item)
    into names, believed
    from (select label.item, avg(label.verdict::integer)::double precision
            from unnest(items, annotators, verdicts) as label (item, annotator, verdict)
           where label.item is not null and label.annotator is not null and label.verdict is not null
           group by label.item) as share (item, passes);
  for round in 1 .. iterations loop
    before := believed;
    believed := flywheel._dawid_skene_step(item_ids, annotator_ids, kept, before, smoothing, minimum_labels);
    exit when (select coalesce(max(abs(a - b)), 0) < 1e-6 from unnest(before, believed) as pair (a, b));
  end loop;
  return query select * from unnest(names, believed);
end
$function$;
comment on function flywheel.dawid_skene is
  'P(pass) of each item from labels of several people, who are weighed by how they agree (Dawid and Skene''s EM); whoever has fewer than minimum_labels gets one accuracy. Never enter the judge under test as an annotator.';

-- Pure, so for everyone who reads numbers; what views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel.' || name)
  from unnest(array['flywheel_analyst', 'flywheel_reviewer', 'flywheel_worker', 'flywheel_admin']) as role, unnest(array[
  'confusion_metrics', 'cohen_kappa', 'krippendorff_alpha', '_dawid_skene_step', 'dawid_skene'
]) as name;
