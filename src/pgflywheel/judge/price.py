"""What a call costs."""

from __future__ import annotations

from pgflywheel.judge.records import Usage
from pgflywheel.records import Prices

_MILLION = 1_000_000


def cost_usd(usage: Usage, prices: Prices | None, batch: bool = False) -> float | None:
    """Return what tokens cost in US dollars; None when a token count or a price is unknown, never 0 for that."""
    if prices is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    if prices.input_usd is None or prices.output_usd is None:
        return None
    cached = min(usage.cached_tokens or 0, usage.input_tokens)
    cached_usd = prices.input_usd if prices.cached_input_usd is None else prices.cached_input_usd
    cost = (usage.input_tokens - cached) * prices.input_usd + cached * cached_usd
    cost += usage.output_tokens * prices.output_usd
    return cost * (prices.batch_share if batch else 1.0) / _MILLION
