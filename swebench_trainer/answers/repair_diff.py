"""Works out what a damaged diff means from the files that it changes.

`place_hunks` finds the place of each hunk in a file. This module finds the file of each
section, and accepts a repair only if there is exactly one way to understand the diff.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from swebench_trainer.answers.checks import refuse_uncertain
from swebench_trainer.answers.errors import AmbiguousError, NoPlaceError
from swebench_trainer.answers.place_hunks import apply_hunks
from swebench_trainer.contents.paths import check_path
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import ChangedFiles, File, Text
from swebench_trainer.patches.lenient_diff import (
    Names,
    RawHunk,
    Section,
    read_names,
)
from swebench_trainer.patches.quoting import unquote

_TAB_WIDTHS = (2, 3, 4, 8)


def repair_sections(sections: Sequence[Section], tree: Tree) -> ChangedFiles:
    """Works out the files before and after.

    Raises:
        NothingChangesError: The diff leaves every file as it was.
        ValueError: The files cannot be worked out with certainty.
    """
    try:
        return _repair(sections, tree, tab=0)
    except NoPlaceError as error:
        found = list(_with_tabs(sections, tree))
        if not found:
            raise
        if any(other.new != found[0].new for other in found[1:]):
            raise ValueError("the tab width is ambiguous") from error
        return found[0]


def _with_tabs(sections: Sequence[Section], tree: Tree) -> Iterator[ChangedFiles]:
    for width in _TAB_WIDTHS:
        # Any other error makes all widths doubtful, so it is not caught.
        with suppress(NoPlaceError):
            yield _repair(sections, tree, tab=width)


def _repair(sections: Sequence[Section], tree: Tree, tab: int) -> ChangedFiles:
    result = ChangedFiles()
    hunks: dict[str, list[RawHunk]] = {}
    moves: dict[str, str] = {}
    for number, section in enumerate(sections):
        if section in sections[:number]:
            result.repairs.append("repeats")
            continue
        names = read_names(section)
        result.repairs += names.repairs
        if names.special:
            raise ValueError("the diff changes more than text")
        if names.creates or _looks_new(names, section, tree):
            result.repairs += [] if names.creates else ["dev-null"]
            _create(names, section, tree, tab, result)
            continue
        path = _resolve(names, section, tree, tab, result)
        target = names.renamed_to or ("" if names.deletes else path)
        if moves.setdefault(path, target) != target:
            raise ValueError(f"two sections about {path} contradict each other")
        hunks.setdefault(path, []).extend(section.hunks)
    for path, target in moves.items():
        result.old[path] = file = _file(tree, path)
        text, repairs = apply_hunks(path, file.text, hunks[path], tab)
        result.repairs += repairs
        if not target:
            if text.lines:
                raise ValueError(f"the patch deletes {path}, but not all of its lines")
        elif target in result.new or (target != path and tree.read(target) is not None):
            raise ValueError(f"{target} already exists")
        else:
            result.new[target] = File(text)
    if tab:
        result.repairs.append("tabs")
    refuse_uncertain(result)
    return result


# --- Finding the file of a section ---


def _looks_new(names: Names, section: Section, tree: Tree) -> bool:
    """Whether the file is new although only `@@ -0,0` shows it."""
    return (
        not (names.renamed_to or names.deletes)
        and len(section.hunks) == 1
        and section.hunks[0].start == 0
        and not section.hunks[0].has_old
        and not any(_exists(tree, p) for name in names.paths for p in _readings(name))
    )


def _resolve(
    names: Names, section: Section, tree: Tree, tab: int, result: ChangedFiles
) -> str:
    """Path of the one file of the tree that the section is about.

    Raises:
        NoPlaceError: No file fits.
        ValueError: Several files fit.
    """
    if names.renamed_to:
        if tree.read(names.paths[0]) is None:
            raise ValueError(f"the file {names.paths[0]} does not exist")
        return names.paths[0]
    readings = [v for path in names.paths for v in _readings(path)]
    existing = [path for path in dict.fromkeys(readings) if _exists(tree, path)]
    first, last = (set(_readings(names.paths[at])) for at in (0, -1))
    # Two names may also mean a file that moves.
    if not first & last and not last.issuperset(existing):
        raise ValueError(f"whether {names.paths[0]} moves is ambiguous")
    repair = "prefixes"
    if len(existing) != 1:
        candidates = existing
        if not candidates:
            repair = "paths"
            candidates = _same_file_name(names, section, tree)
        existing = [path for path in candidates if _fits(path, section, tree, tab)]
    shown = names.git_path or names.paths[0]
    if len(existing) > 1:
        raise ValueError(f"{len(existing)} files fit {shown}")
    if not existing:
        # With another tab width one may fit.
        raise NoPlaceError(f"no file fits the hunks of {shown}")
    if existing[0] != names.git_path:
        result.repairs.append(repair)
    return existing[0]


def _readings(name: str) -> list[str]:
    """Possible paths of a name: without or with its first part."""
    inner = name.partition("/")[2]
    return [path for path in (inner, name, inner.removeprefix("./")) if path]


def _exists(tree: Tree, path: str) -> bool:
    try:
        check_path(path)
        return tree.read(path) is not None
    except ValueError:  # unsafe, below a file, or through a link
        return False


def _same_file_name(names: Names, section: Section, tree: Tree) -> list[str]:
    """Files of the same name, if the section has enough lines to recognize one of them."""
    distinct = {
        line[1:].strip()
        for hunk in section.hunks
        for line in hunk.lines
        if line[:1] in (" ", "-")
    }
    if len(distinct - {""}) < 2:
        return []
    last = {path.rpartition("/")[2] for path in names.paths}
    return [path for path in tree.paths() if path.rpartition("/")[2] in last]


def _fits(path: str, section: Section, tree: Tree, tab: int) -> bool:
    try:
        apply_hunks(path, _file(tree, path).text, section.hunks, tab)
    except AmbiguousError:
        # Two places are too many for a repair, but the file does fit.
        return True
    except ValueError:
        return False
    return True


def _file(tree: Tree, path: str) -> File:
    content = tree.read(path)
    if content is None:
        raise ValueError(f"the file {path} does not exist")
    if b"\0" in content:
        raise ValueError(f"{path} is a binary file")
    return File(Text.decoded(content))


def is_prefix_ambiguous(name: str, section: Section, tree: Tree) -> bool:
    """Whether the first part of a new file's name could be a folder of the repository."""
    first, _, path = name.partition("/")
    if unquote(section.header[0]) == f"diff --git a/{path} b/{path}":
        return False
    folders = ("a/", "b/") if first in ("a", "b") else f"{first}/"
    return any(other.startswith(folders) for other in tree.paths())


def _create(
    names: Names, section: Section, tree: Tree, tab: int, result: ChangedFiles
) -> None:
    name = names.paths[-1]
    folder, _, path = name.partition("/")
    if folder not in ("a", "b") or not path:
        path = name
        result.repairs.append("prefixes")
    elif is_prefix_ambiguous(name, section, tree):
        raise ValueError(f"whether {name} starts with a prefix is ambiguous")
    check_path(path)
    if path in result.new or tree.read(path) is not None:
        raise ValueError(f"{path} already exists")
    lines = [line for hunk in section.hunks for line in hunk.lines]
    marks = {line[:1] for line in lines}
    if len(section.hunks) > 1 or marks - {"+", "\\"}:
        raise ValueError(f"the patch creates {path} but expects lines in it")
    if tab and any(line.startswith("+ ") for line in lines):
        raise ValueError(f"whether {path} is indented with tabs is ambiguous")
    if any(not hunk.counts for hunk in section.hunks):
        result.repairs.append("hunk-counts")
    newline = not lines or not lines[-1].startswith("\\")
    added = tuple(line[1:] for line in lines if line.startswith("+"))
    result.new[path] = File(
        Text(added, newline), "100755" if names.executable else "100644"
    )
