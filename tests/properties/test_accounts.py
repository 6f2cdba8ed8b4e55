"""Whatever happens in whatever order, each (span, validator) pair is on the books once and scored at most once."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.sql.support import Connection, claim, define, insert_many, insert_past_triggers, rows, value, worker

TABLES = (
    "spans, scores, feedback, run_log, _ready, _running, _later, _dead, _workers, _faults, _activations, _backfills, "
    "validator_versions, validators"
)
NAMES = ("inline", "bulk", "verdict", "moody", "called")
MOODY = "1 / (length(span.output) - 3) > -9"  # raises for texts of three characters
DEFINITIONS: dict[str, dict[str, Any]] = {
    "inline": {"lane": "inline", "filter": {"node": "app"}},
    "bulk": {"sample": 0.6},
    "verdict": {"expression": "row(length(span.output) > 4, 0.5, span.output)::flywheel.verdict", "target": "span"},
    "moody": {"expression": MOODY, "where": "span.output <> 'leave out'"},
    "called": {"kind": "python", "callable": "shop.checks:polite", "lane": "judge"},
}
OUTPUTS = (
    "'abc'",
    "'fine'",
    "'leave out'",
    "null",
    "'answer ' || n",
    "case mod(n, 3) when 0 then 'abc' else 'other' end",
)
names = st.sampled_from(NAMES)


class Books(RuleBasedStateMachine):
    """One install under random acts of applications, admins and workers."""

    connection: Connection
    scored: dict[tuple[Any, ...], Any]

    @initialize()
    def empty(self) -> None:
        self.run(f"truncate {', '.join(f'flywheel.{name}' for name in TABLES.split(', '))} cascade")
        self.run("select flywheel.compile_dispatch()")
        self.run("update flywheel.settings set value = '7' where name = 'chunk_spans'")
        self.scored = {}
        self.workers = [worker(self.connection) for _ in range(2)]
        for name in NAMES:
            define(self.connection, name, **DEFINITIONS[name])

    def run(self, query: str, parameters: Any = None) -> None:
        self.connection.execute(query.encode(), parameters)

    def act(self, call: str, parameters: Any = None) -> None:
        """Do what may be refused in this state."""
        try:
            self.run(f"select flywheel.{call}", parameters)
        except psycopg.Error as error:
            if error.sqlstate not in ("WF004", "WF002"):
                raise

    @rule(name=names)
    def activate(self, name: str) -> None:
        self.act("activate_validator(%s)", [name])

    @rule(name=names, act=st.sampled_from(["pause_validator(%s, 'x')", "retire_validator(%s)", "shadow_validator(%s)"]))
    def stop(self, name: str, act: str) -> None:
        self.act(act, [name])

    @rule(name=names, severity=st.sampled_from(["low", "high"]))
    def revise(self, name: str, severity: str) -> None:
        define(self.connection, name, **DEFINITIONS[name], severity=severity)

    @rule(count=st.integers(1, 20), output=st.sampled_from(OUTPUTS))
    def insert(self, count: int, output: str) -> None:
        insert_many(self.connection, count, output)

    @rule(count=st.integers(1, 9), output=st.sampled_from(OUTPUTS))
    def insert_past(self, count: int, output: str) -> None:
        insert_past_triggers(self.connection, count, output)

    @rule(output=st.sampled_from(["'abc'", "'new'", "null"]), divisor=st.integers(1, 5))
    def update(self, output: str, divisor: int) -> None:
        self.run(
            f"update flywheel.spans set output = {output} where get_byte(uuid_send(span_id), 15) %% %s = 0", [divisor]
        )

    @rule(place=st.integers(0, 1), max_jobs=st.integers(1, 3), priority=st.integers(1, 2))
    def claim(self, place: int, max_jobs: int, priority: int) -> None:
        claim(self.connection, self.workers[place], max_jobs, priority=priority)
        self.run("select flywheel._claim_calls(%s::smallint, %s, %s)", [priority, self.workers[place], max_jobs * 3])

    @rule(place=st.integers(0, 1))
    def work(self, place: int) -> None:
        for fence, lane, versions in self.held(place):
            self.do(self.workers[place], fence, lane, versions)

    @rule(
        place=st.integers(0, 1),
        how=st.sampled_from(["_retry(%s, %s, 0, 'x', 'x')", "_bury(%s, %s, 'x', 'x')", "_hold(%s, %s)"]),
    )
    def give_up(self, place: int, how: str) -> None:
        for fence, *_ in self.held(place)[:2]:
            self.run(f"select flywheel.{how}", [self.workers[place], [fence]])

    @rule(place=st.integers(0, 1), stopped=st.booleans())
    def lose_a_worker(self, place: int, stopped: bool) -> None:
        late, held = self.workers[place], self.held(place)
        if stopped:
            self.run(
                (
                    "update flywheel._workers set last_seen_at = now() - interval '2 "
                    "h', leased_until = now() - interval '1 h' where worker_id = %s"
                ),
                [late],
            )
            self.run("select flywheel._reap()")
        else:
            self.run("select flywheel._leave(%s)", [late])
        self.workers[place] = worker(self.connection)
        for fence, lane, versions in held:
            self.do(late, fence, lane, versions)  # too late: nothing of it counts

    @rule()
    def maintain(self) -> None:
        self.run("select flywheel._promote_later(), flywheel._reap()")

    @rule()
    def replay(self) -> None:
        self.run("select flywheel.replay_dead()")

    @rule(name=names, steps=st.integers(1, 3))
    def backfill(self, name: str, steps: int) -> None:
        self.act("start_backfill(%s, now() - interval '1 day', now() + interval '1 h')", [name])
        for (backfill,) in rows(
            self.connection, "select backfill_id from flywheel._backfills where finished_at is null"
        ):
            for _ in range(steps):
                self.run("select flywheel.advance_backfill(%s, 8)", [backfill])

    @rule()
    def reconcile(self) -> None:
        self.run("select flywheel.reconcile(now() - interval '1 day', clock_timestamp() + interval '1 h')")
        assert value(self.connection, "select coalesce(sum(missing), 0) from flywheel.accounts") == 0

    @invariant()
    def every_pair_is_on_the_books_once(self) -> None:
        for validator, version, *counts, balanced in rows(
            self.connection,
            """select validator, version, eligible, scored, unscored, queued, running, later, dead, missing, balanced
                 from flywheel.accounts""",
        ):
            assert counts[0] == sum(counts[1:]), (validator, version, counts)
            assert balanced == (counts[-1] == 0)

    @invariant()
    def a_score_once_written_stays_as_it_is(self) -> None:
        found = {
            tuple(key): verdict
            for *key, verdict in rows(
                self.connection,
                "select span_id, revision, version_id, (passed, unscored_reason, scored_at)::text from flywheel.scores",
            )
        }
        assert self.scored.items() <= found.items()
        self.scored = found

    def teardown(self) -> None:
        """However it went, the queue can be worked off and then every pair has its score."""
        if not hasattr(self, "workers"):
            return
        for name in NAMES:
            self.act("retire_validator(%s)", [name])
        self.run("select flywheel.reconcile(now() - interval '1 day', clock_timestamp() + interval '1 h')")
        for place in (0, 1):
            self.run("select flywheel._leave(%s)", [self.workers[place]])
            self.workers[place] = worker(self.connection)
        for _ in range(40):
            self.run("select flywheel.replay_dead(), flywheel._promote_later()")
            self.claim(0, 1000, 1)
            self.claim(0, 1000, 2)
            self.work(0)
        left = """select sum(queued + running + later + dead + missing), sum(eligible - scored - unscored)
                    from flywheel.accounts having count(*) > 0"""
        assert rows(self.connection, left) in ([], [(0, 0)])
        assert rows(self.connection, "select count(*) from flywheel._running") == [(0,)]

    def held(self, place: int) -> list[tuple[uuid.UUID, str, list[uuid.UUID]]]:
        query = "select fence, lane, version_ids from flywheel._running where worker_id = %s order by job_id"
        return [
            (fence, lane, versions) for fence, lane, versions in rows(self.connection, query, [self.workers[place]])
        ]

    def do(self, worker_id: uuid.UUID, fence: uuid.UUID, lane: str, versions: list[uuid.UUID]) -> None:
        """Do one job as a worker does: a check that raises is found by splitting."""
        if lane == "judge":
            return self.call(worker_id, fence, versions[0])
        try:
            self.run("select flywheel._complete(%s, %s, %s, now())", [worker_id, [fence], versions])
        except psycopg.errors.DivisionByZero:
            parts = rows(
                self.connection,
                "select fence, version_ids, span_count from flywheel._split(%s, %s)",
                [worker_id, fence],
            )
            for part, part_versions, _ in parts:
                if len(parts) == 1:
                    self.mark(worker_id, part, part_versions[0])
                else:
                    self.do(worker_id, part, lane, part_versions)
        return None

    def mark(self, worker_id: uuid.UUID, fence: uuid.UUID, version: uuid.UUID) -> None:
        with self.connection.transaction():
            if value(self.connection, "select flywheel._lock_fences(%s, %s)", [worker_id, [fence]]):
                self.run("select flywheel._mark_unscored(%s, %s, 'raised', 'x')", [[fence], version])
                self.run("select flywheel._finish(%s, %s)", [worker_id, [fence]])

    def call(self, worker_id: uuid.UUID, fence: uuid.UUID, version: uuid.UUID) -> None:
        with self.connection.transaction():
            if value(self.connection, "select flywheel._lock_fences(%s, %s)", [worker_id, [fence]]):
                write = """select flywheel._write_scores(%s, keys, array_fill(true, array[cardinality(keys)]))
                             from flywheel._read_spans(%s, %s, '{output}') where keys is not null"""
                self.run(write, [version, [fence], version])
                self.run("select flywheel._finish(%s, %s)", [worker_id, [fence]])


def test_the_books_balance_after_anything(connection: Connection) -> None:
    machine = type("Machine", (Books,), {"connection": connection})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=12, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
    )
