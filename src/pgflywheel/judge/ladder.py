"""The ladder: JSON schema, JSON object, text; and what an endpoint refused is not asked of it again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pgflywheel.judge.definition import JudgeDefinition
from pgflywheel.judge.failures import CallFailed
from pgflywheel.judge.records import RUNGS, Form, Prompt, Rung
from pgflywheel.records import Provider

_OF_FORMAT = re.compile(r"response_format|json_schema|json_object|structured output", re.IGNORECASE)
_ALWAYS = ("model", "messages")
_MOST_TOKENS = ("max_tokens", "max_completion_tokens")


@dataclass
class _Learned:
    """What a model of a provider turned out not to take."""

    lowest: int = 0
    refused: set[str] = field(default_factory=set)


class Ladder:
    """Know how each provider's model may be asked; one for a process, as what it learns is true for all judges."""

    def __init__(self) -> None:
        self._learned: dict[tuple[str, str], _Learned] = {}

    def form(self, provider: Provider, definition: JudgeDefinition) -> Form:
        """Return how the judge's model is asked now: by the provider's abilities and what was refused so far."""
        learned = self._learned.get((provider.name, definition.model), _Learned())
        refused = learned.refused
        wants_logprobs = definition.confidence in (None, "logprobs")
        return Form(
            rung=_rung(provider, learned.lowest),
            logprobs=wants_logprobs and provider.able("logprobs") and "logprobs" not in refused,
            seed=provider.able("seed") and "seed" not in refused,
            prompt_cache_key=provider.able("prompt_cache_key") and "prompt_cache_key" not in refused,
            most_tokens_key=_most_tokens_key(provider, refused),
            refused=frozenset(refused),
        )

    def step_down(self, prompt: Prompt, failure: CallFailed) -> bool:
        """Learn from a refused request; True when it can be built anew without what was refused."""
        if failure.treatment != "step_down":
            return False
        learned = self._learned.setdefault((prompt.provider, prompt.model), _Learned())
        rung, text = RUNGS.index(prompt.rung), f"{failure.parameter} {failure.detail}"
        if rung + 1 < len(RUNGS) and _OF_FORMAT.search(text):
            learned.lowest = max(learned.lowest, rung + 1)
            return True
        named = [key for key in prompt.request if key not in _ALWAYS and re.search(rf"\b{re.escape(key)}\b", text)]
        if named:
            learned.refused.update(named)
            return True
        learned.lowest = max(learned.lowest, rung + 1)
        return rung + 1 < len(RUNGS)


def _rung(provider: Provider, lowest: int) -> Rung:
    """Return the first rung the provider says it knows and did not refuse."""
    return next((rung for rung in RUNGS[lowest:] if rung == "text" or provider.able(rung)), "text")


def _most_tokens_key(provider: Provider, refused: set[str]) -> str:
    """Return what the endpoint calls the limit on the reply; if one name was refused, the other."""
    first, other = _MOST_TOKENS[:: -1 if provider.able("max_completion_tokens") else 1]
    return other if first in refused and other not in refused else first
