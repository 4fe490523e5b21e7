"""Unified diffs as data sets have them: what they change, and the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_GIT = re.compile(r"diff --git a/(.+) b/(.+)")
_NO_FILE = "/dev/null"


@dataclass
class Section:
    """The part of a diff that is about one file.

    Attributes:
        paths: Its names before and after; one, or two when it was moved.
        changes: Removed and added lines in their order, each behind `-` or `+`.
    """

    paths: set[str] = field(default_factory=set)
    changes: list[str] = field(default_factory=list)


def sections(patch: str) -> Iterator[Section]:
    """The files of a diff, with or without git's own header lines.

    Nothing in a patch makes it raise: what is no diff has no files.
    """
    section, old, new = Section(), 0, 0
    in_hunks = False
    for line in patch.replace("\r\n", "\n").split("\n"):
        if old > 0 or new > 0:  # inside of a hunk nothing is a header
            sign = line[:1]
            old -= sign in ("-", " ", "")
            new -= sign in ("+", " ", "")
            if sign in ("-", "+"):
                section.changes.append(line)
        elif hunk := _HUNK.match(line):
            old, new = (int(count or 1) for count in hunk.groups())
            in_hunks = True
        elif line.startswith("diff --git ") or (in_hunks and line.startswith("--- ")):
            if section.paths:
                yield section
            section, in_hunks = Section(), False
            if match := _GIT.fullmatch(line):
                section.paths.update(match.groups())
            else:
                section.paths.update(_paths(line))
        elif not in_hunks:
            section.paths.update(_paths(line))
    if section.paths:
        yield section


def _paths(line: str) -> set[str]:
    """The path of a header line such as `--- a/x`, if it has one."""
    for head in ("--- ", "+++ ", "rename from ", "rename to "):
        if line.startswith(head):
            path = line.removeprefix(head).partition("\t")[0].strip().strip('"')
            if head.strip() in ("---", "+++"):
                path = path.removeprefix("a/" if head[0] == "-" else "b/")
            return {path} - {_NO_FILE, ""}
    return set()


def reverse(patch: str) -> str:
    """The patch that takes back what `patch` does.

    Raises:
        ValueError: It is no whole text diff: a hunk is cut short, or a binary file or
            a copy is in it, which a diff cannot take back.
    """
    lines = patch.split("\n")
    out: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if hunk := _HUNK.match(line):
            size = _hunk_size(lines, at + 1, *(int(n or 1) for n in hunk.groups()))
            out.append(_HUNK_SIDES.sub(r"@@ -\2 +\1 @@", line, count=1))
            out += _reverse_lines(lines[at + 1 : at + 1 + size])
            at += 1 + size
        elif pair := _pair(line, lines[at + 1] if at + 1 < len(lines) else ""):
            out += pair
            at += 2
        else:
            out.append(_reverse_header(line))
            at += 1
    return "\n".join(out)


_HUNK_SIDES = re.compile(r"@@ -(\S+) \+(\S+) @@")
_PAIRS = (("old mode ", "new mode "), ("rename from ", "rename to "))
_NO_NEWLINE = "\\"


def _hunk_size(lines: list[str], start: int, old: int, new: int) -> int:
    """How many lines a hunk has; the remark that a newline is missing counts too."""
    at = start
    while (
        old > 0 or new > 0 or (lines[at : at + 1] and lines[at].startswith(_NO_NEWLINE))
    ):
        sign = lines[at][:1] if at < len(lines) else "end"
        if sign not in ("", " ", "+", "-", _NO_NEWLINE):
            raise ValueError("the patch is no whole diff: a hunk is cut short")
        old -= sign in ("-", " ", "")
        new -= sign in ("+", " ", "")
        at += 1
    if old or new:
        raise ValueError("the patch is no whole diff: a hunk is not as long as it says")
    return at - start


def _reverse_lines(lines: list[str]) -> list[str]:
    """The lines of a hunk, what is removed before what is added as everywhere."""
    out: list[str] = []
    removed: list[str] = []
    added: list[str] = []
    last = out
    for line in [*lines, None]:
        if line is not None and line.startswith(_NO_NEWLINE):
            last.append(line)
            continue
        if line is not None and line.startswith(("+", "-")):
            last = removed if line[0] == "+" else added
            last.append(("-" if line[0] == "+" else "+") + line[1:])
            continue
        out += removed + added
        removed, added, last = [], [], out
        out += [] if line is None else [line]
    return out


def _pair(line: str, following: str) -> list[str] | None:
    """Two header lines that belong together, with their contents exchanged."""
    for first, second in _PAIRS:
        if line.startswith(first) and following.startswith(second):
            before, after = line.removeprefix(first), following.removeprefix(second)
            return [first + after, second + before]
    if line.startswith("--- ") and following.startswith("+++ "):
        before, after = line.removeprefix("--- "), following.removeprefix("+++ ")
        return [
            "--- " + re.sub("^b/", "a/", after),
            "+++ " + re.sub("^a/", "b/", before),
        ]
    return None


def _reverse_header(line: str) -> str:
    if line.startswith(("Binary files ", "GIT binary patch", "copy from ")):
        raise ValueError(f"the patch cannot be reversed: {line[:40]!r}")
    if line.startswith("new file mode "):
        return line.replace("new", "deleted", 1)
    if line.startswith("deleted file mode "):
        return line.replace("deleted", "new", 1)
    if line.startswith("index "):
        return re.sub(r"^index (\w+)\.\.(\w+)", r"index \2..\1", line)
    if match := _GIT.fullmatch(line):
        names = line.removeprefix("diff --git ")
        half = len(names) // 2
        if names[2:half] != names[half + 3 :]:  # else one name, maybe with " b/" in it
            return f"diff --git a/{match[2]} b/{match[1]}"
    return line
