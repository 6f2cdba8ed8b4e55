"""Providers as a worker knows them: their row, a client, and how many of its calls are on their way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from pgflywheel.db import providers
from pgflywheel.db.connect import Database
from pgflywheel.judge.client import Client
from pgflywheel.records import Provider

FRESH_SECONDS = 1.0


@dataclass
class Endpoint:
    """A provider, its client, and a gate that lets no more calls begin than the provider takes at a time."""

    provider: Provider
    client: Client
    gate: asyncio.Semaphore

    @classmethod
    def of(cls, provider: Provider) -> Endpoint:
        """Make what is needed to call a provider."""
        return cls(provider, Client(provider), asyncio.Semaphore(provider.max_in_flight))

    async def pass_gate(self, until: float) -> bool:
        """Wait for a place among the calls on their way; False when there is none until then."""
        self.client.prepare()
        if not self.gate.locked():
            return await self.gate.acquire()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - monotonic())):
                return await self.gate.acquire()
        return False


@dataclass
class Endpoints:
    """The providers there are, read again every second at most."""

    database: Database
    known: dict[str, Endpoint] = field(default_factory=dict)
    read_at: float = float("-inf")
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    replaced: list[Client] = field(default_factory=list)

    async def of(self, name: str) -> Endpoint | None:
        """Return a provider; None when there is none of this name."""
        if monotonic() - self.read_at > FRESH_SECONDS:
            async with self.reading:
                if monotonic() - self.read_at > FRESH_SECONDS:
                    await self._read()
        return self.known.get(name)

    async def _read(self) -> None:
        found = {provider.name: provider for provider in await providers.providers(self.database)}
        self.read_at = monotonic()
        for name in self.known.keys() - found.keys():
            self.replaced.append(self.known.pop(name).client)
        for name, provider in found.items():
            known = self.known.get(name)
            if known is None or known.provider != provider:
                self.known[name] = Endpoint.of(provider)
                self.replaced += [known.client] if known else []  # calls on their way keep the client they began with

    async def close(self) -> None:
        """Close all connections to providers."""
        clients = [*self.replaced, *(endpoint.client for endpoint in self.known.values())]
        self.known, self.replaced, self.read_at = {}, [], float("-inf")
        for client in clients:
            await client.close()
