-- Backfill and reconcile: queue spans that no trigger queued.

-- _pending_spans: every (span, state) a version still waits for, one row a span.
create or replace function flywheel._pending_spans(version_id uuid) returns table (span_id uuid, state text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select waiting.span_id, (array_agg(waiting.state order by waiting.place))[1]
    from (
      select unnest(span_ids) as span_id, 'running' as state, 1 as place from flywheel._running where version_ids @> array[_pending_spans.version_id]
      union all
      select lines.span_id, 'running', 1 from flywheel._batch_lines as lines where lines.version_id = _pending_spans.version_id
      union all
      select unnest(span_ids), 'queued', 2 from flywheel._ready where version_ids @> array[_pending_spans.version_id]
      union all
      select unnest(span_ids), 'later', 3 from flywheel._later where version_ids @> array[_pending_spans.version_id]
      union all
      select unnest(span_ids), 'dead', 4 from flywheel._dead where version_ids @> array[_pending_spans.version_id]
    ) as waiting
   group by waiting.span_id
$function$;
comment on function flywheel._pending_spans is 'Internal: the spans in the queue for a version: running, queued, later or dead.';

-- _reconcile_version: spans of a time of arrival that the version should have judged, and neither did nor will.
-- An insert that runs while its version is paused or activated may see the dispatch of before: times of activity
-- that have ended count, too.
create or replace function flywheel._reconcile_version(wanted flywheel.validator_versions, eligible text, since timestamptz, until timestamptz, max_spans integer)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  missed record;
begin
  execute format($code$
    select array_agg(span_id) as span_ids, min(started_at) as earliest, max(started_at) as latest from (
      select span.span_id, span.started_at
        from (
          select span.*
            from flywheel.spans as span
           where span.ingested_at >= $1 and span.ingested_at < $2
             and exists (select from flywheel._activations as active
                   where active.version_id = $3 and span.ingested_at >= active.started_at and span.ingested_at < coalesce(active.ended_at, 'infinity'))
             and not exists (select from flywheel.scores
                   where (scores.span_id, scores.revision, scores.version_id, scores.started_at) = (span.span_id, span.revision, $3, span.started_at))
             and not exists (select from flywheel._pending_spans($3) as pending where pending.span_id = span.span_id)
          offset 0) as span                         -- the author's predicate is asked last, of the few that are left
       where %s
       limit $4) as missed$code$, _reconcile_version.eligible)
    into missed using since, until, wanted.version_id, max_spans;
  if missed.span_ids is null then
    return 0;
  end if;
  perform flywheel._enqueue(case wanted.lane when 'judge' then 'judge' else 'bulk' end, 1::smallint, array[wanted.version_id],
    missed.span_ids, missed.earliest, missed.latest, 'reconcile');
  return cardinality(missed.span_ids);
end
$function$;
comment on function flywheel._reconcile_version is 'Internal: queue what one version missed; returns how many spans.';

-- reconcile: rows put straight into a partition, restored, or inserted while triggers were disabled. Every version is
-- asked that was judging when they came, also one that was paused or retired since: its books are to balance, too.
create or replace function flywheel.reconcile(since timestamptz, until timestamptz default now() - interval '10 seconds', max_spans integer default 100000)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  wanted record;
  queued bigint := 0;
begin
  for wanted in
    select validators.name, versions as version
      from flywheel.validators join flywheel.validator_versions as versions using (validator_id)
     where exists (select from flywheel._activations as active where active.version_id = versions.version_id
                      and active.started_at < reconcile.until and (active.ended_at is null or active.ended_at > reconcile.since))
  loop
    begin
      queued := queued + flywheel._reconcile_version(wanted.version, flywheel._eligible_sql(wanted.name, (wanted.version).definition),
        reconcile.since, reconcile.until, reconcile.max_spans);
    exception when others or assert_failure then     -- its where raises on some span
      queued := queued + flywheel._reconcile_version(wanted.version, flywheel._may_be_eligible_sql(wanted.name, (wanted.version).definition),
        reconcile.since, reconcile.until, reconcile.max_spans);
    end;
  end loop;
  if queued > 0 then
    perform flywheel._log_run(null, 'bulk', 0, queued::integer, 0, clock_timestamp(), 'reconciled', null);
    perform flywheel._wake();
  end if;
  return queued;
end
$function$;
comment on function flywheel.reconcile is
  'Queue spans that arrived from since to until and that the validators active then missed (inserted past the triggers); returns how many pairs.';

create or replace function flywheel._reconcile_recent() returns bigint
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel.reconcile(now() - make_interval(secs => flywheel._setting('reconcile_seconds')))
$function$;
comment on function flywheel._reconcile_recent is 'Internal: reconcile the last settings.reconcile_seconds; workers call it every minute.';

-- _count_backfill: eligible is a predicate over the row span.
create or replace function flywheel._count_backfill(version_id uuid, since timestamptz, until timestamptz, eligible text)
returns table (spans bigint, already_scored bigint, to_judge bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  return query execute format($code$
    select count(*), count(scores.span_id), count(*) - count(scores.span_id)
      from flywheel.spans as span
      left join flywheel.scores
        on (scores.span_id, scores.revision, scores.version_id, scores.started_at) = (span.span_id, span.revision, $3, span.started_at)
     where span.started_at >= $1 and span.started_at < $2 and %s$code$, _count_backfill.eligible)
    using _count_backfill.since, _count_backfill.until, _count_backfill.version_id;
end
$function$;
comment on function flywheel._count_backfill is 'Internal: count spans of a time and those a version has scored.';

-- plan_backfill: what a backfill would do.
create or replace function flywheel.plan_backfill(name text, since timestamptz, until timestamptz default now())
returns table (eligible bigint, already_scored bigint, to_judge bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(plan_backfill.name, null);
begin
  return query select * from flywheel._count_backfill(chosen.version_id, plan_backfill.since, plan_backfill.until,
    flywheel._eligible_sql(plan_backfill.name, chosen.definition));
exception when others or assert_failure then         -- its where raises on some span
  return query select * from flywheel._count_backfill(chosen.version_id, plan_backfill.since, plan_backfill.until,
    flywheel._may_be_eligible_sql(plan_backfill.name, chosen.definition));
end
$function$;
comment on function flywheel.plan_backfill is 'Count the spans a backfill of the newest version would judge, and those it would skip.';

-- _require_batches: only a judge's calls can be lines of a file, and not every endpoint takes one.
create or replace function flywheel._require_batches(name text, version flywheel.validator_versions) returns void
language plpgsql stable security invoker
set search_path = pg_catalog, pg_temp
as $function$
begin
  if version.kind <> 'judge' then
    raise exception using errcode = 'WF009', message = format('validator %s is of kind %s and cannot run in lane batch', _require_batches.name, version.kind),
      hint = 'Leave the lane out.';
  end if;
  if not exists (select from flywheel.providers where providers.provider = version.definition ->> 'provider' and providers.abilities ->> 'batch' = 'true') then
    raise exception using errcode = 'WF009', message = format('provider %s of validator %s has no batch endpoint', version.definition ->> 'provider', _require_batches.name),
      hint = 'If it has one, say so in its file: abilities = { batch = true }.';
  end if;
end
$function$;
comment on function flywheel._require_batches is 'Internal: refuse what a batch endpoint cannot judge.';

-- start_backfill: an unfinished one of the same version, range and lane goes on where it stopped.
create or replace function flywheel.start_backfill(name text, since timestamptz, until timestamptz default now(), lane text default null) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(start_backfill.name, null);
  found_id uuid;
begin
  if since >= until then
    raise exception using errcode = 'WF009', message = format('a backfill from %s to %s has no spans', since, until),
      hint = 'since is the first started_at, until the first one no longer included.';
  end if;
  if chosen.status not in ('active', 'shadow', 'paused') then
    raise exception using errcode = 'WF004', message = format('validator %s is %s and cannot be backfilled', start_backfill.name, chosen.status),
      hint = format('Activate it first: select flywheel.activate_validator(%L).', start_backfill.name);
  end if;
  if start_backfill.lane = 'batch' then
    perform flywheel._require_batches(start_backfill.name, chosen);
  elsif start_backfill.lane is not null then
    raise exception using errcode = 'WF009', message = format('lane is %s, neither batch nor null', start_backfill.lane),
      hint = 'Without a lane the validator judges where it always does.';
  end if;
  perform flywheel._lock_validator(start_backfill.name);     -- of two at once the second finds that of the first
  select backfill_id into found_id from flywheel._backfills as past
   where past.version_id = chosen.version_id and past.since = start_backfill.since
     and past.finished_at is null and past.until <= start_backfill.until and past.lane is not distinct from start_backfill.lane
   order by past.created_at desc limit 1;
  if found_id is null then
    insert into flywheel._backfills (backfill_id, version_id, since, until, cursor_started_at, cursor_span_id, lane)
    values (flywheel.new_id(), chosen.version_id, start_backfill.since, start_backfill.until, start_backfill.since, '00000000-0000-0000-0000-000000000000',
            start_backfill.lane)
    returning backfill_id into found_id;
  end if;
  return found_id;
end
$function$;
comment on function flywheel.start_backfill is 'Begin to judge spans of the past with the newest version, or go on with one that was interrupted; lane batch = through the provider''s batch endpoint. Returns its id for advance_backfill().';

-- _next_spans: a page of one day in the order of its primary key, so that a page reads itself and nothing else.
create or replace function flywheel._next_spans(backfill flywheel._backfills, eligible text, max_spans integer,
  out seen integer, out last_span_id uuid, out span_ids uuid[], out started_from timestamptz, out started_until timestamptz, out skipped integer)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  execute format($code$
    with page as materialized (
      select span.*
        from flywheel.spans as span
       where span.started_at >= $1 and span.started_at < $2 and span.span_id > $3
       order by span.span_id
       fetch first $5 rows with ties
    ), picked as (
      select span.span_id, span.started_at, (%s) as eligible,
             exists (select from flywheel.scores
               where (scores.span_id, scores.revision, scores.version_id, scores.started_at) = (span.span_id, span.revision, $4, span.started_at)) as scored
        from page as span
    )
    select count(*)::integer, (array_agg(span_id order by span_id desc))[1], array_agg(span_id) filter (where eligible and not scored),
           min(started_at), max(started_at), (count(*) filter (where eligible and scored))::integer
      from picked$code$, _next_spans.eligible)
    into seen, last_span_id, span_ids, started_from, started_until, skipped
    using backfill.cursor_started_at, least(backfill.until, flywheel._next_midnight(backfill.cursor_started_at)), backfill.cursor_span_id,
          backfill.version_id, _next_spans.max_spans;
end
$function$;
comment on function flywheel._next_spans is 'Internal: a page of spans of the day a backfill is at.';

create or replace function flywheel._next_midnight(moment timestamptz) returns timestamptz
language sql immutable security invoker parallel safe
begin atomic
  select flywheel._day_start((moment at time zone 'UTC')::date + 1);
end;
comment on function flywheel._next_midnight is 'Internal: the first instant of the next UTC day.';

-- _next_day: the next time that may have spans; days without a partition lie in the default one.
create or replace function flywheel._next_day(after timestamptz) returns timestamptz
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select least(
    (select min(flywheel._day_start(parts.day)) from flywheel._partitions as parts
      where parts.relation = 'spans' and flywheel._day_start(parts.day) >= flywheel._next_midnight(_next_day.after)),
    (select min(spans.started_at) from flywheel.spans_default as spans where spans.started_at >= flywheel._next_midnight(_next_day.after)))
$function$;
comment on function flywheel._next_day is 'Internal: where a backfill goes on after the day of a time; null = nowhere.';

create or replace function flywheel.advance_backfill(backfill_id uuid, max_spans integer default 10000,
  out done boolean, out queued bigint, out skipped bigint, out cursor timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  backfill flywheel._backfills;
  version record;
  page record;
  most integer := greatest(max_spans, 1);
  next_at timestamptz;
begin
  lock table only flywheel.spans, only flywheel.spans_default in access share mode;  -- before scores, as everybody does: _next_day() reads it last
  select * into backfill from flywheel._backfills as known where known.backfill_id = advance_backfill.backfill_id for update;
  if not found then
    raise exception using errcode = 'WF009', message = format('there is no backfill %s', advance_backfill.backfill_id),
      hint = 'Begin one: select flywheel.start_backfill(name, since).';
  end if;
  if backfill.finished_at is not null then
    done := true; queued := backfill.queued; skipped := backfill.skipped; cursor := backfill.cursor_started_at;
    return;
  end if;
  select validators.name, versions.lane, versions.definition into version
    from flywheel.validator_versions as versions join flywheel.validators using (validator_id) where versions.version_id = backfill.version_id;
  loop
    begin
      select * into page from flywheel._next_spans(backfill, flywheel._eligible_sql(version.name, version.definition), most);
    exception when others or assert_failure then     -- its where raises on some span
      select * into page from flywheel._next_spans(backfill, flywheel._may_be_eligible_sql(version.name, version.definition), most);
    end;
    next_at := case when page.seen >= most then backfill.cursor_started_at else flywheel._next_day(backfill.cursor_started_at) end;
    exit when page.seen > 0 or next_at is null or next_at >= backfill.until;
    backfill.cursor_started_at := next_at;           -- a day without spans
    backfill.cursor_span_id := '00000000-0000-0000-0000-000000000000';
  end loop;
  if page.span_ids is not null then
    perform flywheel._enqueue(coalesce(backfill.lane, case version.lane when 'judge' then 'judge' else 'bulk' end), 2::smallint, array[backfill.version_id],
      page.span_ids, page.started_from, page.started_until, 'backfill');
    perform flywheel._wake();
  end if;
  update flywheel._backfills as known
     set cursor_started_at = coalesce(next_at, known.cursor_started_at),
         cursor_span_id = case when page.seen >= most then page.last_span_id else '00000000-0000-0000-0000-000000000000' end,
         queued = known.queued + coalesce(cardinality(page.span_ids), 0), skipped = known.skipped + page.skipped,
         finished_at = case when next_at is null or next_at >= known.until then now() end
   where known.backfill_id = backfill.backfill_id
  returning known.finished_at is not null, known.queued, known.skipped, known.cursor_started_at into done, queued, skipped, cursor;
end
$function$;
comment on function flywheel.advance_backfill is
  'Queue the next spans of a backfill behind all live work; commit and call again until done. queued and skipped are totals.';

-- judge_unscored: a score is written once, so the one that says nothing goes first. The newest revision alone: no other is judged.
create or replace function flywheel.judge_unscored(name text, since timestamptz, until timestamptz default now()) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  chosen flywheel.validator_versions := flywheel._find_version(judge_unscored.name, null);
  taken record;
begin
  perform flywheel._require_status(judge_unscored.name, chosen, array['active', 'shadow', 'paused'], 'asked again');
  lock table only flywheel.spans, only flywheel.spans_default in access share mode;  -- before scores, as everybody does
  with gone as (
    delete from flywheel.scores
     using flywheel.spans as span
     where scores.version_id = chosen.version_id and scores.passed is null
       and scores.started_at >= judge_unscored.since and scores.started_at < judge_unscored.until
       and (span.span_id, span.started_at, span.revision) = (scores.span_id, scores.started_at, scores.revision)
    returning scores.span_id, scores.started_at
  )
  select array_agg(gone.span_id) as span_ids, min(gone.started_at) as earliest, max(gone.started_at) as latest into taken from gone;
  if taken.span_ids is null then
    return 0;
  end if;
  perform flywheel._enqueue(case chosen.lane when 'judge' then 'judge' else 'bulk' end, 2::smallint, array[chosen.version_id], taken.span_ids,
    taken.earliest, taken.latest, 'replay');
  perform flywheel._wake();
  return cardinality(taken.span_ids);
end
$function$;
comment on function flywheel.judge_unscored is
  'Judge spans again on which the newest version gave no verdict, behind all live work: for when what kept it from one is mended. Returns how many are queued.';
