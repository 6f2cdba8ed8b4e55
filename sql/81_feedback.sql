-- Feedback: what users did with answers.

-- feedback_by_day: days are cut by the expression of the index feedback_day, and edits are measured row by row, so that a
-- condition on time bounds what is read and how many distances are computed. What was served is looked for in the 30 days
-- before the edit, so that other days' partitions stay unread.
create or replace view flywheel.feedback_by_day as
  select said.time, said.project, said.thumbs, said.thumbs_up, said.thumbs_up::double precision / nullif(said.thumbs, 0) as thumb_rate,
         likely.low as thumb_low, likely.high as thumb_high, said.ratings, said.mean_rating,
         said.edits, said.mean_edit_ratio, said.accepted, said.minor, said.edited, said.rewritten, said.restarts, said.corrections,
         said.measured, said.others
    from (
      select date_bin('1 day', feedback.created_at, '2000-01-01 00:00:00+00') as time, feedback.project,
             count(*) filter (where feedback.kind = 'thumb' and finite) as thumbs,
             count(*) filter (where feedback.kind = 'thumb' and finite and feedback.value > 0) as thumbs_up,
             count(*) filter (where feedback.kind = 'rating' and finite) as ratings,
             avg(feedback.value) filter (where feedback.kind = 'rating' and finite) as mean_rating,
             count(*) filter (where feedback.kind = 'edit') as edits,
             avg(edit.ratio) as mean_edit_ratio, count(edit.ratio) as measured,
             count(*) filter (where flywheel.edit_class(edit.ratio) = 'accepted') as accepted,
             count(*) filter (where flywheel.edit_class(edit.ratio) = 'minor') as minor,
             count(*) filter (where flywheel.edit_class(edit.ratio) = 'edited') as edited,
             count(*) filter (where flywheel.edit_class(edit.ratio) = 'rewritten') as rewritten,
             count(*) filter (where feedback.kind = 'restart') as restarts,
             count(*) filter (where feedback.kind = 'correction') as corrections,
             count(*) filter (where feedback.kind not in ('thumb', 'rating', 'edit', 'restart', 'correction')) as others
        from flywheel.feedback
       cross join lateral (select feedback.value > -1e15 and feedback.value < 1e15) as known (finite)
        left join lateral (
          select flywheel.edit_ratio(served.output, coalesce(feedback.attributes ->> 'final', feedback.comment))
            from (select spans.output from flywheel.spans
                   where feedback.kind = 'edit' and spans.span_id = feedback.span_id
                     and spans.started_at between feedback.created_at - interval '720 hours' and feedback.created_at + interval '24 hours'
                   union all
                  select spans.output from flywheel.spans
                   where feedback.kind = 'edit' and feedback.span_id is null and spans.trace_id = feedback.trace_id and spans.parent_span_id is null
                     and spans.started_at between feedback.created_at - interval '720 hours' and feedback.created_at + interval '24 hours'
                   limit 1) as served
          offset 0) as edit (ratio) on true       -- offset: one distance a row, however often it is counted
       group by 1, 2) as said
   cross join lateral flywheel.wilson_interval(said.thumbs_up, said.thumbs) as likely;
comment on view flywheel.feedback_by_day is
  'What users did, by UTC day of the feedback and project. The text a user kept is attributes ->> ''final'' of an edit, else its comment; the draft is the output of the span, or of the root span where only a trace is named.';

do $block$
declare
  said record;
begin
  for said in
    select own.name, own.meaning from (values
      ('time', 'UTC day in which the user acted.'),
      ('project', 'Which LLM application.'),
      ('thumbs', 'Feedback of kind thumb with a number.'),
      ('thumbs_up', 'Those above 0.'),
      ('thumb_rate', 'thumbs_up / thumbs: of those who said anything, and they are no sample of all users. Null without thumbs.'),
      ('thumb_low', 'Lower end of its 95 % Wilson interval.'),
      ('thumb_high', 'Upper end of its 95 % Wilson interval.'),
      ('ratings', 'Feedback of kind rating with a number.'),
      ('mean_rating', 'Their mean, on the scale of the application.'),
      ('edits', 'Feedback of kind edit: somebody kept an answer, changed or not.'),
      ('mean_edit_ratio', 'Mean of edit_ratio(draft, kept) over measured: 0 nothing was changed, 1 all.'),
      ('accepted', 'Edits that changed nothing.'),
      ('minor', 'Edits that changed up to a tenth.'),
      ('edited', 'Edits that changed more, up to two fifths.'),
      ('rewritten', 'Edits that changed more than that: a weak sign that the answer failed.'),
      ('restarts', 'Feedback of kind restart: the application saw its user begin anew. It is never guessed.'),
      ('corrections', 'Feedback of kind correction.'),
      ('measured', 'Edits of which draft and kept text are both known.'),
      ('others', 'Feedback of all other kinds.')) as own(name, meaning)
  loop
    execute format('comment on column flywheel.feedback_by_day.%I is %L', said.name, said.meaning);
  end loop;
end
$block$;

select flywheel._grant(role, 'select on flywheel.feedback_by_day')
  from unnest(array['flywheel_analyst', 'flywheel_admin', 'flywheel_worker']) as role;
