"""Texts of others as data: JSON in which no character can end a delimiter, a line, or a chat template's turn."""

from __future__ import annotations

import json
import re
from typing import Any

# < and > end delimiters and special tokens, and so do words in square brackets; the others are invisible, reorder
# what is shown, end a line somewhere, or cannot be encoded. All stand in JSON strings only, where \u00xx is the same.
_UNSAFE = re.compile(
    "[<>\x7f-\xa0\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff0-\uffff\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
    r"|\[(?=/?[A-Z_]{2,40}\])"
)


def as_data(value: Any) -> str:
    """Return JSON on one line that holds neither < nor >, and reads back as exactly the value."""
    return _UNSAFE.sub(_escape, json.dumps(value, ensure_ascii=False))


def cut(text: str, most_characters: int) -> str:
    """Return the text, or its beginning and its end with a note between them of how much is left out."""
    left_out = len(text) - most_characters
    if left_out <= 0:
        return text
    tail = most_characters // 2
    return f"{text[: most_characters - tail]}\n[… {left_out:,} characters left out …]\n{text[len(text) - tail :]}"


def cut_value(value: Any, most_characters: int) -> Any:
    """Return a JSON value, or its text cut when that is too long, or a note when it is nested too deeply."""
    if value is None or isinstance(value, str):
        return None if value is None else cut(value, most_characters)
    try:
        text = json.dumps([[[[[[[[value]]]]]]]], ensure_ascii=False)[8:-8]  # as deep as it will stand in a prompt
    except RecursionError:
        return "(nested too deeply to be shown)"
    return value if len(text) <= most_characters else cut(text, most_characters)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
