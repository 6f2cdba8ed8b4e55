"""A database of the first release, with rows in it, becomes one of the second and loses nothing."""

from __future__ import annotations

import psycopg

from pgflywheel.db import schema

CHECK = '{"kind": "sql", "expression": "length(span.output) > 1", "lane": "inline"}'


def test_scores_of_the_first_release_outlive_the_upgrade_and_new_ones_join_them(dsn: str) -> None:
    schema.downgrade(dsn, "0001")
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(
            "insert into flywheel.validators (validator_id, name) values (gen_random_uuid(), 'long_enough');"
            "insert into flywheel.validator_versions (version_id, validator_id, version, definition, content_hash,"
            "   kind, target, lane, action, severity, sample, status)"
            " select gen_random_uuid(), validator_id, 1, '{}', 'x',"
            "   'sql', 'output', 'bulk', 'flag', 'low', 1, 'retired'"
            "   from flywheel.validators;"
            "insert into flywheel.scores (span_id, revision, version_id, started_at, trace_id, project, passed)"
            " select gen_random_uuid(), 1, version_id, now(), gen_random_uuid(), 'default', true"
            "   from flywheel.validator_versions, generate_series(1, 100)"
        )
    assert schema.upgrade(dsn).before == "0001"
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("select flywheel.define_validator('not_short', %s::jsonb)", [CHECK])
        session.execute("select flywheel.activate_validator('not_short')")
        session.execute("insert into flywheel.spans (input, output) values ('a', 'bc')")
        counts = session.execute(
            "select validator, count(*), count(cost_usd) from flywheel.score_history join flywheel.scores"
            " using (span_id, revision, started_at) group by 1 order by 1"
        ).fetchall()
    assert counts == [("long_enough", 100, 0), ("not_short", 1, 0)]
    assert schema.verify(dsn) == ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"]


def test_the_first_release_gets_no_jobs_and_no_versions_it_does_not_know(dsn: str) -> None:
    neighbours = '{"kind": "neighbours", "question": "q", "pass_when": "p", "fail_when": "f"}'
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("select flywheel.define_validator('polite', %s::jsonb)", [neighbours])
        session.execute("select flywheel.activate_validator('polite')")
        session.execute("insert into flywheel.spans (input, output) values ('a', 'b')")
        session.execute(
            "insert into flywheel._ready"
            "       (lane, priority, job_id, version_ids, span_ids, started_from, started_until, origin)"
            " select 'embed', 1, flywheel.new_id(), array[embedder_id], array[embedder_id], now(), now(), 'live'"
            "   from flywheel.embedders"
        )
        schema.downgrade(dsn, "0001")
        assert session.execute("select distinct lane from flywheel._ready").fetchall() == [("bulk",)]
        assert session.execute("select status from flywheel.validator_versions").fetchall() == [("retired",)]
