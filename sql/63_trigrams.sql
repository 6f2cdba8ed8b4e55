-- Trigrams: how alike two texts are to the letter, where there is no vector. Contrib modules are not needed.

create or replace function flywheel._trigrams(content text) returns text[]
language sql immutable strict parallel safe security invoker
begin atomic
  select coalesce(array_agg(distinct substr('  ' || word[1] || ' ', place, 3) collate "C"), '{}')
    from regexp_matches(lower(content), '[[:alnum:]]+', 'g') as word, lateral generate_series(1, char_length(word[1]) + 1) as place;
end;
comment on function flywheel._trigrams is 'Internal: the trigrams of a text''s words, each padded by two blanks before and one after, as pg_trgm has them.';

create or replace function flywheel.trigram_similarity(a text, b text) returns double precision
language sql immutable strict parallel safe security invoker
begin atomic
  select case when a = b then 1 else (
           select coalesce(count(*) filter (where sides = 2)::double precision / nullif(count(*), 0), 0)
             from (select count(*) from (select unnest(flywheel._trigrams(a)) union all select unnest(flywheel._trigrams(b))) as one (trigram)
                    group by trigram) as found (sides)) end;
end;
comment on function flywheel.trigram_similarity is
  'Share of trigrams two texts have in common, 0 to 1, the same number as similarity() of pg_trgm; of texts without a word 1 where they are equal and 0 where not.';

-- _nearly_equal: one text written twice, and not two texts about the same. Of very long ones the beginning decides. Texts of
-- other lengths are told apart by these alone.
create or replace function flywheel._nearly_equal(a text, b text) returns boolean
language sql immutable parallel safe security invoker
begin atomic
  select case when a = b then true
              when least(char_length(a), char_length(b)) >= 0.8 * greatest(char_length(a), char_length(b)) then
                flywheel.trigram_similarity(left(a, 10000), left(b, 10000)) >= 0.9
              else false end;
end;
comment on function flywheel._nearly_equal is 'Internal: whether two texts are the same but for some letters: nine tenths of their trigrams.';
