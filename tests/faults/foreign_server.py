"""Judge against a server nobody here wrote: LiteLLM's proxy, alone and with the fake behind it.

    PGFLYWHEEL_LITELLM_PYTHON=/somewhere/bin/python python -m pytest tests/faults/foreign_server.py

Not collected by itself: tests/fakes/foreign.py says what it needs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from tests.conftest import Connection
from tests.fakes.foreign import Foreign, litellm
from tests.fakes.misbehaviours import even_mix
from tests.fakes.openai import serving
from tests.faults.conftest import Tell
from tests.faults.judging import MODELS, assert_accounted, assert_all_scored, cap, judge, outcomes
from tests.sql.support import insert_many, value
from tests.worker.support import work

SPANS = 60
MISBEHAVIOURS = ("rate_limited", "rate_limited_bare", "server_error", "overloaded", "reset", "prose", "refusal")


def provide(connection: Connection, proxy: Foreign, model: str) -> None:
    """Name the proxy as a provider."""
    given = {
        "base_url": proxy.url,
        "key_variable": "LITELLM_KEY",
        "max_in_flight": 8,
        "models": {model: MODELS["small"]},
    }
    connection.execute("select flywheel.set_provider('proxy', %s)", [Jsonb(given)])
    cap(connection, "proxy", 1000)


def test_a_foreign_proxy_judges(
    dsn: str, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    with litellm(tmp_path) as proxy:
        monkeypatch.setenv("LITELLM_KEY", proxy.api_key)
        provide(connection, proxy, "mock-judge")
        judge(connection, provider="proxy", model="mock-judge")
        insert_many(connection, SPANS)
        work(dsn)
    assert assert_all_scored(connection).scored == SPANS
    assert value(connection, "select array_agg(distinct critique) from flywheel.scores") == ["It was said beforehand."]
    assert outcomes(connection, "proxy")["answered"] == SPANS
    assert value(connection, "select count(*) from flywheel._reservations") == 0
    tell(f"LiteLLM's proxy, mock replies: {SPANS} of {SPANS} judged, {dict(outcomes(connection, 'proxy'))}")


def test_misbehaviours_behind_a_foreign_proxy_lose_no_span(
    dsn: str, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    with (
        serving(mix=even_mix(0.2, MISBEHAVIOURS), retry_after=0.2) as fake,
        litellm(tmp_path, upstream=fake.url) as proxy,
    ):
        monkeypatch.setenv("LITELLM_KEY", proxy.api_key)
        provide(connection, proxy, "passed-judge")
        judge(connection, provider="proxy", model="passed-judge")
        insert_many(connection, SPANS)
        work(dsn)
        assert sum(fake.stats()["by_misbehaviour"].values()) > 0
    books = assert_accounted(connection)
    assert books.eligible == SPANS
    assert books.dead == 0
    assert value(connection, "select count(*) from flywheel._reservations") == 0
    tell(
        f"LiteLLM's proxy before a fake that misbehaves: {books.scored} scored, {books.unscored} unscored of {SPANS}, "
        f"{dict(outcomes(connection, 'proxy'))}"
    )
