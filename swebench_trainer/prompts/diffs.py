"""The diff form of an answer: the patch that stands somewhere in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from swebench_trainer.prompts.blocks import FENCE
from swebench_trainer.prompts.files import UNSAFE, check_path, locate
from swebench_trainer.prompts.patches import FileChange, read_patch, unquote

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(.*)")
_HEADER = re.compile(
    r"(index|old mode|new mode|new file mode|deleted file mode|similarity index"
    r"|dissimilarity index|rename from|rename to|copy from|copy to|Binary files"
    r"|---|\+\+\+) "
)
_SIGNATURE = "-- "
"""Ends what `git format-patch` writes; it looks like a deleted line."""


@dataclass(frozen=True)
class _Line:
    """A line of the patch; `source` is its number in the answer, from 0."""

    source: int
    text: str
    in_hunk: bool


def find_diff(answer: str, root: str) -> tuple[str, list[str]]:
    """Takes the patch out of an answer: every file section, nothing around them.

    Args:
        answer: What the model wrote.
        root: Directory with the repository's files, or empty.

    Returns:
        The patch and the names of the repairs; both empty when there is none.

    Raises:
        ValueError: What looks like a patch is not one, or names an unsafe path.
    """
    lines = answer.split("\n")
    crlf = len(lines) > 1 and all(line.endswith("\r") for line in lines if line)
    if crlf:
        lines = [line.removesuffix("\r") for line in lines]
    patch, repairs = _scan(lines)
    if not patch:
        return "", []
    _check_header_paths(line.text for line in patch if not line.in_hunk)
    changes = read_patch(_join(patch))
    if not any(c.hunks or c.special or c.old != c.new for c in changes):
        raise ValueError("nothing changes")
    in_crlf = _uses_crlf(changes, root)
    if crlf:
        repairs.append("crlf")
        if in_crlf:
            patch = [
                replace(line, text=f"{line.text}\r") if line.in_hunk else line
                for line in patch
            ]
    if patch[-1].source == len(lines) - 1:
        repairs.append("final-newline")
    return _join(patch), repairs


def _join(patch: Sequence[_Line]) -> str:
    return "".join(f"{line.text}\n" for line in patch)


def _scan(lines: Sequence[str]) -> tuple[list[_Line], list[str]]:
    """The lines of the file sections, hunks recounted, and the repairs."""
    patch: list[_Line] = []
    repairs: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if _starts_file(lines, at):
            end = _header_end(lines, at)
            patch += (_Line(i, lines[i], False) for i in range(at, end))
        elif line.startswith("@@ ") and patch:
            header, end = _hunk(lines, at)
            patch.append(_Line(at, header, False))
            patch += (_Line(i, lines[i], True) for i in range(at + 1, end))
            if header != line:
                repairs.append("hunk-counts")
        elif line == "GIT binary patch" and patch:
            raise ValueError("a binary patch")
        else:
            end = at + 1
            if line.strip():
                repairs.append("fences" if FENCE.match(line) else "prose")
        at = end
    return patch, repairs


def _starts_file(lines: Sequence[str], at: int) -> bool:
    if lines[at].startswith("diff --git "):
        return True
    followed = at + 1 < len(lines) and lines[at + 1].startswith("+++ ")
    return lines[at].startswith("--- ") and followed


def _header_end(lines: Sequence[str], at: int) -> int:
    end = at + 1
    while end < len(lines) and _HEADER.match(lines[end]):
        end += 1
        if lines[end - 1].startswith("+++ "):
            break
    return end


def _hunk(lines: Sequence[str], at: int) -> tuple[str, int]:
    """The header of the hunk with right counts, and where the hunk ends."""
    header = _HUNK.match(lines[at])
    if not header:
        raise ValueError("a hunk without line numbers")
    old, new = int(header[2] or 1), int(header[4] or 1)
    end = _counted_end(lines, at + 1, old, new)
    if end:
        return lines[at], end
    end = _body_end(lines, at + 1)
    body = lines[at + 1 : end]
    old = sum(line[:1] in ("", " ", "-") for line in body)
    new = sum(line[:1] in ("", " ", "+") for line in body)
    return f"@@ -{header[1]},{old} +{header[3]},{new} @@{header[5]}", end


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
    goes_on = at < len(lines) and lines[at] and _in_body(lines, at)
    return None if old or new or goes_on else at


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
    whole = (
        end < stop
        or stop == len(lines)
        or lines[stop].startswith("@@ ")
        or lines[stop] == _SIGNATURE
        or FENCE.match(lines[stop])
        or _starts_file(lines, stop)
    )
    if not whole:
        raise ValueError("a hunk with a line that is not marked")
    return end


def _in_body(lines: Sequence[str], at: int) -> bool:
    line = lines[at]
    marked = line[:1] in ("", *" +-\\")
    return marked and line != _SIGNATURE and not _starts_file(lines, at)


def _check_header_paths(headers: Iterable[str]) -> None:
    """Refuses unsafe paths wherever some tool might read one from a header."""
    for header in headers:
        if header.startswith("@@"):
            continue
        for word in unquote(header).split():
            parts = word.lower().split("/")
            if (
                ".." in parts
                or ".git" in parts
                or (not parts[0] and word != "/dev/null")
            ):
                raise ValueError(UNSAFE)


def _uses_crlf(changes: Iterable[FileChange], root: str) -> bool:
    """Whether a changed file has CRLF line ends; checks the paths on the way."""
    found = False
    for change in changes:
        for path in filter(None, (change.old, change.new)):
            check_path(path)
            place = locate(root, path) if root else None
            if place and place.is_file():
                found = found or b"\r\n" in place.read_bytes()
    return found
