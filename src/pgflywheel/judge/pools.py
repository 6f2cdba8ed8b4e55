"""Connections to an endpoint, in several small pools.

For each request a pool asks every idle connection it keeps whether it still stands, one system call each: with 64
calls at a time that is a third of all the work of making them. Many small pools ask few.
"""

from __future__ import annotations

from itertools import cycle

import httpx2

POOLS = 16


class Pools(httpx2.AsyncBaseTransport):
    """Send requests through pools in turn."""

    def __init__(self, kept_alive: int) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=-(-kept_alive // POOLS))
        context = httpx2.create_ssl_context()  # takes its time: one for all
        self._pools = [httpx2.AsyncHTTPTransport(verify=context, limits=limits) for _ in range(POOLS)]
        self._turns = cycle(self._pools)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        return await next(self._turns).handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()
