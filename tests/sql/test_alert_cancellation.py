"""A look at the rules that somebody stops says nothing about the rules."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.support import Connection, rows, value

ASLEEP = "select count(*) from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"


def test_a_worker_that_leaves_while_a_rule_is_looked_at_opens_no_alert(connection: Connection, dsn: str) -> None:
    connection.execute("select flywheel.set_alert_rule('slow', %s)", [Jsonb({"metric": "drift"})])
    connection.execute("""
        create or replace function flywheel._drift_readings(definition jsonb)
        returns table (slice jsonb, n bigint, value double precision, threshold double precision,
                       effect double precision, firing boolean, evidence jsonb)
        language plpgsql stable as $$begin perform pg_sleep(600); end$$""")
    with psycopg.connect(dsn, autocommit=True) as leaving:
        leaving.execute("set statement_timeout = '300s'")

        def cancel() -> None:
            with psycopg.connect(dsn, autocommit=True) as other:
                while not value(other, ASLEEP, [leaving.info.backend_pid]):
                    pass
                other.execute("select pg_cancel_backend(%s)", [leaving.info.backend_pid])

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            leaving.execute("select flywheel._evaluate_alerts()")
        canceller.join()
    assert rows(connection, "select * from flywheel.alerts") == []
    assert rows(connection, "select state from flywheel.alert_rule_status") == [("waiting",)]
