-- Splits: train, dev or test, by a hash of the group of a span; and what of a span is judged.

-- _group_key: what must not be cut by a split: rows of one conversation resemble each other.
create or replace function flywheel._group_key(span flywheel.spans) returns text
language sql immutable security invoker parallel safe
begin atomic
  select coalesce(nullif(span.attributes ->> 'group_key', ''), nullif(span.session_id, ''), span.trace_id::text);
end;
comment on function flywheel._group_key is 'Internal: the group of a span: attributes ->> group_key, else its session, else its trace.';

-- _split: by hash, so that a group keeps its split for good and labels to come fall where their group is.
create or replace function flywheel._split(group_key text) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
  select case when drawn.bucket < cut.train then 'train' when drawn.bucket < cut.train + cut.dev then 'dev' else 'test' end
    from (select max(value #>> '{}') filter (where name = 'split_salt'),
                 max((value #>> '{}')::integer) filter (where name = 'split_train_percent'),
                 max((value #>> '{}')::integer) filter (where name = 'split_dev_percent')
            from flywheel.settings where name in ('split_salt', 'split_train_percent', 'split_dev_percent')) as cut(salt, train, dev)
   cross join lateral (select ('x' || left(md5(cut.salt || _split.group_key), 8))::bit(32)::bigint % 100) as drawn(bucket)
$function$;
comment on function flywheel._split(text) is 'Internal: train, dev or test, by a hash of the group and settings.split_salt.';

create or replace function flywheel._item_text(target text, input text, output text) returns text
language sql immutable security invoker parallel safe
begin atomic
  select case target when 'input' then input else concat_ws(E'\n\n', input, output) end;
end;
comment on function flywheel._item_text is 'Internal: what is judged, as one text: the input, or input and output.';

-- _hash01: as hash01(), which a later file makes.
create or replace function flywheel._hash01(id uuid, salt text) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select (uuid_hash_extended(id, hashtextextended(salt collate "C", 0)) & 9007199254740991) / 9007199254740992::double precision;
end;
comment on function flywheel._hash01 is 'Internal: a number in [0, 1) that is always the same for an id and a salt.';

create or replace function flywheel._filled(words text) returns text
language sql immutable security invoker parallel safe
begin atomic
  select nullif(btrim(words, E' \t\r\n'), '');
end;
comment on function flywheel._filled is 'Internal: words without the space around them; null when there are none.';
