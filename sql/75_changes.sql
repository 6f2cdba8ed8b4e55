-- Changes: what is written of spans, scores and labels is noted in the same statement. Nothing is joined or added up
-- here: writers do not see each other's rows, so whoever joins must do it later, in one snapshot.

create or replace function flywheel._note_new_scores() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._score_changes (span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason)
  select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, 1, passed, unscored_reason from new_scores;
  return null;
end
$function$;
comment on function flywheel._note_new_scores is 'Internal: note scores written for the next fold.';

create or replace function flywheel._note_changed_scores() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._score_changes (span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason)
  select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, -1, passed, unscored_reason from old_scores
   union all
  select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, 1, passed, unscored_reason from new_scores;
  return null;
end
$function$;
comment on function flywheel._note_changed_scores is 'Internal: note scores as they were and as they are.';

create or replace function flywheel._note_deleted_scores() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._score_changes (span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, sign, passed, unscored_reason)
  select span_id, version_id, started_at, value, cost_usd, latency_ms, revision, input_tokens, output_tokens, -1, passed, unscored_reason from old_scores;
  return null;
end
$function$;
comment on function flywheel._note_deleted_scores is 'Internal: note scores taken away.';

-- _count_changed_spans: what is the same before and after cancels out, so an update of other columns writes nothing.
create or replace function flywheel._count_changed_spans() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._span_deltas
  select * from (
    select minute, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3, latency_bin,
           sum(sign) as n, coalesce(sum(sign) filter (where status = 'error'), 0) as errors, coalesce(sum(sign) filter (where status = 'running'), 0) as running,
           coalesce(sum(sign * input_tokens), 0) as input_tokens, coalesce(sum(sign * output_tokens), 0) as output_tokens,
           coalesce(sum(sign) filter (where input_tokens is not null or output_tokens is not null), 0) as metered,
           coalesce(sum(sign * cost_usd), 0) as cost_usd, coalesce(sum(sign) filter (where cost_usd is not null), 0) as priced,
           coalesce(sum(sign * latency_ms), 0) as latency_ms, coalesce(sum(sign * latency_ms * latency_ms), 0) as latency_squares,
           coalesce(sum(sign) filter (where latency_ms is not null), 0) as timed
      from (
      select -1 as sign, flywheel._minute(span.started_at) as minute, span.project, span.environment, span.release, span.node, span.node_kind, span.parent_span_id is null as root,
             flywheel._attribute_1(span.attributes, span.model, span.provider) as attribute_1, flywheel._attribute_2(span.attributes, span.model, span.provider) as attribute_2,
             flywheel._attribute_3(span.attributes, span.model, span.provider) as attribute_3, flywheel._latency_bin(span.latency_ms) as latency_bin,
             span.latency_ms, span.status, span.input_tokens::bigint as input_tokens, span.output_tokens::bigint as output_tokens, flywheel._summable(span.cost_usd) as cost_usd
        from old_spans as span
       union all
      select 1 as sign, flywheel._minute(span.started_at) as minute, span.project, span.environment, span.release, span.node, span.node_kind, span.parent_span_id is null as root,
             flywheel._attribute_1(span.attributes, span.model, span.provider) as attribute_1, flywheel._attribute_2(span.attributes, span.model, span.provider) as attribute_2,
             flywheel._attribute_3(span.attributes, span.model, span.provider) as attribute_3, flywheel._latency_bin(span.latency_ms) as latency_bin,
             span.latency_ms, span.status, span.input_tokens::bigint as input_tokens, span.output_tokens::bigint as output_tokens, flywheel._summable(span.cost_usd) as cost_usd
        from new_spans as span) as span
     group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) as changed
   where (n, errors, running, input_tokens, output_tokens, metered, cost_usd, priced, latency_ms, latency_squares, timed)
      <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  return null;
end
$function$;
comment on function flywheel._count_changed_spans is 'Internal: count spans as they were and as they are for the next fold.';

-- _note_changed_spans: scores count where their span is, so a fold must know which spans went elsewhere, or to a new revision.
create or replace function flywheel._note_changed_spans() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._span_changes
  select span_id, started_at, revision, sum(sign), project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
    from (
      select -1 as sign, span.span_id, span.started_at, span.revision, span.project, span.environment, span.release, span.node, span.node_kind, span.parent_span_id is null as root,
             flywheel._attribute_1(span.attributes, span.model, span.provider) as attribute_1, flywheel._attribute_2(span.attributes, span.model, span.provider) as attribute_2,
             flywheel._attribute_3(span.attributes, span.model, span.provider) as attribute_3
        from old_spans as span
       union all
      select 1 as sign, span.span_id, span.started_at, span.revision, span.project, span.environment, span.release, span.node, span.node_kind, span.parent_span_id is null as root,
             flywheel._attribute_1(span.attributes, span.model, span.provider) as attribute_1, flywheel._attribute_2(span.attributes, span.model, span.provider) as attribute_2,
             flywheel._attribute_3(span.attributes, span.model, span.provider) as attribute_3
        from new_spans as span) as span
   group by span_id, started_at, revision, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
  having sum(sign) <> 0;
  return null;
end
$function$;
comment on function flywheel._note_changed_spans is 'Internal: note spans whose revision or dimensions changed.';

create or replace function flywheel._count_deleted_spans() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._span_deltas
  select minute, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3, latency_bin,
         sum(sign), -count(*) filter (where status = 'error'), -count(*) filter (where status = 'running'),
         coalesce(sum(sign * input_tokens), 0), coalesce(sum(sign * output_tokens), 0), -count(coalesce(input_tokens, output_tokens)),
         coalesce(sum(sign * cost_usd), 0), -count(cost_usd),
         coalesce(sum(sign * latency_ms), 0), coalesce(sum(sign * latency_ms * latency_ms), 0), -count(latency_ms)
    from (
      select -1 as sign, flywheel._minute(span.started_at) as minute, span.project, span.environment, span.release, span.node, span.node_kind, span.parent_span_id is null as root,
             flywheel._attribute_1(span.attributes, span.model, span.provider) as attribute_1, flywheel._attribute_2(span.attributes, span.model, span.provider) as attribute_2,
             flywheel._attribute_3(span.attributes, span.model, span.provider) as attribute_3, flywheel._latency_bin(span.latency_ms) as latency_bin,
             span.latency_ms, span.status, span.input_tokens::bigint as input_tokens, span.output_tokens::bigint as output_tokens, flywheel._summable(span.cost_usd) as cost_usd
        from old_spans as span) as span
   group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
  insert into flywheel._span_changes
  select span_id, started_at, revision, sign, project, environment, release, node, node_kind, root, attribute_1, attribute_2, attribute_3
    from (
      select -1 as sign, span.span_id, span.started_at, span.revision, span.project, span.environment, span.release, span.node, span.node_kind, span.parent_span_id is null as root,
             flywheel._attribute_1(span.attributes, span.model, span.provider) as attribute_1, flywheel._attribute_2(span.attributes, span.model, span.provider) as attribute_2,
             flywheel._attribute_3(span.attributes, span.model, span.provider) as attribute_3
        from old_spans as span) as span;
  insert into flywheel._lost_spans (span_id, started_at)
  select span_id, started_at from old_spans
      on conflict do nothing;
  return null;
end
$function$;
comment on function flywheel._count_deleted_spans is 'Internal: count spans taken away, and remember them should they come back.';

-- _note_new_labels: a label that replaces another one changes what is believed of the span of that one.
create or replace function flywheel._note_new_labels() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._label_changes (span_id, started_at)
  select span_id, started_at from new_labels
   union
  select former.span_id, former.started_at from new_labels as said join flywheel.labels as former on former.label_id = said.supersedes;
  return null;
end
$function$;
comment on function flywheel._note_new_labels is 'Internal: note spans that were labelled.';

create or replace function flywheel._note_changed_labels() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._label_changes (span_id, started_at)
  select span_id, started_at from old_labels
   union
  select former.span_id, former.started_at from old_labels as said join flywheel.labels as former on former.label_id = said.supersedes
   union
  select span_id, started_at from flywheel.labels where label_id in (select label_id from old_labels)
   union
  select former.span_id, former.started_at
    from flywheel.labels as said join flywheel.labels as former on former.label_id = said.supersedes
   where said.label_id in (select label_id from old_labels);
  return null;
end
$function$;
comment on function flywheel._note_changed_labels is 'Internal: note spans whose labels were changed or deleted, which only the owner can.';

-- _forget_all: an emptied table leaves nothing to count. Who empties it waits for a fold at work.
create or replace function flywheel._forget_all() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  perform flywheel._win_turn('fold', true);
  delete from flywheel._cell_rollups;
  delete from flywheel._label_cells;
  delete from flywheel._label_changes;
  if tg_table_name in ('spans', 'scores') then
    delete from flywheel._score_rollups;
    delete from flywheel._score_changes;
    delete from flywheel._early_scores;
    delete from flywheel._span_changes;
  end if;
  if tg_table_name = 'spans' then
    delete from flywheel._span_rollups;
    delete from flywheel._span_deltas;
    insert into flywheel._lost_spans (span_id, started_at)
    select distinct span_id, started_at from flywheel.scores
        on conflict do nothing;
  end if;
  return null;
end
$function$;
comment on function flywheel._forget_all is 'Internal: a truncated table is counted nowhere.';

create or replace trigger note_new after insert on flywheel.scores
  referencing new table as new_scores for each statement execute function flywheel._note_new_scores();
create or replace trigger note_changed after update on flywheel.scores
  referencing old table as old_scores new table as new_scores for each statement execute function flywheel._note_changed_scores();
create or replace trigger note_deleted after delete on flywheel.scores
  referencing old table as old_scores for each statement execute function flywheel._note_deleted_scores();
create or replace trigger note_emptied after truncate on flywheel.scores
  for each statement execute function flywheel._forget_all();

create or replace trigger count_changed after update on flywheel.spans
  referencing old table as old_spans new table as new_spans for each statement execute function flywheel._count_changed_spans();
create or replace trigger note_changed after update on flywheel.spans
  referencing old table as old_spans new table as new_spans for each statement execute function flywheel._note_changed_spans();
create or replace trigger count_deleted after delete on flywheel.spans
  referencing old table as old_spans for each statement execute function flywheel._count_deleted_spans();
create or replace trigger count_emptied after truncate on flywheel.spans
  for each statement execute function flywheel._forget_all();

create or replace trigger note_new after insert on flywheel.labels
  referencing new table as new_labels for each statement execute function flywheel._note_new_labels();
create or replace trigger note_changed after update on flywheel.labels
  referencing old table as old_labels for each statement execute function flywheel._note_changed_labels();
create or replace trigger note_deleted after delete on flywheel.labels
  referencing old table as old_labels for each statement execute function flywheel._note_changed_labels();
create or replace trigger note_emptied after truncate on flywheel.labels
  for each statement execute function flywheel._forget_all();
