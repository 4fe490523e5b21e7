"""Claims: how the containers of a killed grader are told from those of a living one.

Each grader holds a locked file with the daemons on which it may have containers. A
lock outlasts neither kill -9 nor a reboot; a grader of another machine or user, which
may share a daemon, has no file here and is left alone.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swebench_trainer.grading.docker.containers import remove_containers
from swebench_trainer.store.cache import user_cache
from swebench_trainer.store.locks import open_locked, try_lock


class GraderClaim:
    """Says that a grader lives, and where its containers are.

    Args:
        owner: The grader's name, the value of its containers' label.
    """

    def __init__(self, owner: str) -> None:
        self._path = _claims() / owner
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.fdopen(open_locked(self._path), "w")

    def add(self, daemon_id: str) -> None:
        """Says so before there is a container on this daemon."""
        self._file.write(f"{daemon_id}\n")
        self._file.flush()

    def release(self, *, empty: bool) -> None:
        """Ends the claim; what is not known to be gone is left to `remove_leftovers`."""
        if empty:
            self._path.unlink(missing_ok=True)
        self._file.close()


def remove_orphans(apis: Mapping[str, Any]) -> None:
    """Removes the containers of graders that live no more.

    Args:
        apis: Daemon id → the SDK's `APIClient`. A claim stays until each of its
            daemons has been asked.
    """
    held_or_gone = contextlib.suppress(BlockingIOError, FileNotFoundError)
    for path in _claims().glob("*"):
        with held_or_gone, path.open("r+") as claim:
            try_lock(claim)
            daemons = set(claim.read().split())
            for daemon_id in daemons & apis.keys():
                remove_containers(apis[daemon_id], path.name)
            if left := daemons - apis.keys():
                claim.seek(0)
                claim.truncate()
                claim.writelines(f"{daemon_id}\n" for daemon_id in sorted(left))
            else:
                path.unlink()


def _claims() -> Path:
    try:
        return user_cache("docker")
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir(), f"swebench-trainer-{os.getuid()}", "docker")
