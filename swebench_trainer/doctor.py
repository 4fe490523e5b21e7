"""Checks of what grading needs from this machine, and trial gradings.

Each check looks at one thing and returns a finding, with the next step if one is
needed. In the trials gold patches must pass and no-ops must fail, and the harness must
agree.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from swebench_trainer.contracts import GradeJob
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.official import NOOP
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.reporting.listings import Trial
from swebench_trainer.stages.context import GOLD
from swebench_trainer.store.cache import user_cache
from swebench_trainer.types import NO_OP, Candidate, Instance, Status

Level = Literal["ok", "warning", "problem"]

PACKAGES = ("swebench", "docker", "torch", "transformers", "trl", "peft")
PROGRAMS = ("bash", "git", "patch")
EXPECTED = {GOLD: Status.RESOLVED, NOOP: Status.UNRESOLVED}

PULLS, PULLS_WHEN_LOGGED_IN, PULL_HOURS = 100, 200, 6
"""Pull limits of the default registry per address and per account, and their window."""

LOW_DISK = 20 * 10**9
"""Free bytes below which images and logs soon fill a disk."""

MACHINE_HINT = "Check the network, the registry, and the daemon, then run doctor again."

SWITCHES = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "10000"),
)
"""Kernel settings that can forbid user namespaces: name, forbidding value, allowing value."""


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        what: The thing checked, in a word or two.
        text: The result, in a sentence.
        hint: The next step, if one is needed.
    """

    level: Level
    what: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.what:<11} {self.text}"
        return f"{line}\n{'':<21}{self.hint}" if self.hint else line


def check_packages() -> Finding:
    """Versions of Python and of the packages that determine results."""
    found, missing = [f"Python {platform.python_version()}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        text = f"{', '.join(found)}; missing: {', '.join(missing)}"
        return Finding("problem", "packages", text, "pip install swebench-trainer")
    return Finding("ok", "packages", ", ".join(found))


def check_programs(path: str | None = None) -> Finding:
    """The programs that a sandbox uses from the host.

    Args:
        path: Search path; `PATH` by default.
    """
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        hint = f"Install them: apt-get install {' '.join(missing)}"
        text = f"missing: {', '.join(missing)}; grading task files in namespaces needs them"
        return Finding("warning", "programs", text, hint)
    return Finding("ok", "programs", f"found {', '.join(PROGRAMS)}")


def docker_info(address: str = "") -> tuple[Finding, Mapping[str, Any] | None]:
    """A Docker daemon and its own description; `None` if it does not answer.

    Args:
        address: As in `[grade] hosts`; empty means the default daemon.
    """
    from docker.errors import DockerException

    from swebench_trainer.grading.docker.hosts import Host

    about = f"{address}: " if address else ""
    try:
        with closing(Host(address, 0)) as host:
            info: Mapping[str, Any] = host.client.info()
    except (DockerException, OSError) as error:
        hint = "Start Docker, and check that `docker info` works for the current user."
        return Finding("warning", "docker", f"{about}no answer: {error}", hint), None
    text = (
        f"{about}{info['ServerVersion']}, storage {info['Driver']}, {info['NCPU']} CPUs, "
        f"{_gigabytes(info['MemTotal'])} of memory, {info['Images']} images"
    )
    return Finding("ok", "docker", text), info


def check_runtime(info: Mapping[str, Any], runtime: str, address: str = "") -> Finding:
    """Whether a daemon knows the runtime of `[grade] runtime`."""
    from swebench_trainer.grading.docker.hosts import ADD_RUNTIME, has_runtime

    about = f"{address}: " if address else ""
    if has_runtime(runtime, info.get("Runtimes") or ()):
        return Finding("ok", "runtime", f"{about}{runtime}")
    text = f"{about}the daemon has no runtime {runtime!r}"
    return Finding("problem", "runtime", text, ADD_RUNTIME.format(runtime=runtime))


def check_login(info: Mapping[str, Any]) -> tuple[Finding, bool]:
    """Whether the daemon's default registry counts pulls per account."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        config = {}
    registries = {*config.get("auths", {}), *config.get("credHelpers", {})}
    if info.get("IndexServerAddress") in registries:
        return Finding("ok", "login", "logged in to the default registry"), True
    others = f" (but to {len(registries)} others)" if registries else ""
    text = f"not logged in to the default registry{others}"
    return Finding("ok", "login", text), False


def check_images(
    instances: Sequence[Instance], present: set[str], logged_in: bool
) -> Finding:
    """Images to pull, and how long the registry's limits make that take.

    Args:
        instances: The data.
        present: Names of images that the daemon already has.
        logged_in: Whether pulls are counted per account.
    """
    names = {instance.image for instance in instances}
    if "" in names:
        nameless = sum(not instance.image for instance in instances)
        text = f"{nameless} of {len(instances)} instances do not name an image"
        return Finding("problem", "images", text, "Add an `image` column to the data.")
    missing = {name for name in names if name not in present}
    if not missing:
        return Finding("ok", "images", f"all {len(names)} present")
    limited = sum(map(_in_default_registry, missing))
    limit = PULLS_WHEN_LOGGED_IN if logged_in else PULLS
    hours = max(0, limited - 1) // limit * PULL_HOURS
    text = f"{len(missing)} of {len(names)} must be pulled"
    if hours == 0:
        return Finding("ok", "images", text)
    text += f"; at {limit} pulls per {PULL_HOURS} hours, that takes about {hours} hours"
    hint = "" if logged_in else "Run `docker login` to double the pull limit."
    return Finding("warning", "images", text, hint)


def present_images(instances: Sequence[Instance], address: str = "") -> set[str]:
    """Names of the instances' images that a daemon already has."""
    from docker.errors import DockerException

    from swebench_trainer.grading.docker.hosts import Host

    found = set()
    with closing(Host(address, 0)) as host:
        for name in {instance.image for instance in instances if instance.image}:
            try:
                host.client.images.get(name)
            except (DockerException, OSError):  # missing, or an invalid name
                continue
            found.add(name)
    return found


def check_namespaces() -> tuple[Finding, bool]:
    """Whether the kernel allows sandboxes; if not, the setting that forbids them."""
    from swebench_trainer.grading.namespace.grader import repository_view

    try:
        view = repository_view()
    except PrerequisiteError as error:
        hint = _switch(Path("/proc"))
        return Finding("warning", "namespaces", error.message, hint), False
    if view == "copy":
        text = "sandboxes work, with a copy of the repository in each (no overlayfs)"
        return Finding("warning", "namespaces", text), True
    return Finding("ok", "namespaces", "sandboxes work, with overlayfs"), True


def _switch(proc: Path) -> str:
    """The command that allows user namespaces, if a kernel setting forbids them."""
    for name, forbids, allows in SWITCHES:
        file = proc / "sys" / name.replace(".", "/")
        if file.exists() and file.read_text().strip() == forbids:
            return f"Run as root: sysctl -w {name}={allows}"
    return "A container may need more privileges to create sandboxes."


def check_cgroups() -> Finding:
    """Whether a sandbox's limits apply to the total of its processes."""
    from swebench_trainer.grading.namespace.cgroup import cgroup_parents

    version_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    name = f"version {2 if version_2 else 1}"
    if cgroup_parents():
        return Finding("ok", "cgroups", f"{name}; limits apply to whole sandboxes")
    text = f"{name}, not writable; memory limits apply to each process of a sandbox"
    hint = "Run as root, or in a delegated scope: systemd-run --user --scope"
    return Finding("warning", "cgroups", text, hint)


def check_disk(what: str, path: Path) -> Finding:
    """Free space at `path`, which may not exist yet."""
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    text = f"{_gigabytes(free)} free for {what}"
    if free < LOW_DISK:
        return Finding("warning", "disk", text, f"Free some space in {path}.")
    return Finding("ok", "disk", text)


def check_disks(runs_dir: Path, info: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Free space for runs, the cache, and the images of a local daemon."""
    yield check_disk("runs", runs_dir.absolute())
    yield check_disk("the cache", user_cache())
    root = Path(info["DockerRootDir"]) if info else None
    local = os.environ.get("DOCKER_HOST", "unix:").startswith("unix:")
    if root and local and root.is_dir():
        yield check_disk("images", root)


def _in_default_registry(image: str) -> bool:
    """Whether an image name has no registry prefix."""
    host, slash, _ = image.partition("/")
    return not (slash and ("." in host or ":" in host or host == "localhost"))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.0f} GB"


def choose_sample(
    instances: Sequence[Instance], size: int, present: set[str]
) -> list[Instance]:
    """Draws gradable instances, preferring those whose images are present."""
    gradable = [instance for instance in instances if instance.gradable]
    random.Random(0).shuffle(gradable)  # noqa: S311 - not a secret
    gradable.sort(key=lambda instance: instance.image not in present)
    return gradable[:size]


def try_grader(
    plugins: Plugins, table: GradeTable, instances: Sequence[Instance]
) -> list[Trial]:
    """Grades the gold patch and a no-op of each instance, without the cache.

    Raises:
        PrerequisiteError: The grader does not work on this machine.
        DataError: The grader cannot grade the data.
    """
    table = table.model_copy(update={"cache": False})
    grader = plugins.registry.create(table)
    with (
        closing(grader),
        tempfile.TemporaryDirectory(prefix="swebench-trainer-") as folder,
    ):
        grader.check(instances)
        jobs = [
            GradeJob(instance, candidate, Path(folder, candidate.model, str(number)))
            for number, instance in enumerate(instances)
            for candidate in _gold_and_noop(instance)
        ]
        trials = [
            Trial(
                job.instance.instance_id,
                job.candidate.model,
                outcome.status,
                sum((outcome.seconds or {}).values()),
                outcome.reason,
            )
            for job, outcome in grader.grade(jobs)
        ]
    return sorted(trials, key=lambda trial: (trial.instance_id, trial.patch))


def _gold_and_noop(instance: Instance) -> Iterator[Candidate]:
    name = instance.instance_id
    yield Candidate(name, 0, GOLD, text="", patch=instance.patch)
    yield Candidate(name, 0, NOOP, text="", patch="", extraction=NO_OP)


def judge_trials(use: str, trials: Sequence[Trial]) -> Iterator[Finding]:
    """Checks that gold passes and no-op fails; yields a finding for each that does not."""
    wrong = [trial for trial in trials if trial.status is not EXPECTED[trial.patch]]
    for trial in wrong:
        text = f"{trial.patch} of {trial.instance_id} is {trial.status}"
        text += f": {trial.reason}" if trial.reason else ""
        # A failure of the machine says nothing about the instance.
        faulty = trial.status is Status.INFRA_ERROR
        hint = MACHINE_HINT if faulty else "Exclude it: [data] exclude"
        yield Finding("problem", use, text, hint)
    if trials and not wrong:
        count = len(trials) // len(EXPECTED)
        text = f"gold passes and no-op fails on all {count} instances tried"
        yield Finding("ok", use, text)


def judge_parity(ours: Iterable[Trial], official: Iterable[Trial]) -> Finding:
    """Checks that our statuses equal the harness's."""
    pairs = list(zip(ours, official, strict=True))
    differ = [
        mine.instance_id for mine, theirs in pairs if mine.status != theirs.status
    ]
    if differ:
        text = f"{len(differ)} of {len(pairs)} statuses differ, for example {differ[0]}"
        return Finding("problem", "parity", text, "Please report this.")
    text = f"all {len(pairs)} statuses equal the harness's"
    if seconds := sum(mine.seconds for mine, _ in pairs):
        ratio = sum(theirs.seconds for _, theirs in pairs) / seconds
        text += f", {ratio:.1f} times as fast"
    return Finding("ok", "parity", text)
