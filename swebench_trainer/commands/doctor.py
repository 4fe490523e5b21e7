"""`swebench-train doctor`: whether this machine can grade.

After the checks of the machine, gold patches and no-ops of a few instances are graded:
nothing else proves that grading works. `--stock` grades them with the unmodified
harness, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swebench_trainer import doctor as checks
from swebench_trainer.commands.inputs import (
    SourceOptions,
    load_plugins,
    load_recipe,
    open_source,
)
from swebench_trainer.errors import PrerequisiteError, TrainerError
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import GradeTable, Recipe
from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.reporting.listings import Trial, parity_table
from swebench_trainer.types import Instance

STOCK_WORKERS = 12
"""More than cores, because the harness spends most of its time sleeping."""


@dataclass(frozen=True)
class Request:
    """What to check.

    Attributes:
        instances: The data; without any, only the machine is checked.
        table: `[grade]` of a recipe; `None` chooses a grader that works here.
        sample: Number of instances for the trial gradings.
        stock: Whether to grade them with the unmodified harness, too.
        runs_dir: Directory for runs.
    """

    instances: Sequence[Instance] = ()
    table: GradeTable | None = None
    sample: int = 3
    stock: bool = False
    runs_dir: Path = Path("runs")


@dataclass
class Report:
    """The findings, in order.

    Attributes:
        can_grade: Whether the grader works here.
        ours: Trial gradings of the sample.
        stock: The same trials by the unmodified harness, if requested.
    """

    findings: list[checks.Finding] = field(default_factory=list)
    can_grade: bool = True
    ours: list[Trial] = field(default_factory=list)
    stock: list[Trial] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 no problems, 1 problems, 3 this machine cannot grade."""
        if not self.can_grade:
            return PrerequisiteError.exit_code
        return int(any(finding.level == "problem" for finding in self.findings))


@dataclass(frozen=True)
class DataOptions:
    """Where the data comes from.

    Attributes:
        data: As in `grade --data`; takes precedence over the recipe's.
        split: Split of a Hub dataset.
        recipe: A recipe whose `[data]` and `[grade]` are used.
    """

    data: str | None
    split: str
    recipe: Path | None


def execute(
    source: DataOptions, *, grader: str, sample: int, stock: bool, runs_dir: Path
) -> int:
    """Checks this machine, and prints each finding as soon as it is known.

    Args:
        source: Where the data comes from.
        grader: Name of a grader; `auto` chooses one that works here.
        sample: Number of instances for the trial gradings.
        stock: Whether to compare with the unmodified harness.
        runs_dir: Directory for runs.

    Returns:
        The exit code: 0 no problems, 1 problems, 3 this machine cannot grade.
    """
    plugins, console = load_plugins(), open_console()
    recipe = load_recipe(source.recipe, [], plugins)[0] if source.recipe else None
    instances = _instances(plugins, source, recipe)
    table = recipe.grade if recipe else None
    if grader != "auto":
        plugins.tables([("grade", grader)])
        table = default_table(plugins, grader)
    request = Request(instances, table, sample, stock, runs_dir)
    report = examine(plugins, request, lambda found: print_line(console, str(found)))
    if report.stock:
        console.print(parity_table(report.ours, report.stock))
    return report.exit_code


def _instances(
    plugins: Plugins, source: DataOptions, recipe: Recipe | None
) -> Sequence[Instance]:
    if source.data is not None:
        options = SourceOptions(source.data, source.split)
        return open_source(plugins, options).load().instances
    if recipe is None:
        return ()
    return plugins.registry.create(recipe.data).load().instances


def examine(
    plugins: Plugins, request: Request, show: Callable[[checks.Finding], None]
) -> Report:
    """Runs every check.

    Args:
        plugins: Where graders are looked up.
        request: What to check.
        show: Called with each finding as soon as it is known.
    """
    report = Report()

    def note(finding: checks.Finding) -> None:
        report.findings.append(finding)
        show(finding)

    note(checks.check_packages())
    note(checks.check_programs())
    info, address = None, ""
    for name in getattr(request.table, "hosts", ()) or ("",):
        docker, found = checks.docker_info(name)
        note(docker)
        runtime = getattr(request.table, "runtime", "")
        if runtime and found is not None:
            note(checks.check_runtime(found, runtime, name))
        if info is None and found is not None:
            info, address = found, name
    namespaces, sandboxes = checks.check_namespaces()
    table = request.table or _working_table(
        plugins, request.instances, docker=info is not None, sandboxes=sandboxes
    )
    present: set[str] = set()
    if info is not None:
        login, logged_in = checks.check_login(info)
        note(login)
        if needed := _need_images(table, request.instances):
            present = checks.present_images(needed, address)
            note(checks.check_images(needed, present, logged_in))
    note(namespaces)
    note(checks.check_cgroups())
    for finding in checks.check_disks(request.runs_dir, info):
        note(finding)
    if table is None:
        report.can_grade = False
        hint = "Fix either one to grade; training and sampling need neither."
        text = "neither Docker nor namespaces work"
        note(checks.Finding("problem", "grading", text, hint))
    elif sample := checks.choose_sample(request.instances, request.sample, present):
        _grade(plugins, request, table, sample, report, note)
    return report


def _working_table(
    plugins: Plugins, instances: Sequence[Instance], *, docker: bool, sandboxes: bool
) -> GradeTable | None:
    """`[grade]` for the grader that fits the data and works on this machine."""
    if not (docker or sandboxes):
        return None
    carry_files = bool(instances) and all(i.snapshot for i in instances)
    namespace = sandboxes and (carry_files or not docker)
    return default_table(plugins, "namespace" if namespace else "docker")


def _need_images(
    table: GradeTable | None, instances: Sequence[Instance]
) -> list[Instance]:
    """The instances that need their images, not only the host's programs."""
    on_host = getattr(table, "programs", "image") == "auto"
    return [i for i in instances if not (on_host and i.snapshot)]


def default_table(plugins: Plugins, use: str, **settings: Any) -> GradeTable:
    """`[grade]` with defaults, except for `use` and these settings.

    Raises:
        PluginError: The grader does not exist.
    """
    config = plugins.registry.config(GradeTable, use)
    return config.model_validate({"use": use, **settings})


def _grade(
    plugins: Plugins,
    request: Request,
    table: GradeTable,
    sample: Sequence[Instance],
    report: Report,
    note: Callable[[checks.Finding], None],
) -> None:
    """Grades the sample, with the harness too if requested."""
    try:
        report.ours = checks.try_grader(plugins, table, sample)
    except TrainerError as error:
        report.can_grade = not isinstance(error, PrerequisiteError)
        note(checks.Finding("problem", table.use, error.message, error.hint))
        return
    for finding in checks.judge_trials(table.use, report.ours):
        note(finding)
    if not request.stock:
        return
    stock = default_table(plugins, "stock", workers=STOCK_WORKERS)
    try:
        report.stock = checks.try_grader(plugins, stock, sample)
    except TrainerError as error:
        note(checks.Finding("warning", "stock", error.message, error.hint))
        return
    note(checks.judge_parity(report.ours, report.stock))
