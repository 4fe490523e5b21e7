"""Removal of containers whose grader was killed.

Each grader holds a locked file that lists the daemons on which it may have containers.
The lock ends with the process, even after kill -9 or a reboot. Graders of another
machine or user that share a daemon have no file here, so their containers are safe.
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
    """Marks a grader as alive, and lists the daemons that have its containers.

    Args:
        owner: Name of the grader, the value of its containers' label.
    """

    def __init__(self, owner: str) -> None:
        self._path = _claims() / owner
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.fdopen(open_locked(self._path), "w")

    def add(self, daemon_id: str) -> None:
        """Add a daemon. Call this before creating the first container on it."""
        self._file.write(f"{daemon_id}\n")
        self._file.flush()

    def release(self, *, empty: bool) -> None:
        """End the claim.

        Args:
            empty: Whether all containers are gone; if not, `remove_orphans` of a later
                grader removes them.
        """
        if empty:
            self._path.unlink(missing_ok=True)
        self._file.close()


def remove_orphans(apis: Mapping[str, Any]) -> None:
    """Remove the containers of dead graders.

    Args:
        apis: The SDK's `APIClient` by daemon id. A claim is kept until all its
            daemons have been cleaned.
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
    except RuntimeError:  # a user without a home directory
        return Path(tempfile.gettempdir(), f"swebench-trainer-{os.getuid()}", "docker")
