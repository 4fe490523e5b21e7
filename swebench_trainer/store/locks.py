"""Locks between processes. The kernel releases all of them when a process dies.

A plain exclusive lock, such as the one on a run directory, is a `filelock.FileLock`.
The other locks call `flock` directly, because they need what `filelock` hides:

- shared locks: any number of graders use an image root or the run cache, and only a
  process that has it to itself may replace it;
- inherited locks: git keeps the lock on a cache entry through a file descriptor, so
  that the entry stays locked until git ends even if its parent is killed;
- liveness locks: a process holds an open file (or a directory, for a cgroup) locked
  for its lifetime, and others test the lock to learn whether it still runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from swebench_trainer.errors import StageError


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Own the directory of the lock file `path`, which then names this process.

    Raises:
        StageError: Another process owns it; the message names that process.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    # A soft lock would outlive a killed process.
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise StageError(
            f"{path.parent} is in use by {_owner(path)}.",
            hint="Wait for it to finish, stop it, or use a different directory (--name, --runs-dir or --out).",
        ) from None
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with lock:
        path.write_text(json.dumps(owner))
        yield


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']} (since {owner['since']})"
    except (OSError, ValueError, KeyError):
        return "another process"


def lock_shared(file: int | IO[Any]) -> None:
    """Wait for a lock on an open file that several processes may hold together."""
    fcntl.flock(file, fcntl.LOCK_SH)


def try_lock(file: int | IO[Any]) -> None:
    """Lock an open file or directory exclusively, without waiting.

    Raises:
        BlockingIOError: Another process holds a lock on it.
    """
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def open_locked(path: Path, *, shared: bool = False, wait: bool = True) -> int:
    """Open and lock a lock file that any holder of the lock may remove.

    Args:
        path: The lock file; created if missing, never followed if it is a link.
        shared: Share the lock with other shared holders.
        wait: Wait for other holders.

    Returns:
        The file descriptor. Closing it releases the lock, unless a child process
        inherited the descriptor.

    Raises:
        BlockingIOError: Another process holds the lock and `wait` is false.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)
            if _is_same_file(descriptor, path):
                return descriptor
        except BaseException:  # interrupted while waiting, or the lock is taken
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold the exclusive lock of a lock file. See `open_locked`.

    Yields:
        The file descriptor of the lock.
    """
    descriptor = open_locked(path, wait=wait)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
