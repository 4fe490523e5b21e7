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
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL
)
_COMMENT = re.compile(r"#[^\n]*")


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
            start, end = header.span("keys")
            places[table] = Place(number, start + 1, end - start)
            if line.lstrip().startswith("[["):  # the n-th of a list of tables
                entries[table] += 1
                table = (*table, str(entries[table]))
                places[table] = Place(number, start + 1, end - start)
            continue
        if depth == 0 and (key := _KEY.match(line)):
            path = table + _split(key["keys"])
            start, end = key.span("keys")
            places[path] = Place(number, start + 1, end - start)
            for inner in _INLINE_KEY.finditer(line, key.end()):
                start, end = inner.span("keys")
                places[path + _split(inner["keys"])] = Place(
                    number, start + 1, end - start
                )
        depth += sum(map(line.count, "[{")) - sum(map(line.count, "]}"))
    return places


def _blank_values(text: str) -> str:
    """The text with strings and comments replaced by spaces, at the same length.

    Quoted keys are kept; they are followed by `=`, `.` or `]`.
    """
    pieces: list[str] = []
    position = 0
    pattern = re.compile(f"{_STRING.pattern}|{_COMMENT.pattern}", re.DOTALL)
    for match in pattern.finditer(text):
        pieces.append(text[position : match.start()])
        is_key = re.match(r"\s*[=.\]]", text[match.end() : match.end() + 20])
        if match[0].startswith("#") or not is_key:
            pieces.append(re.sub(r"[^\n]", " ", match[0]))
        else:
            pieces.append(match[0])
        position = match.end()
    pieces.append(text[position:])
    return "".join(pieces)


def _split(keys: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(_PART, keys))
