"""`swebench-train doctor`: whether this machine can grade.

After the checks of the machine, gold patches and no-ops of a few instances are graded:
nothing else proves that grading works. `--stock` grades them with the unmodified
harness, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


@dataclass
class Examination:
    """The checks of a machine, and their findings in order.

    Attributes:
        plugins: Where graders are looked up.
        show: Called with each finding as soon as it is known.
        instances: The data; without any, only the machine is checked.
        table: `[grade]` of a recipe; `None` chooses a grader that works here.
        sample: Number of instances for the trial gradings.
        stock: Whether to grade them with the unmodified harness, too.
        runs_dir: Directory for runs.
        can_grade: Whether the grader works here.
        trials: Trial gradings of the sample.
        stock_trials: The same trials by the unmodified harness, if requested.
    """

    plugins: Plugins
    show: Callable[[checks.Finding], None]
    instances: Sequence[Instance] = ()
    table: GradeTable | None = None
    sample: int = 3
    stock: bool = False
    runs_dir: Path = Path("runs")
    findings: list[checks.Finding] = field(default_factory=list)
    can_grade: bool = True
    trials: list[Trial] = field(default_factory=list)
    stock_trials: list[Trial] = field(default_factory=list)

    def run(self) -> int:
        """Runs every check.

        Returns:
            The exit code: 0 no problems, 1 problems, 3 this machine cannot grade.
        """
        self._note(checks.check_packages())
        self._note(checks.check_programs())
        info, address = self._docker()
        namespaces, sandboxes = checks.check_namespaces()
        table = self.table or self._working_table(info is not None, sandboxes)
        present: set[str] = set()
        if info is not None:
            login, logged_in = checks.check_login(info)
            self._note(login)
            if needed := _need_images(table, self.instances):
                present = checks.present_images(needed, address)
                self._note(checks.check_images(needed, present, logged_in))
        self._note(namespaces)
        self._note(checks.check_cgroups())
        for finding in checks.check_disks(self.runs_dir, info):
            self._note(finding)
        if table is None:
            self.can_grade = False
            hint = "Fix either one to grade; training and sampling need neither."
            text = "neither Docker nor namespaces work"
            self._note(checks.Finding("problem", "grading", text, hint))
        elif sample := checks.choose_sample(self.instances, self.sample, present):
            self._grade(table, sample)
        if not self.can_grade:
            return PrerequisiteError.exit_code
        return int(any(finding.level == "problem" for finding in self.findings))

    def _note(self, finding: checks.Finding) -> None:
        self.findings.append(finding)
        self.show(finding)

    def _docker(self) -> tuple[Mapping[str, Any] | None, str]:
        """The first daemon that answers and its address, of those that the table names."""
        answers = []
        runtime = getattr(self.table, "runtime", "")
        for address in getattr(self.table, "hosts", ()) or ("",):
            finding, info = checks.docker_info(address)
            self._note(finding)
            if info is not None:
                answers.append((info, address))
                if runtime:
                    self._note(checks.check_runtime(info, runtime, address))
        return answers[0] if answers else (None, "")

    def _working_table(self, docker: bool, sandboxes: bool) -> GradeTable | None:
        """`[grade]` for the grader that fits the data and works on this machine."""
        if not (docker or sandboxes):
            return None
        carry_files = bool(self.instances) and all(i.snapshot for i in self.instances)
        namespace = sandboxes and (carry_files or not docker)
        return default_table(self.plugins, "namespace" if namespace else "docker")

    def _grade(self, table: GradeTable, sample: Sequence[Instance]) -> None:
        """Grades the sample, with the harness too if requested."""
        try:
            self.trials = checks.try_grader(self.plugins, table, sample)
        except TrainerError as error:
            self.can_grade = not isinstance(error, PrerequisiteError)
            self._note(checks.Finding("problem", table.use, error.message, error.hint))
            return
        for finding in checks.judge_trials(table.use, self.trials):
            self._note(finding)
        if not self.stock:
            return
        stock = default_table(self.plugins, "stock", workers=STOCK_WORKERS)
        try:
            self.stock_trials = checks.try_grader(self.plugins, stock, sample)
        except TrainerError as error:
            self._note(checks.Finding("warning", "stock", error.message, error.hint))
            return
        self._note(checks.judge_parity(self.trials, self.stock_trials))


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
    examination = Examination(
        plugins,
        lambda finding: print_line(console, str(finding)),
        instances,
        table,
        sample,
        stock,
        runs_dir,
    )
    exit_code = examination.run()
    if examination.stock_trials:
        both = (examination.trials, examination.stock_trials)
        console.print(parity_table(*both))
    return exit_code


def _instances(
    plugins: Plugins, source: DataOptions, recipe: Recipe | None
) -> Sequence[Instance]:
    if source.data is not None:
        options = SourceOptions(source.data, source.split)
        return open_source(plugins, options).load().instances
    if recipe is None:
        return ()
    return plugins.registry.create(recipe.data).load().instances


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
