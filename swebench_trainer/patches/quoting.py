"""git's quoting of unusual file names in the headers of a diff."""

from __future__ import annotations

import re

# The closing quote may be missing in text written by a model.
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"?')
_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
_CONTROLS = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}


def unquote(text: str) -> str:
    """Undoes git's C-style quoting wherever a text has quotes.

    Escapes stand for bytes; those that are not UTF-8 become surrogate escapes.
    """
    if '"' not in text:
        return text
    plain = QUOTED.sub(lambda quoted: _ESCAPE.sub(_unescape, quoted[1]), text)
    try:
        return plain.encode("utf-8", "surrogateescape").decode(
            "utf-8", "surrogateescape"
        )
    except UnicodeEncodeError:  # a lone surrogate that does not stand for a byte
        return plain


def _unescape(escape: re.Match[str]) -> str:
    code = escape[1]
    if len(code) == 1:
        return _CONTROLS.get(code, code)
    byte = int(code, 8) & 0xFF
    return chr(byte if byte < 0x80 else 0xDC00 + byte)
