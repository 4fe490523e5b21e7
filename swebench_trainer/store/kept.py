"""What is kept in the user's cache because it took long to make.

A kind of thing has a folder. Each thing in it is a directory or file, named by a digest;
beside it lie its lock, whose time tells when the thing was last used, and, while it is
made or removed, what will be moved. Whoever makes, changes or removes it holds the lock.
Who reads it holds nothing, so it may go under a reader, who has it made again or says why.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    "repositories": "repositories",
    "checkouts": "evaluation repositories",
    "bm25": "BM25 indexes",
    "generated": "sets of generated tasks",
    "tokens": "encoded data sets",
}
"""Folder → what a user calls the things in it."""

_NAME = re.compile(r"([0-9a-f]{16,64})(|\.zip|\.new|\.lock)")
"""What else lies there is not ours."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """A thing in the cache.

    Attributes:
        place: Where it lies.
        size: Bytes that it takes on disk.
        used: When it was last used, in seconds since 1970.
    """

    place: Path
    size: int
    used: float


def user_cache(*parts: str) -> Path:
    """A place in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.absolute().joinpath("swebench-trainer", *parts)


@contextlib.contextmanager
def held(place: Path) -> Iterator[int]:
    """Waits to be the only one who writes to a place, and clears what the last left.

    Whoever starts a program that writes gives it the lock too: if we are killed and it
    is not, the next in line waits for its end.

    Yields:
        The descriptor of the lock.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(place, fcntl.LOCK_EX) as lock:
            os.utime(lock)
            remove(unfinished(place))
            yield lock
    finally:
        _tidy(place)


def unfinished(place: Path) -> Path:
    """Where something is made that will be moved or removed; the lock's holder's own."""
    return place.with_suffix(".new")


def note_use(place: Path) -> None:
    """Records that a thing is used now, if it is there and may be written to."""
    with contextlib.suppress(OSError):
        os.utime(_lock_of(place), follow_symlinks=False)


def kept(folder: Path) -> list[Kept]:
    """The things of a kind, the longest unused first; links are not followed."""
    things = []
    for name, suffix in _names(folder):
        if suffix not in (".new", ".lock"):
            with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                things.append(_thing(folder / f"{name}{suffix}"))
    return sorted(things, key=lambda thing: thing.used)


def prune(folder: Path, *, unused_for: float | None, max_size: int | None) -> int:
    """Removes things that nobody writes to, the longest unused first, and half ones.

    Args:
        folder: Of a kind.
        unused_for: Seconds; what was not used since goes.
        max_size: Bytes that the things may take together.

    Returns:
        The number of things that were removed.
    """
    things, now, removed = kept(folder), time.time(), 0
    size = sum(thing.size for thing in things)
    for thing in things:
        old = unused_for is not None and now - thing.used > unused_for
        much = max_size is not None and size > max_size
        if (old or much) and _remove(thing.place):
            size -= thing.size
            removed += 1
    whole = {thing.place.stem for thing in things}
    for name in {name for name, _ in _names(folder)} - whole:
        _tidy(folder / name)
    return removed


def remove(place: Path) -> None:
    """Removes a file, a link, or a directory whose modes may forbid it; if it is there."""
    if place.is_symlink() or not place.is_dir():
        place.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):  # somebody else removes it, too
        place.chmod(0o700)
        for path, folders, _ in os.walk(place):
            for name in folders:
                below = Path(path, name)
                if not below.is_symlink():
                    below.chmod(0o700)
        shutil.rmtree(place)


def disk_size(place: Path) -> int:
    """Bytes on disk of a file, a link, or all in a directory; two names count twice."""
    walk = () if place.is_symlink() else os.walk(place)
    paths = (
        Path(where, name)
        for where, folders, files in walk
        for name in (*folders, *files)
    )
    return sum(_blocks(path) for path in (place, *paths))


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:  # git replaces files
        return 0


def _names(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and suffixes of what is ours in a folder, unless it leads elsewhere."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if found := _NAME.fullmatch(path.name):
            yield found[1], found[2]


def _thing(place: Path) -> Kept:
    try:
        used = _lock_of(place).lstat().st_mtime
    except FileNotFoundError:
        used = place.lstat().st_mtime
    return Kept(place, disk_size(place), used)


def _tidy(place: Path) -> None:
    """Clears what is left of something that was not finished.

    The lock is taken anew, because a program that we have started may still have it.
    """
    with (
        contextlib.suppress(OSError),
        _locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB),
    ):
        remove(unfinished(place))
        if not place.exists():
            _lock_of(place).unlink()


def _remove(place: Path) -> bool:
    """Removes a thing, unless somebody writes to it."""
    try:
        with _locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB):
            away = unfinished(place)
            remove(away)
            with contextlib.suppress(FileNotFoundError):
                place.rename(away)  # so that nobody finds half of it
            remove(away)
            _lock_of(place).unlink(missing_ok=True)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("%s stays: %s", place, error.strerror)
        return False
    return True


@contextlib.contextmanager
def _locked(place: Path, how: int) -> Iterator[int]:
    """The lock of a place.

    Raises:
        BlockingIOError: Somebody has it, and `how` does not wait.
    """
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        lock = os.open(_lock_of(place), flags, 0o644)
        try:
            fcntl.flock(lock, how)
            if _is_at(lock, _lock_of(place)):
                yield lock
                return
        finally:
            os.close(lock)


def _is_at(lock: int, path: Path) -> bool:
    """Whether a lock is still the one that others find; its last holder may remove it."""
    try:
        return os.path.samestat(os.fstat(lock), path.lstat())
    except FileNotFoundError:
        return False


def _lock_of(place: Path) -> Path:
    return place.with_suffix(".lock")
