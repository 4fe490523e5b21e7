"""The `namespace` grader: the official eval script in a Linux sandbox, without Docker.

It needs nothing but the kernel's namespaces and overlayfs. An instance that carries
its repository's files (`snapshot`) runs with the programs of the host and this
interpreter, shown read-only. Any other runs on the root of its image, which is
exported once, see `rootfs.py`. Either way what a candidate writes goes to a layer in
memory that is thrown away, and nothing else of the host is visible; `sandbox_init.py`
says how.

Memory and processes are limited together where this user may make cgroups (root may).
Elsewhere the limit of memory is one for each process, and only the number of processes
and the size of the files in memory hold for the sandbox as a whole. Processor time has
no limit but the deadline. The kernel is the host's: for patches that are made to attack
it, a machine of its own is the right place.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import site
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.namespace.cgroup import (
    GraderCgroups,
    SandboxCgroup,
    cgroup_parents,
    reap_cgroups,
)
from swebench_trainer.grading.namespace.launch import (
    Launcher,
    NamespaceSandbox,
    SandboxLimits,
    SandboxRoot,
    interpreter_dirs,
)
from swebench_trainer.grading.namespace.root_cache import ImageRoot
from swebench_trainer.grading.namespace.rootfs import ImageRoots
from swebench_trainer.grading.run_candidate import run_candidate
from swebench_trainer.grading.sandbox import Files, RunCache, Sandbox
from swebench_trainer.grading.scheduler import grade_all, with_deadlines
from swebench_trainer.grading.snapshot import snapshot_repository
from swebench_trainer.recipe.models import GradeTable, Size
from swebench_trainer.types import Instance

USE_DOCKER = 'Grade with Docker instead: [grade] use = "docker".'

View = Literal["overlay", "copy"]
"""How the repository appears in the sandbox."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTS = b"127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
USERS = b"""\
root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUPS = b"root:x:0:\nnogroup:x:65534:\n"
SHOWN_ETC = ("ld.so.cache", "localtime", "mime.types", "protocols", "services")
"""What else of `/etc` programs of the host want to see."""

PACKAGE_DATABASES = ("/var/lib/dpkg/status", "/var/lib/rpm", "/lib/apk/db/installed")

EXPORTS_AHEAD = 2
"""So many of the next images are exported while the tests of others run."""

PROBE = b"""\
set -e
command -v git bash
command -v patch || { echo 'there is no patch(1)'; exit 1; }
rm launch.py
mkdir launch.py
[ -z "$(ls -A launch.py)" ]
[ -s cgroup.py ]
echo written > cgroup.py
[ "$(cat cgroup.py)" = written ]
"""
"""What overlays of some kernels cannot do, with the files of this directory.

A command a line: behind `&&` the shell would go on after a failure.
"""

PROBE_SECONDS = 60.0
PROBE_LIMITS = SandboxLimits(memory=1 << 30, pids=256, disk=1 << 28, shm=1 << 20)


class NamespaceTable(GradeTable):
    """`[grade]` of the `namespace` grader."""

    programs: Literal["auto", "image"] = "auto"
    """Whose programs the tests use: the image's, or the host's where an instance carries its files (`auto`)."""
    memory: Size = "8g"
    """Memory of one candidate, its files included; where there are no cgroups, of one process without what it shares. Needing more is `oom`."""
    disk: Size = "4g"
    """What one candidate may write; it lies in memory."""
    shm: Size = "64m"
    """Size of `/dev/shm` of one candidate."""
    pids: PositiveInt = 4096
    """Processes and threads of one candidate."""
    network: bool = False
    """Whether tests have the network of this machine, its local services included; else they have their own loopback."""


class NamespaceGrader:
    """Grades in namespaces of the kernel; made from the recipe's `[grade]` table.

    Args:
        table: The recipe's `[grade]`.
        run_cache: Earlier runs; `None` for none.
    """

    def __init__(
        self, table: NamespaceTable, run_cache: RunCache | None = None
    ) -> None:
        self._table = table
        self._run_cache = run_cache
        self._engine = NamespaceSandboxFactory(table)

    def check(self, instances: Sequence[Instance]) -> None:
        """Runs a sandbox, reads every snapshot, and removes what killed graders left.

        Raises:
            PrerequisiteError: The machine allows no sandbox, or an instance has
                neither snapshot nor image.
            DataError: A snapshot is not its instance's `base_commit`.
        """
        reap_cgroups()
        repository_view()
        for instance in instances:
            self._engine.check(instance)

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Grades the jobs; see `Grader.grade`."""
        self._engine.resume()
        return grade_all(
            jobs,
            with_deadlines(self._table, self._grade),
            workers=self._table.workers,
            retries=self._table.retries,
            stop=self._engine.stop,
            ahead=self._engine.expect,
        )

    def close(self) -> None:
        """Ends what runs; a sandbox ends with everything in it."""
        self._engine.close()
        if self._run_cache is not None:
            self._run_cache.close()

    def _grade(self, job: GradeJob, timeout: float) -> Outcome:
        return run_candidate(
            job,
            self._engine,
            timeout,
            run_cache=self._run_cache,
            same_tree=self._table.dedupe == "tree",
        )


class NamespaceSandboxFactory:
    """Makes sandboxes; see `engine.Engine`."""

    def __init__(self, table: NamespaceTable) -> None:
        self._programs = table.programs
        self._limits = SandboxLimits(
            memory=_byte_count(table.memory),
            pids=table.pids,
            disk=_byte_count(table.disk),
            shm=_byte_count(table.shm),
            network=table.network,
        )
        self._lock = threading.Lock()
        self._repositories: dict[tuple[str, str], Path] = {}
        self._images = ImageRoots()
        self._launcher = Launcher()
        self._running: weakref.WeakSet[NamespaceSandbox] = weakref.WeakSet()
        self._stopped = False

    def check(self, instance: Instance) -> None:
        """Finds out whether an instance can be graded; see `NamespaceGrader.check`."""
        if self._on_host(instance):
            self._repository(instance)
        elif not instance.image:
            raise PrerequisiteError(
                f"{instance.instance_id} has neither the files of its repository nor "
                "an image, one of which the namespace grader needs.",
                hint="Add the column `image`, or leave the instance out.",
            )
        elif repository_view() != "overlay":
            raise PrerequisiteError(
                "This machine has no overlays for sandboxes, which images need.",
                hint=USE_DOCKER,
            )
        else:
            self._images.check(instance.image)

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        """See `engine.Engine`."""
        facts = {"backend": "namespace", **vars(self._limits)}
        facts["cgroups"] = bool(cgroup_parents())
        if self._on_host(instance):
            return facts | {
                "root": "host",
                "host": host_programs(),
                "repository": self._repository(instance).name,
            }
        return facts | {
            "root": "image",
            "image": self._images.image_id(instance.image),
            "machine": platform.machine(),
        }

    @contextlib.contextmanager
    def open(self, job: GradeJob, files: Files) -> Iterator[Sandbox]:
        """See `engine.Engine`."""
        root, workdir = self._root(job.instance), job.instance.workdir
        with (
            self._group() as group,
            self._launcher.launch(root, workdir, files, self._limits, group) as sandbox,
        ):
            with self._lock:
                self._running.add(sandbox)
            if self._stopped:  # it came too late to be ended with the others
                raise InterruptedError("grading was stopped")
            yield sandbox

    def expect(self, jobs: Sequence[GradeJob]) -> None:
        """Exports the images of jobs that are soon to come."""
        images = [j.instance.image for j in jobs if not self._on_host(j.instance)]
        self._images.expect(list(dict.fromkeys(images))[:EXPORTS_AHEAD])

    def stop(self) -> None:
        """Ends what runs."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        self._images.stop()
        for sandbox in running:
            sandbox.kill()

    def resume(self) -> None:
        """Lets sandboxes run again, and asks again for what could not be had."""
        self._stopped = False
        self._images.retry()

    def close(self) -> None:
        """Ends what runs and removes the cgroups."""
        self.stop()
        self._launcher.close()
        self._images.close()
        if "_cgroups" in self.__dict__ and self._cgroups is not None:
            self._cgroups.close()
            del self._cgroups

    @functools.cached_property
    def _cgroups(self) -> GraderCgroups | None:
        parents = cgroup_parents()
        return GraderCgroups(parents) if parents else None

    def _group(self) -> AbstractContextManager[SandboxCgroup | None]:
        with self._lock:
            cgroups = self._cgroups
        if cgroups is None:
            return contextlib.nullcontext()
        return cgroups.group(self._limits.memory, self._limits.pids)

    def _on_host(self, instance: Instance) -> bool:
        return bool(instance.snapshot) and self._programs == "auto"

    def _root(self, instance: Instance) -> SandboxRoot:
        if self._on_host(instance):
            return host_root(self._repository(instance), self._limits.network)
        return image_root(self._images.root(instance.image), self._limits.network)

    def _repository(self, instance: Instance) -> Path:
        key = (instance.snapshot, instance.base_commit)
        with self._lock:  # read once by this grader, however many candidates there are
            if key not in self._repositories:
                self._repositories[key] = snapshot_repository(instance)
            return self._repositories[key]


def host_root(repository: Path, network: bool = False) -> SandboxRoot:
    """A root with the programs of the host and a repository."""
    etc = _own_etc(network) | {"etc/passwd": USERS, "etc/group": GROUPS}
    for name in SHOWN_ETC:
        with contextlib.suppress(OSError):
            etc[f"etc/{name}"] = Path("/etc", name).read_bytes()
    environment = {
        "HOME": "/root",
        "HOSTNAME": "sandbox",
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
    }
    return SandboxRoot(
        environment,
        etc,
        repository=str(repository),
        copy=repository_view() == "copy",
        host_dirs=interpreter_dirs(),
    )


def image_root(image: ImageRoot, network: bool = False) -> SandboxRoot:
    """The root of an image, with the environment that `docker exec` gives in it."""
    environment = {"HOME": "/root", "HOSTNAME": "sandbox", "PATH": SYSTEM_PATH}
    environment |= image.environment
    return SandboxRoot(environment, _own_etc(network), rootfs=str(image.path))


@functools.cache
def host_programs() -> str:
    """Stands for the host's programs: another digest, and tests may end otherwise."""
    facts: list[object] = [sys.version, sys.prefix, platform.uname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/etc/os-release").read_text())
    packages = [*site.getsitepackages(), *sys.path[1:], *PACKAGE_DATABASES]
    for path in sorted(filter(None, packages)):
        with contextlib.suppress(OSError):
            facts.append((path, os.stat(path).st_mtime_ns))  # noqa: PTH116 - text paths
    return hashlib.sha256(repr(facts).encode()).hexdigest()


@functools.cache
def repository_view() -> View:
    """Finds out by trying whether this machine allows sandboxes, and of which kind.

    Raises:
        PrerequisiteError: It allows none.
    """
    problem = ""
    for view in ("overlay", "copy"):
        problem = _probe(copy=view == "copy")
        if not problem:
            return view
    raise PrerequisiteError(
        f"This machine allows no sandbox of namespaces: {problem}",
        hint="It needs unprivileged user namespaces, bash, git and patch under /usr. "
        + USE_DOCKER,
    )


def _probe(copy: bool) -> str:
    """Runs a tiny sandbox; returns what went wrong, or nothing."""
    environment = {"PATH": SYSTEM_PATH}
    root = SandboxRoot(
        environment, {}, repository=str(Path(__file__).parent), copy=copy
    )
    output = os.memfd_create("output")
    try:
        with (
            Launcher() as launcher,
            launcher.launch(
                root, "/testbed", {"eval.sh": PROBE}, PROBE_LIMITS, None
            ) as sandbox,
            CappedLog(Path(f"/proc/self/fd/{output}")) as log,
        ):
            ended = sandbox.test(log, PROBE_SECONDS)
        text = os.pread(output, 1 << 16, 0).decode(errors="replace")
    except OSError as error:
        return str(error)
    finally:
        os.close(output)
    return "" if ended.code == 0 else [*text.splitlines(), "no output"][-1]


def _own_etc(network: bool) -> dict[str, bytes]:
    """Files of `/etc` that a sandbox has of its own."""
    resolv = b""
    if network:
        with contextlib.suppress(OSError):
            resolv = Path("/etc/resolv.conf").read_bytes()
    return {
        "etc/hosts": HOSTS,
        "etc/hostname": b"sandbox\n",
        "etc/resolv.conf": resolv,
    }


def _byte_count(text: str) -> int:
    """What `8g` means."""
    return int(text[:-1]) << 10 * "bkmg".index(text[-1])
