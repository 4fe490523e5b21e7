"""Finds the position of each table and key in a TOML file.

`tomllib` returns values without positions. This scanner returns positions without
values. It reads text that `tomllib` has accepted, so it only has to find headers
and keys, and to skip strings and arrays that span lines.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

KeyPath = tuple[str, ...]

_HEADER = re.compile(r"^\s*\[\[?\s*(?P<keys>[^\]]+?)\s*\]\]?\s*(#.*)?$")
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY = re.compile(rf"^\s*(?P<keys>{_PART}(?:\s*\.\s*{_PART})*)\s*=")
_INLINE_KEY = re.compile(rf"[{{,]\s*(?P<keys>{_PART})\s*=")
_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*',
    re.DOTALL,
)


@dataclass(frozen=True)
class Place:
    """A position in a text. `line` and `column` count from 1.

    Attributes:
        width: Number of characters to underline.
    """

    line: int
    column: int
    width: int


def locate(text: str) -> dict[KeyPath, Place]:
    """Find every table header and key of a valid TOML text.

    The n-th of several `[[table]]` is `("table", "n")`, counted from 1.
    """
    places: dict[KeyPath, Place] = {}
    table: KeyPath = ()
    blanked = _blank_values(text).split("\n")
    depth = 0
    entries: Counter[KeyPath] = Counter()
    for number, line in enumerate(blanked, start=1):
        if depth == 0 and (header := _HEADER.match(line)):
            table = _split(header["keys"])
            places[table] = _place(number, header)
            if line.lstrip().startswith("[["):  # the n-th of a list of tables
                entries[table] += 1
                table = (*table, str(entries[table]))
                places[table] = _place(number, header)
            continue
        if depth == 0 and (key := _KEY.match(line)):
            path = table + _split(key["keys"])
            places[path] = _place(number, key)
            for inner in _INLINE_KEY.finditer(line, key.end()):
                places[path + _split(inner["keys"])] = _place(number, inner)
        depth += sum(map(line.count, "[{")) - sum(map(line.count, "]}"))
    return places


def _place(line: int, found: re.Match[str]) -> Place:
    start, end = found.span("keys")
    return Place(line, start + 1, end - start)


def _blank_values(text: str) -> str:
    """The text with strings and comments replaced by spaces, at the same length.

    Quoted keys are kept; they are followed by `=`, `.` or `]`.
    """

    def blanked(match: re.Match[str]) -> str:
        is_key = re.match(r"\s*[=.\]]", text[match.end() : match.end() + 20])
        if is_key and not match[0].startswith("#"):
            return match[0]
        return re.sub(r"[^\n]", " ", match[0])

    return _STRING_OR_COMMENT.sub(blanked, text)


def _split(keys: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(_PART, keys))
