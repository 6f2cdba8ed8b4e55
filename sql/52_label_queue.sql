-- Label queue: spans wait for reviewers in two lanes, are given out under a lease, and come back when it ends.

-- _free_reviews: how many more reviewers an item needs, those who have it now left out.
create or replace function flywheel._free_reviews(item flywheel._label_items) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select case when item.adjudication then 1 else item.wanted - (
           select count(*) from flywheel._current_labels as labels
            where (labels.validator_id, labels.span_id, labels.revision, labels.annotator_kind) = (item.validator_id, item.span_id, item.revision, 'human')
              and (item.lane = 'triage' or labels.lane = 'estimation')) end
       - (select count(*) from flywheel._label_claims as claims
           where claims.item_id = item.item_id and claims.state = 'leased' and claims.leased_until > now())
$function$;
comment on function flywheel._free_reviews is 'Internal: reviewers an item can still be given to.';

-- _may_review: nobody is asked twice, nor to settle what they took part in; what they deferred rests for a lease's time.
create or replace function flywheel._may_review(item flywheel._label_items, reviewer text) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select not exists (
           select from flywheel._label_claims as claims
            where (claims.item_id, claims.reviewer) = (item.item_id, _may_review.reviewer)
              and (claims.state = 'leased' or claims.state = 'deferred' and claims.changed_at > now() - make_interval(secs => flywheel._setting('label_lease_seconds'))))
     and not exists (
           select from flywheel._current_labels as labels
            where (labels.validator_id, labels.span_id, labels.revision, labels.annotator, labels.annotator_kind)
                = (item.validator_id, item.span_id, item.revision, _may_review.reviewer, 'human')
              and (item.lane = 'triage' or item.adjudication or labels.lane = 'estimation'))
     and exists (
           select from flywheel.spans
            where (spans.span_id, spans.started_at, spans.revision) = (item.span_id, item.started_at, item.revision))
$function$;
comment on function flywheel._may_review is 'Internal: whether an item may be given to a reviewer: new to them, and its span still says what it said.';

-- _take_items: first the rows are locked, then a second statement, which sees what others did before, looks again.
-- The update changes nothing: in a repeatable read transaction it fails (40001) where an old snapshot would give an item twice.
-- Items come from their index in order: to sort them, every open one would be asked the same questions.
create or replace function flywheel._take_items(validator_id uuid, reviewer text, most integer, lane text, until timestamptz) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_sort = off set enable_bitmapscan = off set enable_seqscan = off
as $function$
declare
  candidates uuid[];
  given integer;
  taken integer := 0;
begin
  for round in 1 .. 5 loop
    exit when taken >= most;
    with locked as materialized (
      select items.item_id from flywheel._label_items as items
       where items.validator_id = _take_items.validator_id and items.closed_at is null and items.lane = coalesce(_take_items.lane, items.lane)
         and flywheel._free_reviews(items) > 0 and flywheel._may_review(items, _take_items.reviewer)
       order by items.lane, items.priority desc, items.item_id limit most - taken
         for update skip locked)
    select array_agg(locked.item_id) into candidates from locked;
    exit when candidates is null;
    update flywheel._label_items as items set wanted = items.wanted where items.item_id = any (candidates);
    insert into flywheel._label_claims as claims (item_id, reviewer, state, leased_until)
    select items.item_id, _take_items.reviewer, 'leased', _take_items.until
      from flywheel._label_items as items
     where items.item_id = any (candidates) and items.closed_at is null and flywheel._free_reviews(items) > 0
        on conflict on constraint _label_claims_pkey do update set state = 'leased', leased_until = excluded.leased_until, changed_at = now();
    get diagnostics given = row_count;
    delete from flywheel._label_claims as claims
     where claims.item_id = any (candidates) and claims.state = 'leased' and claims.leased_until <= now();
    taken := taken + given;
  end loop;
  return taken;
end
$function$;
comment on function flywheel._take_items is 'Internal: lease up to so many open items to a reviewer; returns how many.';

create or replace function flywheel._require_claim(reviewer text, n integer, lane text) returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if flywheel._filled(_require_claim.reviewer) is null then
    perform flywheel._refuse_label('a claim has no reviewer', 'Name who will label.');
  elsif n is null or n not between 1 and 1000 then
    raise exception using errcode = 'WF009', message = format('%s items cannot be claimed', coalesce(n::text, 'null')), hint = 'Claim 1 to 1000.';
  elsif lane is not null and lane not in ('estimation', 'triage') then
    raise exception using errcode = 'WF009', message = format('there is no lane %s', lane), hint = 'The lanes of labels are estimation and triage.';
  end if;
end
$function$;
comment on function flywheel._require_claim is 'Internal: raise WF009 or WF011 for a claim that makes no sense.';

-- _dry_refill: one reviewer fills the queue, the others wait for it and find it full.
create or replace function flywheel._dry_refill(validator text, validator_id uuid, reviewer text, n integer, until timestamptz) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._lock_subject(_dry_refill.validator_id, null);
  if flywheel._take_items(_dry_refill.validator_id, _dry_refill.reviewer, n, 'triage', _dry_refill.until) = 0 then
    perform flywheel.queue_triage(_dry_refill.validator, greatest(n, 50));
    perform flywheel._take_items(_dry_refill.validator_id, _dry_refill.reviewer, n, 'triage', _dry_refill.until);
  end if;
end
$function$;
comment on function flywheel._dry_refill is 'Internal: queue spans for triage where none is left, and lease some to a reviewer.';

-- claim_labels: what a reviewer holds comes back to them first, then draws, then triage. What is over is renewed unless it is being
-- given to somebody else, who passes over what is being renewed: both lock the item first.
create or replace function flywheel.claim_labels(validator text, reviewer text, n integer default 10, from_lane text default null,
  lease_seconds integer default null)
returns table (item_id uuid, span_id uuid, started_at timestamptz, revision integer, lane text, adjudication boolean, leased_until timestamptz,
  project text, node text, input text, output text, messages jsonb, documents jsonb, target text, question text, pass_when text, fail_when text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  asked record;
  held integer;
  until timestamptz := now() + make_interval(secs => coalesce(claim_labels.lease_seconds, flywheel._setting('label_lease_seconds')));
begin
  perform flywheel._require_person(claim_labels.reviewer);
  perform flywheel._require_claim(claim_labels.reviewer, claim_labels.n, claim_labels.from_lane);
  select * into asked from flywheel._question(claim_labels.validator);
  with mine as materialized (
    select items.item_id
      from flywheel._label_claims as claims
      join flywheel._label_items as items using (item_id)
      join flywheel.spans on (spans.span_id, spans.started_at, spans.revision) = (items.span_id, items.started_at, items.revision)
     where claims.reviewer = claim_labels.reviewer and claims.state = 'leased'
       and items.validator_id = asked.validator_id and items.closed_at is null and items.lane = coalesce(claim_labels.from_lane, items.lane)
       for no key update of items skip locked)
  update flywheel._label_claims as claims set leased_until = until
    from mine where mine.item_id = claims.item_id and claims.reviewer = claim_labels.reviewer and claims.state = 'leased';
  get diagnostics held = row_count;
  if held < claim_labels.n then
    held := held + flywheel._take_items(asked.validator_id, claim_labels.reviewer, claim_labels.n - held, claim_labels.from_lane, until);
  end if;
  if held = 0 and claim_labels.from_lane is distinct from 'estimation' then
    perform flywheel._dry_refill(claim_labels.validator, asked.validator_id, claim_labels.reviewer, claim_labels.n, until);
  end if;
  return query
    select items.item_id, span.span_id, span.started_at, span.revision, items.lane, items.adjudication, claims.leased_until, span.project, span.node,
           span.input, span.output, span.messages, span.documents, asked.definition ->> 'target',
           coalesce(asked.definition ->> 'question', flywheel._filled(asked.definition ->> 'description'), claim_labels.validator),
           asked.definition ->> 'pass_when', asked.definition ->> 'fail_when'
      from flywheel._label_claims as claims
      join flywheel._label_items as items using (item_id)
      join flywheel.spans as span on (span.span_id, span.started_at, span.revision) = (items.span_id, items.started_at, items.revision)
     where claims.reviewer = claim_labels.reviewer and claims.state = 'leased' and claims.leased_until >= now() and items.validator_id = asked.validator_id
       and items.closed_at is null and items.lane = coalesce(claim_labels.from_lane, items.lane)
     order by items.lane, items.priority desc, items.item_id limit claim_labels.n;
end
$function$;
comment on function flywheel.claim_labels is
  'Give a reviewer up to n spans to label, for settings.label_lease_seconds unless said otherwise: those they hold already, then drawn ones, then triage by priority, which is filled when it is dry. Nobody else gets them meanwhile.';

create or replace function flywheel.defer_label(item_id uuid, reviewer text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._require_person(defer_label.reviewer);
  update flywheel._label_claims as claims set state = 'deferred', leased_until = null, changed_at = now()
   where (claims.item_id, claims.reviewer, claims.state) = (defer_label.item_id, defer_label.reviewer, 'leased');
  return found;
end
$function$;
comment on function flywheel.defer_label is 'Give an item back for now: others may take it at once, the reviewer again when a lease''s time has passed. False = they did not hold it.';

-- undo_label: a slip of the finger is mended at once; what is older is changed by relabel(), knowingly.
create or replace function flywheel.undo_label(reviewer text, out label_id uuid, out span_id uuid, out item_id uuid)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
  last flywheel.labels;
begin
  perform flywheel._require_person(undo_label.reviewer);
  select labels.* into last
    from flywheel._current_labels as current join flywheel.labels using (label_id)
   where current.annotator = undo_label.reviewer and current.annotator_kind = 'human' and current.labelled_at > now() - interval '1 hour'
   order by current.labelled_at desc, label_id desc limit 1;
  if last.label_id is null then
    perform flywheel._refuse_label(format('%s has labelled nothing in the last hour', undo_label.reviewer), 'Change an older label with relabel().');
  end if;
  label_id := last.label_id;
  span_id := last.span_id;
  perform flywheel.withdraw_label(last.label_id, undo_label.reviewer);
  update flywheel._label_claims as claims
     set state = 'leased', changed_at = now(), leased_until = now() + make_interval(secs => flywheel._setting('label_lease_seconds'))
    from flywheel._label_items as items
   where items.item_id = claims.item_id and claims.reviewer = undo_label.reviewer and claims.state = 'deferred' and items.closed_at is null
     and (items.validator_id, items.span_id, items.revision, items.lane) = (last.validator_id, last.span_id, last.revision, last.lane)
  returning claims.item_id into item_id;
end
$function$;
comment on function flywheel.undo_label is 'Withdraw the last label a reviewer gave in the last hour, and give them its item back. Returns the label withdrawn, its span, and the item (null = it came from none).';

-- _release_labels: a span that is gone or says something else now waits for nobody.
create or replace function flywheel._release_labels() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  ended bigint;
  closed bigint;
begin
  delete from flywheel._label_claims as claims
   where claims.state = 'leased' and claims.leased_until <= now()
      or claims.state = 'deferred' and claims.changed_at <= now() - make_interval(secs => flywheel._setting('label_lease_seconds'));
  get diagnostics ended = row_count;
  with gone as materialized (
    select items.item_id from flywheel._label_items as items
     where items.closed_at is null
       and not exists (select from flywheel.spans
                        where (spans.span_id, spans.started_at, spans.revision) = (items.span_id, items.started_at, items.revision))
       for update of items skip locked)
  update flywheel._label_items as items set closed_at = now() from gone where gone.item_id = items.item_id;
  get diagnostics closed = row_count;
  return ended + closed;
end
$function$;
comment on function flywheel._release_labels is 'Internal: end leases that ran out, and close items whose span is gone or has changed; returns how many.';

create or replace view flywheel.label_stats as
  select validators.name as validator, coalesce(said.labelled, 0) as labelled, coalesce(said.passed, 0) as passed, coalesce(said.failed, 0) as failed,
         coalesce(said.disputed, 0) as disputed, coalesce(said.estimation, 0) as estimation, coalesce(said.triage, 0) as triage,
         coalesce(said.train, 0) as train, coalesce(said.dev, 0) as dev, coalesce(said.test, 0) as test,
         (select count(*) from flywheel._current_labels as proposed
           where proposed.validator_id = validators.validator_id and proposed.annotator_kind = 'judge') as provisional,
         (select count(*) from flywheel.fixes where fixes.validator_id = validators.validator_id) as fixes,
         (select count(*) from flywheel._label_items as items
           where items.validator_id = validators.validator_id and items.closed_at is null and items.lane = 'estimation') as waiting_estimation,
         (select count(*) from flywheel._label_items as items
           where items.validator_id = validators.validator_id and items.closed_at is null and items.lane = 'triage') as waiting_triage,
         (select count(*) from flywheel._label_items as items
           where items.validator_id = validators.validator_id and items.closed_at is null and items.adjudication) as to_settle,
         said.last_labelled_at
    from flywheel.validators
    left join (
      select validator_id, count(*) as labelled, count(*) filter (where passed) as passed, count(*) filter (where not passed) as failed,
             count(*) filter (where disputed) as disputed, count(*) filter (where lane = 'estimation') as estimation,
             count(*) filter (where lane = 'triage') as triage, count(*) filter (where split = 'train') as train,
             count(*) filter (where split = 'dev') as dev, count(*) filter (where split = 'test') as test, max(labelled_at) as last_labelled_at
        from flywheel.gold_labels group by validator_id) as said using (validator_id)
   where said.validator_id is not null
      or exists (select from flywheel._label_items as items where items.validator_id = validators.validator_id)
      or exists (select from flywheel.labels where labels.validator_id = validators.validator_id);
comment on view flywheel.label_stats is 'For each question: the spans people have labelled, by verdict, lane and split, and what waits for them.';
comment on column flywheel.label_stats.validator is 'Name of the validator.';
comment on column flywheel.label_stats.labelled is 'Spans (each revision) that people have labelled.';
comment on column flywheel.label_stats.passed is 'Of these, those that pass.';
comment on column flywheel.label_stats.failed is 'Of these, those that fail.';
comment on column flywheel.label_stats.disputed is 'Of these, those on which reviewers differ.';
comment on column flywheel.label_stats.estimation is 'Of these, those of a random draw; they alone enter estimates.';
comment on column flywheel.label_stats.triage is 'Of these, those picked for another reason.';
comment on column flywheel.label_stats.train is 'Of these, those that become examples.';
comment on column flywheel.label_stats.dev is 'Of these, those judges are tuned on.';
comment on column flywheel.label_stats.test is 'Of these, those judges are tested on.';
comment on column flywheel.label_stats.provisional is 'Labels proposed by a judge, waiting for a person; counted nowhere else.';
comment on column flywheel.label_stats.fixes is 'Fixes given for the question.';
comment on column flywheel.label_stats.waiting_estimation is 'Drawn spans that wait for a label.';
comment on column flywheel.label_stats.waiting_triage is 'Other spans that wait for a label.';
comment on column flywheel.label_stats.to_settle is 'Of those waiting, spans on which reviewers differ.';
comment on column flywheel.label_stats.last_labelled_at is 'When somebody last labelled; null = never.';

select flywheel._grant(role, privilege)
  from unnest(array['flywheel_reviewer', 'flywheel_admin']) as role
 cross join unnest(array[
   'execute on function flywheel.claim_labels(text, text, integer, text, integer)',
   'execute on function flywheel.defer_label(uuid, text)',
   'execute on function flywheel.undo_label(text)']) as privilege;
select flywheel._grant(role, 'select on flywheel.label_stats') from unnest(array['flywheel_reviewer', 'flywheel_analyst', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_worker', 'execute on function flywheel._release_labels()');
