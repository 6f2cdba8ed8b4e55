"""Every way the fake can be told to misbehave, by name, and which request meets which."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.fakes.faults import FAULTS, Fault
from tests.fakes.mind import Asked, Judgement
from tests.fakes.shapes import compact

Completion = dict[str, Any]
FINE = "fine"
WIRE = ("reset", "reset_midway", "closed", "closed_midway", "hang", "drip", "unending")  # manners of a wire.Reply
MANNERS = (*WIRE, "slow_first_byte", "half_json")
PROSE = "I looked at it closely. On the whole it reads well, though one could argue about some of it."

REWRITES: dict[str, Callable[[str, int], str]] = {  # of the content, and of the length of an endless one
    "prose": lambda _, __: PROSE,
    "fenced": lambda content, _: f"```json\n{content}\n```",
    "wrong_fields": lambda _, __: compact({"analysis": PROSE, "answer": "yes"}),
    "half_content": lambda content, _: content[: len(content) // 2],
    "endless": lambda _, length: (PROSE + " ") * (length // (len(PROSE) + 1) + 1),
    "length": lambda content, _: content[: len(content) // 2],
    "content_filter": lambda _, __: "",
}
FINISH = {"length": "length", "content_filter": "content_filter"}


def empty_choices(completion: Completion) -> None:
    """Leave no choice."""
    completion["choices"] = []


def null_content(completion: Completion) -> None:
    """Leave no content."""
    for choice in completion["choices"]:
        choice["message"]["content"] = None
        choice["logprobs"] = None


def refusal(completion: Completion) -> None:
    """Refuse, as structured outputs do it."""
    null_content(completion)
    for choice in completion["choices"]:
        choice["message"]["refusal"] = "I'm sorry, I can't help with that."


def wrong_model(completion: Completion) -> None:
    """Say that another model answered."""
    completion["model"] = "somebody-elses-model-7b"


def no_usage(completion: Completion) -> None:
    """Leave the usage out."""
    del completion["usage"]


CHANGES: dict[str, Callable[[Completion], None]] = {
    "empty_choices": empty_choices,
    "null_content": null_content,
    "refusal": refusal,
    "wrong_model": wrong_model,
    "no_usage": no_usage,
}


def unsupported_format(kinds: Sequence[str]) -> Callable[[Mapping[str, Any], Sequence[str]], None]:
    """Return a refusal of some response formats."""

    def refuse(body: Mapping[str, Any], _: Sequence[str]) -> None:
        kind = (body.get("response_format") or {}).get("type")
        if kind in kinds:
            message = f"Invalid parameter: 'response_format' of type '{kind}' is not supported with this model."
            raise Fault(400, message, param="response_format")

    return refuse


def unsupported_parameter(body: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse the first of the named parameters that is sent."""
    for name in names:
        if name in body:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise Fault(400, message, "unsupported_parameter", param=name)


REFUSALS: dict[str, Callable[[Mapping[str, Any], Sequence[str]], None]] = {  # they pass what does not ask for it
    "unsupported_schema": unsupported_format(["json_schema"]),
    "unsupported_json": unsupported_format(["json_schema", "json_object"]),
    "unsupported_parameter": unsupported_parameter,
}
NAMES = (*FAULTS, *REFUSALS, *MANNERS, *REWRITES, "wrong_verdict", *CHANGES)


def check_names(names: Sequence[str | None]) -> None:
    """Refuse a misbehaviour nobody knows."""
    for name in names:
        if name is not None and name != FINE and name not in NAMES:
            raise ValueError(f"no misbehaviour is called {name!r}; there are {', '.join(NAMES)}")


def even_mix(share: float, names: Sequence[str]) -> dict[str, float]:
    """Return a mix in which the named misbehaviours share so much of all requests evenly."""
    check_names(names)
    return {name: share / len(names) for name in names}


def refuse(name: str | None, body: Mapping[str, Any], wait: float, parameters: Sequence[str]) -> None:
    """Raise the error a misbehaviour is, if it is one."""
    if name in FAULTS:
        raise FAULTS[name](wait)
    if name in REFUSALS:
        REFUSALS[name](body, parameters)


def misjudge(name: str | None, judgement: Judgement) -> Judgement:
    """Change a judgement."""
    return replace(judgement, verdict="maybe") if name == "wrong_verdict" else judgement


class Chooser:
    """Choose what each request meets: first a sequence, then texts, then shares.

    By shares, the same prompt at the same attempt meets the same in whatever order requests come: the draw
    is a hash of seed, prompt and how often it was seen.
    """

    def __init__(
        self,
        mix: Mapping[str, float],
        first: Sequence[str | None],
        when: Mapping[str, str] | Callable[[Asked], str | None],
        seed: int = 0,
        at_most: int | None = None,
    ) -> None:
        by_text = [] if callable(when) else list(when.values())
        check_names([*mix, *first, *by_text])
        if sum(mix.values()) > 1 + 1e-9:
            raise ValueError(f"the shares of the mix add up to {sum(mix.values()):g}, more than 1")
        self.mix, self.when, self.seed, self.at_most = mix, when, seed, at_most
        self.first = deque(first)
        self.seen: Counter[bytes] = Counter()

    def choose(self, asked: Asked) -> str | None:
        """Return the misbehaviour for a request; None to behave."""
        if self.first:
            name = self.first.popleft()
        elif not self.mix and not self.when:
            return None
        else:
            name = self.by_text(asked) or self.by_share(asked)
        return None if name == FINE else name

    def by_text(self, asked: Asked) -> str | None:
        """Return what a function says, or what belongs to the first text the prompt holds."""
        if callable(self.when):
            name = self.when(asked)
            check_names([name])
            return name
        return next((name for text, name in self.when.items() if text in asked.prompt), None)

    def by_share(self, asked: Asked) -> str | None:
        """Return what the draw falls on; at_most draws a prompt, then it is spared."""
        prompt = hashlib.blake2b(asked.prompt.encode(errors="replace"), digest_size=8).digest()
        self.seen[prompt] += 1
        if self.at_most is not None and self.seen[prompt] > self.at_most:
            return None
        place = hashlib.blake2b(f"{self.seed} {self.seen[prompt]}".encode() + prompt, digest_size=8).digest()
        draw = int.from_bytes(place, "big") / 2**64
        for name, share in self.mix.items():
            draw -= share
            if draw < 0:
                return name
        return None
