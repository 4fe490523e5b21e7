"""Applies the hunks of a damaged diff to a file.

Each hunk is placed by its old lines: at the line number in its header if they are
there, otherwise at the only place in the file that has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from swebench_trainer.answers.errors import AmbiguousError, NoPlaceError
from swebench_trainer.patches.files import Text, find_lines
from swebench_trainer.patches.lenient_diff import RawHunk


def apply_hunks(
    path: str, text: Text, hunks: Sequence[RawHunk], tab: int
) -> tuple[Text, list[str]]:
    """The text after all hunks, and the names of the repairs.

    Raises:
        NoPlaceError: A hunk fits nowhere.
        AmbiguousError: A hunk fits two places.
        ValueError: Two hunks overlap, or line endings are ambiguous.
    """
    repairs: list[str] = []
    edits: list[tuple[int, int, tuple[str, ...]]] = []
    newline = text.newline
    lines = _spaced(text, tab)
    indented = lines != text.lines
    places = [_place(path, lines, hunk, tab, repairs) for hunk in hunks]
    # Line endings found for one hunk hold for the others too, which may only add lines.
    end_line = _line_end(path, text) if any(ends for _, ends in places) else None
    placed: list[tuple[int, tuple[str, ...]]] = []
    for hunk, (start, _) in zip(hunks, places, strict=True):
        if (start, hunk.lines) in placed:
            repairs.append("repeats")
            continue
        placed.append((start, hunk.lines))
        old, runs = _runs(hunk)
        for first, last, added in runs:
            new = (
                _as_in_file(line, lines, text, tab if indented else 0, end_line)
                for line in added
            )
            edits.append((start + first, start + last, tuple(new)))
        newline = _newline(path, text, hunk, start + old, newline, repairs)
    edits.sort(key=lambda edit: edit[:2])
    result: list[str] = []
    done = 0
    insertion = None
    for first, last, lines_after in edits:
        if first < done or first == last == insertion:
            raise ValueError(f"two hunks change the same lines of {path}")
        result += (*text.lines[done:first], *lines_after)
        done = last
        insertion = last if first == last else None
    result += text.lines[done:]
    return Text(tuple(result), newline or not result), repairs


def _place(
    path: str, lines: Sequence[str], hunk: RawHunk, tab: int, repairs: list[str]
) -> tuple[int, bool]:
    """Index of the first old line, and whether only the line endings differ.

    Raises:
        NoPlaceError: The old lines are nowhere.
        AmbiguousError: The old lines are in several places.
        ValueError: The hunk only inserts lines, without context.
    """
    old = [line[1:] for line in hunk.lines if line[:1] in ("", " ", "-")]
    if not hunk.counts:
        repairs.append("hunk-counts")
    if not old:
        if lines:
            raise ValueError(f"an insertion into {path} has no context")
        return 0, False
    starts = _find(lines, old, hunk.start)
    line_ends = not starts
    if line_ends:
        lines = [line.rstrip("\r") for line in lines]
        starts = _find(lines, [line.rstrip("\r") for line in old], hunk.start)
        repairs.append("crlf")
    if not starts:
        raise NoPlaceError(f"a hunk fits nowhere in {path}")
    stated = hunk.start == starts[0] + 1
    if len(starts) > 1 and (tab or not stated):
        raise AmbiguousError(f"a hunk fits several places in {path}")
    if not stated:
        repairs.append("line-numbers")
    return starts[0], line_ends


def _find(lines: Sequence[str], old: Sequence[str], stated: int | None) -> list[int]:
    """Up to two indexes of `lines` where `old` begins, the stated place first."""
    found = find_lines(lines, old)
    at = (stated or 0) - 1
    if at >= 0 and [*lines[at : at + len(old)]] == [*old]:
        found = [at, *(place for place in found if place != at)]
    return found[:2]


def _runs(hunk: RawHunk) -> tuple[int, list[tuple[int, int, list[str]]]]:
    """The number of old lines, and the changes: from, to (old lines), lines added."""
    runs: list[tuple[int, int, list[str]]] = []
    at = 0
    changing = False
    for line in hunk.lines:
        kind = line[:1] or " "
        if kind == "\\":
            continue
        if kind == " ":
            changing = False
        elif not changing:
            runs.append((at, at, []))
            changing = True
        if kind == "+":
            runs[-1][2].append(line[1:])
        if kind == "-":
            first, _, added = runs[-1]
            runs[-1] = (first, at + 1, added)
        at += kind != "+"
    return at, runs


def _line_end(path: str, text: Text) -> str:
    r"""What precedes the newlines of a file: nothing, or `\r`."""
    ended = text.lines if text.newline else text.lines[:-1]
    ends = {line.endswith("\r") for line in ended}
    if len(ends) != 1:
        raise ValueError(f"{path} mixes two kinds of line endings")
    return "\r" if ends.pop() else ""


def _as_in_file(
    line: str, spaced: Sequence[str], text: Text, tab: int, line_end: str | None
) -> str:
    """An added line with the tabs and line endings of its file."""
    if line_end is not None:
        line = line.rstrip("\r") + line_end
    if not tab:
        return line
    if line in spaced:
        return text.lines[spaced.index(line)]
    return _tabbed(line, tab)


def _spaced(text: Text, tab: int) -> tuple[str, ...]:
    """The lines with tabs as spaces, if every line can be converted back."""
    if not tab:
        return text.lines
    spaced = []
    for line in text.lines:
        bare = line.lstrip("\t ")
        indent = line[: len(line) - len(bare)].replace("\t", " " * tab)
        spaced.append(indent + bare)
        if "\t" in bare or _tabbed(spaced[-1], tab) != line:
            return text.lines
    return tuple(spaced)


def _tabbed(line: str, tab: int) -> str:
    bare = line.lstrip(" ")
    tabs, rest = divmod(len(line) - len(bare), tab)
    return "\t" * tabs + " " * rest + bare


def _newline(
    path: str, text: Text, hunk: RawHunk, end: int, newline: bool, repairs: list[str]
) -> bool:
    """Whether the file ends with a newline after a hunk whose old lines end at `end`."""
    marked = ""
    last = ""
    sides = {"old": False, "new": False}
    for line in hunk.lines:
        if line.startswith("\\"):
            marked += last
            sides["old"] |= last in (" ", "-")
            sides["new"] |= last in (" ", "+")
        else:
            last = line[:1] or " "
            # A mark only counts for the last line of its side.
            sides["old"] &= last == "+"
            sides["new"] &= last == "-"
    at_end = end == len(text.lines)
    untouched = last == " "
    if at_end and sides["old"] == (not text.newline):
        return not sides["new"]
    if untouched:
        if marked or (at_end and not text.newline):
            repairs.append("end-of-file")
        return newline
    if at_end or marked:
        raise ValueError(f"whether {path} ends with a newline is ambiguous")
    return newline
