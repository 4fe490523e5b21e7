"""Keeps API keys out of messages, logs and events: error texts of SDKs may repeat one."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from html.entities import codepoint2name

SECRET_SUFFIXES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""Environment variables whose names end with one of these hold secrets."""
MIN_LENGTH = 8
"""Shortest value that counts as a secret, in characters."""


def without_secrets(text: str) -> str:
    """The text, with `$NAME` in place of the value of each secret variable."""
    for name, value in os.environ.items():
        if name.upper().endswith(SECRET_SUFFIXES) and len(value) >= MIN_LENGTH:
            text = without_secret(text, value, f"${name}")
    return text


def without_secret(text: str, secret: str, hidden: str) -> str:
    """The text with `hidden` in place of a secret, however it is escaped.

    Texts of services repeat a key in JSON strings, also nested ones, in addresses, and
    in HTML.
    """
    if secret.isascii() and secret.isalnum():
        return text.replace(secret, hidden)
    return _spellings(secret).sub(lambda _: hidden, text)


@lru_cache(maxsize=64)
def _spellings(secret: str) -> re.Pattern[str]:
    return re.compile("".join(map(_spelled, secret)))


def _spelled(character: str) -> str:
    """A pattern for a character with any number of backslashes, or as an escape."""
    if character.isascii() and character.isalnum():
        return character
    literal = re.escape(character)
    code = ord(character)
    escapes = [
        rf"\\*{literal}" if character != "\\" else r"\\+",
        rf"\\+(?i:u{code:04x}|x{code:02x})",
        "".join(f"%(?i:{byte:02x})" for byte in character.encode(errors="replace")),
        rf"&#0*{code};",
        rf"&#(?i:x0*{code:x});",
    ]
    if name := codepoint2name.get(code):
        escapes.append(f"&{name};")
    return f"(?:{'|'.join(escapes)})"
