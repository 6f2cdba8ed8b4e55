-- Clusters: spans whose inputs mean the same, by their vectors. As spans are embedded, each joins the nearest cluster whose
-- centre is near enough, or founds one ("leader"); at night the groups of a sample are found anew, and keep their ids.
--
-- Of a cluster its sum is kept, which is its centre but for length. Members keep the vector that is in the sum, so that the
-- sum can be counted again when days are purged or texts change. Clusters are few, so every one is compared: no index can
-- miss the nearest. One transaction at a time changes clusters: it has their turn.

-- _note_vectors: what is noted already is held until the vector is there for all to see: who took the note before would place the former one.
create or replace function flywheel._note_vectors() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
  insert into flywheel._cluster_news as noted (span_id, started_at, embedder_id)
  select distinct written.span_id, written.started_at, written.embedder_id from written where written.part in ('input', 'item')
   order by 1, 2, 3                              -- two writers wait for each other in one order
      on conflict (span_id, started_at, embedder_id) do update set noted_at = noted.noted_at;
  return null;
end
$function$;
comment on function flywheel._note_vectors is 'Internal: note spans whose vector is new or changed.';

create or replace trigger note_new_vectors after insert on flywheel.span_embeddings
  referencing new table as written for each statement execute function flywheel._note_vectors();
create or replace trigger note_changed_vectors after update on flywheel.span_embeddings
  referencing new table as written for each statement execute function flywheel._note_vectors();

create or replace function flywheel._cluster_similarity(embedder_id uuid) returns double precision
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select flywheel._setting(case embedders.kind when 'hashing' then 'cluster_permille_hashing' else 'cluster_permille' end) / 1000
    from flywheel.embedders where embedders.embedder_id = _cluster_similarity.embedder_id
$function$;
comment on function flywheel._cluster_similarity is 'Internal: the least cosine at which a vector of an embedder joins a cluster.';

-- _nearest_cluster: takes a vector as it is compared, so that it is not converted for every cluster.
create or replace function flywheel._nearest_cluster(
  project text, embedder_id uuid, embedding public.vector, out cluster_id uuid, out similarity double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select far.cluster_id, 1 - far.distance
    from (select known.cluster_id, known.total operator(public.<=>) _nearest_cluster.embedding as distance
            from flywheel._clusters as known
           where known.project = _nearest_cluster.project and known.embedder_id = _nearest_cluster.embedder_id and known.status = 'open' and known.n > 0
          offset 0) as far
   order by far.distance, far.cluster_id limit 1
$function$;
comment on function flywheel._nearest_cluster is 'Internal: the cluster whose centre is nearest to a vector, and the cosine; null = there is none.';

-- _recount_clusters: when they were first and last seen outlives the days that are purged.
create or replace function flywheel._recount_clusters(cluster_ids uuid[]) returns bigint
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with counted as materialized (
    select wanted.cluster_id, count(members.span_id) as n, public.sum(members.embedding::public.vector) as total,
           min(members.started_at) as first_at, max(members.started_at) as last_at
      from (select distinct each.id from unnest(cluster_ids) as each(id)) as wanted(cluster_id)
      left join flywheel._cluster_members as members using (cluster_id)
     group by 1
  ), written as (
    update flywheel._clusters as known
       set (n, total, first_seen_at, last_seen_at) = (counted.n, counted.total, least(known.first_seen_at, counted.first_at), greatest(known.last_seen_at, counted.last_at))
      from counted where known.cluster_id = counted.cluster_id
    returning 1
  )
  select count(*) from written
$function$;
comment on function flywheel._recount_clusters is 'Internal: count members and sums of clusters anew; returns how many there are.';

-- _take_news: what was noted longest ago, of the embedder that serves: what another made waits until that one does. Vectors
-- that are no longer there, or not of the sample, need no cluster.
create or replace function flywheel._take_news(most integer) returns table (span_id uuid, started_at timestamptz, embedder_id uuid)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  delete from flywheel._cluster_news as news
   using (select noted.span_id, noted.started_at, noted.embedder_id from flywheel._cluster_news as noted
           where noted.embedder_id = (select embedders.embedder_id from flywheel.embedders where embedders.status = 'serving')
           order by noted.noted_at, noted.started_at, noted.span_id limit most for update skip locked) as oldest
   where (news.span_id, news.started_at, news.embedder_id) = (oldest.span_id, oldest.started_at, oldest.embedder_id)
  returning news.span_id, news.started_at, news.embedder_id
$function$;
comment on function flywheel._take_news is 'Internal: take spans that are to join a cluster.';

-- _place_members: of the sample of the embedder that serves; input where there is one. Centres are those of before.
-- The name of a project is cut: a key of an index has a limit.
create or replace function flywheel._place_members(span_ids uuid[], started_ats timestamptz[], embedder_ids uuid[]) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
  with placed as (
    insert into flywheel._cluster_members (span_id, started_at, embedder_id, project, part, embedding, cluster_id)
    select taken.span_id, taken.started_at, taken.embedder_id, left(spans.project, 200), made.part, made.embedding, near.cluster_id
      from unnest(span_ids, started_ats, embedder_ids) as taken(span_id, started_at, embedder_id)
      join flywheel.embedders on embedders.embedder_id = taken.embedder_id and embedders.status = 'serving'
      join flywheel.spans on (spans.span_id, spans.started_at) = (taken.span_id, taken.started_at)
     cross join lateral (
       select vectors.part, vectors.embedding from flywheel.span_embeddings as vectors
        where (vectors.span_id, vectors.embedder_id, vectors.started_at) = (taken.span_id, taken.embedder_id, taken.started_at) and vectors.part in ('input', 'item')
        order by vectors.part = 'input' desc limit 1) as made
      left join lateral (
        select found.cluster_id from flywheel._nearest_cluster(left(spans.project, 200), taken.embedder_id, made.embedding::public.vector) as found
         where found.similarity >= flywheel._cluster_similarity(taken.embedder_id)) as near on true
     where flywheel._hash01(spans.trace_id, 'embed') < embedders.span_permille / 1000.0
       and public.vector_norm(made.embedding::public.vector) > 0
    returning cluster_id, started_at, embedding
  ), summed as (
    select placed.cluster_id, count(*) as n, public.sum(placed.embedding::public.vector) as total, min(placed.started_at) as first_at, max(placed.started_at) as last_at
      from placed where placed.cluster_id is not null group by 1
  )
  update flywheel._clusters as known
     set (n, total, first_seen_at, last_seen_at) = (known.n + summed.n, known.total operator(public.+) summed.total,
           least(known.first_seen_at, summed.first_at), greatest(known.last_seen_at, summed.last_at))
    from summed where known.cluster_id = summed.cluster_id
$function$;
comment on function flywheel._place_members is 'Internal: put spans with a vector to the nearest cluster that is near enough, else to none.';

-- _found_clusters: who is near no cluster that was there, one after another: joins one founded just now, or founds one.
create or replace function flywheel._found_clusters(span_ids uuid[], started_ats timestamptz[], embedder_ids uuid[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  alone flywheel._cluster_members;
  near record;
  centre public.vector;
  founded uuid[] := '{}';
begin
  for alone in
    select members.* from unnest(span_ids, started_ats, embedder_ids) as taken(span_id, started_at, embedder_id)
      join flywheel._cluster_members as members using (span_id, started_at, embedder_id)
     where members.cluster_id is null order by members.started_at, members.span_id
  loop
    centre := alone.embedding::public.vector;
    select known.cluster_id, 1 - (known.total operator(public.<=>) centre) as similarity into near
      from unnest(founded) as new(cluster_id) join flywheel._clusters as known using (cluster_id)
     where (known.project, known.embedder_id) = (alone.project, alone.embedder_id)
     order by known.total operator(public.<=>) centre, known.cluster_id limit 1;
    if coalesce(near.similarity < flywheel._cluster_similarity(alone.embedder_id), true) then
      continue when (select count(*) from flywheel._clusters as known where (known.project, known.embedder_id, known.status) = (alone.project, alone.embedder_id, 'open'))
                    >= flywheel._setting('cluster_most');
      near.cluster_id := flywheel.new_id();
      founded := founded || near.cluster_id;
      insert into flywheel._clusters (cluster_id, project, embedder_id, n, total, first_seen_at, last_seen_at)
      values (near.cluster_id, alone.project, alone.embedder_id, 1, centre, alone.started_at, alone.started_at);
    else
      update flywheel._clusters as known
         set (n, total, first_seen_at, last_seen_at) = (known.n + 1, known.total operator(public.+) centre,
               least(known.first_seen_at, alone.started_at), greatest(known.last_seen_at, alone.started_at))
       where known.cluster_id = near.cluster_id;
    end if;
    update flywheel._cluster_members as members set cluster_id = near.cluster_id
     where (members.span_id, members.started_at, members.embedder_id) = (alone.span_id, alone.started_at, alone.embedder_id);
  end loop;
end
$function$;
comment on function flywheel._found_clusters is 'Internal: found clusters for members that have none.';

-- _assign_clusters: all or nothing, so a crash leaves what was noted for the next time. One that was there with another
-- text leaves its cluster first.
create or replace function flywheel._assign_clusters(most integer default 500) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  taken record;
  left_clusters uuid[];
begin
  if not flywheel._win_turn('clusters', false) then
    return 0;
  end if;
  perform from flywheel.embedders where embedders.status = 'serving' for share;     -- it serves until all are placed
  select array_agg(news.span_id) as span_ids, array_agg(news.started_at) as started_ats, array_agg(news.embedder_id) as embedder_ids into taken
    from flywheel._take_news(most) as news;
  if taken.span_ids is null then
    return 0;
  end if;
  with gone as (
    delete from flywheel._cluster_members as members
     using unnest(taken.span_ids, taken.started_ats, taken.embedder_ids) as again(span_id, started_at, embedder_id)
     where (members.span_id, members.started_at, members.embedder_id) = (again.span_id, again.started_at, again.embedder_id)
    returning members.cluster_id
  )
  select array_agg(distinct gone.cluster_id) into left_clusters from gone where gone.cluster_id is not null;
  perform flywheel._recount_clusters(left_clusters);
  perform flywheel._place_members(taken.span_ids, taken.started_ats, taken.embedder_ids);
  perform flywheel._found_clusters(taken.span_ids, taken.started_ats, taken.embedder_ids);
  return cardinality(taken.span_ids);
end
$function$;
comment on function flywheel._assign_clusters is 'Internal: let spans whose vector is new join clusters; returns how many were looked at.';

-- _forget_members: of spans that are gone (offset: looked up one by one, never all spans). Clusters that are empty then stay while somebody''s name is on them.
create or replace function flywheel._forget_members(before timestamptz) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  gone record;
begin
  with deleted as (
    delete from flywheel._cluster_members as members
     where members.started_at < _forget_members.before
       and not exists (select from flywheel.spans where (spans.span_id, spans.started_at) = (members.span_id, members.started_at) offset 0)
    returning members.cluster_id
  )
  select count(*) as n, array_agg(distinct deleted.cluster_id) as cluster_ids into gone from deleted;
  perform flywheel._recount_clusters(gone.cluster_ids);
  delete from flywheel._cluster_news as news
   where news.started_at < _forget_members.before
     and (news.noted_at < now() - interval '30 days'
          or not exists (select from flywheel.spans where (spans.span_id, spans.started_at) = (news.span_id, news.started_at) offset 0));
  delete from flywheel._clusters as known
   where known.n = 0 and known.name is null and (known.status = 'open' or known.changed_at < now() - interval '30 days')
     and not exists (select from flywheel._clusters as merged where merged.merged_into = known.cluster_id);
  return gone.n;
end
$function$;
comment on function flywheel._forget_members is 'Internal: forget members from before a time whose span is gone, and clusters that nothing and nobody needs; returns how many members.';

create or replace function flywheel.verify_clusters()
returns table (cluster_id uuid, project text, n bigint, members bigint, sum_error double precision)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select known.cluster_id, known.project, known.n, counted.n, coalesce(counted.error, 0)
    from flywheel._clusters as known
   cross join lateral (
     select count(*) as n, public.l2_distance(public.sum(members.embedding::public.vector), known.total) as error
       from flywheel._cluster_members as members where members.cluster_id = known.cluster_id) as counted
   where known.n <> counted.n or counted.error > 1e-4 * greatest(1, known.n)
$function$;
comment on function flywheel.verify_clusters is 'Clusters whose count or sum of vectors is not that of their members, counted anew; none when all is well.';

create or replace function flywheel.rename_cluster(cluster_id uuid, name text, named_by text default session_user) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
  given text := nullif(btrim(rename_cluster.name), '');
begin
  if char_length(given) > 100 then
    raise exception using errcode = 'WF009', message = format('a name of %s characters is too long for a cluster', char_length(given)), hint = 'Give at most 100.';
  end if;
  update flywheel._clusters as known set (name, named_by, changed_at) = (given, case when given is not null then rename_cluster.named_by end, now())
   where known.cluster_id = rename_cluster.cluster_id;
  if not found then
    raise exception using errcode = 'WF009', message = format('there is no cluster %s', coalesce(rename_cluster.cluster_id::text, 'null')),
      hint = 'List them: select cluster_id, name from flywheel.clusters.';
  end if;
end
$function$;
comment on function flywheel.rename_cluster is 'Give a cluster a name that stays, however it is formed anew; null or nothing = its words again.';

select flywheel._grant('flywheel_worker', 'execute on function flywheel._assign_clusters(integer)');
select flywheel._grant('flywheel_admin', 'execute on function flywheel.verify_clusters(), flywheel.rename_cluster(uuid, text, text), flywheel._assign_clusters(integer)');

-- Vectors from before there were clusters.
insert into flywheel._cluster_news (span_id, started_at, embedder_id)
select distinct made.span_id, made.started_at, made.embedder_id
  from flywheel.span_embeddings as made join flywheel.embedders on embedders.embedder_id = made.embedder_id and embedders.status = 'serving'
 where made.started_at >= now() - interval '30 days' and made.part in ('input', 'item') and not exists (select from flywheel._cluster_members)
    on conflict do nothing;
