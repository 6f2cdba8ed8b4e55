-- Views of clusters. Names and words come from inputs; analysts read them, but not the inputs themselves.

-- _shown_clusters: how views name them.
create or replace view flywheel._shown_clusters as
  select known.cluster_id, known.project, known.embedder_id, known.n, known.total, known.status, known.first_seen_at,
         coalesce(known.name, nullif(known.words, ''), 'cluster ' || right(known.cluster_id::text, 8)) as name
    from flywheel._clusters as known join flywheel.embedders on embedders.embedder_id = known.embedder_id and embedders.status = 'serving'
   where known.status = 'open' and known.n > 0;
comment on view flywheel._shown_clusters is 'Internal: open clusters of the embedder that serves.';

create or replace view flywheel._recent_members as
  select members.span_id, members.started_at, members.project, members.embedder_id, members.cluster_id, members.embedding
    from flywheel._cluster_members as members join flywheel.embedders on embedders.embedder_id = members.embedder_id and embedders.status = 'serving'
   where members.started_at >= flywheel._quality_since();
comment on view flywheel._recent_members is 'Internal: members of the last settings.quality_window_days days, of the embedder that serves.';

create or replace view flywheel.clusters as
  select known.cluster_id, known.project, coalesce(known.name, nullif(known.words, ''), 'cluster ' || right(known.cluster_id::text, 8)) as name, nullif(known.words, '') as words, known.n,
         known.first_seen_at, known.last_seen_at, case when embedders.status = 'serving' then known.status else 'former' end as status,
         known.merged_into, known.named_by, embedders.name as embedder,
         known.n::double precision / counted.n as share
    from flywheel._clusters as known join flywheel.embedders using (embedder_id)
    left join (select members.project, members.embedder_id, count(*) as n from flywheel._cluster_members as members group by 1, 2) as counted using (project, embedder_id);
comment on view flywheel.clusters is 'Clusters of inputs that mean the same, of the spans that are embedded. Spans are sampled by trace, so counts are of the sample.';

create or replace view flywheel.cluster_members as
  select members.span_id, members.started_at, members.cluster_id, 1 - (known.total operator(public.<=>) members.embedding::public.vector) as similarity,
         members.project, coalesce(known.name, nullif(known.words, ''), 'cluster ' || right(known.cluster_id::text, 8)) as cluster, members.joined_at
    from flywheel._cluster_members as members
    join flywheel.embedders on embedders.embedder_id = members.embedder_id and embedders.status = 'serving'
    left join flywheel._clusters as known using (cluster_id);
comment on view flywheel.cluster_members is 'The cluster of each sampled span that was embedded.';

create or replace view flywheel.cluster_status as
  select listed.project, embedders.name as embedder, listed.members, listed.clustered, listed.clusters,
         (select count(*) from flywheel._cluster_news as news where news.embedder_id = embedders.embedder_id) as waiting,
         runs.grouped_at, runs.sampled, runs.groups, runs.ungrouped, runs.note
    from flywheel.embedders
    join (select members.project, members.embedder_id, count(*) as members, count(members.cluster_id) as clustered, count(distinct members.cluster_id) as clusters
            from flywheel._cluster_members as members group by 1, 2) as listed using (embedder_id)
    left join flywheel._cluster_runs as runs on (runs.project, runs.embedder_id) = (listed.project, embedders.embedder_id)
   where embedders.status = 'serving';
comment on view flywheel.cluster_status is 'How many spans have a cluster in each project, and when clusters were last formed anew.';

-- quality_by_cluster: who is in no cluster has rows too, so that shares add up.
create or replace view flywheel.quality_by_cluster as
  select judged.validator, judged.version, judged.project, judged.cluster_id, coalesce(known.name, 'in no cluster') as cluster, judged.n,
         judged.passed + judged.failed as judged, judged.passed, judged.failed, judged.n - judged.passed - judged.failed as unscored,
         (judged.passed + judged.failed)::double precision / nullif(judged.n, 0) as judged_share,
         judged.passed::double precision / nullif(judged.passed + judged.failed, 0) as pass_rate,
         flywheel._wilson_low(judged.passed, judged.passed + judged.failed) as pass_low,
         flywheel._wilson_high(judged.passed, judged.passed + judged.failed) as pass_high,
         judged.n::double precision / nullif(sum(judged.n) over (partition by judged.validator, judged.version, judged.project), 0)::double precision as volume_share
    from (
      select scores.validator, scores.version, members.project, members.cluster_id, count(*) as n,
             count(*) filter (where scores.passed) as passed, count(*) filter (where not scores.passed) as failed
        from flywheel._recent_members as members
        join flywheel.current_scores as scores on (scores.span_id, scores.started_at) = (members.span_id, members.started_at)
       group by 1, 2, 3, 4) as judged
    left join flywheel._shown_clusters as known using (cluster_id);
comment on view flywheel.quality_by_cluster is
  'What validators say of each cluster, over the last settings.quality_window_days days. Of sampled spans only; versions that decide, not shadows.';

-- cluster_growth: shares are compared, not counts, so that more traffic is no growth of every topic.
create or replace view flywheel.cluster_growth as
  with counted as materialized (
    select members.project, members.cluster_id, (members.started_at at time zone 'UTC')::date as day, count(*) as n
      from flywheel._cluster_members as members join flywheel.embedders on embedders.embedder_id = members.embedder_id and embedders.status = 'serving'
     where members.started_at >= flywheel._quality_since() - interval '336 hours' group by 1, 2, 3
  ), calendar as (
    select day::date as day from generate_series((flywheel._quality_since() at time zone 'UTC')::date - 14, (now() at time zone 'UTC')::date, interval '1 day') as day
  ), totals as materialized (
    select line.project, calendar.day, coalesce(sum(counted.n), 0)::bigint as n,
           (sum(sum(counted.n)) over week)::bigint as week_n, (sum(sum(counted.n)) over before)::bigint as previous_n
      from (select distinct project from counted) as line cross join calendar left join counted on (counted.project, counted.day) = (line.project, calendar.day)
     group by 1, 2
    window week as (partition by line.project order by calendar.day rows 6 preceding),
           before as (partition by line.project order by calendar.day rows between 13 preceding and 7 preceding)
  ), each as (
    select known.cluster_id, known.project, known.name, known.first_seen_at, calendar.day, coalesce(counted.n, 0) as n,
           coalesce(sum(counted.n) over week, 0)::bigint as week_n, coalesce(sum(counted.n) over before, 0)::bigint as previous_n
      from flywheel._shown_clusters as known cross join calendar
      left join counted on (counted.cluster_id, counted.day) = (known.cluster_id, calendar.day)
    window week as (partition by known.cluster_id order by calendar.day rows 6 preceding),
           before as (partition by known.cluster_id order by calendar.day rows between 13 preceding and 7 preceding)
  )
  select each.day::timestamp at time zone 'UTC' as time, each.project, each.cluster_id, each.name as cluster, each.n,
         each.n::double precision / nullif(totals.n, 0) as share, each.week_n, each.week_n::double precision / nullif(totals.week_n, 0) as week_share,
         each.previous_n as previous_week_n, each.previous_n::double precision / nullif(totals.previous_n, 0) as previous_week_share,
         each.week_n::double precision / nullif(totals.week_n, 0) / nullif(each.previous_n::double precision / nullif(totals.previous_n, 0), 0) as growth,
         each.first_seen_at >= (each.day - 6)::timestamp at time zone 'UTC' as is_new,
         case when totals.week_n > 0 and totals.previous_n > 0
              then flywheel._wilson_low(each.week_n, totals.week_n) > flywheel._wilson_high(each.previous_n, totals.previous_n) end as grows
    from each join totals using (project, day)
   where each.day >= (flywheel._quality_since() at time zone 'UTC')::date and each.week_n + each.previous_n > 0;
comment on view flywheel.cluster_growth is 'Volume of clusters by UTC day, and the week that ends with it against the week before.';

-- cluster_consistency: sums of vectors tell the mean cosine of all pairs without looking at any pair.
create or replace view flywheel.cluster_consistency as
  with summed as materialized (
    select known.project, known.cluster_id, known.name, count(*) as n, public.sum(members.embedding::public.vector) as inputs,
           count(made.embedding) as answers, public.sum(made.embedding::public.vector) as outputs
      from flywheel._recent_members as members
      join flywheel._shown_clusters as known using (cluster_id)
      left join flywheel.span_embeddings as made
        on (made.span_id, made.embedder_id, made.part, made.started_at) = (members.span_id, members.embedder_id, 'output', members.started_at)
     group by 1, 2, 3
  ), exact as materialized (
    select counted.cluster_id, sum(counted.n)::bigint as answers, flywheel.answer_consistency(array_agg(counted.n)) as agreement
      from (select members.cluster_id, md5(spans.output), count(*) as n
              from flywheel._recent_members as members join summed on summed.cluster_id = members.cluster_id and summed.answers = 0
              join flywheel.spans on (spans.span_id, spans.started_at) = (members.span_id, members.started_at)
             where spans.output is not null group by 1, 2) as counted
     group by 1
  ), compared as materialized (
    select summed.project, summed.cluster_id, summed.name, summed.n, case when summed.answers > 0 then summed.answers else coalesce(exact.answers, 0) end as answers,
           flywheel.cohesion(summed.n, summed.inputs::real[]) as input_cohesion,
           case when summed.answers > 0 then flywheel.cohesion(summed.answers, summed.outputs::real[]) else exact.agreement end as output_cohesion,
           case when summed.answers > 0 then 'embedding' when exact.answers > 0 then 'exact answers' end as measured_by
      from summed left join exact using (cluster_id)
  )
  select compared.project, compared.cluster_id, compared.name as cluster, compared.n, compared.answers, compared.input_cohesion, compared.output_cohesion,
         compared.measured_by, compared.input_cohesion - compared.output_cohesion as gap,
         case when least(compared.n, compared.answers) >= 5 then compared.input_cohesion - compared.output_cohesion > 0.15 end as inconsistent
    from compared;
comment on view flywheel.cluster_consistency is
  'The same question, different answers: how alike the inputs of a cluster are, and how alike their outputs, over the last settings.quality_window_days days.';

create or replace function flywheel.rephrases_by_cluster(since timestamptz, until timestamptz)
returns table ("time" timestamptz, project text, cluster_id uuid, cluster text, turns bigint, rephrased bigint, retried bigint,
  rephrase_rate double precision, rephrase_low double precision, rephrase_high double precision, mean_score double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select counted.day, counted.project, counted.cluster_id, coalesce(known.name, 'in no cluster'), counted.turns, counted.rephrased, counted.retried,
         counted.rephrased::double precision / counted.turns, likely.low, likely.high, counted.mean_score
    from (select date_bin('1 day', turns.started_at, '2000-01-01 00:00:00+00') as day, turns.project, members.cluster_id, count(*) as turns,
                 count(*) filter (where turns.kind = 'rephrase') as rephrased, count(*) filter (where turns.kind = 'retry') as retried,
                 avg(turns.score) filter (where turns.kind = 'rephrase') as mean_score
            from flywheel._turns(since, until) as turns
            join flywheel._cluster_members as members on (members.span_id, members.started_at) = (turns.span_id, turns.started_at)
            join flywheel.embedders on embedders.embedder_id = members.embedder_id and embedders.status = 'serving'
           group by 1, 2, 3) as counted
    left join flywheel._shown_clusters as known using (cluster_id)
   cross join lateral flywheel.wilson_interval(counted.rephrased, counted.turns) as likely
   order by 1, 2, counted.rephrased desc, counted.cluster_id
$function$;
comment on function flywheel.rephrases_by_cluster(timestamptz, timestamptz) is
  'How often requests in [since, until) of sessions were asked again in other words, by UTC day, project and what they ask about. Of requests that have a cluster or were looked at for one.';

create or replace view flywheel.rephrases_by_cluster as
  select * from flywheel.rephrases_by_cluster(date_bin('1 day', now(), '2000-01-01 00:00:00+00') - interval '24 hours', now());
comment on view flywheel.rephrases_by_cluster is 'How often users ask again in other words, by what they ask about: yesterday and today (UTC). Another time: the function of the same name.';

-- rephrased_topics: what a request was about is its cluster, and its node where it has none: spans are sampled, inputs are alone.
create or replace function flywheel.rephrased_topics(since timestamptz, until timestamptz)
returns table (project text, topic text, topic_kind text, cluster_id uuid, turns bigint, rephrased bigint, retried bigint,
  rephrase_rate double precision, rephrase_low double precision, rephrase_high double precision, mean_score double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select counted.project, coalesce(counted.cluster, counted.node), case when counted.cluster_id is null then 'node' else 'cluster' end, counted.cluster_id,
         counted.turns, counted.rephrased, counted.retried, counted.rephrased::double precision / counted.turns, likely.low, likely.high, counted.mean_score
    from (select turns.project, known.cluster_id, known.name as cluster, case when known.cluster_id is null then turns.node end as node, count(*) as turns,
                 count(*) filter (where turns.kind = 'rephrase') as rephrased, count(*) filter (where turns.kind = 'retry') as retried,
                 avg(turns.score) filter (where turns.kind = 'rephrase') as mean_score
            from flywheel._turns(since, until) as turns
            left join (select members.span_id, members.started_at, shown.cluster_id, shown.name
                         from flywheel._cluster_members as members join flywheel._shown_clusters as shown using (cluster_id)) as known
              on (known.span_id, known.started_at) = (turns.span_id, turns.started_at)
           group by 1, 2, 3, 4) as counted
   cross join lateral flywheel.wilson_interval(counted.rephrased, counted.turns) as likely
   order by likely.low desc, counted.rephrased desc, 1, 2, 4
$function$;
comment on function flywheel.rephrased_topics(timestamptz, timestamptz) is
  'The topics users have to ask about again, those that surely are first: requests in [since, until) of sessions by cluster, and by node where they are in none.';

create or replace view flywheel.rephrased_topics as
  select * from flywheel.rephrased_topics(date_bin('1 day', now(), '2000-01-01 00:00:00+00') - interval '24 hours', now());
comment on view flywheel.rephrased_topics is
  'The topics users ask about again, those that surely are first: yesterday and today (UTC). Another time: the function of the same name.';

create or replace function flywheel.cluster_examples(cluster_id uuid, n integer default 5)
returns table (span_id uuid, started_at timestamptz, similarity double precision, node text, input text, output text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select spans.span_id, spans.started_at, nearest.similarity, spans.node, spans.input, spans.output
    from (select members.span_id, members.started_at, 1 - (known.total operator(public.<=>) members.embedding::public.vector) as similarity
            from flywheel._clusters as known join flywheel._cluster_members as members using (cluster_id)
           where known.cluster_id = cluster_examples.cluster_id
           order by 3 desc, members.started_at desc, members.span_id limit greatest(0, cluster_examples.n)) as nearest
    join flywheel.spans on (spans.span_id, spans.started_at) = (nearest.span_id, nearest.started_at)
   order by nearest.similarity desc, spans.started_at desc, spans.span_id
$function$;
comment on function flywheel.cluster_examples is 'The spans nearest to the centre of a cluster, with their texts. For admins: analysts read no content.';

do $block$
declare
  said record;
begin
  for said in
    select own.view, own.name, own.meaning from (values
      ('_shown_clusters', 'cluster_id', 'The cluster.'),
      ('_shown_clusters', 'project', 'Its project.'),
      ('_shown_clusters', 'embedder_id', 'Who made the vectors.'),
      ('_shown_clusters', 'n', 'Members.'),
      ('_shown_clusters', 'total', 'Sum of their vectors.'),
      ('_shown_clusters', 'status', 'open.'),
      ('_shown_clusters', 'first_seen_at', 'Start of its earliest member ever.'),
      ('_shown_clusters', 'name', 'How views name it.'),
      ('_recent_members', 'span_id', 'The span.'),
      ('_recent_members', 'started_at', 'Its start.'),
      ('_recent_members', 'project', 'Its project.'),
      ('_recent_members', 'embedder_id', 'Who made the vector.'),
      ('_recent_members', 'cluster_id', 'The cluster; null = none.'),
      ('_recent_members', 'embedding', 'The vector.'),
      ('clusters', 'cluster_id', 'Its id, which outlives being formed anew.'),
      ('clusters', 'project', 'Project of its spans.'),
      ('clusters', 'name', 'What somebody called it, else its words, else the end of its id.'),
      ('clusters', 'words', 'Words that are frequent in its inputs and rare in others; null = it is too small, or too new.'),
      ('clusters', 'n', 'Spans in it, of the sample.'),
      ('clusters', 'first_seen_at', 'Start of its earliest span ever.'),
      ('clusters', 'last_seen_at', 'Start of its latest span ever.'),
      ('clusters', 'status', 'open; merged = its spans are in merged_into; former = of an embedder that no longer serves.'),
      ('clusters', 'merged_into', 'Where its spans are now.'),
      ('clusters', 'named_by', 'Who called it so; null = nobody.'),
      ('clusters', 'embedder', 'Who made the vectors.'),
      ('clusters', 'share', 'n over all sampled spans of the project, those in no cluster too.'),
      ('cluster_members', 'span_id', 'The span.'),
      ('cluster_members', 'started_at', 'Its start.'),
      ('cluster_members', 'cluster_id', 'Its cluster; null = it is near none.'),
      ('cluster_members', 'similarity', 'Cosine of its vector to the centre of the cluster as it is now.'),
      ('cluster_members', 'project', 'Its project.'),
      ('cluster_members', 'cluster', 'Name of the cluster.'),
      ('cluster_members', 'joined_at', 'When it was first looked at.'),
      ('cluster_status', 'project', 'Which LLM application.'),
      ('cluster_status', 'embedder', 'The embedder that serves.'),
      ('cluster_status', 'members', 'Sampled spans that were looked at.'),
      ('cluster_status', 'clustered', 'Those that are in a cluster.'),
      ('cluster_status', 'clusters', 'Clusters with a member.'),
      ('cluster_status', 'waiting', 'Spans of all projects that are to be looked at.'),
      ('cluster_status', 'grouped_at', 'When clusters were last formed anew; null = never.'),
      ('cluster_status', 'sampled', 'Vectors looked at then.'),
      ('cluster_status', 'groups', 'Groups found among them.'),
      ('cluster_status', 'ungrouped', 'Vectors in no group.'),
      ('cluster_status', 'note', 'Why there was no grouping; null = there was.'),
      ('quality_by_cluster', 'validator', 'Name of the validator.'),
      ('quality_by_cluster', 'version', 'Its version.'),
      ('quality_by_cluster', 'project', 'Which LLM application.'),
      ('quality_by_cluster', 'cluster_id', 'The cluster; null = in none.'),
      ('quality_by_cluster', 'cluster', 'Its name.'),
      ('quality_by_cluster', 'n', 'Scores of its spans.'),
      ('quality_by_cluster', 'judged', 'Those with a verdict.'),
      ('quality_by_cluster', 'passed', 'Those that passed.'),
      ('quality_by_cluster', 'failed', 'Those that failed.'),
      ('quality_by_cluster', 'unscored', 'Those without a verdict.'),
      ('quality_by_cluster', 'judged_share', 'judged / n.'),
      ('quality_by_cluster', 'pass_rate', 'passed / judged; null without verdicts.'),
      ('quality_by_cluster', 'pass_low', 'Lower end of its 95 % Wilson interval.'),
      ('quality_by_cluster', 'pass_high', 'Upper end of its 95 % Wilson interval.'),
      ('quality_by_cluster', 'volume_share', 'n over all scores of the version and project that are of sampled spans.'),
      ('cluster_growth', 'time', 'UTC day.'),
      ('cluster_growth', 'project', 'Which LLM application.'),
      ('cluster_growth', 'cluster_id', 'The cluster.'),
      ('cluster_growth', 'cluster', 'Its name.'),
      ('cluster_growth', 'n', 'Spans of the day in it.'),
      ('cluster_growth', 'share', 'n over all sampled spans of the day.'),
      ('cluster_growth', 'week_n', 'Spans of the seven days that end with it.'),
      ('cluster_growth', 'week_share', 'week_n over all sampled spans of those days.'),
      ('cluster_growth', 'previous_week_n', 'Spans of the seven days before.'),
      ('cluster_growth', 'previous_week_share', 'previous_week_n over all sampled spans of those days.'),
      ('cluster_growth', 'growth', 'week_share / previous_week_share; null where there was none of it.'),
      ('cluster_growth', 'is_new', 'Whether its earliest span is of the seven days.'),
      ('cluster_growth', 'grows', 'Whether the 95 % intervals of both shares lie apart, upwards; null without spans in both weeks.'),
      ('cluster_consistency', 'project', 'Which LLM application.'),
      ('cluster_consistency', 'cluster_id', 'The cluster.'),
      ('cluster_consistency', 'cluster', 'Its name.'),
      ('cluster_consistency', 'n', 'Inputs.'),
      ('cluster_consistency', 'answers', 'Outputs that were compared.'),
      ('cluster_consistency', 'input_cohesion', 'Mean cosine of all pairs of inputs; null below two.'),
      ('cluster_consistency', 'output_cohesion', 'Mean cosine of all pairs of outputs, or the share of pairs that are the same text; null below two.'),
      ('cluster_consistency', 'measured_by', 'embedding or exact answers: how outputs were compared; null = there are none.'),
      ('cluster_consistency', 'gap', 'input_cohesion - output_cohesion.'),
      ('cluster_consistency', 'inconsistent', 'Whether the gap is above 0.15; null below five inputs or answers.'),
      ('rephrases_by_cluster', 'time', 'UTC day in which the first request began.'),
      ('rephrases_by_cluster', 'project', 'Which LLM application.'),
      ('rephrases_by_cluster', 'cluster_id', 'Cluster of the first request; null = in none.'),
      ('rephrases_by_cluster', 'cluster', 'Its name.'),
      ('rephrases_by_cluster', 'turns', 'Sampled requests of sessions, the last of each too.'),
      ('rephrases_by_cluster', 'rephrased', 'Those that were asked again in other words.'),
      ('rephrases_by_cluster', 'retried', 'Those that were asked again in the same words; not in the rate.'),
      ('rephrases_by_cluster', 'rephrase_rate', 'rephrased / turns.'),
      ('rephrases_by_cluster', 'rephrase_low', 'Lower end of its 95 % Wilson interval.'),
      ('rephrases_by_cluster', 'rephrase_high', 'Upper end of its 95 % Wilson interval.'),
      ('rephrases_by_cluster', 'mean_score', 'Mean score of those asked again in other words.'),
      ('rephrased_topics', 'project', 'Which LLM application.'),
      ('rephrased_topics', 'topic', 'Name of the cluster of the first request, or its node.'),
      ('rephrased_topics', 'topic_kind', 'cluster, or node for requests that are in no cluster.'),
      ('rephrased_topics', 'cluster_id', 'The cluster; null for a node.'),
      ('rephrased_topics', 'turns', 'Requests of sessions, the last of each too.'),
      ('rephrased_topics', 'rephrased', 'Those that were asked again in other words.'),
      ('rephrased_topics', 'retried', 'Those that were asked again in the same words; not in the rate.'),
      ('rephrased_topics', 'rephrase_rate', 'rephrased / turns.'),
      ('rephrased_topics', 'rephrase_low', 'Lower end of its 95 % Wilson interval, by which topics are ordered.'),
      ('rephrased_topics', 'rephrase_high', 'Upper end of its 95 % Wilson interval.'),
      ('rephrased_topics', 'mean_score', 'Mean score of those asked again in other words.')) as own(view, name, meaning)
  loop
    execute format('comment on column flywheel.%I.%I is %L', said.view, said.name, said.meaning);
  end loop;
end
$block$;

select flywheel._grant(role, 'select on flywheel.clusters, flywheel.cluster_members, flywheel.cluster_status, flywheel.quality_by_cluster,
  flywheel.cluster_growth, flywheel.cluster_consistency, flywheel.rephrases_by_cluster, flywheel.rephrased_topics')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant(role, 'execute on function flywheel.rephrases_by_cluster(timestamptz, timestamptz), flywheel.rephrased_topics(timestamptz, timestamptz)')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
select flywheel._grant('flywheel_admin', 'execute on function flywheel.cluster_examples(uuid, integer)');
