"""Everything a fake can be told, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.mind import MARKER, Asked, Marked, Mind, recorded
from tests.fakes.misbehaviours import Chooser

CHOICE = {"mix", "first", "when", "seed", "at_most"}  # a change of these begins the choosing anew


@dataclass(frozen=True)
class Behaviour:
    """How the fake behaves; times in seconds, shares in [0, 1]."""

    # what it answers
    mind: Mind | None = None  # in-process only; else by marker
    verdicts: Mapping[str, Mapping[str, Any]] | str | Path | None = None  # a table, or the path of one as JSON
    marker: str = MARKER  # an item that holds it fails
    item_after: str | None = None  # look for the marker only after the last place of this text
    snapshot: str = "-2026-10-01"  # put behind the model's name in the reply
    verdict_token: str = "whole"  # or "split" or "glued": how the verdict's token is cut
    dimensions: int = 1536  # of embeddings, unless the request says

    # how it misbehaves: see misbehaviours.NAMES
    mix: Mapping[str, float] = field(default_factory=dict)  # shares of all requests
    first: Sequence[str | None] = ()  # what the next requests meet; None or "fine" is no misbehaviour
    when: Mapping[str, str] | Callable[[Asked], str | None] = field(default_factory=dict)  # by a text in the prompt
    seed: int = 0
    at_most: int | None = None  # a prompt seen so often is spared by the mix from then on
    delay: float = 0.0
    retry_after: float = 1.0
    slow_seconds: float = 2.0
    drip_seconds: float = 2.0  # for the whole body
    endless_characters: int = 4_000_000
    unsupported: Sequence[str] = ("logprobs", "prompt_cache_key", "max_completion_tokens")

    # what it refuses by nature
    api_key: str | None = None  # None takes any, or none
    models: Sequence[str] | None = None  # None knows every name
    context_tokens: int | None = None
    ratelimit_headers: bool = True

    # batches: a state lasts so many polls; batch_fails is the message of a batch that fails
    batch_polls: int = 1
    batch_fails: str | None = None
    batch_expires_after: int | None = None  # lines answered before the batch expires

    def chooser(self) -> Chooser:
        """Return what chooses by these settings."""
        return Chooser(self.mix, self.first, self.when, self.seed, self.at_most)

    def thinking(self) -> Mind:
        """Return the mind these settings make."""
        if self.verdicts is not None:
            return recorded(self.verdicts, self.mind)
        return self.mind or Marked(self.marker, self.item_after)
