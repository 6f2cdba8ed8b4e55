"""Judges: a model is asked, and whatever it does, every span is accounted for and paid once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.fakes.openai import Fake, serving
from tests.worker.support import Connection, activate, insert, scores, value, waiting, work

QUESTION = {
    "kind": "judge",
    "question": "Is the answer polite?",
    "pass_when": "it is polite",
    "fail_when": "it is rude",
    "provider": "fake",
    "model": "small",
}


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as served:
        yield served


def provide(connection: Connection, fake: Fake, **definition: Any) -> None:
    """Name the fake as a provider."""
    models = {"small": {"input_usd": 1, "output_usd": 2}, "large": {"input_usd": 10, "output_usd": 20}}
    whole = {"base_url": fake.url, "max_in_flight": 64, "time_limit_ms": 5000, "models": models, **definition}
    connection.execute("select flywheel.set_provider('fake', %s)", [Jsonb(whole)])


def judge(connection: Connection, name: str = "polite", **definition: Any) -> None:
    """Activate a judge."""
    activate(connection, name, **QUESTION | definition)


def test_a_judge_scores_every_span_with_why_and_what_it_cost(dsn: str, connection: Connection, fake: Fake) -> None:
    provide(connection, fake)
    judge(connection)
    insert(connection, ["good", "zzfail is rude", *map(str, range(50))])
    work(dsn, concurrency=16)
    found = scores(connection, "polite")
    assert len(found) == 52
    assert found["good"][0] is True
    assert found["zzfail is rude"][0] is False
    assert "zzfail" in found["zzfail is rude"][2]
    assert (
        value(connection, "select count(*) from flywheel.scores where cost_usd > 0 and annotator_kind = 'judge'") == 52
    )
    assert (
        value(connection, "select count(*) from flywheel.calls where outcome = 'answered'") == len(fake.requests) == 52
    )
    assert value(connection, "select count(*) from flywheel._reservations") == 0
    assert waiting(connection) == 0
