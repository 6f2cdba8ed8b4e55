"""What the tests of judges share: a provider that is the fake, a judge, the outcomes of its calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.fakes.openai import Fake, serving
from tests.worker.support import Connection, activate

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
    whole = {"base_url": fake.url, "max_in_flight": 64, "time_limit_ms": 30_000, "models": models, **definition}
    connection.execute("select flywheel.set_provider('fake', %s)", [Jsonb(whole)])


def judge(connection: Connection, name: str = "polite", **definition: Any) -> None:
    """Activate a judge."""
    activate(connection, name, **QUESTION | definition)


def outcomes(connection: Connection) -> Counter[str]:
    """Count the calls by outcome."""
    return Counter(row[0] for row in connection.execute("select outcome from flywheel.calls").fetchall())
