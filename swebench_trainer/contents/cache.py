"""Where clones are kept, and who may write to one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swebench_trainer.contents.commands import GitError, directory, git
from swebench_trainer.store.digest import digest


def kept_at(*key: Any) -> Path:
    """The place of a bare repository in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.absolute() / "swebench-trainer" / "repositories" / digest(key)


@contextlib.contextmanager
def held(place: Path) -> Iterator[int]:
    """Waits to be the only one who writes to a repository, and clears what the last left.

    Whoever starts a program that writes gives it the lock too: if we are killed and it
    is not, the next in line waits for its end.

    Yields:
        The descriptor of the lock.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove(unfinished(place))
        for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*"):
            for left in place.glob(pattern):
                left.unlink(missing_ok=True)
        yield lock.fileno()


def unfinished(place: Path) -> Path:
    """Where something is made that will be moved or removed; the lock's holder's own."""
    return place.with_suffix(".new")


def usable(place: Path) -> bool:
    """Whether a repository is there, and what its branches name can be read."""
    try:
        git(directory(place), "rev-list", "--max-count=1", "--all")
    except GitError:
        return False
    return True


def remove(folder: Path) -> None:
    """Removes a directory, whether it is there or not."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
