-- Agreement of people with each other: the ceiling for any judge. Below 0.67 mend the question before the judge.

create or replace view flywheel.reviewer_agreement as
  select validators.name as validator, pair.first_reviewer, pair.second_reviewer, pair.items, pair.agreed,
         pair.agreed::double precision / pair.items as agreement,
         flywheel.cohen_kappa(pair.first_verdicts, pair.second_verdicts) as kappa
    from (
      select one.validator_id, one.annotator as first_reviewer, two.annotator as second_reviewer, count(*) as items,
             count(*) filter (where one.passed = two.passed) as agreed,
             array_agg(one.passed order by one.label_id) as first_verdicts, array_agg(two.passed order by one.label_id) as second_verdicts
        from flywheel._current_labels as one
        join flywheel._current_labels as two
          on (two.validator_id, two.span_id, two.revision) = (one.validator_id, one.span_id, one.revision) and two.annotator > one.annotator
       where one.annotator_kind = 'human' and two.annotator_kind = 'human' and one.blind and two.blind and not one.adjudicated and not two.adjudicated
       group by one.validator_id, one.annotator, two.annotator) as pair
    join flywheel.validators using (validator_id);
comment on view flywheel.reviewer_agreement is
  'How two people agree on the spans both have labelled without seeing a judge; labels that settle a disagreement do not count.';
comment on column flywheel.reviewer_agreement.validator is 'Name of the validator.';
comment on column flywheel.reviewer_agreement.first_reviewer is 'One of them; each pair is shown once.';
comment on column flywheel.reviewer_agreement.second_reviewer is 'The other one.';
comment on column flywheel.reviewer_agreement.items is 'Spans both have labelled.';
comment on column flywheel.reviewer_agreement.agreed is 'Spans on which they agree.';
comment on column flywheel.reviewer_agreement.agreement is 'Share of spans on which they agree.';
comment on column flywheel.reviewer_agreement.kappa is 'Cohen''s kappa: agreement beyond chance; null = undefined, for both always say the same.';

create or replace view flywheel.label_agreement as
  select validators.name as validator, said.reviewers, said.items, said.agreed, said.agreed::double precision / said.items as agreement, said.alpha
    from (
      select independent.validator_id, count(distinct independent.annotator) as reviewers, count(distinct independent.item) as items,
             count(distinct independent.item) filter (where independent.unanimous) as agreed,
             flywheel.krippendorff_alpha(array_agg(independent.item), array_agg(independent.passed)) as alpha
        from (
          select labels.validator_id, labels.annotator, labels.passed, concat_ws(' ', labels.span_id, labels.revision) as item,
                 min(labels.passed::integer) over item = max(labels.passed::integer) over item as unanimous, count(*) over item as labels
            from flywheel._current_labels as labels
           where labels.annotator_kind = 'human' and labels.blind and not labels.adjudicated
          window item as (partition by labels.validator_id, labels.span_id, labels.revision)) as independent
       where independent.labels >= 2
       group by independent.validator_id) as said
    join flywheel.validators using (validator_id);
comment on view flywheel.label_agreement is
  'How all people agree on the spans that two or more have labelled without seeing a judge; labels that settle a disagreement do not count.';
comment on column flywheel.label_agreement.validator is 'Name of the validator.';
comment on column flywheel.label_agreement.reviewers is 'People who have labelled such spans.';
comment on column flywheel.label_agreement.items is 'Spans that two or more have labelled.';
comment on column flywheel.label_agreement.agreed is 'Spans on which all agree.';
comment on column flywheel.label_agreement.agreement is 'Share of spans on which all agree.';
comment on column flywheel.label_agreement.alpha is 'Krippendorff''s alpha; below 0.67 the question itself is unclear. null = undefined, for all always say the same.';

-- label_beliefs: where enough people labelled the same spans, what each span most likely is. An aid for whoever settles
-- disagreements; gold labels stay unanimous or settled.
create or replace function flywheel.label_beliefs(validator text)
returns table (span_id uuid, revision integer, reviewers integer, p_pass double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  asked uuid := (select question.validator_id from flywheel._question(label_beliefs.validator) as question);
  overlapping bigint;
  people bigint;
begin
  select count(*), max(shared.people) into overlapping, people
    from (select count(*) as labels, (select count(distinct annotator) from flywheel._current_labels as every
                                       where every.validator_id = asked and every.annotator_kind = 'human') as people
            from flywheel._current_labels as labels where labels.validator_id = asked and labels.annotator_kind = 'human'
           group by labels.span_id, labels.revision having count(*) >= 2) as shared;
  if overlapping < 50 or people < 3 then
    return;
  end if;
  return query
    with said as (
      select labels.span_id, labels.revision, concat_ws(' ', labels.span_id, labels.revision) as item, labels.annotator, labels.passed
        from flywheel._current_labels as labels where labels.validator_id = asked and labels.annotator_kind = 'human')
    select said.span_id, said.revision, count(*)::integer, min(believed.p_pass)
      from said
      join flywheel.dawid_skene((select array_agg(item) from said), (select array_agg(annotator) from said), (select array_agg(passed) from said))
        as believed using (item)
     group by said.span_id, said.revision;
end
$function$;
comment on function flywheel.label_beliefs is
  'P(pass) of every labelled span, reviewers weighed by how they agree (Dawid and Skene); no rows with fewer than 3 reviewers or 50 spans that two of them labelled. Gold labels do not go by it.';

select flywheel._grant(role, privilege)
  from unnest(array['flywheel_reviewer', 'flywheel_analyst', 'flywheel_admin']) as role
 cross join unnest(array['select on flywheel.reviewer_agreement, flywheel.label_agreement', 'execute on function flywheel.label_beliefs(text)']) as privilege;
