"""Hostile-input reader: every file that git or patch(1) could find in a diff.

Two programs apply a patch, each lenient in its own way. This reader therefore prefers
too many names to too few: it accepts header-like lines inside hunks, names that end
at their first space, and indented diffs, which patch(1) accepts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from swebench_trainer.patches.quoting import unquote

# patch(1) skips white space and the letter X before a header.
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
"""Maximum length of a path on Linux, in bytes."""


def patched_paths(patch: str) -> Iterator[str]:
    """Yields every path that the headers of a diff may name, without `a/` and `b/`.

    Paths are normal (`a//./b` is `a/b`), and undecodable bytes are surrogates, as
    in `os.fsdecode`. A path may occur several times.
    """
    for kind, name in _names(patch):
        has_prefix = not kind.startswith(("rename", "copy"))
        path = str(PurePosixPath(_without_prefix(name) if has_prefix else name))
        if path != "." and name != "/dev/null":
            yield path


def existing_paths(patch: str) -> set[str]:
    """The paths of a diff, except files that it only adds."""
    changes = (part for part in _SECTION.split(patch) if not _only_adds(part))
    return {path for part in changes for path in patched_paths(part)}


def absolute_names(patch: str) -> set[str]:
    """Names in the headers of a diff that start at the root, with or without a prefix."""
    names = {name for _, name in _names(patch)} - {"/dev/null"}
    return {name for name in names if _FROM_ROOT.match(name)}


def file_modes(patch: str) -> set[int]:
    """File types and permissions in the headers of a diff, as in `st_mode`."""
    return {int(header["mode"], 8) for header in _MODE.finditer(patch)}


def _names(patch: str) -> Iterator[tuple[str, str]]:
    """Yields the kind of each header with each name that it may have, as written."""
    for header in _HEADER.finditer(patch):
        kind, text = header["kind"], header["name"].rstrip("\r")
        names = _pair(text) if kind == "diff --git " else _readings(text)
        yield from ((kind, name) for name in names)


def _pair(text: str) -> Iterator[str]:
    """Yields the two names of a `diff --git` header, which only a space separates.

    Names that are equal except for their prefixes can be separated, as git does. Other
    names also occur in other headers, so a guess is enough.
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
    """Yields the possible names in the text of a header, which a date may follow."""
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
    """Whether a part of a diff adds a file and does not mention an existing one."""
    return bool(_ADDS.search(part)) and not _CHANGES.search(part)
