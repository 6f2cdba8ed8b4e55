"""Checks of plain text; each is the twin of the SQL function of the same name in 25_checks.sql."""

from __future__ import annotations

import re
from functools import lru_cache

_ASCII_NO_CASE = re.ASCII | re.IGNORECASE  # as under collation "C": only A-Z and a-z fold
_NOT_BLANK = re.compile(r"[^ \t\n\r\f\v]+")
_SEPARATOR = (  # around a word: ASCII punctuation, symbols, dashes, arrows, CJK punctuation, emoji; no letter
    r"[\u0001-/:-@\[-\^`{-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7"
    r"\u2000-\u206f\u20a0-\u20cf\u2190-\u2bff\u3000-\u3003\u3008-\u301f\U0001f000-\U0001faff]"
)
_REFUSAL = re.compile(
    r"(?:^|[^0-9a-z_])(?:"
    r"(?:i (?:can['’]?t|can ?not|won['’]?t|will not)(?: be able to)?"
    r"|i(?:['’]m| am) (?:not able|unable|not allowed|not permitted) to) "
    r"(?:help|assist|comply|fulfil|provide|answer|share|discuss|disclose|reveal|engage|support|do that|give|create"
    r"|write)"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)(?:\Z|[^0-9a-z_])"
    r"|i (?:must|have to|need to) (?:respectfully )?(?:decline|refuse)"
    r"|(?:goes )?against (?:my|our) (?:guidelines|policies|policy|programming)"
    r")",
    _ASCII_NO_CASE,
)
_REFUSAL_STANDS_WITHIN = 400


def is_blank(text: str) -> bool:
    """Tell whether a text is empty or only white space."""
    return _NOT_BLANK.search(text) is None


def word_count(text: str) -> int:
    """Count the runs of characters that are not ASCII white space."""
    return sum(1 for _ in _NOT_BLANK.finditer(text))


def contains_any_word(text: str, words: list[str]) -> bool:
    """Tell whether a text holds any of the words or phrases, whole; A-Z equal a-z.

    The words are plain text, not patterns; an empty one is found nowhere.
    """
    pattern = _word_pattern(tuple(words))
    return pattern is not None and pattern.search(text) is not None


def is_refusal(text: str) -> bool:
    """Tell whether a text begins as English-speaking models refuse; only its first 400 characters are read."""
    return _REFUSAL.search(text[:_REFUSAL_STANDS_WITHIN]) is not None


@lru_cache(maxsize=256)
def _word_pattern(words: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return None where no word is left; U+001F divides words, as it does in SQL."""
    alternatives = [re.escape(word) for word in "\x1f".join(words).split("\x1f") if word]
    if not alternatives:
        return None
    return re.compile(f"(?:^|{_SEPARATOR})(?:{'|'.join(alternatives)})(?:\\Z|{_SEPARATOR})", _ASCII_NO_CASE)
