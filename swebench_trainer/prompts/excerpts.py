"""File excerpts in prompts: whole files, or regions with the omitted lines counted."""

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
"""Explains the marker in prompts with cropped files."""

_LEAST_GAP = 3
"""Shorter gaps between two regions are shown: a marker costs as many tokens."""

_LONGEST_LINE = 2000
"""Characters of a line; longer lines are not written by hand."""


@dataclass(frozen=True)
class Excerpt:
    """A file as a prompt shows it.

    Attributes:
        lines: All lines of the file.
        shown: The shown lines, as ascending ranges of indexes that do not touch.
    """

    path: str
    lines: tuple[str, ...]
    shown: tuple[range, ...]

    @classmethod
    def whole(cls, path: str, lines: tuple[str, ...]) -> Excerpt:
        """A whole file."""
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
    """The regions in order, joined with their neighbors or a file end if nearly touching.

    Args:
        regions: Ranges of line indexes in any order; empty ones are ignored.
        length: Number of lines of the file.
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
    """Read a file that a prompt can show.

    Raises:
        ValueError: The file is missing or is not text.
    """
    file = read_file(tree, path)
    if file is None:
        raise ValueError(f"the repository has no file {path}")
    if not is_unicode(str(file.text)):
        raise ValueError(f"{path} is not UTF-8 text")
    return file.text


def read_source(tree: Tree, path: str) -> Text:
    """Read a handwritten source file, for prompts where the file is optional.

    Raises:
        ValueError: See `read_text`; or the file is generated, minified, or empty.
    """
    text = read_text(tree, path)
    if not text.lines:
        raise ValueError(f"{path} is empty")
    if max(map(len, text.lines)) > _LONGEST_LINE:
        raise ValueError(
            f"{path} looks generated: it has lines of more than {_LONGEST_LINE} characters"
        )
    return text
