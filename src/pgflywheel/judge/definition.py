"""The definition of a judge, read: what a validator version of kind judge says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pgflywheel.errors import InvalidDefinition

MOST_CHARACTERS = 200_000
MOST_OUTPUT_TOKENS, MOST_TOKENS_EVER = 1024, 10_000_000
SPREAD_TEMPERATURE = 0.7  # several votes at temperature 0 would be one vote
_TOKEN_KEYS = ("max_tokens", "max_completion_tokens")
_OURS = ("model", "messages", "stream", "n", "response_format", "logprobs", "top_logprobs", "seed", "prompt_cache_key")
_TOLD = ("question", "pass_when", "fail_when", "provider", "model")


@dataclass(frozen=True, slots=True)
class ShotPolicy:
    """How examples are chosen; None = as retrieval has it by default."""

    strategy: str = "similar"
    count: int = 6
    minimum: int | None = None
    token_budget: int | None = None
    half_life_days: float | None = None
    diversity: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    shot_set: str | None = None
    embedder: str | None = None

    @property
    def wanted(self) -> bool:
        """Tell whether the judge is shown examples at all."""
        return self.shot_set is not None or (self.strategy != "none" and self.count > 0)


@dataclass(frozen=True, slots=True)
class Context:
    """What is shown around the item: the spans above it, its documents, so many earlier turns of its session."""

    parents: bool = False
    documents: bool = False
    session: int = 0


@dataclass(frozen=True, slots=True)
class Degrade:
    """What becomes smaller from which used share of a budget on; None = nothing."""

    votes_at: float | None = None
    model_at: float | None = None
    model: str | None = None
    sample_at: float | None = None
    sample: float | None = None


@dataclass(frozen=True, eq=False)
class JudgeDefinition:
    """A judge's definition, with defaults filled in. Two are equal only if they are the same object."""

    name: str
    question: str
    pass_when: str
    fail_when: str
    provider: str
    model: str
    target: str = "output"
    template: str | None = None
    model_parameters: Mapping[str, Any] = field(default_factory=dict)
    votes: int = 1
    confidence: str | None = None
    shots: ShotPolicy = ShotPolicy()
    context: Context = Context()
    degrade: Degrade = Degrade()
    time_limit_ms: float | None = None
    most_output_tokens: int = MOST_OUTPUT_TOKENS
    most_characters: int = MOST_CHARACTERS

    @classmethod
    def of(cls, name: str, definition: Mapping[str, Any]) -> JudgeDefinition:
        """Read a stored definition or a table of a file; InvalidDefinition says what is wrong with it."""
        _require_texts(name, definition)
        parameters = dict(definition.get("model_parameters") or {})
        _require_not_ours(name, parameters)
        most_tokens = _most_tokens(name, parameters)
        votes = int(definition.get("votes") or 1)
        parameters.setdefault("temperature", 0 if votes == 1 else SPREAD_TEMPERATURE)
        read = cls(
            name=name,
            **{key: definition[key] for key in _TOLD},
            target=definition.get("target") or "output",
            template=definition.get("template"),
            model_parameters=parameters,
            votes=votes,
            confidence=definition.get("confidence"),
            shots=ShotPolicy(**(definition.get("shots") or {})),
            context=_context(definition),
            degrade=Degrade(**(definition.get("degrade") or {})),
            time_limit_ms=definition.get("time_limit_ms"),
            most_output_tokens=most_tokens,
        )
        _require_template(read)
        return read

    def under(self, used_share: float | None) -> tuple[JudgeDefinition, str | None]:
        """Return the judge as a budget of which so much is used leaves it, and what became smaller."""
        share, degrade = used_share or 0.0, self.degrade
        smaller: dict[str, Any] = {}
        if degrade.votes_at is not None and share >= degrade.votes_at and self.votes > 1:
            smaller["votes"] = 1
        if degrade.model_at is not None and share >= degrade.model_at and degrade.model != self.model:
            smaller["model"] = degrade.model
        if not smaller:
            return self, None
        return replace(self, **smaller), "both" if len(smaller) == 2 else next(iter(smaller))


def _context(definition: Mapping[str, Any]) -> Context:
    """Return what is shown around the item; a judge of whole spans sees the documents unless told otherwise."""
    given = definition.get("context") or {}
    return Context(
        parents=bool(given.get("parents", False)),
        documents=bool(given.get("documents", definition.get("target") == "span")),
        session=int(given.get("session", 0)),
    )


def _require_texts(name: str, definition: Mapping[str, Any]) -> None:
    if definition.get("kind", "judge") != "judge":
        raise InvalidDefinition(f"validator {name} is of kind {definition['kind']}, not judge")
    for key in _TOLD:
        if not isinstance(definition.get(key), str) or not definition[key].strip():
            found = f"{definition[key]!r}, not a text" if key in definition else "missing"
            raise InvalidDefinition(f"judge {name}: {key} is {found}")


def _most_tokens(name: str, parameters: dict[str, Any]) -> int:
    """Take the limit on a reply out of the parameters, whichever its name."""
    found = {key: parameters.pop(key) for key in _TOKEN_KEYS if key in parameters}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MOST_TOKENS_EVER:
            raise InvalidDefinition(
                f"judge {name}: model_parameters.{key} is {value!r}, not a number from 1 to {MOST_TOKENS_EVER:,}"
            )
    return int(next(iter(found.values()), MOST_OUTPUT_TOKENS))


def _require_not_ours(name: str, parameters: Mapping[str, Any]) -> None:
    for key in _OURS:
        if key in parameters:
            raise InvalidDefinition(
                f"judge {name}: model_parameters.{key} is not for definitions",
                "It follows from the other keys of the definition and from what the provider knows.",
                "Leave it out.",
            )


def _require_template(definition: JudgeDefinition) -> None:
    if definition.template is not None:
        from pgflywheel.judge.template import compiled, require_known_names

        compiled(definition.template, definition.name)
        require_known_names(definition.template, definition.name)
