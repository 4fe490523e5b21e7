"""JSON files read row by row, because they may not fit into memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

_READ = 1 << 20
"""Characters per read, doubled for longer items."""
_SPACE = " \t\r\n"
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class JsonLines:
    """The items of a file with one JSON value per line; blank lines are ignored.

    Attributes:
        line: Line of the file, from 1, that was read last.
    """

    def __init__(self, file: TextIO) -> None:
        self.line = 0
        self._file = file

    def __iter__(self) -> Iterator[Any]:
        """The items, read lazily. See `JsonList.__iter__` for the errors."""
        for text in self._file:
            self.line += 1
            if text.strip():
                yield json.loads(text)


class JsonList:
    """The items of one JSON list.

    Args:
        file: An open text file that contains only the list.

    Attributes:
        line: Line of the file, from 1, where the last item or error starts.
    """

    def __init__(self, file: TextIO) -> None:
        self.line = 1
        self._file = file
        self._text, self._at = "", 0

    def __iter__(self) -> Iterator[Any]:
        """The items, read lazily.

        Raises:
            json.JSONDecodeError: The file is not a JSON list; see `line`.
            ValueError: A number has too many digits.
            RecursionError: An item is nested too deeply.
        """
        self._take("[")
        if self._next() == "]":
            return
        while True:
            yield self._item()
            if self._next() == "]":
                self._at += 1
                break
            self._take(",")
            self._next()
        if self._next():
            raise self._wrong("unexpected content after the list")

    def _item(self) -> Any:
        decode = json.JSONDecoder().raw_decode
        while True:
            try:
                value, end = decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_cut_at(error.pos) and self._more():
                    continue
                self._go_to(error.pos)
                raise self._wrong(error.msg) from error
            self._go_to(end)
            return value

    def _is_cut_at(self, place: int) -> bool:
        """Whether the error at a place may be due to the end of the text read so far."""
        if place > len(self._text) - 64:
            return True
        return self._text[place] == '"' and not _STRING.match(self._text, place)

    def _take(self, sign: str) -> None:
        if self._next() != sign:
            raise self._wrong(f"expected {sign!r}")
        self._at += 1

    def _next(self) -> str:
        """The next non-space character; empty at the end."""
        while True:
            at = self._at
            while at < len(self._text) and self._text[at] in _SPACE:
                at += 1
            self._go_to(at)
            if at < len(self._text):
                return self._text[at]
            if not self._more():
                return ""

    def _go_to(self, place: int) -> None:
        self.line += self._text.count("\n", self._at, place)
        self._at = place

    def _more(self) -> bool:
        """Read more text and discard the consumed part."""
        rest = self._text[self._at :]
        read = self._file.read(max(_READ, len(rest)))
        self._text, self._at = rest + read, 0
        return bool(read)

    def _wrong(self, message: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(message, self._text, self._at)
