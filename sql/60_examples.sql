-- Examples: made of labels and fixes of the train split, kept back where something looks wrong, signed, taken back.
--
--   label, fix --> candidate --signed by enough--> approved --> servable        policy auto: servable at once
--                      `-- something looks wrong --> quarantined --released--> as signed      revoked: for good

-- _instruction_in: text that speaks to the judge instead of being judged. Texts of users and models only ever stand in prompts as
-- data; an example that carries such text is kept back all the same, since it would be shown again and again.
create or replace function flywheel._instruction_in(content text) returns text
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select left((regexp_match(content, known.pattern, 'i'))[1], 80)
    from (values
      ('(\m(?:ignore|disregard|forget|override)\M.{0,40}\m(?:instructions?|prompts?|rules|guidelines|above|previous)\M)'),
      ('(</?\s*(?:shots?|examples?|item|system|assistant|instructions?)\s*>|<\|im_(?:start|end)\|>|\[/?INST\]|(?:^|\n)\s*###\s*(?:system|instruction))'),
      ('("?(?:verdict|passed)"?\s*[:=]\s*"?(?:pass|fail|true|false)\M)'),
      ('(\m(?:answer|respond|reply|rate|mark|grade|judge|score|label)\M.{0,40}\m(?:with|as|it)\M.{0,20}\m(?:pass|passed|fail|failed|correct)\M)'),
      ('(\m(?:as|you are|dear)\M.{0,10}\m(?:judge|evaluator|grader)\M)')) as known(pattern)
   where content ~* known.pattern
   limit 1
$function$;
comment on function flywheel._instruction_in is 'Internal: the first piece of a text that reads like an order to a judge or like part of its prompt; null = none.';

create or replace function flywheel._example_policy(project text, out sign_off text, out signers integer, out max_per_user integer)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select coalesce(max(policies.sign_off), 'auto'), coalesce(max(case policies.sign_off when 'one' then 1 when 'two' then 2 end), 0),
         coalesce(max(policies.max_per_user), 20)
    from flywheel.example_policies as policies where policies.project = _example_policy.project
$function$;
comment on function flywheel._example_policy is 'Internal: how many people sign the examples of a project.';

-- _crowding: who of several at once made one too many is seen by none of them, so _advance_examples() asks again.
create or replace function flywheel._crowding(made flywheel.examples) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select format('end user %s has %s examples already', made.user_id, count(*)) from flywheel.examples as e
   where e.project = made.project and e.user_id = made.user_id and e.status in ('candidate', 'approved', 'servable') and e.example_id <> made.example_id
  having count(*) >= (flywheel._example_policy(made.project)).max_per_user
$function$;
comment on function flywheel._crowding is 'Internal: what to say where the end user of an example has enough others; null = not so.';

-- _example_problem: what can be seen without a vector; _advance_examples sees the rest.
create or replace function flywheel._example_problem(made flywheel.examples, out reason text, out detail text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  alike constant integer := 3;
  found_count integer;
begin
  detail := flywheel._instruction_in(concat_ws(E'\n', made.input, made.output, made.corrected_output, made.critique));
  if detail is not null then
    reason := 'instructions';
    return;
  end if;
  select count(*) into found_count from flywheel.examples as e
   where e.content_hash = made.content_hash and e.validator_id is not distinct from made.validator_id and e.status <> 'revoked'
     and e.example_id <> made.example_id and e.span_id <> made.span_id;
  if found_count >= alike then
    reason := 'flood';
    detail := format('%s other examples have the same text', found_count);
    return;
  end if;
  detail := flywheel._crowding(made);
  reason := case when detail is not null then 'one_user' end;
end
$function$;
comment on function flywheel._example_problem is 'Internal: why an example is kept back before anyone signs it; null = nothing is seen.';

-- _judge_was_wrong: corrections teach most.
create or replace function flywheel._judge_was_wrong(question uuid, span_id uuid, revision integer, started_at timestamptz, passed boolean) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select exists (
    select from flywheel.scores
      join flywheel.validator_versions as versions on versions.version_id = scores.version_id
     where scores.span_id = _judge_was_wrong.span_id and scores.revision = _judge_was_wrong.revision and scores.started_at = _judge_was_wrong.started_at
       and scores.passed <> _judge_was_wrong.passed and versions.kind in ('judge', 'neighbours') and flywheel._question_of(versions) = question)
$function$;
comment on function flywheel._judge_was_wrong is 'Internal: whether a judge of this question said otherwise of a span.';

-- _store_example: one row with its status. Taken back because reviewers differed, it comes back once they agree.
create or replace function flywheel._store_example(made flywheel.examples) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  problem record := flywheel._example_problem(made);
begin
  made.created_at := now();
  made.changed_at := now();
  made.quarantined_reason := problem.reason;
  made.quarantined_detail := problem.detail;
  made.status := case when problem.reason is not null then 'quarantined'
                      when (flywheel._example_policy(made.project)).sign_off = 'auto' then 'servable' else 'candidate' end;
  insert into flywheel.examples select made.*
    on conflict (label_id) where label_id is not null do update
       set status = excluded.status, trust = excluded.trust, quarantined_reason = excluded.quarantined_reason,
           quarantined_detail = excluded.quarantined_detail, revoked_reason = null, changed_at = now()
     where examples.revoked_reason = 'disputed';
end
$function$;
comment on function flywheel._store_example is 'Internal: store an example as candidate, servable or quarantined.';

-- _blank_example: what label and fix have in common; the span must still say what they were said of.
create or replace function flywheel._blank_example(question uuid, span_id uuid, started_at timestamptz, revision integer, group_key text) returns flywheel.examples
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  span flywheel.spans;
  made flywheel.examples;
  target text := (select versions.target from flywheel.validator_versions as versions
                   where versions.validator_id = question order by versions.version desc limit 1);
begin
  select * into span from flywheel.spans
   where (spans.span_id, spans.started_at, spans.revision) = (_blank_example.span_id, _blank_example.started_at, _blank_example.revision);
  if span.span_id is null then
    return null;
  end if;
  made.example_id := flywheel.new_id();
  made.validator_id := question;
  made.span_id := span.span_id;
  made.started_at := span.started_at;
  made.revision := span.revision;
  made.trace_id := span.trace_id;
  made.project := span.project;
  made.node := span.node;
  made.session_id := span.session_id;
  made.user_id := left(span.user_id, 200);         -- it stands in an index, and may be anything an end user sends
  made.group_key := _blank_example.group_key;
  made.input := span.input;
  made.output := span.output;
  made.disagreed := false;
  made.content_hash := encode(sha256(convert_to(coalesce(flywheel._item_text(target, span.input, span.output), ''), 'UTF8')), 'hex');
  return made;
end
$function$;
comment on function flywheel._blank_example is 'Internal: the part of an example that is copied from its span; null when the span has another text by now.';

create or replace function flywheel._shot_tokens(made flywheel.examples) returns integer
language sql immutable security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select 16 + (octet_length(concat(made.input, made.output, made.corrected_output, made.critique)) + 3) / 4
$function$;
comment on function flywheel._shot_tokens is 'Internal: an estimate of the tokens an example takes in a prompt.';

-- _chosen_label: the label that stands for a span: what all reviewers say, or the one who settled it; it must be of the train split,
-- and say why unless it passes. An example that is there already stays. trust: settled 1, two reviewers 0.8, one 0.5.
create or replace function flywheel._chosen_label(question uuid, span_id uuid, revision integer, out label flywheel.labels, out trust double precision, out said text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  believed record;
begin
  select count(*) as labels, bool_or(current.adjudicated) as settled,
         coalesce((array_agg(current.passed order by current.labelled_at desc, current.label_id desc) filter (where current.adjudicated))[1],
                  case when bool_and(current.passed) = bool_or(current.passed) then bool_and(current.passed) end) as passed,
         array_agg(current.label_id) as label_ids
    into believed
    from flywheel.labels as current
   where current.validator_id = question and current.span_id = _chosen_label.span_id and current.revision = _chosen_label.revision
     and current.annotator_kind = 'human' and not current.withdrawn
     and not exists (select from flywheel.labels as later where later.supersedes = current.label_id);
  said := case when believed.labels = 0 then 'withdrawn' when believed.passed is null then 'disputed' else 'superseded' end;
  trust := case when believed.settled then 1 when believed.labels > 1 then 0.8 else 0.5 end;
  select labels.* into label
    from flywheel.labels left join flywheel.examples as e on e.label_id = labels.label_id and coalesce(e.revoked_reason, 'disputed') = 'disputed'
   where labels.label_id = any (believed.label_ids) and labels.passed = believed.passed and labels.split = 'train'
     and (labels.passed or btrim(labels.critique) <> '')
   order by e.example_id is null, labels.adjudicated desc, labels.labelled_at desc, labels.label_id desc
   limit 1;
end
$function$;
comment on function flywheel._chosen_label is 'Internal: the label a span''s example is made of, null if none, and what becomes of an example of another one.';

create or replace function flywheel._settle_example(question uuid, span_id uuid, revision integer) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen record := flywheel._chosen_label(question, span_id, revision);
  label flywheel.labels := chosen.label;
  made flywheel.examples;
begin
  update flywheel.examples as e
     set status = 'revoked', revoked_reason = chosen.said, changed_at = now()
   where e.validator_id = question and e.span_id = _settle_example.span_id and e.revision = _settle_example.revision and e.kind = 'label'
     and e.status <> 'revoked' and e.label_id is distinct from label.label_id;
  if label.label_id is null then
    return;
  end if;
  update flywheel.examples as e set trust = greatest(e.trust, chosen.trust) where e.label_id = label.label_id and e.status <> 'revoked';
  if found then
    return;
  end if;
  made := flywheel._blank_example(question, label.span_id, label.started_at, label.revision, label.group_key);
  if made.example_id is null then
    return;
  end if;
  made.kind := 'label';
  made.label_id := label.label_id;
  made.passed := label.passed;
  made.critique := coalesce(label.critique, '');
  made.author := label.annotator;
  made.trust := chosen.trust;
  made.disagreed := flywheel._judge_was_wrong(question, label.span_id, label.revision, label.started_at, label.passed);
  made.tokens := flywheel._shot_tokens(made);
  perform flywheel._store_example(made);
end
$function$;
comment on function flywheel._settle_example is 'Internal: make the example of a span follow its labels.';

create or replace function flywheel._examples_of_labels() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform from flywheel.example_policies as policies where policies.project in (select added.project from added) order by policies.project for share;  -- it holds until they are there
  perform flywheel._settle_example(touched.validator_id, touched.span_id, touched.revision)
     from (select distinct added.validator_id, added.span_id, added.revision from added where added.annotator_kind = 'human') as touched;
  return null;
end
$function$;
comment on function flywheel._examples_of_labels is 'Internal: make examples of labels as they are written.';

create or replace trigger make_examples after insert on flywheel.labels
  referencing new table as added for each statement execute function flywheel._examples_of_labels();

-- _examples_of_fixes: the newest fix of a span stands.
create or replace function flywheel._examples_of_fixes() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  fix flywheel.fixes;
  made flywheel.examples;
begin
  perform from flywheel.example_policies as policies where policies.project in (select added.project from added) order by policies.project for share;  -- it holds until they are there
  for fix in select * from added where added.split = 'train' order by added.fixed_at, added.fix_id loop
    update flywheel.examples as e
       set status = 'revoked', revoked_reason = 'superseded', changed_at = now()
     where e.span_id = fix.span_id and e.kind = 'fix' and e.validator_id is not distinct from fix.validator_id and e.status <> 'revoked';
    made := flywheel._blank_example(fix.validator_id, fix.span_id, fix.started_at, fix.revision, fix.group_key);
    continue when made.example_id is null;
    made.kind := 'fix';
    made.fix_id := fix.fix_id;
    made.corrected_output := fix.output;
    made.critique := concat_ws(E'\n', fix.wrong, fix.why);
    made.author := fix.annotator;
    made.trust := 0.5;
    made.disagreed := fix.validator_id is not null
      and flywheel._judge_was_wrong(fix.validator_id, fix.span_id, fix.revision, fix.started_at, false);
    made.tokens := flywheel._shot_tokens(made);
    perform flywheel._store_example(made);
  end loop;
  return null;
end
$function$;
comment on function flywheel._examples_of_fixes is 'Internal: make examples of fixes as they are written.';

create or replace trigger make_examples after insert on flywheel.fixes
  referencing new table as added for each statement execute function flywheel._examples_of_fixes();
