"""Scripts in real sandboxes, without the harness."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.namespace import launch
from swebench_trainer.grading.namespace.cgroup import GraderCgroups, cgroup_parents
from swebench_trainer.grading.namespace.grader import host_root, repository_view
from swebench_trainer.grading.namespace.launch import (
    Launcher,
    SandboxLimits,
    SandboxRoot,
)
from swebench_trainer.grading.sandbox import CommandResult, Evidence, TestFiles

LIMITS = SandboxLimits(memory=1 << 30, pids=512, disk=1 << 28, shm=1 << 24)


def require_sandbox() -> None:
    """Skip the test, with the reason, if the machine does not allow sandboxes."""
    try:
        repository_view()
    except PrerequisiteError as error:
        pytest.skip(error.message)


@dataclass(frozen=True)
class SandboxRun:
    ended: CommandResult
    output: str
    evidence: Evidence | None


def run(
    script: str,
    folder: Path,
    *,
    root: SandboxRoot | None = None,
    timeout: float = 30,
    inspect: bool = False,
    group: bool = True,
    launcher: Launcher | None = None,
    **limits: int,
) -> SandboxRun:
    """Run a script in `/testbed`, which contains only `file`.

    Without a launcher, all runs share one.
    """
    repository = folder / "repository"
    repository.mkdir(exist_ok=True)
    (repository / "file").write_text("of the repository\n")
    with contextlib.ExitStack() as stack:
        launcher = launcher or shared_launcher()
        allowed = dataclasses.replace(LIMITS, **limits)
        sandbox = stack.enter_context(
            launcher.launch(
                root or host_root(repository),
                "/testbed",
                {"eval.sh": script.encode()},
                allowed,
                stack.enter_context(cgroup(allowed)) if group else None,
            )
        )
        log = stack.enter_context(CappedLog(folder / "log"))
        ended = sandbox.test(log, timeout)
        log.close()
        evidence = sandbox.inspect(TestFiles()) if inspect else None
    return SandboxRun(ended, (folder / "log").read_text(errors="replace"), evidence)


@functools.cache
def shared_launcher() -> Launcher:
    """The launcher of this process, which ends with it."""
    launcher = Launcher()
    atexit.register(launcher.close)
    return launcher


@contextlib.contextmanager
def cgroup(limits: SandboxLimits) -> Iterator[object]:
    """A cgroup for one run, or `None` if this user may not create any."""
    parents = cgroup_parents()
    if not parents:
        yield None
        return
    cgroups = GraderCgroups(parents)
    try:
        with cgroups.group(limits.memory, limits.pids) as group:
            yield group
    finally:
        cgroups.close()


@contextlib.contextmanager
def as_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Start sandboxes as an ordinary user, with a Python that this user may run.

    Yields:
        A directory that the user may enter, unlike pytest's own.
    """
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("the system has no Python that other users may run")
    user = {"user": 65534, "group": 65534, "extra_groups": []}
    popen = functools.partial(subprocess.Popen, **user)
    with tempfile.TemporaryDirectory() as name, monkeypatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(launch.SANDBOX, folder / "sandbox.py")
        (folder / "sandbox.py").chmod(0o644)
        patch.setattr(launch, "SANDBOX", folder / "sandbox.py")
        patch.setattr(launch.subprocess, "Popen", popen)
        patch.setattr(sys, "executable", python)
        patch.setattr(sys, "prefix", "/usr")
        patch.setattr(sys, "base_prefix", "/usr")
        yield folder


def sandbox_processes(mark: str) -> list[int]:
    """Processes on this machine that have the mark in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found
