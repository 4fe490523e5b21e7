"""The `namespace` grader: the official eval script in a Linux sandbox, without Docker.

It needs only the kernel's namespaces and overlayfs. An instance that contains its
repository's files (`snapshot`) runs with the programs of the host and this interpreter,
mounted read-only. Any other instance runs on the root filesystem of its image, which is
exported once (see `image_roots.py`). In both cases, writes go to a layer in memory that is
discarded, and nothing else of the host is visible (see `sandbox_init.py`).

Where this user may create cgroups (root may), the limits of memory and processes apply
to the sandbox as a whole. Elsewhere, the memory limit applies to each process, and only
the number of processes and the size of files apply to the whole. Processor time is
limited only by the deadline. The sandbox shares the host's kernel: use a separate
machine for patches that may attack it.
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
from swebench_trainer.grading.namespace.image_roots import ImageRoot, ImageRoots
from swebench_trainer.grading.namespace.launch import (
    Launcher,
    SandboxLimits,
    SandboxRoot,
    interpreter_dirs,
)
from swebench_trainer.grading.run_candidate import CandidateRun
from swebench_trainer.grading.sandbox import Files, NullCache, RunCache, Sandbox
from swebench_trainer.grading.scheduler import grade_all
from swebench_trainer.grading.snapshot import snapshot_repository
from swebench_trainer.recipe.models import GradeTable, Size
from swebench_trainer.types import Instance

USE_DOCKER = 'Grade with Docker instead: [grade] use = "docker".'

View = Literal["overlay", "copy"]
"""How the repository gets into the sandbox."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTS = b"127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
USERS = b"""\
root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUPS = b"root:x:0:\nnogroup:x:65534:\n"
ETC_FILES = ("ld.so.cache", "localtime", "mime.types", "protocols", "services")
"""Other files of `/etc` that programs of the host need."""

PACKAGE_DATABASES = ("/var/lib/dpkg/status", "/var/lib/rpm", "/lib/apk/db/installed")

EXPORTS_AHEAD = 2
"""Number of upcoming images to export while other candidates run."""

PROBE = b"""\
set -e
command -v git bash
command -v patch || { echo 'patch(1) is missing'; exit 1; }
rm launch.py
mkdir launch.py
[ -z "$(ls -A launch.py)" ]
[ -s cgroup.py ]
echo written > cgroup.py
[ "$(cat cgroup.py)" = written ]
"""
"""Checks of overlay features that some kernels lack, using files of this directory.

One command per line, because `set -e` ignores failures before `&&`.
"""

PROBE_SECONDS = 60.0
PROBE_LIMITS = SandboxLimits(memory=1 << 30, pids=256, disk=1 << 28, shm=1 << 20)


class NamespaceTable(GradeTable):
    """`[grade]` of the `namespace` grader."""

    programs: Literal["auto", "image"] = "auto"
    """Source of the programs that tests use: the image, or the host for instances that contain their files (`auto`)."""
    memory: Size = "8g"
    """Memory limit of a candidate, including its files; without cgroups, of each process, excluding shared memory. A candidate that exceeds it is `oom`."""
    disk: Size = "4g"
    """Maximum size of the files that a candidate writes; they are kept in memory."""
    shm: Size = "64m"
    """Size of `/dev/shm` of a candidate."""
    pids: PositiveInt = 4096
    """Maximum number of processes and threads of a candidate."""
    network: bool = False
    """Whether tests use the network of this machine, including its local services; otherwise they have only their own loopback."""


class NamespaceGrader:
    """Grades in namespaces of the kernel, in sandboxes of its own (`SandboxFactory`).

    Args:
        table: The `[grade]` table.
        run_cache: Earlier runs; `None` for none.
    """

    def __init__(
        self, table: NamespaceTable, run_cache: RunCache | None = None
    ) -> None:
        self._table = table
        self._run_cache = run_cache or NullCache()
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
        self._cgroups: GraderCgroups | None = None
        self._stopped = False

    def check(self, instances: Sequence[Instance]) -> None:
        """Start a sandbox, read every snapshot, and remove cgroups of killed graders.

        Raises:
            PrerequisiteError: The machine does not allow sandboxes, or an instance has
                neither snapshot nor image.
            DataError: A snapshot does not match its instance's `base_commit`.
        """
        reap_cgroups()
        repository_view()
        for instance in instances:
            self._check(instance)

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Grade the jobs; see `Grader.grade`."""
        self._stopped = False
        self._images.retry()
        return grade_all(
            jobs, self._table, self._grade, stop=self._stop, ahead=self._prefetch
        )

    def close(self) -> None:
        """End all sandboxes with everything in them, and remove the cgroups."""
        self._stop()
        self._images.close()
        if self._cgroups is not None:
            self._cgroups.close()
            self._cgroups = None
        self._run_cache.close()

    def _grade(self, job: GradeJob, timeout: float) -> Outcome:
        same_tree = self._table.dedupe == "tree"
        return CandidateRun(job, self, timeout, self._run_cache, same_tree).outcome()

    def _check(self, instance: Instance) -> None:
        """Check whether an instance can be graded."""
        if self._on_host(instance):
            self._repository(instance)
        elif not instance.image:
            raise PrerequisiteError(
                f"The namespace grader needs the repository's files or an image, but "
                f"{instance.instance_id} has neither.",
                hint="Add an `image` column, or exclude the instance.",
            )
        elif repository_view() != "overlay":
            raise PrerequisiteError(
                "Sandboxes on images need overlayfs, which this machine does not allow.",
                hint=USE_DOCKER,
            )
        else:
            self._images.check(instance.image)

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        """See `SandboxFactory.environment`."""
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
        """See `SandboxFactory.open`."""
        root, workdir = self._root(job.instance), job.instance.workdir
        with (
            self._group() as group,
            self._launcher.launch(root, workdir, files, self._limits, group) as sandbox,
        ):
            if self._stopped:  # it may have started after the others were ended
                raise InterruptedError("grading was stopped")
            yield sandbox

    def _prefetch(self, jobs: Sequence[GradeJob]) -> None:
        """Export the images of the next jobs."""
        images = [j.instance.image for j in jobs if not self._on_host(j.instance)]
        self._images.prefetch(list(dict.fromkeys(images))[:EXPORTS_AHEAD])

    def _stop(self) -> None:
        """End all running sandboxes."""
        self._stopped = True
        self._images.stop()
        self._launcher.close()

    def _group(self) -> AbstractContextManager[SandboxCgroup | None]:
        if not (parents := cgroup_parents()):
            return contextlib.nullcontext()
        with self._lock:
            self._cgroups = self._cgroups or GraderCgroups(parents)
            return self._cgroups.group(self._limits.memory, self._limits.pids)

    def _on_host(self, instance: Instance) -> bool:
        return bool(instance.snapshot) and self._table.programs == "auto"

    def _root(self, instance: Instance) -> SandboxRoot:
        if self._on_host(instance):
            return host_root(self._repository(instance), self._limits.network)
        return image_root(self._images.root(instance.image), self._limits.network)

    def _repository(self, instance: Instance) -> Path:
        key = (instance.snapshot, instance.base_commit)
        with self._lock:  # read once per grader, not once per candidate
            if key not in self._repositories:
                self._repositories[key] = snapshot_repository(instance)
            return self._repositories[key]


def host_root(repository: Path, network: bool = False) -> SandboxRoot:
    """A root filesystem with the programs of the host and a repository."""
    etc = _etc_files(network) | {"etc/passwd": USERS, "etc/group": GROUPS}
    for name in ETC_FILES:
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
    """The root filesystem of an image, with the environment of `docker exec`."""
    environment = {"HOME": "/root", "HOSTNAME": "sandbox", "PATH": SYSTEM_PATH}
    environment |= image.environment
    return SandboxRoot(environment, _etc_files(network), rootfs=str(image.path))


@functools.cache
def host_programs() -> str:
    """Digest of the host's programs, which may affect the result of tests."""
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
    """Start a sandbox to find out which kind this machine allows.

    Raises:
        PrerequisiteError: It does not allow any.
    """
    if not _probe(copy=False):
        return "overlay"
    if not (problem := _probe(copy=True)):
        return "copy"
    raise PrerequisiteError(
        f"This machine does not allow namespace sandboxes: {problem}",
        hint="It needs unprivileged user namespaces, bash, git and patch under /usr. "
        + USE_DOCKER,
    )


def _probe(copy: bool) -> str:
    """Run a tiny sandbox; returns the error, or nothing."""
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


def _etc_files(network: bool) -> dict[str, bytes]:
    """Files of `/etc` specific to a sandbox."""
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
    """Number of bytes of a size such as `8g`."""
    return int(text[:-1]) << 10 * "bkmg".index(text[-1])
