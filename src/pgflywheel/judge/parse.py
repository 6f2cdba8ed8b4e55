"""From a reply's text to a verdict, or to the reason why it holds none."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgflywheel.judge.records import storable

MOST_CHARACTERS = 65_536
MOST_OBJECTS = 200  # places where an object may begin that are tried
MOST_CRITIQUE = 4_000
_IMPOSSIBLE = -1000.0  # a logprob below it is one: some write -9999, and an integer may be too large for a float
_VERDICTS = {"pass": True, "passed": True, "fail": False, "failed": False}
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
# What stands before the word ends with its line: else blank lines would be read to their end from each of them.
_LINE = re.compile(
    r"^(?:[^\S\n]|[*_#>\"'-])*verdict[\s*_\"']*[:=-][\s*_\"']*(pass|fail)(?:ed)?[\s*_\"'.,!]*$",
    re.IGNORECASE | re.MULTILINE,
)
_STATED = re.compile(r"verdict\W{1,12}(pass|fail)", re.IGNORECASE)
_decode = json.JSONDecoder(object_pairs_hook=lambda pairs: _Object(pairs)).raw_decode


@dataclass(frozen=True, slots=True)
class Stated:
    """A verdict as a reply states it."""

    passed: bool
    critique: str


class Unreadable(Exception):
    """A reply states no verdict, or more than one."""


class _Object(dict[str, Any]):
    """A JSON object that remembers whether a key stood in it twice with two values."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.verdicts = [value for key, value in pairs if key == "verdict"]


def read_verdict(text: str) -> Stated:
    """Return what a reply states, as JSON or as a last line; Unreadable says why there is nothing to return."""
    text = text[:MOST_CHARACTERS].strip()
    text = text if text.startswith("{") else _THOUGHT.sub("", text).strip()
    try:
        objects, rest = _objects(text)
        stated = [_of_object(each) for each in objects if "verdict" in each]
    except RecursionError as error:
        raise Unreadable("its JSON is nested too deeply") from error
    if not stated:
        rest, stated = "", _of_lines(text)
    if not stated:
        raise Unreadable(_why_nothing(text, bool(objects)))
    verdicts = {each.passed for each in stated} | {word.lower() == "pass" for word in _STATED.findall(rest)}
    if len(verdicts) > 1:
        raise Unreadable("it states two verdicts")
    return stated[-1]


def pass_probability(tokens: Any) -> float | None:
    """Return P(pass) / (P(pass) + P(fail)) where the verdict begins, from a reply's logprobs; None = cannot tell."""
    if not isinstance(tokens, list) or not all(isinstance(each, Mapping) for each in tokens):
        return None
    texts = [str(each.get("token", "")) for each in tokens]
    places = list(_STATED.finditer("".join(texts)))
    if not places:
        return None
    begin, place = places[-1].start(1), 0
    for text, token in zip(texts, tokens, strict=True):
        if place + len(text) > begin:
            return _share(token, text[: max(0, begin - place)])
        place += len(text)
    return None


def _share(token: Mapping[str, Any], lead: str) -> float | None:
    """Weigh the verdicts a token could have begun; ``lead`` is what stands in it before the verdict."""
    rivals = token.get("top_logprobs")
    weights = {True: 0.0, False: 0.0}
    for rival in _mappings(rivals) or [token]:
        word = str(rival.get("token", "")).removeprefix(lead).strip(" \"'").lower()
        passed = next((passed for name, passed in (("pass", True), ("fail", False)) if _begins(name, word)), None)
        logprob = rival.get("logprob")
        if passed is not None and isinstance(logprob, int | float) and logprob == logprob:  # NaN is not
            weights[passed] += math.exp(min(max(logprob, _IMPOSSIBLE), 0.0))
    total = weights[True] + weights[False]
    return weights[True] / total if total > 0.01 else None


def _mappings(given: Any) -> list[Mapping[str, Any]]:
    return [each for each in given if isinstance(each, Mapping)] if isinstance(given, list) else []


def _begins(name: str, word: str) -> bool:
    return bool(word) and (name.startswith(word) or word.startswith(name))


def _objects(text: str) -> tuple[list[_Object], str]:
    """Return the objects that stand in a text, not those inside of one another, and the text without them."""
    objects, rest, begin, tried = [], "", 0, 0
    while (brace := text.find("{", begin)) >= 0 and tried < MOST_OBJECTS:
        tried += 1
        try:
            found, end = _decode(text, brace)
            objects.append(found)
            rest += text[begin:brace]
        except ValueError:
            end = brace + 1
            rest += text[begin:end]
        begin = end
    return objects, rest + text[begin:]


def _of_object(found: _Object) -> Stated:
    verdicts = {_VERDICTS.get(each.strip().lower()) if isinstance(each, str) else None for each in found.verdicts}
    if verdicts not in ({True}, {False}):
        raise Unreadable(f"its verdict is {json.dumps(found['verdict'])[:100]}, neither pass nor fail")
    critique = found.get("critique")
    return Stated(True in verdicts, _critique(critique if isinstance(critique, str) else ""))


def _of_lines(text: str) -> list[Stated]:
    """Read lines that say no more than the verdict; what stands before the first of them is the critique."""
    lines = list(_LINE.finditer(text))
    return [Stated(line[1].lower() == "pass", _critique(text[: lines[0].start()])) for line in lines]


def _critique(text: str) -> str:
    return storable(text.strip()[:MOST_CRITIQUE])


def _why_nothing(text: str, has_objects: bool) -> str:
    if has_objects:
        return "its JSON has no verdict"
    return "its JSON ends too early" if text.startswith(("{", "```")) else "it holds no JSON object with a verdict"
