-- Rephrases: users who ask the same again. A weak sign that the answer failed: for priority and drift, never a label. What
-- they asked is not shown here: analysts read no content.

-- _ends: what is compared of a very long text; of most it is all.
create or replace function flywheel._ends(words text) returns text
language sql immutable parallel safe security invoker
begin atomic
  select case when char_length(words) <= 2000 then words else left(words, 1000) || ' ' || right(words, 1000) end;
end;
comment on function flywheel._ends is 'Internal: beginning and end of a long text, 2,000 characters together.';

-- _trigram_set: what trigram_similarity compares, as a tsvector: the union of two is one merge of sorted lists. Texts are
-- _ends, since those of a book may be too many for a tsvector. Inlined where it stands in a from, as is the next one.
create or replace function flywheel._trigram_set(content text) returns table (trigrams tsvector)
language sql immutable parallel safe security invoker
begin atomic
  select array_to_tsvector(array(
    select substr(padded.word, place, 3)
      from (select '  ' || found || ' ' from string_to_table(regexp_replace(lower(content), '[^[:alnum:]]+', ' ', 'g'), ' ') as found
             where found <> '' offset 0) as padded (word)
     cross join lateral generate_series(1, char_length(padded.word) - 2) as place));
end;
comment on function flywheel._trigram_set is 'Internal: the trigrams of a text of some thousand characters, as a set.';

create or replace function flywheel._shared_trigrams(a tsvector, b tsvector) returns table (share double precision)
language sql immutable parallel safe security invoker
begin atomic
  select coalesce((length(a) + length(b) - either.n)::double precision / nullif(either.n, 0), 0)
    from (select length(a || b) offset 0) as either (n);
end;
comment on function flywheel._shared_trigrams is 'Internal: share of trigrams two sets have in common, as trigram_similarity has it of texts that differ.';

-- _paced_turns: requests of sessions, each with what the same user asked next. All windows are over one order, so sessions are
-- sorted once. Trigrams are taken once for each text (the order keeps the planner from taking them again in lead()), and where
-- vectors serve not at all: there few pairs want them.
create or replace function flywheel._paced_turns(since timestamptz, until timestamptz)
returns table (started_at timestamptz, project text, environment text, release text, node text, session_id text, span_id uuid, trace_id uuid,
  revision integer, words text, trigrams tsvector, next_span_id uuid, next_started_at timestamptz, next_revision integer, next_words text,
  next_trigrams tsvector, gap double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select turn.started_at, turn.project, turn.environment, turn.release, turn.node, turn.session_id, turn.span_id, turn.trace_id, turn.revision,
         turn.words, turn.trigrams, lead(turn.span_id) over ordered, lead(turn.started_at) over ordered, lead(turn.revision) over ordered,
         lead(turn.words) over ordered, lead(turn.trigrams) over ordered,
         extract(epoch from lead(turn.started_at) over ordered - turn.started_at)::double precision
    from (
      select paced.*, ends.words, case when paced.near and not exists (
                        select from flywheel.embedders where embedders.status = 'serving' and embedders.kind <> 'hashing')
                   then (select found.trigrams from flywheel._trigram_set(ends.words) as found) end as trigrams
        from (
          select asked.*, max(asked.pace) over (partition by asked.project, asked.session_id, asked.user_id order by asked.started_at, asked.span_id
                                                 rows between unbounded preceding and unbounded following) as busiest
            from (
              select spans.started_at, spans.project, spans.environment, spans.release, spans.node, spans.session_id, spans.user_id,
                     spans.span_id, spans.trace_id, spans.revision, spans.input,
                     coalesce(lead(spans.started_at) over turns - spans.started_at <= interval '180 seconds', false)
                       or coalesce(spans.started_at - lag(spans.started_at) over turns <= interval '180 seconds', false) as near,
                     count(*) over (partition by spans.project, spans.session_id, spans.user_id order by spans.started_at
                                    range between interval '1 minute' preceding and current row) as pace
                from flywheel.spans
               where spans.parent_span_id is null and spans.session_id <> '' and spans.input is not null
                 and spans.started_at >= since and spans.started_at < until + interval '180 seconds'
              window turns as (partition by spans.project, spans.session_id, spans.user_id order by spans.started_at, spans.span_id)) as asked
             ) as paced
       cross join lateral (select flywheel._ends(paced.input)) as ends (words)
       where paced.busiest <= 20
       order by paced.project, paced.session_id, paced.user_id, paced.started_at, paced.span_id) as turn
  window ordered as (partition by turn.project, turn.session_id, turn.user_id order by turn.started_at, turn.span_id)
$function$;
comment on function flywheel._paced_turns is
  'Internal: requests of sessions from since on with the next one of each, until 180 seconds after until. Trigrams are null where vectors serve.';

-- _turns: requests of sessions, each with what the same user asked next within three minutes. Sessions with more than 20
-- turns in any minute are no person's. The hashing embedder knows no meaning: where it serves, shared trigrams are asked.
create or replace function flywheel._turns(since timestamptz, until timestamptz)
returns table (started_at timestamptz, project text, environment text, release text, node text, session_id text, span_id uuid,
  next_span_id uuid, gap_seconds double precision, kind text, score double precision, similarity double precision, similar_by text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select turn.started_at, turn.project, turn.environment, turn.release, turn.node, turn.session_id, turn.span_id,
         paired.next_span_id, paired.gap, paired.kind, paired.score, paired.similarity, paired.similar_by
    from flywheel._paced_turns(since, until) as turn
    left join lateral (
      select turn.next_span_id, turn.gap, asked.kind, coalesce(near.cosine, shared.alike) as similarity,
             flywheel._score_rephrase(turn.words, turn.next_words, near.cosine, turn.gap,
               coalesce(shared.alike, flywheel.trigram_similarity(turn.words, turn.next_words))) as score,
             case when near.cosine is null then 'trigrams' else 'embedding' end as similar_by
        from (select) as pair
        left join lateral (
          select 1 - (mine.embedding operator(public.<=>) theirs.embedding)
            from flywheel.embedders
            join flywheel.span_embeddings as mine
              on (mine.span_id, mine.embedder_id, mine.part, mine.started_at) = (turn.span_id, embedders.embedder_id, 'input', turn.started_at)
            join flywheel.span_embeddings as theirs
              on (theirs.span_id, theirs.embedder_id, theirs.part, theirs.started_at) = (turn.next_span_id, embedders.embedder_id, 'input', turn.next_started_at)
           where embedders.status = 'serving' and embedders.kind <> 'hashing'
             and (mine.revision, theirs.revision) = (turn.revision, turn.next_revision)) as near (cosine) on true
        left join lateral (
          select coalesce(case when turn.words = turn.next_words then 1 end, (select found.share from flywheel._shared_trigrams(turn.trigrams, turn.next_trigrams) as found where turn.trigrams is not null),
                          flywheel.trigram_similarity(turn.words, turn.next_words))
           where near.cosine is null offset 0) as shared (alike) on true
       cross join lateral (select flywheel._rephrase_kind(turn.words, turn.next_words, near.cosine, shared.alike) offset 0) as asked (kind)
       where turn.gap <= 180 and asked.kind is not null
         and not exists (
           select from flywheel.feedback as liked
            where (liked.span_id = turn.span_id or liked.span_id is null and liked.trace_id = turn.trace_id)
              and (liked.kind in ('copy', 'accept') or liked.kind = 'thumb' and liked.value > 0)
              and liked.created_at between turn.started_at and turn.next_started_at)) as paired on true
   where turn.started_at < until
$function$;
comment on function flywheel._turns is 'Internal: requests of sessions in [since, until), each with the pair it makes with the next one, if any.';

create or replace function flywheel.rephrases(since timestamptz, until timestamptz)
returns table ("time" timestamptz, project text, environment text, release text, node text, session_id text, span_id uuid, next_span_id uuid,
  gap_seconds double precision, kind text, score double precision, similarity double precision, similar_by text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select * from flywheel._turns(since, until) as turns where turns.kind is not null order by turns.started_at, turns.span_id
$function$;
comment on function flywheel.rephrases(timestamptz, timestamptz) is
  'Pairs of requests in [since, until) of one session and user, at most 180 seconds apart, of which the second asks the first again (kind rephrase) or repeats it (retry), unless the user liked, copied or accepted the answer between. score is how likely the first answer failed: for priority and drift, never a label.';

create or replace function flywheel.rephrases_by_topic(since timestamptz, until timestamptz)
returns table ("time" timestamptz, project text, topic text, turns bigint, rephrased bigint, retried bigint,
  rephrase_rate double precision, rephrase_low double precision, rephrase_high double precision, mean_score double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select counted.day, counted.project, counted.node, counted.turns, counted.rephrased, counted.retried,
         counted.rephrased::double precision / counted.turns, likely.low, likely.high, counted.mean_score
    from (select date_bin('1 day', turns.started_at, '2000-01-01 00:00:00+00') as day, turns.project, turns.node, count(*) as turns,
                 count(*) filter (where turns.kind = 'rephrase') as rephrased, count(*) filter (where turns.kind = 'retry') as retried,
                 avg(turns.score) filter (where turns.kind = 'rephrase') as mean_score
            from flywheel._turns(since, until) as turns group by 1, 2, 3) as counted
   cross join lateral flywheel.wilson_interval(counted.rephrased, counted.turns) as likely
   order by 1, 2, counted.rephrased desc, 3
$function$;
comment on function flywheel.rephrases_by_topic(timestamptz, timestamptz) is
  'How often requests in [since, until) of sessions were asked again in other words, by UTC day, project and node of the first. Sessions with more than 20 turns in any minute are left out.';

create or replace view flywheel.rephrases as
  select * from flywheel.rephrases(date_bin('1 day', now(), '2000-01-01 00:00:00+00') - interval '24 hours', now());
comment on view flywheel.rephrases is
  'Pairs of requests of which the second asks the first again: yesterday and today (UTC). Another time: the function of the same name. A weak sign that the first answer failed, never a label.';

create or replace view flywheel.rephrases_by_topic as
  select * from flywheel.rephrases_by_topic(date_bin('1 day', now(), '2000-01-01 00:00:00+00') - interval '24 hours', now());
comment on view flywheel.rephrases_by_topic is
  'How often users ask again in other words, by node: yesterday and today (UTC). Another time: the function of the same name. rephrases_by_cluster has it by what they ask about.';

do $block$
declare
  said record;
begin
  for said in
    select own.view, own.name, own.meaning from (values
      ('rephrases', 'time', 'When the first request began.'),
      ('rephrases', 'project', 'Which LLM application.'),
      ('rephrases', 'environment', 'Where it runs.'),
      ('rephrases', 'release', 'Which version of it answered the first; null = unknown.'),
      ('rephrases', 'node', 'Node of the first request.'),
      ('rephrases', 'session_id', 'Session of both.'),
      ('rephrases', 'span_id', 'Root span of the first request, whose answer may have failed.'),
      ('rephrases', 'next_span_id', 'Root span of the second.'),
      ('rephrases', 'gap_seconds', 'From start to start, at most 180.'),
      ('rephrases', 'kind', 'rephrase = in other words; retry = the same text, or a vector as good as the same.'),
      ('rephrases', 'score', 'How likely the second asks because the first answer failed, 0 to 1, by weights nobody has fitted to your users.'),
      ('rephrases', 'similarity', 'How alike the two inputs are, 0 to 1, as similar_by measures it.'),
      ('rephrases', 'similar_by', 'embedding = cosine of their vectors; trigrams = share of trigrams in common, where there are no vectors or only hashed ones.'),
      ('rephrases_by_topic', 'time', 'UTC day in which the first request began.'),
      ('rephrases_by_topic', 'project', 'Which LLM application.'),
      ('rephrases_by_topic', 'topic', 'Node of the first request.'),
      ('rephrases_by_topic', 'turns', 'Requests of sessions, the last of each too.'),
      ('rephrases_by_topic', 'rephrased', 'Those that were asked again in other words.'),
      ('rephrases_by_topic', 'retried', 'Those that were asked again in the same words; not in the rate.'),
      ('rephrases_by_topic', 'rephrase_rate', 'rephrased / turns.'),
      ('rephrases_by_topic', 'rephrase_low', 'Lower end of its 95 % Wilson interval.'),
      ('rephrases_by_topic', 'rephrase_high', 'Upper end of its 95 % Wilson interval.'),
      ('rephrases_by_topic', 'mean_score', 'Mean score of those asked again in other words.')) as own(view, name, meaning)
  loop
    execute format('comment on column flywheel.%I.%I is %L', said.view, said.name, said.meaning);
  end loop;
end
$block$;

select flywheel._grant(role, 'select on flywheel.rephrases, flywheel.rephrases_by_topic')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant(role, 'execute on function flywheel.' || name || '(timestamptz, timestamptz)')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role, unnest(array['rephrases', 'rephrases_by_topic']) as name;
