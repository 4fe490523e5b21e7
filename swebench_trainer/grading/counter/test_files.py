"""Test files as far as a test patch shows them, and patches that change them further."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from swebench_trainer.patches.quoting import unquote

_SECTION = re.compile(r"diff --git ")
_NEW_NAME = re.compile(r"\+\+\+ (?P<name>.+?)\t?$")
_OLD_NAME = re.compile(r"--- (?P<name>.+?)\t?$")
_HUNK = re.compile(
    r"@@ -\d+(?:,(?P<old>\d+))? \+(?P<start>\d+)(?:,(?P<new>\d+))? @@ ?(?P<heading>.*)"
)
CONTEXT = 3
"""Lines of context around a change that git shows."""


@dataclass(frozen=True)
class Line:
    """A line of a file after the test patch.

    Attributes:
        number: Its number in the file, from 1.
        row: Its index among the lines of the patch.
    """

    number: int
    text: str
    added: bool
    row: int


@dataclass(frozen=True)
class Hunk:
    """Consecutive lines of a file.

    Attributes:
        heading: What git shows as the beginning of the enclosing definition.
        fixed: Numbers of lines that must stay, because git would look for the hunk at
            the end of the file if it ended with a change.
    """

    heading: str
    lines: tuple[Line, ...]
    fixed: frozenset[int] = frozenset()


@dataclass(frozen=True)
class TestFile:
    """A file after the test patch.

    Attributes:
        hunks: Its visible parts, in order.
        complete: Whether the whole file is visible.
        new: Whether the patch adds the file.
    """

    __test__ = False

    path: str
    hunks: tuple[Hunk, ...]
    complete: bool = False
    new: bool = False


Edits = Mapping[str, Mapping[int, str]]
"""New lines by path and line number."""


class TestPatch:
    """A test patch in git's format.

    Args:
        text: The patch.
        files: Complete files after the patch, where they are known.
    """

    __test__ = False

    def __init__(self, text: str, files: Mapping[str, str] | None = None) -> None:
        self.text = text
        self._rows = text.split("\n")
        self._known = files or {}

    @cached_property
    def files(self) -> dict[str, TestFile]:
        """The files of the patch that still exist after it, by path."""
        found: dict[str, TestFile] = {}
        for path, new, hunks in self._sections():
            if path in self._known:
                found[path] = _complete(path, self._known[path], hunks, new)
            elif hunks:
                found[path] = TestFile(path, hunks, complete=new, new=new)
        return found

    def edited(self, edits: Edits) -> str:
        """The patch that leaves other lines in their place.

        Hunks keep their size and place, so every line keeps its number.

        Raises:
            KeyError: A line is not visible in the patch.
        """
        rows = {row: line for row, line in enumerate(self._rows)}
        lines = {
            (path, line.number): line
            for path, file in self.files.items()
            for hunk in file.hunks
            for line in hunk.lines
            if line.row >= 0
        }
        for path, changes in edits.items():
            for number, text in changes.items():
                line = lines[path, number]
                rows[line.row] = self._changed(line, text)
        return "\n".join(rows.values())

    def on_top(self, edits: Edits) -> str:
        """A small patch that makes the changes in files that already are in place."""
        parts = []
        for path, changes in edits.items():
            parts.append(f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n")
            parts += [
                self._small_hunk(hunk, changes) for hunk in self.files[path].hunks
            ]
        return "".join(parts)

    def _small_hunk(self, hunk: Hunk, changes: Mapping[int, str]) -> str:
        numbers = [line.number for line in hunk.lines if line.number in changes]
        if not numbers:
            return ""
        first, last = numbers[0] - CONTEXT, numbers[-1] + CONTEXT
        lines = [line for line in hunk.lines if first <= line.number <= last]
        start, size = lines[0].number, len(lines)
        rows = [f"@@ -{start},{size} +{start},{size} @@"]
        for line in lines:
            old = (line.text, *self._end_mark(line))
            if line.number in changes:
                new = (changes[line.number], *self._end_mark(line))
                rows += [f"-{old[0]}", *old[1:], f"+{new[0]}", *new[1:]]
            else:
                rows += [f" {old[0]}", *old[1:]]
        return "\n".join(rows) + "\n"

    def _changed(self, line: Line, text: str) -> str:
        if line.added:
            return f"+{text}"
        old = "\n".join((f"-{line.text}", *self._end_mark(line)))
        return f"{old}\n+{text}"

    def _end_mark(self, line: Line) -> list[str]:
        r"""The row `\ No newline at end of file` after a line, if there is one."""
        return [
            row for row in self._rows[line.row + 1 : line.row + 2] if row[:1] == "\\"
        ]

    def _sections(self) -> list[tuple[str, bool, tuple[Hunk, ...]]]:
        starts = [n for n, row in enumerate(self._rows) if _SECTION.match(row)]
        ends = [*starts[1:], len(self._rows)]
        sections = (self._section(*ends) for ends in zip(starts, ends, strict=True))
        return [section for section in sections if section[0]]

    def _section(self, start: int, end: int) -> tuple[str, bool, tuple[Hunk, ...]]:
        path, new = "", False
        hunks: list[Hunk] = []
        row = start + 1
        while row < end:
            text = self._rows[row]
            row += 1
            if not hunks and (name := _OLD_NAME.match(text)):
                new = name["name"] == "/dev/null"
            elif not hunks and (name := _NEW_NAME.match(text)):
                named = unquote(name["name"])
                path = "" if named == "/dev/null" else named.partition("/")[2]
            elif head := _HUNK.match(text):
                hunk, row = self._hunk(head, row)
                hunks.append(hunk)
        return path, new, tuple(hunks)

    def _hunk(self, head: re.Match[str], row: int) -> tuple[Hunk, int]:
        number = int(head["start"])
        old, new = (int(head[side] or 1) for side in ("old", "new"))
        lines: list[Line] = []
        while (old > 0 or new > 0) and row < len(self._rows):
            text = self._rows[row]
            kind = text[:1] or " "
            if kind in "+ ":
                lines.append(Line(number, text[1:], kind == "+", row))
                number += 1
            old -= kind in "- "
            new -= kind in "+ "
            row += 1
        last = lines[-1:] if lines and not lines[-1].added else []
        fixed = frozenset(line.number for line in last)
        return Hunk(head["heading"], tuple(lines), fixed), row


def _complete(path: str, content: str, hunks: tuple[Hunk, ...], new: bool) -> TestFile:
    """A file of which the patch shows a part and the whole is known."""
    shown = {line.number: line for hunk in hunks for line in hunk.lines}
    fixed = frozenset[int]().union(*(hunk.fixed for hunk in hunks))
    lines = tuple(
        shown.get(number) or Line(number, text, added=False, row=-1)
        for number, text in enumerate(content.split("\n"), 1)
    )
    hidden = frozenset(line.number for line in lines if line.row < 0)
    return TestFile(path, (Hunk("", lines, fixed | hidden),), complete=True, new=new)
