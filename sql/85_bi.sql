-- Flat views for BI tools: first column time, ids as text, no jsonb, no arrays. What people and models wrote stands apart, in
-- views named content_...; 87_bi_flat.sql makes a flat view of every other public view.

create schema if not exists flywheel_bi;
comment on schema flywheel_bi is 'Flat views of pgflywheel for BI tools.';

create or replace view flywheel_bi.spans as
  select started_at as time, span_id::text, trace_id::text, parent_span_id::text, project, environment, release, session_id, node, node_kind,
         model, provider, input_tokens, output_tokens, cost_usd, status, latency_ms, revision, ingested_at
    from flywheel.spans;
comment on view flywheel_bi.spans is 'Every span without its texts.';

create or replace view flywheel_bi.scores as
  select started_at as time, span_id::text, trace_id::text, project, environment, release, node, node_kind, validator, version, severity,
         passed, case when passed then 1.0::double precision when not passed then 0.0 end as pass, value, unscored_reason, annotator_kind, scored_at, provisional
    from flywheel.current_scores;
comment on view flywheel_bi.scores is 'Every current score without its critique. avg(pass) is the pass rate of what was judged; unscored rows have pass null.';

create or replace view flywheel_bi.content_spans as
  select started_at as time, span_id::text, trace_id::text, project, environment, release, node, node_kind, session_id, user_id,
         input, output, messages::text, documents::text, error, attributes::text
    from flywheel.spans;
comment on view flywheel_bi.content_spans is 'What went into and came out of every span. Granted to admins only.';

create or replace view flywheel_bi.content_scores as
  select started_at as time, span_id::text, trace_id::text, project, node, validator, version, passed, value, critique, unscored_reason, unscored_detail
    from flywheel.current_scores;
comment on view flywheel_bi.content_scores is 'Every current score with its critique, which may quote the span. Granted to admins only.';

create or replace view flywheel_bi.content_labels as
  select labelled_at as time, span_id::text, trace_id::text, project, validator, annotator, annotator_kind, passed, critique
    from flywheel.current_labels;
comment on view flywheel_bi.content_labels is 'What each annotator says now, with the critique. Granted to admins only.';

create or replace view flywheel_bi.content_fixes as
  select fixes.fixed_at as time, fixes.span_id::text, fixes.trace_id::text, fixes.project, validators.name as validator, fixes.annotator,
         fixes.output, fixes.wrong, fixes.why
    from flywheel.fixes left join flywheel.validators using (validator_id);
comment on view flywheel_bi.content_fixes is 'Outputs as people corrected them. Granted to admins only.';

create or replace view flywheel_bi.content_feedback as
  select created_at as time, feedback_id::text, span_id::text, trace_id::text, project, kind, value, comment, user_id, attributes::text
    from flywheel.feedback;
comment on view flywheel_bi.content_feedback is 'What users said and did, with their words. Granted to admins only.';

-- _content_columns: names under which texts of the application, of people and of models stand, wherever they stand. Errors
-- are among them: the server quotes the value that it could not read. So are addresses, which may hold a secret.
create or replace function flywheel._content_columns() returns text[]
language sql immutable parallel safe security invoker
begin atomic
  select array['input', 'output', 'messages', 'documents', 'attributes', 'error', 'critique', 'judge_critique', 'human_critique', 'comment',
               'corrected_output', 'wrong', 'why', 'reply', 'detail', 'unscored_detail', 'paused_detail', 'blocked_detail', 'quarantined_detail',
               'problem', 'last_problem', 'refresh_error', 'url', 'evidence', 'item', 'first_input', 'second_input', 'first_output', 'second_output'];
end;
comment on function flywheel._content_columns is 'Internal: names of columns that hold content.';

-- _flat_column: a column as every BI tool can read it; null for one that none can.
create or replace function flywheel._flat_column(name name, type oid) returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
as $function$
  select case
    when type in ('text'::regtype, 'boolean'::regtype, 'smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'double precision'::regtype,
                  'timestamptz'::regtype, 'date'::regtype) then format('%I', name)
    when type in ('uuid'::regtype, 'varchar'::regtype, 'name'::regtype) then format('%I::text', name)
    when type in ('numeric'::regtype, 'real'::regtype) then format('%I::double precision', name)
    when type = 'text[]'::regtype then format('array_to_string(%1$I, '', '') as %1$I', name)
    when type = 'interval'::regtype then format('extract(epoch from %1$I)::double precision as %1$I', name)
  end
$function$;
comment on function flywheel._flat_column is 'Internal: the expression of a column in a flat view; null for a type that tools cannot read.';

-- _flatten: a view in flywheel_bi with the columns of a public one. at is the column its rows are of; null = they are of now.
create or replace function flywheel._flatten(source regclass, at text) returns void
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp
as $function$
declare
  flat text := (select format('flywheel_bi.%I', relname) from pg_class where oid = source);
  shown record;
begin
  execute format('create or replace view %s as select %s as time%s from %s', flat,
    case when at is null then 'now()' when at = 'started_on' then 'started_on::timestamp at time zone ''UTC''' else quote_ident(at) end,
    (select string_agg(', ' || flywheel._flat_column(attname, atttypid), '' order by attnum) from pg_attribute
      where attrelid = source and attnum > 0 and not attisdropped
        and (attname <> all (flywheel._content_columns()) or source = 'flywheel.rollup_status'::regclass)  -- its attributes are names of dimensions
        and attname <> 'time' and attname is distinct from at), source);
  execute format('comment on view %s is %L', flat, obj_description(source, 'pg_class'));
  for shown in
    select flats.attname, coalesce(col_description(source, sources.attnum), 'When it was looked at: the row says what is so now.') as meaning
      from pg_attribute as flats
      left join pg_attribute as sources on sources.attrelid = source and sources.attname = case flats.attname when 'time' then at else flats.attname end
     where flats.attrelid = flat::regclass and flats.attnum > 0
  loop
    execute format('comment on column %s.%I is %L', flat, shown.attname, shown.meaning);
  end loop;
end
$function$;
comment on function flywheel._flatten is 'Internal: make the flat view of a public view or table, with its comments and without content.';
revoke all on function flywheel._content_columns, flywheel._flat_column, flywheel._flatten from public;
