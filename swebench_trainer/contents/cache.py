"""Where clones are kept, and who may write to one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swebench_trainer.contents.commands import GitError, directory, git
from swebench_trainer.store import kept
from swebench_trainer.store.digest import digest


def kept_at(*key: Any) -> Path:
    """The place of a bare repository in the user's cache."""
    return kept.user_cache("repositories", digest(key))


@contextlib.contextmanager
def held(place: Path) -> Iterator[int]:
    """Waits to be the only one who writes to a repository; see `store.kept.held`.

    Yields:
        The descriptor of the lock.
    """
    with kept.held(place) as lock:
        for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*"):
            for left in place.glob(pattern):
                left.unlink(missing_ok=True)
        yield lock


def usable(place: Path) -> bool:
    """Whether a repository is there, and what its branches name can be read."""
    try:
        git(directory(place), "rev-list", "--max-count=1", "--all")
    except GitError:
        return False
    return True
