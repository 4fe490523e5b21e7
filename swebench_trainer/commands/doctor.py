"""What this machine can grade, and what it lacks: `swebench-train doctor`.

Each check is a small function that looks at one thing and says what it found, with
the next step where there is one. After the checks gold and no-op are graded on a few
instances, because nothing else shows that grading works; the unmodified harness can
be asked for the same.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from swebench_trainer.contracts import GradeJob, Grader
from swebench_trainer.errors import PrerequisiteError, TrainerError
from swebench_trainer.grading.official import NOOP
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.stages.context import GOLD
from swebench_trainer.types import NO_OP, Candidate, Instance, Status

Level = Literal["ok", "warning", "problem"]

PACKAGES = ("swebench", "docker", "torch", "transformers", "trl", "peft")
PROGRAMS = ("bash", "git", "patch")

PULLS, PULLS_WHEN_LOGGED_IN, PULL_HOURS = 100, 200, 6
"""What the default registry lets one address, or one account, pull in so many hours."""

LOW_DISK = 20 * 10**9
"""Bytes below which images or logs soon fill a disk."""

SWITCHES = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "10000"),
)
"""Settings of kernels that forbid user namespaces: name, what forbids, what allows."""

STOCK_WORKERS = 12
"""The harness sleeps for most of its time."""

EXPECTED = {GOLD: Status.RESOLVED, NOOP: Status.UNRESOLVED}


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        what: The thing that was looked at, in a word or two.
        text: What is there, in a sentence.
        hint: The next step; empty when there is none to take.
    """

    level: Level
    what: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.what:<11} {self.text}"
        return f"{line}\n{'':<21}{self.hint}" if self.hint else line


@dataclass(frozen=True)
class Trial:
    """Gold or no-op of one instance, graded.

    Attributes:
        patch: `gold` or `no-op`.
        seconds: Wall time of all phases together.
    """

    instance_id: str
    patch: str
    status: Status
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Request:
    """What is to be looked at.

    Attributes:
        instances: The data; empty looks at the machine alone.
        table: `[grade]` of a recipe; `None` takes what the machine has.
        sample: How many instances gold and no-op are graded on.
        stock: Whether the unmodified harness grades them too.
        runs_dir: Where runs are to be.
    """

    instances: Sequence[Instance] = ()
    table: GradeTable | None = None
    sample: int = 3
    stock: bool = False
    runs_dir: Path = Path("runs")


@dataclass
class Report:
    """What was found, in the order in which it was.

    Attributes:
        can_grade: Whether the grader works here.
        ours: Gold and no-op of the sample.
        official: The same by the unmodified harness; empty if it was not asked.
    """

    findings: list[Finding] = field(default_factory=list)
    can_grade: bool = True
    ours: list[Trial] = field(default_factory=list)
    official: list[Trial] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all is well, 1 there are problems, 3 nothing here can grade."""
        if not self.can_grade:
            return PrerequisiteError.exit_code
        return int(any(finding.level == "problem" for finding in self.findings))


def examine(
    plugins: Plugins, request: Request, say: Callable[[Finding], None]
) -> Report:
    """Makes all the checks.

    Args:
        plugins: Where graders come from.
        request: What to look at.
        say: Called with each finding as soon as it is there.
    """
    report = Report()

    def note(finding: Finding) -> None:
        report.findings.append(finding)
        say(finding)

    note(check_packages())
    note(check_programs())
    info, address = None, ""
    for name in getattr(request.table, "hosts", ()) or ("",):
        docker, found = docker_info(name)
        note(docker)
        if info is None and found is not None:
            info, address = found, name
    namespaces, sandboxes = check_namespaces()
    table = request.table or _table(
        plugins, request.instances, docker=info is not None, sandboxes=sandboxes
    )
    present: set[str] = set()
    if info is not None:
        login, logged_in = check_login(info)
        note(login)
        if needed := _need_images(table, request.instances):
            present = present_images(needed, address)
            note(check_images(needed, present, logged_in))
    note(namespaces)
    note(check_cgroups())
    for finding in check_disks(request.runs_dir, info):
        note(finding)
    if table is None:
        report.can_grade = False
        hint = "Mend one of them; training and sampling work without."
        note(Finding("problem", "grading", "neither Docker nor namespaces", hint))
    elif sample := choose_sample(request.instances, request.sample, present):
        _grade(plugins, request, table, sample, report, note)
    return report


def _table(
    plugins: Plugins, instances: Sequence[Instance], *, docker: bool, sandboxes: bool
) -> GradeTable | None:
    """`[grade]` of the grader that fits the data and this machine."""
    if not (docker or sandboxes):
        return None
    carry_files = bool(instances) and all(i.snapshot for i in instances)
    namespace = sandboxes and (carry_files or not docker)
    return default_table(plugins, "namespace" if namespace else "docker")


def _need_images(
    table: GradeTable | None, instances: Sequence[Instance]
) -> list[Instance]:
    """The instances that are graded on their images, not on the host's programs."""
    on_host = getattr(table, "programs", "image") == "auto"
    return [i for i in instances if not (on_host and i.snapshot)]


def default_table(plugins: Plugins, use: str, **settings: Any) -> GradeTable:
    """`[grade]` with nothing but `use` and these settings.

    Raises:
        PluginError: There is no such grader.
    """
    config = plugins.registry.config(GradeTable, use)
    return config.model_validate({"use": use, **settings})


def _grade(
    plugins: Plugins,
    request: Request,
    table: GradeTable,
    sample: Sequence[Instance],
    report: Report,
    note: Callable[[Finding], None],
) -> None:
    """Grades the sample, by the harness too if it is asked for."""
    try:
        report.ours = try_grader(plugins, table, sample)
    except TrainerError as error:
        report.can_grade = not isinstance(error, PrerequisiteError)
        note(Finding("problem", table.use, error.message, error.hint))
        return
    for finding in judge_trials(table.use, report.ours):
        note(finding)
    if not request.stock:
        return
    stock = default_table(plugins, "stock", workers=STOCK_WORKERS)
    try:
        report.official = try_grader(plugins, stock, sample)
    except TrainerError as error:
        note(Finding("warning", "stock", error.message, error.hint))
        return
    note(judge_parity(report.ours, report.official))


# --- The machine ----------------------------------------------------------------------


def check_packages() -> Finding:
    """Versions of Python and of what decides results."""
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
    """The programs that a sandbox borrows from the host.

    Args:
        path: Where to look, as in `PATH`, which is the default.
    """
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        hint = f"Install them, such as: apt-get install {' '.join(missing)}"
        text = f"{', '.join(missing)} missing; namespaces on task files need them"
        return Finding("warning", "programs", text, hint)
    return Finding("ok", "programs", f"{', '.join(PROGRAMS)} are there")


def docker_info(address: str = "") -> tuple[Finding, Mapping[str, Any] | None]:
    """A Docker daemon, with what it says of itself; `None` when it does not answer.

    Args:
        address: As in `[grade] hosts`; empty means the usual one.
    """
    from docker.errors import DockerException

    from swebench_trainer.grading.docker.hosts import Host

    about = f"{address}: " if address else ""
    try:
        with closing(Host(address, 0)) as host:
            info: Mapping[str, Any] = host.client.info()
    except (DockerException, OSError) as error:
        hint = "Start it and try `docker info`, as the user who runs this."
        return Finding("warning", "docker", f"{about}no answer: {error}", hint), None
    text = (
        f"{about}{info['ServerVersion']}, storage {info['Driver']}, {info['NCPU']} CPUs, "
        f"{_gigabytes(info['MemTotal'])} of memory, {info['Images']} images"
    )
    return Finding("ok", "docker", text), info


def check_login(info: Mapping[str, Any]) -> tuple[Finding, bool]:
    """Whether pulls from the daemon's default registry are counted by account."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        config = {}
    registries = {*config.get("auths", {}), *config.get("credHelpers", {})}
    if info.get("IndexServerAddress") in registries:
        return Finding("ok", "login", "logged in to the default registry"), True
    others = f", but to {len(registries)} others" if registries else ""
    text = f"not logged in to the default registry{others}"
    return Finding("ok", "login", text), False


def check_images(
    instances: Sequence[Instance], present: set[str], logged_in: bool
) -> Finding:
    """Which images are to be pulled, and how long the registry makes that take.

    Args:
        instances: The data.
        present: Names of images that the daemon has.
        logged_in: Whether pulls are counted by account.
    """
    names = {instance.image for instance in instances}
    if "" in names:
        nameless = sum(not instance.image for instance in instances)
        text = f"{nameless} of {len(instances)} instances name no image"
        return Finding("problem", "images", text, "Add the column `image`.")
    missing = {name for name in names if name not in present}
    if not missing:
        return Finding("ok", "images", f"all {len(names)} are there")
    limited = sum(map(_in_default_registry, missing))
    limit = PULLS_WHEN_LOGGED_IN if logged_in else PULLS
    hours = max(0, limited - 1) // limit * PULL_HOURS
    text = f"{len(missing)} of {len(names)} are to be pulled"
    if hours == 0:
        return Finding("ok", "images", text)
    text += f": about {hours} hours of waiting at {limit} pulls per {PULL_HOURS} hours"
    hint = "" if logged_in else "docker login: twice as many pulls."
    return Finding("warning", "images", text, hint)


def present_images(instances: Sequence[Instance], address: str = "") -> set[str]:
    """Names of the images among those of the instances that a daemon has."""
    from docker.errors import DockerException

    from swebench_trainer.grading.docker.hosts import Host

    found = set()
    with closing(Host(address, 0)) as host:
        for name in {instance.image for instance in instances if instance.image}:
            try:
                host.client.images.get(name)
            except (DockerException, OSError):  # not there, or no name of an image
                continue
            found.add(name)
    return found


def check_namespaces() -> tuple[Finding, bool]:
    """Whether the kernel allows sandboxes; if not, which of its settings forbid them."""
    from swebench_trainer.grading.namespace.grader import repository_view

    try:
        view = repository_view()
    except PrerequisiteError as error:
        hint = _switch(Path("/proc"))
        return Finding("warning", "namespaces", error.message, hint), False
    if view == "copy":
        text = "sandboxes work, with a copy of the repository for each (no overlayfs)"
        return Finding("warning", "namespaces", text), True
    return Finding("ok", "namespaces", "sandboxes work, with overlayfs"), True


def _switch(proc: Path) -> str:
    """The command that lifts what forbids user namespaces, if a setting does."""
    for name, forbids, allows in SWITCHES:
        file = proc / "sys" / name.replace(".", "/")
        if file.exists() and file.read_text().strip() == forbids:
            return f"As root: sysctl -w {name}={allows}"
    return "A container may need more rights to make sandboxes within it."


def check_cgroups() -> Finding:
    """Whether limits of a sandbox hold for all its processes together."""
    from swebench_trainer.grading.namespace.cgroup import cgroup_parents

    version_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    name = f"version {2 if version_2 else 1}"
    if cgroup_parents():
        return Finding("ok", "cgroups", f"{name}, limits hold for whole sandboxes")
    text = f"{name}, not writable: memory limits of sandboxes hold for each process"
    hint = "Run as root, or in a scope that is delegated: systemd-run --user --scope"
    return Finding("warning", "cgroups", text, hint)


def check_disk(what: str, path: Path) -> Finding:
    """Free space where `path` is, or will be."""
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    text = f"{_gigabytes(free)} free for {what}"
    if free < LOW_DISK:
        return Finding("warning", "disk", text, f"Make room in {path}.")
    return Finding("ok", "disk", text)


def check_disks(runs_dir: Path, info: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Free space for runs, the cache, and images where the daemon is on this machine."""
    from swebench_trainer.store.cache import user_cache

    yield check_disk("runs", runs_dir.absolute())
    yield check_disk("the cache", user_cache())
    root = Path(info["DockerRootDir"]) if info else None
    local = os.environ.get("DOCKER_HOST", "unix:").startswith("unix:")
    if root and local and root.is_dir():
        yield check_disk("images", root)


# --- Grading --------------------------------------------------------------------------


def choose_sample(
    instances: Sequence[Instance], size: int, present: set[str]
) -> list[Instance]:
    """Some instances that can be graded; those whose images are there come first."""
    gradable = [instance for instance in instances if instance.gradable]
    random.Random(0).shuffle(gradable)  # noqa: S311 - a sample, no secret
    gradable.sort(key=lambda instance: instance.image not in present)
    return gradable[:size]


def try_grader(
    plugins: Plugins, table: GradeTable, instances: Sequence[Instance]
) -> list[Trial]:
    """Grades gold and no-op of each instance, without the cache.

    Raises:
        PrerequisiteError: The grader cannot work on this machine.
        DataError: The data cannot be graded by it.
    """
    table = table.model_copy(update={"cache": False})
    grader: Grader = plugins.registry.create("grader", table)
    with (
        closing(grader),
        tempfile.TemporaryDirectory(prefix="swebench-trainer-") as folder,
    ):
        grader.check(instances)
        jobs = [
            GradeJob(instance, candidate, Path(folder, candidate.model, str(number)))
            for number, instance in enumerate(instances)
            for candidate in _gold_and_nothing(instance)
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


def _gold_and_nothing(instance: Instance) -> Iterator[Candidate]:
    name = instance.instance_id
    yield Candidate(name, 0, GOLD, text="", patch=instance.patch)
    yield Candidate(name, 0, NOOP, text="", patch="", extraction=NO_OP)


def judge_trials(use: str, trials: Sequence[Trial]) -> Iterator[Finding]:
    """Whether gold passes and no-op fails; a line for each that does not."""
    wrong = [trial for trial in trials if trial.status is not EXPECTED[trial.patch]]
    for trial in wrong:
        text = f"{trial.patch} of {trial.instance_id} is {trial.status}"
        text += f": {trial.reason}" if trial.reason else ""
        yield Finding("problem", use, text, "Leave it out: [data] exclude")
    if trials and not wrong:
        count = len(trials) // len(EXPECTED)
        text = f"gold passes and no-op fails; instances tried: {count}"
        yield Finding("ok", use, text)


def judge_parity(ours: Iterable[Trial], official: Iterable[Trial]) -> Finding:
    """Whether our statuses are the harness's."""
    pairs = list(zip(ours, official, strict=True))
    differ = [
        mine.instance_id for mine, theirs in pairs if mine.status != theirs.status
    ]
    if differ:
        text = f"{len(differ)} of {len(pairs)} differ, such as {differ[0]}"
        return Finding("problem", "parity", text, "Please report it.")
    text = f"{len(pairs)} statuses are the harness's"
    if seconds := sum(mine.seconds for mine, _ in pairs):
        ratio = sum(theirs.seconds for _, theirs in pairs) / seconds
        text += f", {ratio:.1f} times as fast"
    return Finding("ok", "parity", text)


def _in_default_registry(image: str) -> bool:
    """Whether a name has no registry of its own in front."""
    host, slash, _ = image.partition("/")
    return not (slash and ("." in host or ":" in host or host == "localhost"))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.0f} GB"
