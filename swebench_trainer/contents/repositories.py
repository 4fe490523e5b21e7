"""Read files of a commit from a repository, without a checkout."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from swebench_trainer.contents.errors import UnavailableError
from swebench_trainer.contents.objects import Objects
from swebench_trainer.contents.paths import UNSAFE, check_path
from swebench_trainer.git import GitError, git, git_dir
from swebench_trainer.store import cache
from swebench_trainer.store.digest import digest

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A full commit id: shorter names are ambiguous."""

_REPO = re.compile(
    r"[A-Za-z0-9_][\w.-]{0,99}/(?!\.\.?$)[A-Za-z0-9_.][\w.-]{0,99}", re.A
)
_FOLDER, _REGULAR = "040000", "100"
_RUNNING = 16
"""Maximum number of reader processes, one per repository."""


class GitTree:
    """The files of a commit or tree; a `Tree`.

    Content is as git stores it: links are not followed, and attributes do not change
    line endings. Files with unsafe or non-UTF-8 names are left out.

    Args:
        objects: The repository.
        revision: Id of an existing commit or tree.
    """

    def __init__(self, objects: Objects, revision: str) -> None:
        self._objects = objects
        self._revision = revision

    def read(self, path: str) -> bytes | None:
        """See `Tree.read`.

        Raises:
            ValueError: The path is unsafe, or the file is larger than `objects.MAX_FILE`.
        """
        blob = self.blob(path)
        return self._objects.content(blob) if blob else None

    def mode(self, path: str) -> str:
        """See `Tree.mode`."""
        return self._find(path)[0]

    def blob(self, path: str) -> str:
        """Return the object id of the regular file at `path`, or "" if there is none.

        Equal ids mean equal contents, in any commit and repository.

        Raises:
            ValueError: The path is unsafe.
        """
        mode, blob = self._find(path)
        return blob if mode.startswith(_REGULAR) else ""

    def paths(self) -> Sequence[str]:
        """See `Tree.paths`."""
        return self._paths

    def _find(self, path: str) -> tuple[str, str]:
        """Return the mode and id of the object at `path`.

        Raises:
            ValueError: The path is unsafe, or leads through a link or a file.
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
    """Clones of git repositories in the user's cache.

    A clone has the whole history, which is the cheapest way to get all files of dozens
    of commits (benchmarks/RESULTS.md): git packs every separately fetched commit again,
    and a clone without blobs requests each file from its origin, thousands of them for
    retrieval. A local directory with the commit is read in place and never written to.

    Args:
        location: Address of the repositories, with `{repo}` for `owner/name`:
            `https://…`, `ssh://…`, `git@host:…`, `file:///…` or a directory.
    """

    def __init__(self, location: str) -> None:
        self._template = location
        self._lock = threading.Lock()
        self._open: dict[Path, Objects] = {}
        self._lost: dict[tuple[str, str], ValueError] = {}

    def tree(self, repo: str, commit: str) -> GitTree:
        """Return the files of a commit; clone or update its repository if necessary.

        A failed request is not repeated.

        Args:
            repo: `owner/name`.
            commit: A full id.

        Raises:
            ValueError: The commit cannot be fetched; the message is one line.
            UnavailableError: The same, for reasons outside the row.
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
        """Stop the reader processes; trees still in use restart them."""
        with self._lock:
            for objects in self._open.values():
                objects.close()
            self._open.clear()

    def _with(self, location: str, commit: str) -> Objects:
        """Return the repository of a location after making sure that it has a commit."""
        nearby = _in_place(location)
        place = nearby or repository_path(location)
        if not nearby:
            cache.mark_used(place)
        if place.is_dir() and (objects := self._objects(place)).has(commit):
            return objects
        if nearby:
            reason = ValueError(f"{location} has no commit {commit}")
            raise self._loss(location, commit, reason)
        try:
            with repository_lock(place) as lock:
                if not is_readable(place):
                    self._close(place)
                    cache.remove(place)
                    _clone(location, place, lock)
        except (GitError, OSError) as error:
            reason = UnavailableError(f"no clone of {location}: {error}")
            raise self._loss(location, "", reason) from error
        return self._fetched(location, place, commit)

    def _fetched(self, location: str, place: Path, commit: str) -> Objects:
        """Fetch a commit that may not be on any branch or tag of the origin."""
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
        """Return the reader of a repository; stop the least recently used ones."""
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
    return cache.user_cache("repositories", digest(key))


@contextlib.contextmanager
def repository_lock(path: Path) -> Iterator[int]:
    """Wait for exclusive write access to a cached repository. See `write_lock`.

    Removes the lock files and partial packs of a git that was killed.

    Yields:
        The file descriptor of the lock.
    """
    with cache.write_lock(path) as lock:
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
    """Fetch one commit, without its history, into a bare repository.

    Raises:
        GitError: The commit cannot be fetched.
    """
    git(
        git_dir(place),
        "fetch",
        "--progress",
        "--depth=1",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--no-recurse-submodules",
        "--",
        location,
        f"{commit}:refs/contents/{commit}",
        online=True,
        inherit=(lock,),
    )


def _clone(location: str, place: Path, lock: int) -> None:
    """Clone to the partial path, and rename the complete clone."""
    new = cache.partial_path(place)
    # With --progress, git exits when its output pipe closes because we were killed.
    options = ("--bare", "--template=", "--progress", "--no-recurse-submodules")
    git("clone", *options, "--", location, str(new), online=True, inherit=(lock,))
    git(git_dir(new), "config", "--remove-section", "remote.origin")  # no passwords
    new.rename(place)


def _in_place(location: str) -> Path | None:
    """Return the repository of a location that is a local directory."""
    if "://" in location or ":" in location.partition("/")[0]:
        return None
    root = Path(location).expanduser().absolute()
    for folder in (root / ".git", root, root.with_name(f"{root.name}.git")):
        if (folder / "objects").is_dir():
            return folder
    return None
