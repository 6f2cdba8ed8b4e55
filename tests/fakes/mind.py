"""What the fake thinks of an item: a marker word, a function, or verdicts a real judge once gave."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

MARKER = "zzfail"
ESCAPE = re.compile(r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])')
KEY_HEAD = 16  # characters of a key that are looked up at every place of a prompt


@dataclass(frozen=True)
class Asked:
    """A chat request as the mind sees it; choice counts up from 0 when n > 1."""

    body: Mapping[str, Any]
    choice: int = 0

    @cached_property
    def messages(self) -> list[tuple[str, str]]:
        """Return role and text of each message."""
        return [(message.get("role", ""), text_of(message.get("content"))) for message in self.body["messages"]]

    @cached_property
    def text(self) -> str:
        """Return the last user message."""
        return next((text for role, text in reversed(self.messages) if role == "user"), "")

    @cached_property
    def prompt(self) -> str:
        """Return all messages as one text."""
        return "\n".join(text for _, text in self.messages)


@dataclass(frozen=True)
class Judgement:
    """A verdict; probability is that of the stated verdict; content, when given, is sent as it is."""

    verdict: str
    critique: str = "It was read with care."
    probability: float = 0.97
    content: str | None = None


Mind = Callable[[Asked], Judgement]


def text_of(content: Any) -> str:
    """Return a message's text, whether a string or a list of parts."""
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


@dataclass(frozen=True)
class Marked:
    """Fail what holds a marker word, looking only at what follows the last item_after, if given."""

    marker: str = MARKER
    item_after: str | None = None

    def __call__(self, asked: Asked) -> Judgement:
        """Judge a request."""
        item = asked.text.rpartition(self.item_after)[2] if self.item_after else asked.text
        if self.marker in item:
            return Judgement("fail", f"It holds the word {self.marker}.")
        return Judgement("pass", "Nothing in it is wrong.")


@dataclass
class Recorded:
    """Answer what a table says of the key found in the last user message; otherwise ask another mind.

    Keys are found in what the prompt says in JSON strings too. Several may be found (examples shown hold
    others): the one that ends last wins, then the longest.
    """

    verdicts: Mapping[str, Mapping[str, Any]]
    otherwise: Mind | None = None
    heads: dict[int, dict[str, list[str]]] = field(init=False)

    def __post_init__(self) -> None:
        self.heads = defaultdict(lambda: defaultdict(list))
        for key in self.verdicts:
            self.heads[min(len(key), KEY_HEAD)][key[:KEY_HEAD]].append(key)

    def __call__(self, asked: Asked) -> Judgement:
        """Judge a request; LookupError when no key is in it and nobody else to ask."""
        key = self.find(unescaped(asked.text)) or self.find(asked.text)
        if key is not None:
            return judgement(self.verdicts[key])
        if self.otherwise is None:
            raise LookupError("no recorded verdict has its key in the last user message")
        return self.otherwise(asked)

    def find(self, text: str) -> str | None:
        """Return the key that ends last."""
        best, found = (0, 0), None
        for length, heads in self.heads.items():
            for place in range(len(text) - length + 1):
                for key in heads.get(text[place : place + length], ()):
                    rank = (place + len(key), len(key))
                    if rank > best and text.startswith(key, place):
                        best, found = rank, key
        return found


def unescaped(text: str) -> str:
    """Return a text with the escapes of JSON strings undone, wherever they stand."""
    plain = ESCAPE.sub(lambda found: str(json.loads(f'"{found[0]}"')), text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def judgement(entry: Mapping[str, Any]) -> Judgement:
    """Return a row of a table as a judgement."""
    return Judgement(**{name: value for name, value in entry.items() if value is not None})


def recorded(verdicts: Mapping[str, Mapping[str, Any]] | str | Path, otherwise: Mind | None = None) -> Recorded:
    """Return a mind from a table or from a JSON file that holds one."""
    if isinstance(verdicts, str | Path):
        verdicts = json.loads(Path(verdicts).read_text())
    assert isinstance(verdicts, Mapping)
    return Recorded(verdicts, otherwise)
