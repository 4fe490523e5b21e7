"""git's quoting of unusual file names in the headers of a diff."""

from __future__ import annotations

import re
from contextlib import suppress

# The closing quote may be missing in text written by a model.
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"?')
_WHOLE = re.compile(r'"(?:[^"\\]|\\.)*"')
# Equal names, with and without prefixes.
_TWICE = re.compile(r"[^/ ]*/(?P<path>.{1,1024}) [^/ ]*/(?P=path)")
_BARE_TWICE = re.compile(r"(?P<path>.{1,1024}) (?P=path)")
_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
_CONTROLS = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))


def unquote(text: str) -> str:
    """Undoes git's C-style quoting wherever a text has quotes.

    Escapes stand for bytes; those that are not UTF-8 become surrogate escapes.
    """
    if '"' not in text:
        return text
    plain = QUOTED.sub(lambda quoted: _ESCAPE.sub(_unescape, quoted[1]), text)
    with suppress(UnicodeEncodeError):  # a lone surrogate that is not a byte
        encoded = plain.encode("utf-8", "surrogateescape")
        return encoded.decode("utf-8", "surrogateescape")
    return plain


def unquote_name(written: str) -> str:
    """A name in a header; only a quotation mark at its start is git's quoting."""
    return unquote(written) if written.startswith('"') else written


def header_names(line: str) -> tuple[str, str] | None:
    """The names in a `diff --git` line, as written there without quotes.

    Unquoted names that contain spaces can be separated only if they are equal except
    for their prefixes; for any other line, `None`.
    """
    text = line.removeprefix("diff --git ").rstrip("\r\n")
    quoted = _WHOLE.match(text)
    at = quoted.end() if quoted else text.find(' "')
    if at >= 0:
        first, second = text[:at], text[at + 1 :]
        separated = text[at : at + 1] == " " and bool(second)
        whole = second[:1] != '"' or _WHOLE.fullmatch(second)
        return (
            (unquote_name(first), unquote_name(second)) if separated and whole else None
        )
    if twice := _TWICE.fullmatch(text):
        path = twice["path"]
        return text[: twice.end("path")], text[-len(path) - _prefix(text, path) :]
    if bare := _BARE_TWICE.fullmatch(text):
        return bare["path"], bare["path"]
    return None


def _prefix(text: str, path: str) -> int:
    """Length of the prefix of the second name, including its slash."""
    return len(text[: -len(path)]) - text.rfind(" ", 0, len(text) - len(path)) - 1


def _unescape(escape: re.Match[str]) -> str:
    code = escape[1]
    if len(code) == 1:
        return _CONTROLS.get(code, code)
    byte = int(code, 8) & 0xFF
    return chr(byte if byte < 0x80 else 0xDC00 + byte)
