"""Files of a commit, read from a repository without a checkout."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from swebench_trainer.contents.errors import UnavailableError
from swebench_trainer.contents.objects import Objects
from swebench_trainer.contents.paths import UNSAFE, check_path
from swebench_trainer.git import GitError, git, git_dir
from swebench_trainer.store.cache import (
    mark_used,
    partial_path,
    remove,
    user_cache,
    write_lock,
)
from swebench_trainer.store.digest import digest

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A full commit id: a shorter name could mean anything."""

_REPO = re.compile(
    r"[A-Za-z0-9_][\w.-]{0,99}/(?!\.\.?$)[A-Za-z0-9_.][\w.-]{0,99}", re.A
)
_FOLDER, _REGULAR = "040000", "100"
_RUNNING = 16
"""Programs kept running at most, one a repository."""


class GitTree:
    """The files of a commit or tree; a `Tree`.

    Content is as git stores it: links are not followed, and no attribute changes the
    ends of lines. Files whose names are unsafe or not UTF-8 do not exist here.

    Args:
        objects: The repository.
        revision: Id of a commit or tree that is there.
    """

    def __init__(self, objects: Objects, revision: str) -> None:
        self._objects = objects
        self._revision = revision

    def read(self, path: str) -> bytes | None:
        """See `Tree.read`.

        Raises:
            ValueError: The path is unsafe, or the file larger than `objects.MAX_FILE`.
        """
        blob = self.blob(path)
        return self._objects.content(blob) if blob else None

    def mode(self, path: str) -> str:
        """See `Tree.mode`."""
        return self._find(path)[0]

    def blob(self, path: str) -> str:
        """The object id of the regular file at `path`, empty where there is none.

        Equal ids are equal contents, in whichever commit or repository.

        Raises:
            ValueError: The path is unsafe.
        """
        mode, blob = self._find(path)
        return blob if mode.startswith(_REGULAR) else ""

    def paths(self) -> Sequence[str]:
        """See `Tree.paths`."""
        return self._paths

    def _find(self, path: str) -> tuple[str, str]:
        """Mode and id of what lies at `path`.

        Raises:
            ValueError: The path is unsafe: it leads through a link or a file, too.
        """
        check_path(path)
        if found := self._entries.get(path):
            return found
        above = path
        while "/" in above:
            above = above.rpartition("/")[0]
            if self._entries.get(above, (_FOLDER, ""))[0] != _FOLDER:
                raise ValueError(UNSAFE)
        return "", ""

    @cached_property
    def _entries(self) -> dict[str, tuple[str, str]]:
        entries = {}
        for record in self._objects.listing(self._revision).split(b"\0")[:-1]:
            about, _, name = record.partition(b"\t")
            mode, _, found = about.decode().split()
            try:
                path = name.decode()
                check_path(path)
            except ValueError:
                continue
            if mode.startswith(_REGULAR):  # old trees have 100664
                mode = "100755" if int(mode, 8) & 0o100 else "100644"
            entries[path] = (mode, found)
        return entries

    @cached_property
    def _paths(self) -> tuple[str, ...]:
        return tuple(sorted(p for p, (m, _) in self._entries.items() if m[:3] == "100"))


class Repositories:
    """Clones of git repositories, each made once in the user's cache.

    A clone has the whole history, which is the cheapest way to have all files of dozens
    of commits (benchmarks/RESULTS.md): git packs each commit anew that is fetched by
    itself, and a clone without blobs, small at first, asks its origin for every file,
    thousands for retrieval. A directory of this machine that has the commit is read in
    place and never written to.

    Args:
        location: Where repositories are, with `{repo}` for `owner/name`:
            `https://…`, `ssh://…`, `git@host:…`, `file:///…` or a directory.
    """

    def __init__(self, location: str) -> None:
        self._template = location
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, Objects] = OrderedDict()
        self._lost: dict[tuple[str, str], ValueError] = {}

    def tree(self, repo: str, commit: str) -> GitTree:
        """The files of a commit, whose repository is cloned or brought up if need be.

        What cannot be had is asked for once.

        Args:
            repo: `owner/name`.
            commit: A full id.

        Raises:
            ValueError: It cannot be had; the message is one line that says why.
            UnavailableError: The same, and the row is not to blame.
            PrerequisiteError: git is not installed.
        """
        if not _REPO.fullmatch(repo):
            raise ValueError(f"{repo!r} is not the owner/name of a repository")
        if not COMMIT.fullmatch(commit):
            raise ValueError(f"{commit!r} is not a full commit id")
        location = self._template.replace("{repo}", repo)
        with self._lock:
            for key in ((location, ""), (location, commit)):
                if key in self._lost:
                    raise self._lost[key]
            return GitTree(self._with(location, commit), commit)

    def close(self) -> None:
        """Ends the programs that read; trees that are still in use start them again."""
        with self._lock:
            for objects in self._open.values():
                objects.close()
            self._open.clear()

    def _with(self, location: str, commit: str) -> Objects:
        """The repository of a location, which has a commit."""
        nearby = _in_place(location)
        place = nearby or repository_path(location)
        if not nearby:
            mark_used(place)
        if place.is_dir() and (objects := self._objects(place)).has(commit):
            return objects
        if nearby:
            reason = ValueError(f"{location} has no commit {commit}")
            raise self._loss(location, commit, reason)
        try:
            with repository_lock(place) as lock:
                if not is_readable(place):
                    self._close(place)
                    remove(place)
                    _clone(location, place, lock)
        except (GitError, OSError) as error:
            reason = UnavailableError(f"no clone of {location}: {error}")
            raise self._loss(location, "", reason) from error
        return self._fetched(location, place, commit)

    def _fetched(self, location: str, place: Path, commit: str) -> Objects:
        """A clone with a commit that no branch or tag of its origin may have."""
        objects = self._objects(place)
        if objects.has(commit):
            return objects
        try:
            with repository_lock(place) as lock:
                fetch(location, place, commit, lock)
        except (GitError, OSError) as error:
            reason = ValueError(f"{location} has no commit {commit}: {error}")
            raise self._loss(location, commit, reason) from error
        return objects

    def _loss(self, location: str, commit: str, reason: ValueError) -> ValueError:
        self._lost[location, commit] = reason
        return reason

    def _objects(self, place: Path) -> Objects:
        """The reader of a repository; of those that run, the longest unused is ended."""
        objects = self._open.pop(place, None) or Objects(place)
        self._open[place] = objects
        for other in list(self._open.values())[:-_RUNNING]:
            other.close()
        return objects

    def _close(self, place: Path) -> None:
        if objects := self._open.pop(place, None):
            objects.close()


def repository_path(*key: Any) -> Path:
    """Return the path of a bare repository in the user's cache."""
    return user_cache("repositories", digest(key))


@contextlib.contextmanager
def repository_lock(path: Path) -> Iterator[int]:
    """Wait for exclusive write access to a cached repository. See `write_lock`.

    Removes the lock files and partial packs of a git that was killed.

    Yields:
        The file descriptor of the lock.
    """
    with write_lock(path) as lock:
        for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*"):
            for stale in path.glob(pattern):
                stale.unlink(missing_ok=True)
        yield lock


def is_readable(repository: Path) -> bool:
    """Whether a repository exists and its branches can be read."""
    try:
        git(git_dir(repository), "rev-list", "--max-count=1", "--all")
    except GitError:
        return False
    return True


def fetch(location: str, place: Path, commit: str, lock: int) -> None:
    """Brings the files of one commit, without its history, into a bare repository.

    Raises:
        GitError: They cannot be had.
    """
    git(
        *(git_dir(place), "fetch", "--progress", "--depth=1", "--no-tags"),
        *("--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules"),
        *("--", location, f"{commit}:refs/contents/{commit}"),
        online=True,
        inherit=(lock,),
    )


def _clone(location: str, place: Path, lock: int) -> None:
    """Clones beside the place, and moves the clone there when it is whole."""
    new = partial_path(place)
    # It ends when nobody reads its progress any more.
    options = ("--bare", "--template=", "--progress", "--no-recurse-submodules")
    git("clone", *options, "--", location, str(new), online=True, inherit=(lock,))
    git(git_dir(new), "config", "--remove-section", "remote.origin")  # no passwords
    new.rename(place)


def _in_place(location: str) -> Path | None:
    """The repository of a location that is a directory of this machine."""
    if "://" in location or ":" in location.partition("/")[0]:
        return None
    root = Path(location).expanduser().absolute()
    for folder in (root / ".git", root, root.with_name(f"{root.name}.git")):
        if (folder / "objects").is_dir():
            return folder
    return None
