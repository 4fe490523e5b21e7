"""Reverses patches, for data sets that store the patch that breaks the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from swebench_trainer.patches.lenient_diff import GIT_HEADER, scan

_SIDES = re.compile(r"@@ -(\S+) \+(\S+) @@")
_BLOBS = re.compile(r"^index (\w+)\.\.(\w+)")
_PAIRS = (("old mode ", "new mode "), ("rename from ", "rename to "))
_NO_NEWLINE = "\\"


def reverse(patch: str) -> str:
    """Returns the patch that undoes `patch`; text around the patch is dropped.

    Raises:
        ValueError: A hunk is incomplete, or the patch has a binary file or a copy,
            which a diff cannot undo.
    """
    found = scan(patch.removesuffix("\n").split("\n"))
    hunks = [hunk for section in found.sections for hunk in section.hunks]
    complete = not found.problem and all(hunk.counts for hunk in hunks)
    if not complete or bool(found.sections) != bool(patch.strip()):
        raise ValueError("the patch is incomplete, so it cannot be reversed")
    out: list[str] = []
    for section in found.sections:
        out += _reverse_headers(section.header)
        for hunk in section.hunks:
            out.append(_SIDES.sub(r"@@ -\2 +\1 @@", hunk.header, count=1))
            out += _reverse_lines(hunk.lines)
    return "\n".join(out) + ("\n" if patch.endswith("\n") else "")


def _reverse_lines(lines: Iterable[str]) -> list[str]:
    """The lines of a hunk, with removed lines before added ones as usual."""
    out: list[str] = []
    removed: list[str] = []
    added: list[str] = []
    last = out
    for line in lines:
        if line.startswith(_NO_NEWLINE):
            last.append(line)
        elif line.startswith(("+", "-")):
            last = removed if line[0] == "+" else added
            last.append(("-" if line[0] == "+" else "+") + line[1:])
        else:
            out += [*removed, *added, line]
            removed, added, last = [], [], out
    return [*out, *removed, *added]


def _reverse_headers(lines: Iterable[str]) -> Iterator[str]:
    waiting = iter(lines)
    for line in waiting:
        pair = next((pair for pair in _PAIRS if line.startswith(pair[0])), None)
        if pair:
            after = _after(waiting, pair[1])
            yield pair[0] + after
            yield pair[1] + line.removeprefix(pair[0])
        elif line.startswith("--- "):
            after = _after(waiting, "+++ ")
            yield "--- " + re.sub("^b/", "a/", after)
            yield "+++ " + re.sub("^a/", "b/", line.removeprefix("--- "))
        else:
            yield _reverse_header(line)


def _after(lines: Iterator[str], start: str) -> str:
    line = next(lines, "")
    if not line.startswith(start):
        raise ValueError(f"the patch cannot be reversed: it has no line {start!r}")
    return line.removeprefix(start)


def _reverse_header(line: str) -> str:
    if line.startswith(("Binary files ", "copy from ")):
        raise ValueError(f"the patch cannot be reversed: {line[:40]!r}")
    if line.startswith("new file mode "):
        return line.replace("new", "deleted", 1)
    if line.startswith("deleted file mode "):
        return line.replace("deleted", "new", 1)
    if line.startswith("index "):
        return _BLOBS.sub(r"index \2..\1", line)
    if match := GIT_HEADER.fullmatch(line):
        names = line.removeprefix("diff --git ")
        half = len(names) // 2
        if names[2:half] != names[half + 3 :]:  # else one name, maybe with " b/" in it
            return f"diff --git a/{match[2]} b/{match[1]}"
    return line
