"""Strict reader: well-formed patches, read with unidiff, applied and written by git."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from unidiff import PatchSet
from unidiff.errors import UnidiffParseError

from swebench_trainer.contracts import Tree
from swebench_trainer.git import (
    GitError,
    fast_import_file,
    git_dir,
    isolated_environment,
    run_git,
)
from swebench_trainer.patches.files import ChangedFiles, File, Text, read_file
from swebench_trainer.patches.quoting import header_names, unquote_name

SUBMODULE = "a submodule"
"""`FileChange.special` of a submodule: a commit id, which is not a file to read."""

SYMBOLIC_LINK = "a symbolic link"


@dataclass(frozen=True)
class Hunk:
    """Consecutive lines of a file and their replacement, including context.

    Attributes:
        start: Index of the first of the old lines, from 0.
    """

    start: int
    old: Text
    new: Text

    @property
    def end(self) -> int:
        """Index after the last of the old lines."""
        return self.start + len(self.old.lines)

    def fits(self, text: Text) -> bool:
        """Whether a file has the old lines at their line numbers."""
        if self.start < 0 or self.old.lines != text.lines[self.start : self.end]:
            return False
        return self.old.newline or (self.end == len(text.lines) and not text.newline)


@dataclass(frozen=True)
class FileChange:
    """Change of one file by a patch.

    Attributes:
        old: Path before, `None` when the patch creates the file.
        new: Path after, `None` when the patch deletes the file.
        special: Kind of change beyond text, such as a mode change, a copy or binary
            content; else empty.
    """

    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...] = ()
    special: str = ""


def read_patch(patch: str) -> tuple[FileChange, ...]:
    """Reads a well-formed patch.

    Raises:
        ValueError: It is not well-formed, or has no file.
    """
    try:
        parsed = PatchSet(patch)
    except UnidiffParseError as error:
        raise ValueError("the patch is not well-formed") from error
    if not parsed:
        raise ValueError("the text has no patch")
    return tuple(_file_change(file) for file in parsed)


def _file_change(file: Any) -> FileChange:
    header = [line.rstrip("\n") for line in file.patch_info or ()]
    old, new = _path(file.source_file, "a/"), _path(file.target_file, "b/")
    if not len(file):
        old, new = _named_by_git(header, old, new)
    if old is None and (new is None or len(file) > 1):
        raise ValueError("the patch is not well-formed")
    return FileChange(
        old=old,
        new=new,
        hunks=tuple(_hunk(hunk) for hunk in file),
        special="binary content" if file.is_binary_file else _special(header),
    )


def _named_by_git(
    header: list[str], old: str | None, new: str | None
) -> tuple[str | None, str | None]:
    """The paths of a file without `---` and `+++` lines, which unidiff guesses."""
    for line in header:
        if line.startswith("diff --git ") and (names := header_names(line)):
            old = old and _path(names[0], "a/")
            new = new and _path(names[1], "b/")
        if line.startswith("rename from "):
            old = unquote_name(line.removeprefix("rename from "))
        if line.startswith("rename to "):
            new = unquote_name(line.removeprefix("rename to "))
    return old, new


def _path(name: str, prefix: str) -> str | None:
    name = unquote_name(name)
    return None if name == "/dev/null" else name.removeprefix(prefix)


_MODE_LINES = ("index ", "new file mode ", "deleted file mode ")


def _special(header: list[str]) -> str:
    """Kind of change beyond text in a header; ordinary files have mode 100644."""
    for line in header:
        if line.startswith(("old mode ", "copy from ")):
            return "a mode change" if line.startswith("old") else "a copy"
        if line.startswith(_MODE_LINES) and line.endswith(" 160000"):
            return SUBMODULE
        if line.startswith("new file mode ") and not line.endswith(" 100644"):
            return f"a new file of {line.removeprefix('new file ')}"
        if line.startswith("index ") and line.endswith(" 120000"):
            return SYMBOLIC_LINK
    return ""


def _hunk(hunk: Any) -> Hunk:
    types = [line.line_type for line in hunk]
    ended = {before for before, mark in pairwise(types) if mark == "\\"}

    def side(sign: str) -> Text:
        lines = (line.value for line in hunk if line.line_type in (" ", sign))
        texts = tuple(line.removesuffix("\n") for line in lines)
        return Text(texts, newline=ended.isdisjoint((" ", sign)))

    old = side("-")
    # `@@ -5,0 …` inserts after line 5, `@@ -5,2 …` replaces from line 5 on.
    start = hunk.source_start - 1 if old.lines else hunk.source_start
    return Hunk(start, old, side("+"))


def make_patch(old: Mapping[str, File], new: Mapping[str, File]) -> str:
    """Writes the patch between two trees as `git diff` does, renames found.

    The trees never touch the file system: they are two commits of a bare
    repository, where no attribute, hook or setting can change their bytes.

    Args:
        old: Files before, by path; unchanged files may be left out.
        new: Files after.

    Raises:
        ValueError: git refuses a path.
        PrerequisiteError: git is not installed.
    """
    commits = b"".join((*_commit("old", old), *_commit("new", new)))
    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as folder:
        repository = Path(folder)
        (repository / "objects").mkdir()
        (repository / "refs").mkdir()
        (repository / "HEAD").write_text("ref: refs/heads/old\n")
        try:
            _git(repository, "fast-import", "--quiet", stdin=commits)
        except GitError as error:
            raise ValueError("git refuses the files") from error
        patch = _git(repository, "diff-tree", "-p", "--text", "-M", "old", "new")
    return patch.decode("utf-8", "surrogateescape")


def _commit(branch: str, files: Mapping[str, File]) -> Iterator[bytes]:
    yield b"commit refs/heads/%s\n" % branch.encode()
    yield b"committer nobody <nobody> 0 +0000\ndata 0\n"
    for path, file in files.items():
        yield fast_import_file(path, file.mode, file.text.encoded())


def apply_strictly(patch: str, old: dict[str, File]) -> ChangedFiles | None:
    """The files before and after a strict `git apply`; `None` if git refuses the patch.

    Args:
        patch: Unified diff; its paths have been checked.
        old: Existing files that it names, by path.

    Raises:
        PrerequisiteError: git is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as name:
        folder = Path(name)
        for path, file in old.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.text.encoded())
        stdin = patch.encode("utf-8", "surrogateescape")
        try:
            # There is no repository, so the patch is applied to the directory.
            _git(folder / ".git", "-C", str(folder), "apply", "-", stdin=stdin)
        except GitError:
            return None
        new: dict[str, File] = {}
        for here, _, names in os.walk(folder):
            for place in (Path(here, name) for name in names):
                # git stays in the folder and does not write through links.
                if not place.is_symlink():
                    path = place.relative_to(folder).as_posix()
                    mode = old[path].mode if path in old else "100644"
                    new[path] = File(Text.decoded(place.read_bytes()), mode)
    return ChangedFiles(old, new)


def fitted(patch: str, tree: Tree) -> tuple[tuple[FileChange, ...], dict[str, File]]:
    """Reads a patch and checks that it fits the files.

    Some patches of SWE-bench have wrong line numbers, which `git apply` and graders
    tolerate; the result has the correct ones.

    Returns:
        The changes, and the files before them by path, without submodules.

    Raises:
        ValueError: The patch is not well-formed, or does not fit the files.
    """
    changes = read_patch(patch)
    old: dict[str, File] = {}
    files = [change for change in changes if change.special != SUBMODULE]
    for path in (change.old for change in files if change.old):
        file = read_file(tree, path)
        if file is None:
            raise ValueError(f"the repository has no file {path}")
        old[path] = file
    for change in files:
        text = old[change.old].text if change.old else Text()
        if change.old and not all(hunk.fits(text) for hunk in change.hunks):
            result = apply_strictly(patch, old)
            if result is None:
                raise ValueError(f"the patch does not fit {change.old} at its commit")
            return read_patch(make_patch(old, result.new)), old
    return changes, old


_SETTINGS = (
    "core.fsync=none",
    "core.quotePath=false",
    "diff.algorithm=myers",
    "fastimport.unpackLimit=0",
)


def _git(repository: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    words = (git_dir(repository), *settings, *arguments)
    return run_git(*words, env=isolated_environment(), stdin=stdin)
