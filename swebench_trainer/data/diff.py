"""What a unified diff changes: its paths and its changed lines.

This reads patches of data sets as they come, so nothing in a patch makes it raise:
what is no diff has no paths and no lines.
"""

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
    """The files of a diff, with or without git's own header lines."""
    section, old, new = Section(), 0, 0
    in_hunks = False
    for line in patch.split("\n"):
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
            path = line.removeprefix(head).partition("\t")[0].strip()
            if head.strip() in ("---", "+++"):
                path = path.removeprefix("a/" if head[0] == "-" else "b/")
            return {path} - {_NO_FILE.lstrip("/"), _NO_FILE, ""}
    return set()
