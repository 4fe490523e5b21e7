"""A text as the sections of a diff: read as it stands, with nothing put right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from swebench_trainer.answers.blocks import FENCE

DEV_NULL = "/dev/null"

_NUMBERS = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(.*)")
_LOOSE_START = re.compile(r"@@+ *-(\d{1,9})\b")
_HEADER = re.compile(
    r"(index|old mode|new mode|new file mode|deleted file mode|similarity index"
    r"|dissimilarity index|rename from|rename to|copy from|copy to|Binary files"
    r"|---|\+\+\+) "
)
_SIGNATURE = "-- "
"""Ends what `git format-patch` writes; it looks like a deleted line."""
_LIST = re.compile(r"[-+] \S")
"""An item of a list in prose, or a line of a diff."""
_STRAY = re.compile(r"(?!-{2,} ?$|[-+] \S)[-+]|(rename|copy) (from|to) ")
"""A line that has a meaning in a diff alone: no item of a list, no rule, no signature."""


@dataclass(frozen=True)
class RawHunk:
    """A hunk as it was written.

    Attributes:
        header: Its first line, which starts with `@@`.
        lines: Its lines with their marks; an empty one is an empty context line.
        counts: Whether the header gives the numbers of the lines, and rightly.
        short: Whether the header announces more lines than there are.
    """

    header: str
    lines: tuple[str, ...]
    counts: bool
    short: bool

    @property
    def start(self) -> int | None:
        """The first old line, from 1; `None` when the header does not say."""
        found = _LOOSE_START.match(self.header)
        return int(found[1]) if found else None

    @property
    def has_old(self) -> bool:
        """Whether there are lines to be found in the file as it was."""
        return any(line[:1] in ("", " ", "-") for line in self.lines)

    def recounted(self) -> str:
        """The header with the right numbers of lines.

        Raises:
            ValueError: It has no line numbers.
        """
        if self.counts:
            return self.header
        found = _NUMBERS.match(self.header)
        if not found:
            raise ValueError("a hunk without line numbers")
        old = sum(line[:1] in ("", " ", "-") for line in self.lines)
        new = sum(line[:1] in ("", " ", "+") for line in self.lines)
        return f"@@ -{found[1]},{old} +{found[3]},{new} @@{found[5]}"


@dataclass
class Section:
    """What a diff says of one file: header lines, then hunks."""

    header: tuple[str, ...]
    hunks: list[RawHunk] = field(default_factory=list)

    def lines(self, *, recount: bool = False) -> Iterator[str]:
        """The lines as they were written, or with the counts of the hunks put right."""
        yield from self.header
        for hunk in self.hunks:
            yield hunk.recounted() if recount else hunk.header
            yield from hunk.lines


@dataclass(frozen=True)
class Scan:
    """The sections of a text.

    Attributes:
        around: Names of what stands around them.
        last: Number of the last line of a section, from 0.
    """

    sections: tuple[Section, ...]
    around: tuple[str, ...]
    last: int


def scan(lines: Sequence[str]) -> Scan:
    """Finds every section in the lines of a text.

    Raises:
        ValueError: A hunk has no lines, or breaks off, or lacks its header; or the
            patch is binary.
    """
    sections: list[Section] = []
    around: list[str] = []
    at = last = 0
    in_patch = False
    while at < len(lines):
        line = lines[at]
        if _starts_file(lines, at):
            end = _header_end(lines, at)
            sections.append(Section(tuple(lines[at:end])))
        elif sections and (line.startswith("@@ ") or line == "@@"):
            hunk, end = _hunk(lines, at)
            sections[-1].hunks.append(hunk)
        elif line == "GIT binary patch" and sections:
            raise ValueError("a binary patch")
        else:
            fence = FENCE.match(line)
            if fence:
                in_patch = bool(sections) and "diff" in line
            if in_patch and _STRAY.match(line):
                raise ValueError("lines of a patch outside of its hunks")
            if line.strip():
                around.append("fences" if fence else "prose")
            at += 1
            continue
        in_patch = True
        last = end - 1
        at = end
    return Scan(tuple(sections), tuple(dict.fromkeys(around)), last)


def _starts_file(lines: Sequence[str], at: int) -> bool:
    if lines[at].startswith("diff --git "):
        return True
    followed = at + 1 < len(lines) and lines[at + 1].startswith("+++ ")
    return lines[at].startswith("--- ") and followed


def _header_end(lines: Sequence[str], at: int) -> int:
    end = at + (not lines[at].startswith("--- "))
    while end < len(lines) and _HEADER.match(lines[end]):
        end += 1
        if lines[end - 1].startswith("+++ "):
            break
    return end


def _hunk(lines: Sequence[str], at: int) -> tuple[RawHunk, int]:
    """The hunk whose header is line `at`, and where it ends."""
    found = _NUMBERS.match(lines[at])
    old, new = (int(found[2] or 1), int(found[4] or 1)) if found else (0, 0)
    end = _counted_end(lines, at + 1, old, new) if found else None
    if end:
        return RawHunk(lines[at], tuple(lines[at + 1 : end]), True, False), end
    end = _body_end(lines, at + 1)
    body = tuple(lines[at + 1 : end])
    olds = sum(line[:1] in ("", " ", "-") for line in body)
    news = sum(line[:1] in ("", " ", "+") for line in body)
    short = found is not None and olds <= old and news <= new
    return RawHunk(lines[at], body, False, short), end


def _counted_end(lines: Sequence[str], at: int, old: int, new: int) -> int | None:
    """Where a hunk of so many lines ends; `None` when its lines do not add up."""
    while old > 0 or new > 0:
        kind = lines[at][:1] if at < len(lines) else "@"
        if kind not in ("", *" +-\\"):
            return None
        old -= kind in ("", " ", "-")
        new -= kind in ("", " ", "+")
        at += 1
    while at < len(lines) and lines[at].startswith("\\"):
        at += 1
    return None if old or new or _goes_on(lines, at) else at


def _goes_on(lines: Sequence[str], at: int) -> bool:
    """Whether there are more lines of a hunk than its counts say, which end at `at`."""
    behind = at
    while behind < len(lines) and _in_body(lines, behind):
        behind += 1
    # Prose may follow an empty line, which may be one of context as well.
    return (behind > at and bool(lines[at])) or any(map(_STRAY.match, lines[at:behind]))


def _body_end(lines: Sequence[str], at: int) -> int:
    """Where the lines end that can be a hunk's.

    Raises:
        ValueError: There is none, or the hunk breaks off in the middle.
    """
    stop = at
    while stop < len(lines) and _in_body(lines, stop):
        stop += 1
    end = stop
    while end > at and not lines[end - 1]:
        end -= 1
    if end == at:
        raise ValueError("a hunk without lines")
    ended = stop < len(lines) and (
        lines[stop].startswith("@@")
        or lines[stop] == _SIGNATURE
        or FENCE.match(lines[stop])
        or _starts_file(lines, stop)
    )
    if end == stop < len(lines) and not ended:
        raise ValueError("a hunk with a line that is not marked")
    if _LIST.match(lines[end - 1]) and not ended:
        raise ValueError("whether a hunk or a list ends the patch is not clear")
    return end


def _in_body(lines: Sequence[str], at: int) -> bool:
    line = lines[at]
    marked = line[:1] in ("", *" +-\\")
    return marked and line != _SIGNATURE and not _starts_file(lines, at)
