-- Clusters formed anew: what a worker in Python looks at and finds, and what becomes of the clusters that are there.

-- _clusters_due: once a day from the hour of the setting on; forced = now. Not while another worker is at it.
create or replace function flywheel._clusters_due(forced boolean default false) returns table (project text, embedder_id uuid, kind text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select listed.project, embedders.embedder_id, embedders.kind
    from flywheel.embedders
   cross join lateral (select distinct known.project from flywheel._clusters as known
                        where known.embedder_id = embedders.embedder_id and known.status = 'open' and known.n > 0) as listed
    left join flywheel._cluster_runs as runs on (runs.project, runs.embedder_id) = (listed.project, embedders.embedder_id)
   cross join lateral (select date_trunc('day', now(), 'UTC') + make_interval(hours => flywheel._setting('cluster_hour')::integer % 24) as at) as tonight
   where embedders.status = 'serving' and coalesce(runs.taken_until < clock_timestamp(), true)
     and (forced or flywheel._setting('cluster_hour') <= 24
          and coalesce(runs.grouped_at < case when now() >= tonight.at then tonight.at else tonight.at - interval '1 day' end, now() >= tonight.at))
   order by 1
$function$;
comment on function flywheel._clusters_due is 'Internal: projects whose clusters are to be formed anew now.';

create or replace function flywheel._take_cluster_run(project text, embedder_id uuid, seconds double precision) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._cluster_runs as runs (project, embedder_id, taken_until)
  values (_take_cluster_run.project, _take_cluster_run.embedder_id, clock_timestamp() + make_interval(secs => seconds))
      on conflict on constraint _cluster_runs_pkey do update set taken_until = excluded.taken_until
   where coalesce(runs.taken_until < clock_timestamp(), true);
  return found;
end
$function$;
comment on function flywheel._take_cluster_run is 'Internal: take the clusters of a project for so many seconds, unless another worker has them.';

create or replace function flywheel._note_cluster_run(project text, embedder_id uuid, sampled bigint, groups bigint, ungrouped bigint, note text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  update flywheel._cluster_runs as runs
     set (taken_until, grouped_at, sampled, groups, ungrouped, note)
       = (null, now(), _note_cluster_run.sampled, _note_cluster_run.groups, _note_cluster_run.ungrouped, _note_cluster_run.note)
   where (runs.project, runs.embedder_id) = (_note_cluster_run.project, _note_cluster_run.embedder_id)
$function$;
comment on function flywheel._note_cluster_run is 'Internal: note that the clusters of a project were formed anew, and give them back.';

-- _cluster_sample: chosen by hash, so that one night looks at much the same as the night before.
create or replace function flywheel._cluster_sample(project text, embedder_id uuid)
returns table (span_id uuid, started_at timestamptz, cluster_id uuid, embedding bytea)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select members.span_id, members.started_at, members.cluster_id, public.halfvec_send(members.embedding)
    from flywheel._cluster_members as members
   where (members.project, members.embedder_id) = (_cluster_sample.project, _cluster_sample.embedder_id) and members.started_at >= now() - interval '30 days'
   order by flywheel._hash01(members.span_id, 'cluster'), members.span_id limit flywheel._setting('cluster_sample')::integer
$function$;
comment on function flywheel._cluster_sample is 'Internal: a sample of the members of the last 30 days, with the vectors in binary.';

-- _merge_clusters: each pair is (gone, kept). A name somebody gave goes with the members, unless the other has one.
create or replace function flywheel._merge_clusters(gone uuid[], kept uuid[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  update flywheel._cluster_members as members set cluster_id = pair.kept
    from unnest(gone, kept) as pair(gone, kept) where members.cluster_id = pair.gone;
  update flywheel._clusters as known set (name, named_by) = (named.name, named.named_by)
    from (select distinct on (pair.kept) pair.kept, source.name, source.named_by
            from unnest(gone, kept) as pair(gone, kept) join flywheel._clusters as source on source.cluster_id = pair.gone
           where source.name is not null order by pair.kept, source.n desc, source.cluster_id) as named
   where known.cluster_id = named.kept and known.name is null;
  update flywheel._clusters as known set (status, merged_into, name, named_by, changed_at) = ('merged', pair.kept, null, null, now())
    from unnest(gone, kept) as pair(gone, kept) where known.cluster_id = pair.gone;
  update flywheel._clusters as known set merged_into = pair.kept     -- what was merged before leads to where its members are now
    from unnest(gone, kept) as pair(gone, kept) where known.merged_into = pair.gone;
  perform flywheel._recount_clusters(gone || kept);
end
$function$;
comment on function flywheel._merge_clusters is 'Internal: let clusters go up in others, member by member.';

-- _merge_near_clusters: of two, the one somebody named stays, else the larger. Chains are followed night by night.
create or replace function flywheel._merge_near_clusters(project text, embedder_id uuid) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  pair record;
  touched uuid[] := '{}';
  merged integer := 0;
  farthest constant double precision :=
    1 - greatest(flywheel._setting('cluster_merge_permille') / 1000, flywheel._cluster_similarity(_merge_near_clusters.embedder_id));
begin
  for pair in
    with listed as materialized (
      select known.cluster_id, known.total, row_number() over (order by known.name is not null desc, known.n desc, known.cluster_id) as place
        from flywheel._clusters as known
       where (known.project, known.embedder_id, known.status) = (_merge_near_clusters.project, _merge_near_clusters.embedder_id, 'open') and known.n > 0
    )
    select gone.cluster_id as gone, kept.cluster_id as kept from listed as kept join listed as gone on gone.place > kept.place
     where (kept.total operator(public.<=>) gone.total) < farthest
     order by kept.total operator(public.<=>) gone.total, gone.place, kept.place
  loop
    continue when pair.gone = any (touched) or pair.kept = any (touched);
    touched := touched || pair.gone || pair.kept;
    perform flywheel._merge_clusters(array[pair.gone], array[pair.kept]);
    merged := merged + 1;
  end loop;
  return merged;
end
$function$;
comment on function flywheel._merge_near_clusters is 'Internal: merge clusters whose centres are very near; returns how many.';

create or replace function flywheel._settle_ungrouped(project text, embedder_id uuid, span_ids uuid[], started_ats timestamptz[], groups integer[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  touched uuid[];
  enough constant double precision := flywheel._cluster_similarity(_settle_ungrouped.embedder_id);
begin
  with near as materialized (
    select members.span_id, members.started_at, members.cluster_id as before,
           case when found.similarity >= enough then found.cluster_id end as after
      from unnest(span_ids, started_ats, groups) as given(span_id, started_at, grouped)
      join flywheel._cluster_members as members on (members.span_id, members.started_at, members.embedder_id) = (given.span_id, given.started_at, _settle_ungrouped.embedder_id)
     cross join lateral flywheel._nearest_cluster(_settle_ungrouped.project, _settle_ungrouped.embedder_id, members.embedding::public.vector) as found
     where given.grouped < 0
  ), settled as (
    update flywheel._cluster_members as members set cluster_id = near.after from near
     where (members.span_id, members.started_at, members.embedder_id) = (near.span_id, near.started_at, _settle_ungrouped.embedder_id)
       and near.before is distinct from near.after
    returning near.before, near.after
  )
  select array_agg(distinct id) into touched from (select settled.before from settled union all select settled.after from settled) as each(id) where id is not null;
  perform flywheel._recount_clusters(touched);
end
$function$;
comment on function flywheel._settle_ungrouped is 'Internal: let members in no group join the nearest cluster that is near enough, else none.';

-- _regroup_clusters: groups[n] is the group of span n, -1 = none; kept[g + 1] the cluster whose id group g keeps, null = a
-- new one. An old cluster most of whose sampled members went to one group goes there with the rest of its members. Then who
-- is in no group joins the nearest cluster that is near enough, or none.
create or replace function flywheel._regroup_clusters(
  project text, embedder_id uuid, span_ids uuid[], started_ats timestamptz[], groups integer[], kept uuid[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  targets uuid[];
  touched uuid[];
  followed record;
begin
  perform flywheel._win_turn('clusters', true);
  select array_agg(case when known.n > 0 then known.cluster_id else flywheel.new_id() end order by listed.place) into targets
    from unnest(kept) with ordinality as listed(cluster_id, place)
    left join flywheel._clusters as known on known.cluster_id = listed.cluster_id and known.status = 'open'
     and (known.project, known.embedder_id) = (_regroup_clusters.project, _regroup_clusters.embedder_id);
  insert into flywheel._clusters (cluster_id, project, embedder_id, first_seen_at, last_seen_at)
  select made.id, _regroup_clusters.project, _regroup_clusters.embedder_id, 'infinity', '-infinity' from unnest(targets) as made(id)
      on conflict do nothing;
  with moving as materialized (
    select members.span_id, members.started_at, members.cluster_id as before,
           case when given.grouped >= 0 then targets[given.grouped + 1] else members.cluster_id end as after
      from unnest(span_ids, started_ats, groups) as given(span_id, started_at, grouped)
      join flywheel._cluster_members as members on (members.span_id, members.started_at, members.embedder_id) = (given.span_id, given.started_at, _regroup_clusters.embedder_id)
  ), moved as (
    update flywheel._cluster_members as members set cluster_id = moving.after from moving
     where (members.span_id, members.started_at, members.embedder_id) = (moving.span_id, moving.started_at, _regroup_clusters.embedder_id)
       and moving.before is distinct from moving.after
  ), shares as (
    select moving.before, moving.after, count(*) as n, sum(count(*)) over (partition by moving.before) as whole,
           row_number() over (partition by moving.before order by count(*) desc, moving.after) as place
      from moving where moving.before is not null group by 1, 2
  )
  select (select array_agg(distinct id) from (select moving.before from moving union all select moving.after from moving) as each(id) where id is not null) as touched,
         array_agg(shares.before) as gone, array_agg(shares.after) as kept into followed
    from shares where shares.place = 1 and shares.n * 2 >= shares.whole and shares.after is distinct from shares.before and shares.before <> all (targets);
  perform flywheel._recount_clusters(followed.touched || targets);
  perform flywheel._merge_clusters(followed.gone, followed.kept) where followed.gone is not null;
  perform flywheel._settle_ungrouped(_regroup_clusters.project, _regroup_clusters.embedder_id, span_ids, started_ats, groups);
  return coalesce(cardinality(targets), 0);
end
$function$;
comment on function flywheel._regroup_clusters is 'Internal: let members go to the groups they were found in; returns how many groups.';


-- _tidy_clusters: with or without groups: merge near ones, forget who is gone, and let go of small ones nobody came to.
create or replace function flywheel._tidy_clusters(project text, embedder_id uuid) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  merged integer;
  small uuid[];
begin
  perform flywheel._win_turn('clusters', true);
  merged := flywheel._merge_near_clusters(_tidy_clusters.project, _tidy_clusters.embedder_id);
  select array_agg(known.cluster_id) into small from flywheel._clusters as known
   where (known.project, known.embedder_id, known.status) = (_tidy_clusters.project, _tidy_clusters.embedder_id, 'open') and known.name is null
     and known.n < flywheel._setting('cluster_minimum') and known.last_seen_at < now() - interval '7 days';
  update flywheel._cluster_members as members set cluster_id = null where members.cluster_id = any (small);
  perform flywheel._recount_clusters(small);
  perform flywheel._forget_members('infinity');
  return merged;
end
$function$;
comment on function flywheel._tidy_clusters is 'Internal: merge near clusters and let go of small old ones; returns how many were merged.';

-- _cluster_texts: of clusters of five and more, if any of them has no words or has doubled since. Some texts are enough.
create or replace function flywheel._cluster_texts(project text, embedder_id uuid) returns table (cluster_id uuid, n bigint, texts text[])
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  with listed as materialized (
    select known.cluster_id, known.n, known.words is null or known.n >= 2 * known.worded_n as due
      from flywheel._clusters as known
     where (known.project, known.embedder_id, known.status) = (_cluster_texts.project, _cluster_texts.embedder_id, 'open') and known.n >= 5
     order by known.n desc, known.cluster_id limit 500
  )
  select listed.cluster_id, listed.n, array(
           select left(coalesce(spans.input, spans.output), 500)
             from (select members.span_id, members.started_at from flywheel._cluster_members as members
                    where members.cluster_id = listed.cluster_id order by members.started_at desc, members.span_id limit 50) as few
             join flywheel.spans on (spans.span_id, spans.started_at) = (few.span_id, few.started_at)
            where coalesce(spans.input, spans.output) is not null)
    from listed where (select bool_or(each.due) from listed as each)
$function$;
comment on function flywheel._cluster_texts is 'Internal: texts of clusters, when some have to get their words.';

create or replace function flywheel._word_clusters(cluster_ids uuid[], counts bigint[], words text[]) returns bigint
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with worded as (
    update flywheel._clusters as known set (words, worded_n) = (given.words, given.n)
      from unnest(cluster_ids, counts, _word_clusters.words) as given(cluster_id, n, words)
     where known.cluster_id = given.cluster_id
    returning 1
  )
  select count(*) from worded
$function$;
comment on function flywheel._word_clusters is 'Internal: write the words of clusters; returns how many.';

select flywheel._grant(role, 'execute on function flywheel._clusters_due(boolean), flywheel._take_cluster_run(text, uuid, double precision),
  flywheel._note_cluster_run(text, uuid, bigint, bigint, bigint, text), flywheel._cluster_sample(text, uuid),
  flywheel._regroup_clusters(text, uuid, uuid[], timestamptz[], integer[], uuid[]), flywheel._tidy_clusters(text, uuid),
  flywheel._cluster_texts(text, uuid), flywheel._word_clusters(uuid[], bigint[], text[])')
  from unnest(array['flywheel_worker', 'flywheel_admin']) as role;
select flywheel._grant('flywheel_worker', 'execute on function flywheel._setting(text)');
