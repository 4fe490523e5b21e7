"""What a prompt shows of a file: all of it, or some of its lines and what is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import Text, read_file
from swebench_trainer.types import is_unicode

NOTE = (
    "`[n lines not shown]` stands for lines of a file that are left out here; it is no "
    "line of the file."
)
"""What a prompt says of the files that it does not show whole."""

_LEAST_GAP = 3
"""Fewer lines between two regions are shown: to say that they are missing costs as much."""

_LONGEST_LINE = 2000
"""Characters of a line; nobody writes longer ones by hand."""


@dataclass(frozen=True)
class View:
    """A file as a prompt shows it.

    Attributes:
        lines: All lines of the file.
        shown: Those that are shown, as ranges of indexes that ascend and do not touch.
    """

    path: str
    lines: tuple[str, ...]
    shown: tuple[range, ...]

    @classmethod
    def whole(cls, path: str, lines: tuple[str, ...]) -> View:
        """All of a file."""
        return cls(path, lines, (range(len(lines)),))

    @property
    def complete(self) -> bool:
        """Whether every line is shown."""
        return sum(map(len, self.shown)) == len(self.lines)

    def __str__(self) -> str:
        parts: list[str] = []
        at = 0
        for region in self.shown:
            parts += _left_out(region.start - at)
            parts += self.lines[region.start : region.stop]
            at = region.stop
        parts += _left_out(len(self.lines) - at)
        content = str(Text(tuple(parts)))
        # A fence longer than any in the file cannot be closed by the file.
        ticks = "`" * (max(map(len, re.findall(r"`{3,}", content)), default=2) + 1)
        return f"{self.path}\n{ticks}\n{content}{ticks}"


def _left_out(count: int) -> list[str]:
    return [f"[{count} lines not shown]"] if count else []


def merge(regions: Iterable[range], length: int) -> tuple[range, ...]:
    """The regions in order, those that nearly touch each other or an end joined to it.

    Args:
        regions: Of a file's lines, in any order; empty ones do not count.
        length: Lines of the file.
    """
    merged: list[range] = []
    for region in sorted((r for r in regions if r), key=lambda r: (r.start, r.stop)):
        end = merged[-1].stop if merged else 0
        if region.start - end >= _LEAST_GAP:
            merged.append(region)
        elif merged:
            merged[-1] = range(merged[-1].start, max(end, region.stop))
        else:
            merged.append(range(0, region.stop))
    if merged and length - merged[-1].stop < _LEAST_GAP:
        merged[-1] = range(merged[-1].start, length)
    return tuple(merged)


def read_text(tree: Tree, path: str) -> Text:
    """A file that a prompt can show.

    Raises:
        ValueError: It is not there, or no text; the message says so.
    """
    file = read_file(tree, path)
    if file is None:
        raise ValueError(f"the repository has no file {path}")
    if not is_unicode(str(file.text)):
        raise ValueError(f"{path} is not UTF-8 text")
    return file.text


def read_source(tree: Tree, path: str) -> Text:
    """A file that people have written, for prompts that could do without it.

    Raises:
        ValueError: As `read_text`; or the file is generated, minified, or empty.
    """
    text = read_text(tree, path)
    if not text.lines:
        raise ValueError(f"{path} is empty")
    if max(map(len, text.lines)) > _LONGEST_LINE:
        raise ValueError(
            f"{path} has lines of more than {_LONGEST_LINE} characters, as generated files have"
        )
    return text
