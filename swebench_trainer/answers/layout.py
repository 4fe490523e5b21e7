"""Where a text has the parts of a patch, whose lines are content and not markup."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

from swebench_trainer.patches.lenient_diff import FENCE


@dataclass(frozen=True)
class Layout:
    """A text and the parts of a patch in it.

    Attributes:
        text: The text.
        parts: Index ranges of the hunks or blocks, in order and without overlaps.
    """

    text: str
    parts: tuple[range, ...]

    @classmethod
    def of_lines(cls, text: str, parts: Iterable[range]) -> Layout:
        """The layout of a text, given the line indexes of the parts."""
        lengths = (len(line) + 1 for line in text.split("\n"))
        starts = list(accumulate(lengths, initial=0))
        spans = (range(starts[p.start], starts[p.stop] - 1) for p in parts)
        return cls(text, tuple(spans))

    def part_at(self, at: int) -> range | None:
        """The part that contains an index of the text."""
        number = bisect_right(self.parts, at, key=lambda part: part.start) - 1
        found = self.parts[number] if number >= 0 else range(0)
        return found if at in found else None

    def has_part(self, start: int, stop: int) -> bool:
        """Whether a part begins between two indexes of the text."""
        return any(start <= part.start < stop for part in self.parts)

    def in_fence(self, stop: int) -> bool:
        """Whether a Markdown code block is open before an index of the text."""
        fences = at = 0
        for line in self.text[:stop].split("\n"):
            fences += bool(FENCE.match(line)) and self.part_at(at) is None
            at += len(line) + 1
        return fences % 2 == 1


LayoutOf = Callable[[str], Layout]
"""Finds the parts of a patch in a text; each answer format has its own."""
