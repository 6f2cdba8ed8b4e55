-- Counts: what views of metrics are made of, exact at any instant.

create or replace view flywheel._score_counts as
  select cut.grain, cut.bucket, counted.version_id, counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root, counted.attribute_1, counted.attribute_2, counted.attribute_3,
         counted.reason, counted.value_bin, counted.n, counted.passed, counted.failed, counted.valued, counted.value_sum, counted.value_squares, counted.cost_usd, counted.priced, counted.input_tokens, counted.output_tokens, counted.metered, counted.latency_ms, counted.timed
    from flywheel._recount_scores('-infinity', 'infinity') as counted
   cross join lateral (values ('minute', counted.minute), ('hour', date_trunc('hour', counted.minute)),
                            ('day', date_trunc('day', counted.minute, 'UTC'))) as cut(grain, bucket);
comment on view flywheel._score_counts is 'Internal: scores by minute, hour and day; always filter by grain.';

create or replace view flywheel._span_counts as
  select cut.grain, cut.bucket, counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root, counted.attribute_1, counted.attribute_2, counted.attribute_3,
         counted.latency_bin, counted.n, counted.errors, counted.running, counted.input_tokens, counted.output_tokens, counted.metered, counted.cost_usd, counted.priced, counted.latency_ms, counted.latency_squares, counted.timed
    from flywheel._recount_spans('-infinity', 'infinity') as counted
   cross join lateral (values ('minute', counted.minute), ('hour', date_trunc('hour', counted.minute)),
                            ('day', date_trunc('day', counted.minute, 'UTC'))) as cut(grain, bucket);
comment on view flywheel._span_counts is 'Internal: spans by minute, hour and day; always filter by grain.';

create or replace view flywheel._cell_counts as
  select cut.grain, cut.bucket, counted.version_id, counted.project, counted.environment, counted.release, counted.node, counted.node_kind, counted.root, counted.attribute_1, counted.attribute_2, counted.attribute_3, counted.lane,
         count(*) filter (where judge_passed and human_passed) as tp, count(*) filter (where judge_passed and not human_passed) as fp,
         count(*) filter (where not judge_passed and human_passed) as fn, count(*) filter (where not judge_passed and not human_passed) as tn,
         count(value) as valued, coalesce(sum(human_passed::integer) filter (where value is not null), 0)::double precision as y_sum,
         coalesce(sum(value), 0) as f_sum, coalesce(sum(value) filter (where human_passed), 0) as yf_sum, coalesce(sum(value * value), 0) as ff_sum
    from (select cells.*, date_trunc('minute', cells.started_at) as minute from flywheel._recount_cells('-infinity', 'infinity') as cells) as counted
   cross join lateral (values ('minute', counted.minute), ('hour', date_trunc('hour', counted.minute)),
                            ('day', date_trunc('day', counted.minute, 'UTC'))) as cut(grain, bucket)
   group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13;
comment on view flywheel._cell_counts is 'Internal: labelled scores by minute, hour and day; always filter by grain.';

comment on column flywheel._score_counts.grain is 'minute, hour or day.';
comment on column flywheel._score_counts.bucket is 'Start of the minute, hour or UTC day, of when the span started.';
comment on column flywheel._score_counts.version_id is 'The validator version.';
comment on column flywheel._score_counts.project is 'Project of the spans.';
comment on column flywheel._score_counts.environment is 'Environment of the spans.';
comment on column flywheel._score_counts.release is 'Release of the spans; null = unknown.';
comment on column flywheel._score_counts.node is 'Node of the spans.';
comment on column flywheel._score_counts.node_kind is 'Kind of the node.';
comment on column flywheel._score_counts.root is 'Whether they are root spans.';
comment on column flywheel._score_counts.attribute_1 is 'First own dimension.';
comment on column flywheel._score_counts.attribute_2 is 'Second own dimension.';
comment on column flywheel._score_counts.attribute_3 is 'Third own dimension.';
comment on column flywheel._score_counts.reason is 'Why unscored; empty = there is a verdict.';
comment on column flywheel._score_counts.value_bin is 'Twentieth of [0, 1] the value lies in; -1 = none.';
comment on column flywheel._score_counts.n is 'Scores.';
comment on column flywheel._score_counts.passed is 'Scores that say pass.';
comment on column flywheel._score_counts.failed is 'Scores that say fail.';
comment on column flywheel._score_counts.valued is 'Scores with a value.';
comment on column flywheel._score_counts.value_sum is 'Sum of the values.';
comment on column flywheel._score_counts.value_squares is 'Sum of their squares.';
comment on column flywheel._score_counts.cost_usd is 'Sum of the costs known.';
comment on column flywheel._score_counts.priced is 'Scores whose cost is known.';
comment on column flywheel._score_counts.input_tokens is 'Sum of the input tokens known.';
comment on column flywheel._score_counts.output_tokens is 'Sum of the output tokens known.';
comment on column flywheel._score_counts.metered is 'Scores whose tokens are known.';
comment on column flywheel._score_counts.latency_ms is 'Sum of the latencies known.';
comment on column flywheel._score_counts.timed is 'Scores whose latency is known.';

comment on column flywheel._span_counts.grain is 'minute, hour or day.';
comment on column flywheel._span_counts.bucket is 'Start of the minute, hour or UTC day, of when the span started.';
comment on column flywheel._span_counts.project is 'Project of the spans.';
comment on column flywheel._span_counts.environment is 'Environment of the spans.';
comment on column flywheel._span_counts.release is 'Release of the spans; null = unknown.';
comment on column flywheel._span_counts.node is 'Node of the spans.';
comment on column flywheel._span_counts.node_kind is 'Kind of the node.';
comment on column flywheel._span_counts.root is 'Whether they are root spans.';
comment on column flywheel._span_counts.attribute_1 is 'First own dimension.';
comment on column flywheel._span_counts.attribute_2 is 'Second own dimension.';
comment on column flywheel._span_counts.attribute_3 is 'Third own dimension.';
comment on column flywheel._span_counts.latency_bin is 'floor(8 * log2(milliseconds)); -999 = unknown.';
comment on column flywheel._span_counts.n is 'Spans.';
comment on column flywheel._span_counts.errors is 'Spans with status error.';
comment on column flywheel._span_counts.running is 'Spans with status running.';
comment on column flywheel._span_counts.input_tokens is 'Sum of the input tokens known.';
comment on column flywheel._span_counts.output_tokens is 'Sum of the output tokens known.';
comment on column flywheel._span_counts.metered is 'Spans whose tokens are known.';
comment on column flywheel._span_counts.cost_usd is 'Sum of the costs known.';
comment on column flywheel._span_counts.priced is 'Spans whose cost is known.';
comment on column flywheel._span_counts.latency_ms is 'Sum of the latencies known.';
comment on column flywheel._span_counts.latency_squares is 'Sum of their squares.';
comment on column flywheel._span_counts.timed is 'Spans whose latency is known.';

comment on column flywheel._cell_counts.grain is 'minute, hour or day.';
comment on column flywheel._cell_counts.bucket is 'Start of the minute, hour or UTC day, of when the span started.';
comment on column flywheel._cell_counts.version_id is 'The validator version.';
comment on column flywheel._cell_counts.project is 'Project of the spans.';
comment on column flywheel._cell_counts.environment is 'Environment of the spans.';
comment on column flywheel._cell_counts.release is 'Release of the spans; null = unknown.';
comment on column flywheel._cell_counts.node is 'Node of the spans.';
comment on column flywheel._cell_counts.node_kind is 'Kind of the node.';
comment on column flywheel._cell_counts.root is 'Whether they are root spans.';
comment on column flywheel._cell_counts.attribute_1 is 'First own dimension.';
comment on column flywheel._cell_counts.attribute_2 is 'Second own dimension.';
comment on column flywheel._cell_counts.attribute_3 is 'Third own dimension.';
comment on column flywheel._cell_counts.lane is 'estimation or triage.';
comment on column flywheel._cell_counts.tp is 'Validator and people say pass.';
comment on column flywheel._cell_counts.fp is 'The validator says pass, people say fail.';
comment on column flywheel._cell_counts.fn is 'The validator says fail, people say pass.';
comment on column flywheel._cell_counts.tn is 'Validator and people say fail.';
comment on column flywheel._cell_counts.valued is 'Labelled scores with a value.';
comment on column flywheel._cell_counts.y_sum is 'Of those, how many people pass.';
comment on column flywheel._cell_counts.f_sum is 'Sum of the values.';
comment on column flywheel._cell_counts.yf_sum is 'Sum of the values that people pass.';
comment on column flywheel._cell_counts.ff_sum is 'Sum of the squares of the values.';
