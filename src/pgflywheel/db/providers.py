"""Providers: endpoints that speak the OpenAI API, with their limits and prices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgflywheel.db.connect import Database, columns_of
from pgflywheel.errors import ProviderNotFound
from pgflywheel.records import Prices, Provider


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """One row of the view provider_status."""

    provider: str
    base_url: str
    key_variable: str | None
    max_in_flight: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    time_limit_ms: int
    in_flight: int
    blocked_reason: str | None
    blocked_detail: str | None
    blocked_until: datetime | None
    models: int


async def set_provider(database: Database, name: str, definition: Mapping[str, Any]) -> bool:
    """Define a provider or change it; what is left out goes back to its default. Return whether anything changed."""
    changed: bool = await database.value("select flywheel.set_provider(%s, %s::jsonb)", [name, json.dumps(definition)])
    return changed


async def release_provider(database: Database, name: str) -> bool:
    """Let a blocked provider be called again; return whether it was blocked."""
    was_blocked: bool = await database.value("select flywheel.release_provider(%s)", [name])
    return was_blocked


async def status(database: Database) -> list[ProviderStatus]:
    """Return the providers with what they are doing, by name."""
    columns = columns_of(ProviderStatus)
    return await database.rows(ProviderStatus, f"select {columns} from flywheel.provider_status order by provider")


async def providers(database: Database) -> list[Provider]:
    """Return every provider with the prices of its models, as a client needs them."""
    query = """
        select provider, base_url, key_variable, abilities, time_limit_ms, max_in_flight,
               coalesce((select jsonb_object_agg(model, to_jsonb(models) - 'provider' - 'model')
                           from flywheel.provider_models as models where models.provider = known.provider), '{}')
          from flywheel.providers as known order by provider
    """
    return [_provider(row) for row in await database.rows(tuple, query)]


async def provider(database: Database, name: str) -> Provider:
    """Return one provider; raises ProviderNotFound."""
    for known in await providers(database):
        if known.name == name:
            return known
    raise ProviderNotFound(f"there is no provider {name}", hint="List them: pgflywheel providers list.")


def _provider(row: tuple[Any, ...]) -> Provider:
    name, base_url, key_variable, abilities, time_limit_ms, max_in_flight, models = row
    prices = {model: Prices(**found) for model, found in models.items()}
    return Provider(name, base_url, key_variable, abilities, time_limit_ms, max_in_flight, prices)
