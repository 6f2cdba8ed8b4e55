"""Text in a page: escaped, and without characters that reorder or hide what is read."""

from __future__ import annotations

import html
import re

# Control characters, marks that reorder text, what no page may hold. Tab and newline stay.
_HOSTILE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\uffff\ud800-\udfff]"
)


def escaped(text: object) -> str:
    """Return text for the inside of an element or of a quoted attribute; hostile characters become visible codes."""
    return html.escape(_HOSTILE.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text)), quote=True)


def element(name: str, inside: str = "", **attributes: object) -> str:
    """Return an element around markup; attribute values are escaped, and _ in their names stands for -."""
    given = "".join(f' {key.strip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    return f"<{name}{given}>{inside}</{name}>"


def text(name: str, inside: object, **attributes: object) -> str:
    """Return an element around text."""
    return element(name, escaped(inside), **attributes)
