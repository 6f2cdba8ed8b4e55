"""pgflywheel rollups: status, verify, rebuild, attributes."""

from __future__ import annotations

import pytest

from .conftest import CommandLine, Connection

PAST_TRIGGERS = """
begin; set local session_replication_role = replica; insert into flywheel.spans (output) values ('a'); commit"""


def test_verify_fails_until_a_rebuild_has_run(pgflywheel: CommandLine, connection: Connection) -> None:
    assert "what views count is what is there" in pgflywheel("rollups", "verify").stdout
    connection.execute(PAST_TRIGGERS)
    found = pgflywheel.json("rollups", "verify", exit_code=1)
    assert {(row["what"], row["column_name"], row["expected"], row["found"]) for row in found} == {("spans", "n", 1, 0)}
    assert pgflywheel.json("rollups", "rebuild", "--since", "1d") == {"days": 1}
    assert pgflywheel.json("rollups", "status")[0]["waiting_days"] == 1
    connection.execute("select flywheel._rebuild_asked()")
    pgflywheel("rollups", "verify")


def test_dimensions_of_ones_own_are_set_and_shown(pgflywheel: CommandLine, connection: Connection) -> None:
    connection.execute("insert into flywheel.spans (output) values ('a')")
    said = pgflywheel("rollups", "attributes", "tenant.plan", "model").stdout
    assert "1 days are counted anew by tenant.plan, model" in said
    assert pgflywheel.json("rollups", "status")[0]["attributes"] == "tenant.plan, model"


@pytest.mark.parametrize("path", ["tenant plan", "a'b"])
def test_a_dimension_that_is_no_path_is_refused(pgflywheel: CommandLine, path: str) -> None:
    assert "is no path" in pgflywheel("rollups", "attributes", path, exit_code=1).stderr
