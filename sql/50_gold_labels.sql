-- Gold labels: what people hold true of a span, from what each of them says now; and who may see what judges say.
--
-- Whoever is to label a span without having seen a verdict must not find one beside it. So a login that is a reviewer and
-- nothing else reads no provisional label, and of a label it did not record neither stratum nor probability: strata are verdicts.

-- _sees_verdicts: reviewers do not; analysts, admins and workers do, and whoever else was granted a view.
create or replace function flywheel._sees_verdicts(reader name) returns boolean
language sql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select not coalesce(pg_has_role(reader, to_regrole('flywheel_reviewer')::oid, 'usage'), false)
      or exists (select from unnest(array['flywheel_analyst', 'flywheel_worker', 'flywheel_admin']) as other(role)
                  where pg_has_role(reader, to_regrole(other.role)::oid, 'usage'))
$function$;
comment on function flywheel._sees_verdicts is 'Internal: whether a role may see what judges say of spans that nobody of it has labelled.';

create or replace view flywheel._current_labels as
  select labels.span_id, labels.started_at, labels.revision, labels.trace_id, labels.project, validators.name as validator, labels.validator_id,
         labels.version_id, labels.label_id, labels.annotator, labels.annotator_kind, labels.passed, labels.critique, labels.blind,
         labels.adjudicated, labels.lane, labels.incl_prob, labels.stratum, labels.split, labels.group_key, labels.supersedes, labels.labelled_at,
         labels.recorded_by
    from flywheel.labels join flywheel.validators using (validator_id)
   where not labels.withdrawn
     and not exists (select from flywheel.labels as later where later.supersedes = labels.label_id);
comment on view flywheel._current_labels is 'Internal: current_labels, whoever reads them.';

create or replace view flywheel._gold_labels as
  select said.validator, said.validator_id, said.span_id, said.started_at, said.revision, said.trace_id, said.project, said.passed,
         case said.passed when true then said.critique_of_pass when false then said.critique_of_fail end as critique,
         said.lane, greatest(said.incl_prob, case said.lane when 'estimation' then items.incl_prob end) as incl_prob,
         case said.lane when 'estimation' then coalesce(items.stratum, said.stratum) end as stratum,
         said.split, said.group_key, said.reviewers, said.passed is null as disputed, said.labelled_at, said.annotators, said.blind,
         said.own
    from (
      select validator, validator_id, span_id, started_at, revision, min(trace_id::text)::uuid as trace_id, min(project) as project,
             coalesce((array_agg(passed order by labelled_at desc, label_id desc) filter (where adjudicated))[1],
                      case when bool_and(passed) = bool_or(passed) then bool_and(passed) end) as passed,
             (array_agg(critique order by adjudicated desc, labelled_at desc) filter (where passed and critique <> ''))[1] as critique_of_pass,
             (array_agg(critique order by adjudicated desc, labelled_at desc) filter (where not passed and critique <> ''))[1] as critique_of_fail,
             min(lane) as lane, max(incl_prob) as incl_prob, max(stratum) as stratum,        -- estimation comes before triage
             (array_agg(split order by labelled_at desc))[1] as split, (array_agg(group_key order by labelled_at desc))[1] as group_key,
             count(*)::integer as reviewers, max(labelled_at) as labelled_at, array_agg(annotator order by labelled_at) as annotators,
             bool_and(blind) as blind, bool_or(recorded_by = session_user) as own
        from flywheel._current_labels where annotator_kind = 'human'
       group by validator, validator_id, span_id, started_at, revision) as said
    left join flywheel._label_items as items
      on (items.validator_id, items.span_id, items.revision, items.started_at, items.lane)
       = (said.validator_id, said.span_id, said.revision, said.started_at, 'estimation');
comment on view flywheel._gold_labels is 'Internal: gold_labels, whoever reads them.';

create or replace view flywheel.current_labels with (security_barrier) as
  select span_id, started_at, revision, trace_id, project, validator, validator_id, version_id, label_id, annotator, annotator_kind, passed, critique,
         blind, adjudicated, lane, case when recorded_by = session_user or (select flywheel._sees_verdicts(current_user)) then incl_prob end as incl_prob,
         case when recorded_by = session_user or (select flywheel._sees_verdicts(current_user)) then stratum end as stratum,
         split, group_key, supersedes, labelled_at
    from flywheel._current_labels
   where annotator_kind = 'human' or (select flywheel._sees_verdicts(current_user));
comment on view flywheel.current_labels is
  'What each annotator says now of each revision of a span: neither replaced nor withdrawn. Kind judge = provisional, which no number counts and no reviewer sees who is not also an analyst.';

create or replace view flywheel.gold_labels as
  select validator, validator_id, span_id, started_at, revision, trace_id, project, passed, critique, lane,
         case when own or (select flywheel._sees_verdicts(current_user)) then incl_prob end as incl_prob,
         case when own or (select flywheel._sees_verdicts(current_user)) then stratum end as stratum,
         split, group_key, reviewers, disputed, labelled_at, annotators, blind
    from flywheel._gold_labels;
comment on view flywheel.gold_labels is
  'What people hold true of a revision of a span: all reviewers agree, or one settled it. passed null and disputed true while they differ.';

do $block$
declare
  said record;
begin
  for said in
    select format('comment on column %s.%I is %L', shown.attrelid::regclass, shown.attname,
             coalesce(own.meaning, pg_catalog.col_description('flywheel.labels'::regclass, held.attnum))) as statement
      from pg_catalog.pg_attribute as shown
      left join pg_catalog.pg_attribute as held on held.attrelid = 'flywheel.labels'::regclass and held.attname = shown.attname
      left join (values
        ('validator', 'Name of the validator.'),
        ('critique', 'Why, in the words of whoever said so last.'),
        ('lane', 'estimation if one of the labels is of a draw, else triage.'),
        ('incl_prob', 'Probability that some draw took the span; null in triage.'),
        ('blind', 'Whether no reviewer had seen a judge''s verdict.'),
        ('reviewers', 'How many people have labelled it.'),
        ('annotators', 'Who they are.'),
        ('disputed', 'Whether they differ and nobody has settled it.'),
        ('own', 'Whether one of the labels was recorded by who reads this.'),
        ('labelled_at', 'When the last of them did.')) as own(name, meaning)
        on own.name = shown.attname and (own.name = 'validator' or shown.attrelid in ('flywheel._gold_labels'::regclass, 'flywheel.gold_labels'::regclass))
     where shown.attrelid = any (array['flywheel._current_labels', 'flywheel.current_labels', 'flywheel._gold_labels', 'flywheel.gold_labels']::regclass[])
       and shown.attnum > 0
  loop
    execute said.statement;
  end loop;
end
$block$;

select flywheel._grant(role, 'select on flywheel.current_labels, flywheel.gold_labels')
  from unnest(array['flywheel_reviewer', 'flywheel_analyst', 'flywheel_worker', 'flywheel_admin']) as role;
-- What the views call is run as whoever reads them.
select flywheel._grant(role, 'execute on function flywheel._sees_verdicts(name)')
  from unnest(array['flywheel_reviewer', 'flywheel_analyst', 'flywheel_worker', 'flywheel_admin']) as role;
