"""The user's cache: results that took long to make and can be made again.

A kind of entry has a folder. An entry is a directory or file named by a digest. Next to
`NAME` or `NAME.zip` are `NAME.lock`, whose modification time records the last use, and,
while the entry is written or removed, `NAME.new`. Writers hold the lock. Readers hold
nothing, so an entry can disappear while it is read: readers rebuild it or report it.
Entries that must outlive their readers are locked shared; see `RootCache`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from platformdirs import user_cache_path

from swebench_trainer.store.locks import locked

KINDS = {
    "repositories": "repositories",
    "checkouts": "evaluation repositories",
    "bm25": "BM25 indexes",
    "generated": "sets of generated tasks",
    "tokens": "encoded datasets",
}
"""Folder → display name of its entries."""

_NAME = re.compile(r"(sha256-\w+|[0-9a-f]{16,64})(|\.zip|\.new|\.lock)")
"""Names of entries and of the files next to them; other files are left alone."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """An entry of the cache.

    Attributes:
        path: The file or directory.
        size: Bytes on disk.
        used: Time of the last use, in seconds since 1970.
    """

    path: Path
    size: int
    used: float


@dataclass(frozen=True)
class PruneLimits:
    """Which entries to remove; none by default.

    Attributes:
        unused_for: Remove entries unused for this many seconds; all if negative.
        max_size: Remove entries until those of each kind take at most this many bytes.
    """

    unused_for: float | None = None
    max_size: int | None = None

    def __bool__(self) -> bool:
        return self.unused_for is not None or self.max_size is not None


def user_cache(*parts: str) -> Path:
    """Return a path in the user's cache directory.

    Raises:
        RuntimeError: The user has no home directory.
    """
    cache = user_cache_path("swebench-trainer")
    if not cache.is_absolute():
        raise RuntimeError("the user has no home directory")
    return cache.joinpath(*parts)


def cached(path: Path, build: Callable[[Path, int], object]) -> Path:
    """Return a directory of the cache; build it first if it is missing.

    Args:
        path: The entry.
        build: Creates the directory at the given path. Also gets the descriptor of the
            entry's lock, for child processes.
    """
    mark_used(path)
    if not path.is_dir():
        with write_lock(path) as lock:
            if not path.is_dir():  # another process may have built it
                build(partial_path(path), lock)
                partial_path(path).rename(path)
    return path


@contextlib.contextmanager
def write_lock(path: Path) -> Iterator[int]:
    """Wait for exclusive write access to an entry, and clear an unfinished one.

    Child processes that write to the entry should inherit the lock: if this process is
    killed and the child is not, the next writer waits for the child.

    Yields:
        The file descriptor of the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(lock_path(path)) as lock:
            os.utime(lock)
            remove(partial_path(path))
            yield lock
    finally:
        _tidy(path)


def lock_path(path: Path) -> Path:
    """Return the path of an entry's lock."""
    return path.with_suffix(".lock")


def partial_path(path: Path) -> Path:
    """Return where the lock's holder builds an entry, or puts one to remove it."""
    return path.with_suffix(".new")


def mark_used(path: Path) -> None:
    """Record a use of an entry, if it exists and its folder is writable."""
    with contextlib.suppress(OSError):
        os.utime(lock_path(path), follow_symlinks=False)


def disk_size(path: Path) -> int:
    """Return the bytes on disk below a path; hard links count each time."""
    walk = () if path.is_symlink() else os.walk(path)
    names = ((folder, *folders, *files) for folder, folders, files in walk)
    below = (Path(folder, name) for folder, *inside in names for name in inside)
    return sum(map(_blocks, (path, *below)))


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:  # git replaces files
        return 0


def entries(
    folder: Path, size_of: Callable[[Path], int] = disk_size
) -> list[CacheEntry]:
    """List the entries of a folder, least recently used first; links are not followed."""
    found = []
    for name, suffix in _names(folder):
        if suffix not in (".new", ".lock"):
            with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                path = folder / f"{name}{suffix}"
                found.append(CacheEntry(path, size_of(path), _last_use(path)))
    return sorted(found, key=_used)


def prune(
    folder: Path,
    limits: PruneLimits,
    *,
    size_of: Callable[[Path], int] = disk_size,
    remove_with: Callable[[Path], Iterable[Path]] = lambda _: (),
    only: Callable[[Path], bool] = lambda _: True,
) -> int:
    """Remove unlocked entries beyond the limits, and unfinished ones.

    Args:
        folder: The entries' folder.
        limits: Which entries to remove.
        size_of: Returns the size of an entry.
        remove_with: Lists the files to remove together with an entry.
        only: Selects the entries that may be removed.

    Returns:
        The number of removed entries.
    """
    found = entries(folder, size_of)
    chosen = [entry for entry in found if only(entry.path)]
    removed = evict(
        chosen, limits, lambda e: _remove_entry(e.path, remove_with(e.path))
    )
    whole = {entry.path.stem for entry in found}
    for name in {name for name, _ in _names(folder)} - whole:
        _tidy(folder / name)
    return removed


class Evictable(Protocol):
    """Whatever has a size in bytes and a time of the last use."""

    @property
    def size(self) -> int: ...  # noqa: D102 - see the class
    @property
    def used(self) -> float: ...  # noqa: D102 - see the class


E = TypeVar("E", bound=Evictable)


def evict(found: Iterable[E], limits: PruneLimits, remove: Callable[[E], bool]) -> int:
    """Remove entries beyond the limits, least recently used first.

    Args:
        found: The entries.
        limits: Which of them to remove.
        remove: Removes one; returns false if it is in use.

    Returns:
        The number of removed entries.
    """
    ordered, now, removed = sorted(found, key=_used), time.time(), 0
    size = sum(entry.size for entry in ordered)
    for entry in ordered:
        stale = limits.unused_for is not None and now - entry.used > limits.unused_for
        too_much = limits.max_size is not None and size > limits.max_size
        if (stale or too_much) and remove(entry):
            size -= entry.size
            removed += 1
    return removed


def remove(path: Path) -> None:
    """Remove a file, a link, or a directory whatever its modes; ignore a missing one."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):  # another process removes it, too
        path.chmod(0o700)
        for folder, folders, _ in os.walk(path):
            for below in (Path(folder, name) for name in folders):
                if not below.is_symlink():
                    below.chmod(0o700)
        shutil.rmtree(path)


def _used(entry: Evictable) -> float:
    return entry.used


def _last_use(path: Path) -> float:
    try:
        return lock_path(path).lstat().st_mtime
    except FileNotFoundError:
        return path.lstat().st_mtime


def _names(folder: Path) -> Iterator[tuple[str, str]]:
    """List names and suffixes of the files that belong to entries of a real folder."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if found := _NAME.fullmatch(path.name):
            yield found[1], found[2]


def _tidy(path: Path) -> None:
    """Clear an unfinished entry, and the lock of a missing one.

    Takes the lock again, because a child process may still hold it.
    """
    with contextlib.suppress(OSError), locked(lock_path(path), wait=False):
        remove(partial_path(path))
        if not path.exists():
            lock_path(path).unlink()


def _remove_entry(path: Path, more: Iterable[Path]) -> bool:
    """Remove an entry and the files that go with it, unless it is locked."""
    try:
        with locked(lock_path(path), wait=False):
            away = partial_path(path)
            remove(away)
            with contextlib.suppress(FileNotFoundError):
                path.rename(away)  # so that readers never see a part of it
            remove(away)
            for file in more:
                file.unlink(missing_ok=True)
            lock_path(path).unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("could not remove %s: %s", path, error.strerror)
        return False
    return True
