"""The files that a diff names: all that git or patch(1) might take for a name.

A patch is hostile input, and two programs read it, each lenient in its own way. So
this reads too many names rather than too few: a line of a hunk that looks like a
header counts, a name with blanks may end at the first of them, and an indented
diff, which patch(1) accepts, is a diff.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from swebench_trainer.patches.quoting import unquote

# patch(1) skips blanks, and the letter X, before a header.
_HEADER = re.compile(
    r"^[ \tX]*"
    r"(?P<kind>diff --git |--- |\+\+\+ |\*\*\* |Index:|(?:rename|copy) (?:from|to) )"
    r"[ \t]*(?P<name>.+)$",
    re.MULTILINE,
)
_SECTION = re.compile(r"^(?=[ \tX]*diff --git )", re.MULTILINE)
_ADDS = re.compile(r"^[ \tX]*(?:new file mode |--- /dev/null\b)", re.MULTILINE)
_CHANGES = re.compile(
    r"^[ \tX]*(?:(?:old|new|deleted file) mode |--- (?!/dev/null\s)|\*\*\* |Index:"
    r"|(?:rename|copy) (?:from|to) |@@ (?!-0,0 ))",
    re.MULTILINE,
)
_MODE = re.compile(
    r"^[ \tX]*(?:(?:old|new|new file|deleted file) mode|index [0-9a-f]+\.\.[0-9a-f]+)"
    r"[ \t]+\+?(?P<mode>[0-7]+)",
    re.MULTILINE,
)
# Equal names with different prefixes, such as `a/my file b/my file`.
_TWICE = re.compile(r"[^/]*/+(?P<path>.+) [^/ ]*/+(?P=path)")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_FROM_ROOT = re.compile(r"/|[^/]+//")
_DATE = re.compile(r"(?<![ \t])[ \t]+\d+-\d+-\d+[ \t].*")

LONGEST_NAME = 4096
"""Bytes of a path that Linux can hold."""


def patched_paths(patch: str) -> Iterator[str]:
    """Every path that the headers of a diff may name, without `a/` and `b/`.

    Paths are normal (`a//./b` is `a/b`), and undecodable bytes are surrogates, as
    `os.fsdecode` has it. A path may come more than once.
    """
    for kind, name in _names(patch):
        has_prefix = not kind.startswith(("rename", "copy"))
        path = str(PurePosixPath(_without_prefix(name) if has_prefix else name))
        if path != "." and name != "/dev/null":
            yield path


def existing_paths(patch: str) -> set[str]:
    """The paths of a diff, without those of files that it does nothing but add."""
    changes = (part for part in _SECTION.split(patch) if not _only_adds(part))
    return {path for part in changes for path in patched_paths(part)}


def absolute_names(patch: str) -> set[str]:
    """The names in the headers of a diff that begin at the root, with a prefix or not."""
    names = {name for _, name in _names(patch)} - {"/dev/null"}
    return {name for name in names if _FROM_ROOT.match(name)}


def file_modes(patch: str) -> set[int]:
    """The types and permissions of files that a diff speaks of, as in `st_mode`."""
    return {int(header["mode"], 8) for header in _MODE.finditer(patch)}


def _names(patch: str) -> Iterator[tuple[str, str]]:
    """The kind of each header with each name that it may hold, as it is written."""
    for header in _HEADER.finditer(patch):
        kind, text = header["kind"], header["name"].rstrip("\r")
        names = _pair(text) if kind == "diff --git " else _readings(text)
        yield from ((kind, name) for name in names)


def _pair(text: str) -> Iterator[str]:
    """The two names of a `diff --git` header, which no more than a blank parts.

    Where they are equal but for the prefix, that tells them apart, as it does for
    git. Where not, other headers have them too, and a guess is enough.
    """
    if len(text) <= 3 * LONGEST_NAME and (twice := _TWICE.fullmatch(text)):
        yield f"a/{twice['path']}"
    first = _QUOTED.match(text)
    end = first.end() if first else text.find(' "')
    if end > 0:
        yield _name(text[:end])
        yield _name(text[end:].strip())
    yield from re.split(r" (?=b/)", text)


def _readings(text: str) -> Iterator[str]:
    """The names that the text of a header may stand for, where a date may follow."""
    if text.startswith('"'):
        yield _name(text)
        return
    yield text.partition("\t")[0]
    yield _DATE.sub("", text)
    yield from text.split()[:1]


def _name(text: str) -> str:
    """A name without git's quotes, and without what follows the closing one."""
    quoted = _QUOTED.match(text)
    return unquote(quoted[0]) if quoted else text


def _without_prefix(name: str) -> str:
    """Strips the first component and the slashes after it, as `-p1` does."""
    return name.partition("/")[2].lstrip("/")


def _only_adds(part: str) -> bool:
    """Whether a part of a diff adds a file, and says nothing of an older one."""
    return bool(_ADDS.search(part)) and not _CHANGES.search(part)
