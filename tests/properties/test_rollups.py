"""Whatever is written, changed, taken away, folded or counted anew, in whatever order: views count what is there."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.sql.support import Connection, activate, define, rows, value, version_id

TABLES = (
    "spans, scores, labels, _label_items, _span_changes, _span_deltas, _score_changes, _early_scores, _label_changes, "
    "_lost_spans, _slices, _slice_values, _score_rollups, _span_rollups, _cell_rollups, _label_cells, _rollup_rebuilds"
)
DAYS = ("2024-05-04", "2024-05-05", "2024-05-06", "2026-11-20")
TIMES = st.one_of(
    st.builds("{} {:02}:00:30+00".format, st.sampled_from(DAYS), st.sampled_from([0, 12])),
    st.sampled_from(["infinity", "-infinity", "2031-01-01 00:00+00"]),
)
SPAN = """
insert into flywheel.spans (span_id, started_at, ended_at, node, release, parent_span_id, output, status, cost_usd,
                            input_tokens, model, attributes)
values (%s, %s, %s::timestamptz + %s * interval '1 ms', %s, %s, %s, 'text', %s, %s, %s, %s, %s)
    on conflict do nothing"""
SCORE = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value,
                             unscored_reason, cost_usd, latency_ms, output_tokens)
select span_id, %s, %s, started_at, trace_id, project, %s, %s, %s, %s, %s, %s from flywheel.spans where span_id = %s
    on conflict do nothing"""
EARLY_SCORE = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)
values (%s, 1, %s, %s, %s, 'default', true) on conflict do nothing"""
SEED = """
insert into flywheel.spans (span_id, started_at, output, attributes)
select ('00000000-0000-0000-0000-00000000000' || n)::uuid,
       timestamptz '2024-05-03 12:00:30+00' + n % 4 * interval '1 day', 'text', '{"tenant": {"plan": "a"}}'
  from generate_series(1, 6) as n"""
SEED_SCORES = """
insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed, value)
select span_id, 1, %s, started_at, trace_id, project, true, 0.5 from flywheel.spans"""
IDS = [uuid.UUID(int=n) for n in range(1, 7)]
ids = st.sampled_from(IDS)
costs = st.sampled_from([None, 0.0, 0.25, 1e-7, float("nan"), float("inf")])
nodes = st.sampled_from(["app", "writer", "o'brien \" {"])
small = st.sampled_from([None, 0, 7])


class Counted(RuleBasedStateMachine):
    """One install: spans come, change and go; scores, labels and folds come when they like."""

    connection: Connection
    versions: list[uuid.UUID]

    @initialize(
        rows=st.sampled_from([1, 2, 50]),
        values=st.sampled_from([1, 2, 200]),
        paths=st.sampled_from(["{}", "{tenant.plan,model}"]),
    )
    def empty(self, rows: int, values: int, paths: str) -> None:
        self.run("set session_replication_role = replica")
        self.run(f"truncate {', '.join(f'flywheel.{name}' for name in TABLES.split(', '))} cascade")
        self.run("set session_replication_role = origin")
        for day in DAYS[1:]:
            self.run(
                f"drop table if exists flywheel.spans_{day.replace('-', '')}, flywheel.scores_{day.replace('-', '')}"
            )
        self.run("update flywheel.settings set value = %s where name = 'fold_rows'", [str(rows)])
        self.run("update flywheel.settings set value = %s where name = 'rollup_attribute_values'", [str(values)])
        self.run("select flywheel.set_rollup_attributes(%s)", [paths])
        self.run("delete from flywheel._rollup_rebuilds")
        self.run(SEED)
        for version in self.versions:
            self.run(SEED_SCORES, [version])
        self.run("select flywheel.record_label(span_id, 'one', true, 'ada') from flywheel.spans")
        self.run("select flywheel._fold(1000)")

    def run(self, query: str, parameters: Any = None) -> int:
        return self.connection.execute(query.encode(), parameters).rowcount

    @rule(
        span=ids,
        at=TIMES,
        ms=st.integers(-5, 5000),
        node=nodes,
        release=st.sampled_from([None, "r1"]),
        root=st.booleans(),
        status=st.sampled_from(["ok", "error", "running"]),
        cost=costs,
        tokens=small,
        plan=st.sampled_from(["a", "b", "c", "(other)", ""]),
    )
    def insert(
        self,
        span: uuid.UUID,
        at: str,
        ms: int,
        node: str,
        release: str | None,
        root: bool,
        status: str,
        cost: float | None,
        tokens: int | None,
        plan: str,
    ) -> None:
        given = [span, at, at, ms, node, release, None if root else span, status, cost, tokens, plan or None]
        self.run(SPAN, [*given, f'{{"tenant": {{"plan": "{plan}"}}}}'])

    @rule(
        span=ids,
        version=st.integers(0, 2),
        revision=st.integers(1, 2),
        passed=st.sampled_from([True, False, None]),
        share=st.sampled_from([None, 0.0, 0.05, 0.3, 1.0]),
        cost=costs,
        tokens=small,
    )
    def score(
        self,
        span: uuid.UUID,
        version: int,
        revision: int,
        passed: bool | None,
        share: float | None,
        cost: float | None,
        tokens: int | None,
    ) -> None:
        reason = "raised" if passed is None else None
        self.run(SCORE, [revision, self.versions[version], passed, share, reason, cost, tokens and 1.5, tokens, span])

    @rule(span=ids, version=st.integers(0, 2), at=TIMES)
    def score_before_its_span(self, span: uuid.UUID, version: int, at: str) -> None:
        self.run(EARLY_SCORE, [span, self.versions[version], at, span])

    @rule(span=ids)
    def revise(self, span: uuid.UUID) -> None:
        self.run("update flywheel.spans set output = output || '!' where span_id = %s", [span])

    @rule(node=nodes, cost=costs, status=st.sampled_from(["ok", "error"]), half=st.booleans())
    def change_spans(self, node: str, cost: float | None, status: str, half: bool) -> None:
        self.run(
            "update flywheel.spans set node = %s, cost_usd = %s, status = %s, ended_at = started_at + interval '3 s'"
            " where not %s or span_id < %s",
            [node, cost, status, half, IDS[3]],
        )

    @rule(plan=st.sampled_from(["a", "d", "e"]))
    def change_attributes(self, plan: str) -> None:
        self.run("update flywheel.spans set attributes = %s", [f'{{"tenant": {{"plan": "{plan}"}}}}'])

    @rule(span=ids)
    def delete(self, span: uuid.UUID) -> None:
        self.run("delete from flywheel.spans where span_id = %s", [span])

    @rule(span=ids)
    def delete_and_insert_again(self, span: uuid.UUID) -> None:
        self.run(
            "with gone as (delete from flywheel.spans where span_id = %s returning span_id, started_at, node)"
            " insert into public.parked select * from gone",
            [span],
        )
        self.run(
            "insert into flywheel.spans (span_id, started_at, node) select * from public.parked on conflict do nothing"
        )
        self.run("delete from public.parked")

    @rule(version=st.integers(0, 2), revision=st.integers(1, 2))
    def delete_scores(self, version: int, revision: int) -> None:
        self.run(
            "delete from flywheel.scores where version_id = %s and revision = %s", [self.versions[version], revision]
        )

    @rule(version=st.integers(0, 2), share=st.sampled_from([None, 0.7]))
    def change_scores(self, version: int, share: float | None) -> None:
        self.run(
            "update flywheel.scores set passed = not passed, value = %s where version_id = %s and passed is not null",
            [share, self.versions[version]],
        )

    @rule(span=ids, passed=st.booleans(), who=st.sampled_from(["ada", "bo"]), validator=st.sampled_from(["one", "two"]))
    def label(self, span: uuid.UUID, passed: bool, who: str, validator: str) -> None:
        self.act("select flywheel.record_label(%s, %s, %s, %s, 'why')", [span, validator, passed, who])

    @rule(passed=st.booleans(), place=st.integers(0, 5))
    def relabel(self, passed: bool, place: int) -> None:
        self.act(
            "select flywheel.relabel(label_id, %s, annotator, 'why') from flywheel.current_labels"
            " order by label_id offset %s limit 1",
            [passed, place],
        )

    @rule(place=st.integers(0, 5))
    def withdraw(self, place: int) -> None:
        self.act(
            "select flywheel.withdraw_label(label_id, annotator) from flywheel.current_labels"
            " order by label_id offset %s limit 1",
            [place],
        )

    @rule(validator=st.sampled_from(["one", "two"]), share=st.sampled_from([0.1, 0.5]))
    def draw_labels_into_the_estimate(self, validator: str, share: float) -> None:
        self.run(
            "update flywheel.labels set lane = 'estimation', incl_prob = %s where lane = 'triage' and validator_id ="
            " (select validator_id from flywheel.validators where name = %s)",
            [share, validator],
        )

    def act(self, query: str, parameters: list[Any]) -> None:
        """Do what may be refused in this state."""
        try:
            self.run(query, parameters)
        except psycopg.Error as error:
            if error.sqlstate not in ("WF010", "WF011"):
                raise

    @rule(chunks=st.sampled_from([1, 1, 2, 1000]))
    def fold(self, chunks: int) -> None:
        self.run("select flywheel._fold(%s)", [chunks])

    @rule(day=st.sampled_from([*DAYS, "infinity", "-infinity", "2031-01-01"]))
    def rebuild(self, day: str) -> None:
        self.run("select flywheel._rebuild_rollups(%s)", [day])

    @rule(day=st.sampled_from(DAYS))
    def make_a_partition_late(self, day: str) -> None:
        self.run("select flywheel.ensure_partitions(%s, %s)", [day, day])

    @rule(day=st.sampled_from(DAYS[:2]), hour=st.sampled_from([0, 1, 13]))
    def purge(self, day: str, hour: int) -> None:
        self.run("select * from flywheel.purge(%s)", [f"{day} {hour:02}:00+00"])

    @rule(paths=st.sampled_from(["{tenant.plan}", "{model,tenant.plan}", "{}"]))
    def change_dimensions(self, paths: str) -> None:
        self.run("select flywheel.set_rollup_attributes(%s)", [paths])
        while value(self.connection, "select flywheel._rebuild_asked()"):
            pass

    @rule(really=st.integers(0, 7))
    def truncate_scores(self, really: int) -> None:
        if really == 7:
            self.run("truncate flywheel.scores")

    @invariant()
    def views_count_what_is_there(self) -> None:
        assert rows(self.connection, "select * from flywheel.verify_rollups()") == []


def test_views_count_what_is_there_at_any_instant(connection: Connection) -> None:
    connection.execute("create table public.parked (span_id uuid, started_at timestamptz, node text)")
    connection.execute("update flywheel.settings set value = '1000000' where name = 'split_salt'")
    one = activate(connection, "one", filter={"node": "nobody"})
    define(connection, "one", severity="high", filter={"node": "nobody"})
    two = activate(connection, "two", filter={"node": "nobody"})
    Counted.connection, Counted.versions = connection, [one, version_id(connection, "one", 2), two]
    run_state_machine_as_test(
        Counted,
        settings=settings(max_examples=60, stateful_step_count=30, suppress_health_check=list(HealthCheck)),
    )
