"""Cgroups, which limit all processes of a sandbox together.

Root may create them anywhere; other users only in a delegated subtree, which systemd
provides for user services. Version 2 has one hierarchy; of version 1, the `memory` and
`pids` hierarchies are used.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swebench_trainer.grading.sandbox import OOM_KILLS
from swebench_trainer.store.locks import try_lock

PREFIX = "swebench-trainer-"
CONTROLLERS = ("memory", "pids")
REMOVE_SECONDS = 5.0
"""How long the kernel may take to reap the last process of a cgroup."""


@dataclass(frozen=True)
class SandboxCgroup:
    """The cgroup of one sandbox: a directory in each hierarchy."""

    folders: tuple[Path, ...]

    @property
    def entrances(self) -> list[str]:
        """Files to which a process writes `0` to enter the cgroup."""
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process in it for lack of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(FileNotFoundError):
                    return bool(OOM_KILLS.search((folder / name).read_text()))
        return False

    def limit(self, memory: int, pids: int) -> None:
        """Set the limits, including swap.

        Raises:
            OSError: A controller is missing.
        """
        values = {
            "memory.max": memory,
            "memory.swap.max": 0,
            "memory.limit_in_bytes": memory,
            "memory.memsw.limit_in_bytes": memory,
            "pids.max": pids,
        }
        done = set()
        for folder, name in itertools.product(self.folders, values):
            if (folder / name).exists():
                (folder / name).write_text(str(values[name]))
                done.add(name.partition(".")[0])
        if done != set(CONTROLLERS):
            raise OSError(f"the only cgroup controllers are {sorted(done)}")


class GraderCgroups:
    """The cgroup of one grader, which contains the cgroups of its sandboxes.

    Raises:
        OSError: This user may not create cgroups there.
    """

    def __init__(self, parents: Sequence[Path]) -> None:
        name = PREFIX + uuid.uuid4().hex
        self._folders = tuple(parent / name for parent in parents)
        self._numbers = itertools.count()
        self._dying: list[Path] = []
        self._lock = threading.Lock()
        self._claims: list[int] = []
        try:
            for folder in self._folders:
                folder.mkdir()
                self._claims.append(_claim(folder))
                if (control := folder / "cgroup.subtree_control").exists():
                    control.write_text(" ".join(f"+{name}" for name in CONTROLLERS))
        except OSError:
            self.close()
            raise

    @contextlib.contextmanager
    def group(self, memory: int, pids: int) -> Iterator[SandboxCgroup]:
        """Makes the cgroups of a sandbox; they go when the last process in them has."""
        self._remove_empty()
        number = str(next(self._numbers))
        group = SandboxCgroup(tuple(folder / number for folder in self._folders))
        try:
            for folder in group.folders:
                folder.mkdir()
            group.limit(memory, pids)
            yield group
        finally:
            self._remove_empty(*group.folders)

    def close(self) -> None:
        """Remove all cgroups with every process in them."""
        for folder in (*self._dying, *self._folders):
            _remove(folder)
        while self._claims:
            os.close(self._claims.pop())

    def _remove_empty(self, *folders: Path) -> None:
        """Remove the empty cgroups, without waiting for the others."""
        with self._lock:
            self._dying = [f for f in (*self._dying, *folders) if not _gone(f)]


@functools.cache
def cgroup_parents() -> tuple[Path, ...]:
    """Directories where cgroups with limits can be created; empty if there are none."""
    for parents in _candidates():
        with (
            contextlib.suppress(OSError, subprocess.CalledProcessError),
            contextlib.closing(GraderCgroups(parents)) as cgroups,
            cgroups.group(1 << 30, 100) as group,
        ):
            script = 'for file do echo $$ > "$file" || exit; done'
            enter = ["sh", "-c", script, "sh", *group.entrances]
            subprocess.run(enter, check=True, capture_output=True)
            return parents
    return ()


def reap_cgroups() -> None:
    """Remove the cgroups of killed graders with every process in them."""
    for parent in cgroup_parents():
        for folder in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):  # in use, or removed by another process
                claim = _claim(folder)
                try:
                    for child in [*folder.glob("*/"), folder]:
                        _remove(child)
                finally:
                    os.close(claim)


def _candidates() -> Iterator[tuple[Path, ...]]:
    """Directories to try: our own cgroup, which must be empty in version 2, or its parent."""
    ours: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        ours |= dict.fromkeys(controllers.split(","), path)
    mounted: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, at, *_ = before.split(" ")
        kind, _, options = after.split(" ")
        names = [""] if kind == "cgroup2" else options.split(",")
        if kind in ("cgroup", "cgroup2"):
            for name in names:
                if name in ours and Path(ours[name]).is_relative_to(root):
                    mounted[name] = Path(at, os.path.relpath(ours[name], root))
    if "" in mounted:
        yield (mounted[""],)
        yield (mounted[""].parent,)
    if mounted.keys() >= set(CONTROLLERS):
        yield tuple(mounted[name] for name in CONTROLLERS)


def _claim(folder: Path) -> int:
    """Lock a directory until this process ends.

    Raises:
        BlockingIOError: Its owner is alive.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try_lock(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _gone(folder: Path) -> bool:
    """Remove a cgroup unless a process is still in it."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _remove(folder: Path) -> None:
    """Remove a cgroup and kill all processes in it."""
    deadline = time.monotonic() + REMOVE_SECONDS
    # A process may hang in the kernel; the next check() tries again.
    while not _gone(folder) and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            for line in (folder / "cgroup.procs").read_text().split():
                os.kill(int(line), signal.SIGKILL)
        time.sleep(0.001)
