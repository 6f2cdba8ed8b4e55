"""Checks of the language a text is written in."""

from __future__ import annotations

from pgflywheel.records import Verdict

_ENOUGH = 4_000  # characters that settle a language; more only cost time


def is_language(text: str, languages: list[str], minimum_letters: int = 20) -> Verdict | None:
    """Pass a text in one of the languages (ISO 639-1, such as "en"); the critique names the one found.

    None, which leaves the span unscored, where a text has too few letters to tell.
    """
    sample = text[:_ENOUGH]
    if sum(map(str.isalpha, sample)) < minimum_letters:
        return None
    import py3langid  # here, for its model takes most of a second to load

    found: str = py3langid.classify(sample)[0]
    return Verdict(found in languages, critique=f"it reads as {found}")
