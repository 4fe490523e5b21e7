"""Finds out what a damaged diff means, from the files that it is about.

`lines` tells where in a file a hunk belongs; here is which file it is, and whether
that leaves one way to understand the whole. What can be understood in two ways is
not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from swebench_trainer.answers.errors import (
    AmbiguousError,
    NoPlaceError,
    NothingChangesError,
)
from swebench_trainer.answers.place_hunks import edited
from swebench_trainer.contents.paths import check_path
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import File, Text
from swebench_trainer.patches.lenient_diff import DEV_NULL, RawHunk, Section
from swebench_trainer.patches.strict_diff import unquote

_TAB_WIDTHS = (2, 3, 4, 8)
_TWICE = re.compile(r"diff --git [^/ ]*/(?P<path>.{1,1024}) [^/ ]*/(?P=path)")
_BARE_TWICE = re.compile(r"diff --git (?P<path>.{1,1024}) (?P=path)")


@dataclass
class Mended:
    """What a diff does, and what had to be put right to say so.

    Attributes:
        old: The files that it touches, before, by path.
        new: The same files after.
        repairs: Names, in the order of their discovery.
    """

    old: dict[str, File] = field(default_factory=dict)
    new: dict[str, File] = field(default_factory=dict)
    repairs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Names:
    """What the header of a section calls its file.

    Attributes:
        paths: Each path as written, `a/` and `b/` included, without `/dev/null`.
        git_path: Where git would look for it, where the names agree.
        creates: Whether the file is new.
        deletes: Whether the file goes.
        renamed_to: The path that it moves to, else empty; `paths` is then its old one.
        executable: Whether a new file is to be executable.
        special: Whether there is more than text in it, which nobody mends.
        repairs: What is wrong with the header, whatever the files are.
    """

    paths: tuple[str, ...]
    git_path: str
    creates: bool
    deletes: bool
    renamed_to: str
    executable: bool
    special: bool
    repairs: tuple[str, ...]


def mend(sections: Sequence[Section], tree: Tree) -> Mended:
    """Works out the files before and after.

    Raises:
        ValueError: It cannot be worked out, or not with certainty.
    """
    try:
        return _mend(sections, tree, tab=0)
    except NoPlaceError as error:
        found = list(_with_tabs(sections, tree))
        if not found:
            raise
        if any(other.new != found[0].new for other in found[1:]):
            raise ValueError("the width of a tab is not clear") from error
        return found[0]


def _with_tabs(sections: Sequence[Section], tree: Tree) -> Iterator[Mended]:
    for width in _TAB_WIDTHS:
        # Any other error means doubt about this width, and so about the others.
        with suppress(NoPlaceError):
            yield _mend(sections, tree, tab=width)


def _mend(sections: Sequence[Section], tree: Tree, tab: int) -> Mended:
    result = Mended()
    hunks: dict[str, list[RawHunk]] = {}
    moves: dict[str, str] = {}
    for section in _unrepeated(sections, result):
        names = read_names(section)
        result.repairs += names.repairs
        if names.special:
            raise ValueError("a change that is not one of text")
        if names.creates or _says_new(names, section, tree):
            result.repairs += [] if names.creates else ["dev-null"]
            _create(names, section, tree, tab, result)
            continue
        path = _resolve(names, section, tree, tab, result)
        gone = names.renamed_to or ("" if names.deletes else path)
        if moves.setdefault(path, gone) != gone:
            raise ValueError(f"two sections about {path} contradict each other")
        hunks.setdefault(path, []).extend(section.hunks)
    for path, target in moves.items():
        result.old[path] = file = _file(tree, path)
        text, repairs = edited(path, file.text, hunks[path], tab)
        result.repairs += repairs
        if not target:
            if text.lines:
                raise ValueError(f"the patch deletes {path}, but not all of it")
        elif target in result.new or (target != path and tree.read(target) is not None):
            raise ValueError(f"{target} exists already")
        else:
            result.new[target] = File(text)
    for path in result.new.keys() - result.old.keys():
        crlf = any(line.endswith("\r") for line in result.new[path].text.lines)
        if crlf and "crlf" in result.repairs:
            raise ValueError(f"the line ends of {path} are not clear")
    if tab:
        result.repairs.append("tabs")
    if result.old == result.new:
        raise NothingChangesError
    return result


def _unrepeated(sections: Sequence[Section], result: Mended) -> list[Section]:
    kept: list[Section] = []
    for section in sections:
        if section in kept:
            result.repairs.append("repeats")
        else:
            kept.append(section)
    return kept


# --- Which file ---


def read_names(section: Section) -> Names:
    """Reads the header of a section.

    Raises:
        ValueError: It names no file, or an unsafe path.
    """
    lines = section.header
    starts = {
        start: line.removeprefix(start)
        for line in lines
        for start in ("--- ", "+++ ", "rename from ", "rename to ", "new file mode ")
        if line.startswith(start)
    }
    words = [_name(starts.get(start, "")) for start in ("--- ", "+++ ")]
    repairs = ["prefixes"] if any("/./" in word for word in words) else []
    words = [word.replace("/./", "/") for word in words]
    if not any(words):
        found = _TWICE.match(lines[0]) or _BARE_TWICE.match(lines[0])
        if section.hunks:
            repairs.append("headers")
        words = [f"a/{found['path']}", f"b/{found['path']}"] if found else ["", ""]
    null = [
        word in (DEV_NULL, "dev/null", "a/dev/null", "b/dev/null") for word in words
    ]
    declared = (
        "new file mode " in starts,
        any(line.startswith("deleted file mode ") for line in lines),
    )
    if any(n and word != DEV_NULL for n, word in zip(null, words, strict=True)) or (
        any(d and not n for d, n in zip(declared, null, strict=True)) and section.hunks
    ):
        repairs.append("dev-null")
    creates, deletes = (n or d for n, d in zip(null, declared, strict=True))
    paths = tuple(
        dict.fromkeys(w for w, n in zip(words, null, strict=True) if w and not n)
    )
    renamed_to = ""
    if "rename from " in starts and "rename to " in starts:
        paths = (_name(starts["rename from "]),)
        renamed_to = _name(starts["rename to "])
        check_path(renamed_to)
    if not paths or (creates and deletes):
        raise ValueError("not a well-formed patch")
    stripped = {path if renamed_to else path.partition("/")[2] for path in paths}
    for path in stripped:
        check_path(path or paths[0])
    return Names(
        paths=paths,
        git_path=stripped.pop() if len(stripped) == 1 else "",
        creates=creates,
        deletes=deletes,
        renamed_to=renamed_to,
        executable=starts.get("new file mode ") == "100755",
        special=_special(lines),
        repairs=tuple(repairs),
    )


def _special(lines: Sequence[str]) -> bool:
    return any(
        line.startswith(("old mode ", "copy from ", "Binary files "))
        or (line.startswith("index ") and line.endswith((" 120000", " 160000")))
        or (
            line.startswith("new file mode ")
            and not line.endswith(("100644", "100755"))
        )
        for line in lines
    )


def _name(written: str) -> str:
    """The name in a header, without the time that diff(1) writes behind a tab."""
    return unquote(written.partition("\t")[0].rstrip())


def _says_new(names: Names, section: Section, tree: Tree) -> bool:
    """Whether `@@ -0,0` alone tells that the file is new."""
    return (
        not (names.renamed_to or names.deletes)
        and len(section.hunks) == 1
        and section.hunks[0].start == 0
        and not section.hunks[0].has_old
        and not any(_exists(tree, p) for name in names.paths for p in _readings(name))
    )


def _resolve(
    names: Names, section: Section, tree: Tree, tab: int, result: Mended
) -> str:
    """The one file of the tree that the section is about.

    Raises:
        ValueError: There is none, or more than one.
    """
    if names.renamed_to:
        if tree.read(names.paths[0]) is None:
            raise ValueError(f"there is no file {names.paths[0]}")
        return names.paths[0]
    readings = [v for path in names.paths for v in _readings(path)]
    there = [path for path in dict.fromkeys(readings) if _exists(tree, path)]
    first, last = (set(_readings(names.paths[at])) for at in (0, -1))
    # With two names the file may be one that moves.
    if not first & last and not last.issuperset(there):
        raise ValueError(f"whether {names.paths[0]} moves is not clear")
    repair = "prefixes"
    if len(there) != 1:
        candidates = there
        if not candidates:
            repair = "paths"
            candidates = _namesakes(names, section, tree)
        there = [path for path in candidates if _fits(path, section, tree, tab)]
    shown = names.git_path or names.paths[0]
    if len(there) > 1:
        raise ValueError(f"{len(there)} files fit {shown}")
    if not there:
        # Another width of tabs may make one fit.
        raise NoPlaceError(f"a hunk is nowhere in {shown}, or any file of that name")
    if there[0] != names.git_path:
        result.repairs.append(repair)
    return there[0]


def _readings(name: str) -> list[str]:
    """What a name may mean: with or without its first part."""
    inner = name.partition("/")[2]
    return [path for path in (inner, name, inner.removeprefix("./")) if path]


def _exists(tree: Tree, path: str) -> bool:
    try:
        check_path(path)
        return tree.read(path) is not None
    except ValueError:  # unsafe, below a file, or through a link
        return False


def _namesakes(names: Names, section: Section, tree: Tree) -> list[str]:
    """Files with the same last part, if the section says enough to know one of them."""
    telling = {
        line[1:].strip()
        for hunk in section.hunks
        for line in hunk.lines
        if line[:1] in (" ", "-")
    }
    if len(telling - {""}) < 2:
        return []
    last = {path.rpartition("/")[2] for path in names.paths}
    return [path for path in tree.paths() if path.rpartition("/")[2] in last]


def _fits(path: str, section: Section, tree: Tree, tab: int) -> bool:
    try:
        edited(path, _file(tree, path).text, section.hunks, tab)
    except AmbiguousError:
        # Two places are too many for a repair, but the file does fit.
        return True
    except ValueError:
        return False
    return True


def _file(tree: Tree, path: str) -> File:
    content = tree.read(path)
    if content is None:
        raise ValueError(f"there is no file {path}")
    if b"\0" in content:
        raise ValueError(f"{path} is a binary file")
    return File(Text.decoded(content))


def prefix_unclear(name: str, section: Section, tree: Tree) -> bool:
    """Whether the first part of a new file's name may be a folder of the repository."""
    first, _, path = name.partition("/")
    if unquote(section.header[0]) == f"diff --git a/{path} b/{path}":
        return False
    folders = ("a/", "b/") if first in ("a", "b") else f"{first}/"
    return any(other.startswith(folders) for other in tree.paths())


def _create(
    names: Names, section: Section, tree: Tree, tab: int, result: Mended
) -> None:
    name = names.paths[-1]
    folder, _, path = name.partition("/")
    if folder not in ("a", "b") or not path:
        path = name
        result.repairs.append("prefixes")
    elif prefix_unclear(name, section, tree):
        raise ValueError(f"whether {name} has a prefix is not clear")
    check_path(path)
    if path in result.new or tree.read(path) is not None:
        raise ValueError(f"{path} exists already")
    lines = [line for hunk in section.hunks for line in hunk.lines]
    marks = {line[:1] for line in lines}
    if len(section.hunks) > 1 or marks - {"+", "\\"}:
        raise ValueError(f"the patch creates {path} with lines that are there already")
    if tab and any(line.startswith("+ ") for line in lines):
        raise ValueError(f"whether {path} has tabs is not clear")
    if any(not hunk.counts for hunk in section.hunks):
        result.repairs.append("hunk-counts")
    newline = not lines or not lines[-1].startswith("\\")
    added = tuple(line[1:] for line in lines if line.startswith("+"))
    result.new[path] = File(
        Text(added, newline), "100755" if names.executable else "100644"
    )
