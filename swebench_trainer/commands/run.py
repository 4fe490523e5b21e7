"""`swebench-train run` and `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from swebench_trainer.commands.inputs import open_recipe, show_progress
from swebench_trainer.errors import RecipeError, TrainerError
from swebench_trainer.pipeline import Pipeline
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.reporting.run_report import print_report
from swebench_trainer.stages.graph import choose, stages_of


@dataclass(frozen=True)
class StageChoice:
    """The stages to run; all of them by default.

    Attributes:
        first: Name of the first stage.
        last: Name of the last stage.
        only: Name of the only stage.
        redo: Names of stages to rerun although they are done.
    """

    first: str | None = None
    last: str | None = None
    only: str | None = None
    redo: tuple[str, ...] = ()


ALL_STAGES = StageChoice()


def execute(
    recipe: Path,
    overrides: list[str],
    runs_dir: Path,
    stages: StageChoice = ALL_STAGES,
    *,
    report: bool = True,
) -> None:
    """Runs a recipe, or resumes it, and prints its report.

    Args:
        recipe: The recipe's file.
        overrides: `table.key=value`, as given to `--set`.
        runs_dir: Directory that contains the run directories.
        stages: The stages to run.
        report: Whether to print the curves and the evaluation at the end.

    Raises:
        TrainerError: The recipe is invalid, or a stage failed.
    """
    console = open_console()
    plugins, valid, draft = open_recipe(recipe, overrides)
    show_progress(plugins, console)
    if stages.only and (stages.first or stages.last):
        raise RecipeError("--only cannot be combined with --from or --until.")
    chosen = choose(
        stages_of(valid), first=stages.first, last=stages.last, only=stages.only
    )
    pipeline = Pipeline(valid, draft, runs_dir, plugins)
    pipeline.run(chosen, stages.redo)
    if report:
        print_report(pipeline.run_dir.path, console)
    print_plugin_rows(plugins, pipeline.run_dir.path, console)


def print_plugin_rows(plugins: Plugins, run_dir: Path, console: Console) -> None:
    """Prints the rows that plugins add to the report, and errors of observers."""
    for label, value in plugins.report_rows(str(run_dir)).items():
        print_line(console, f"{label}: {value}")
    for failure, count in plugins.failures.items():
        print_line(console, f"{failure} ({count} times; see the log of this attempt)")


def report(run_dir: Path) -> None:
    """Prints the report of a run again.

    Raises:
        TrainerError: The directory is not a run, or its evaluation has not finished.
    """
    if not run_dir.joinpath("run.json").exists():
        raise TrainerError(f"{run_dir} is not a run directory (expected runs/NAME).")
    if not print_report(run_dir, open_console()):
        raise TrainerError(
            f"{run_dir}: the evaluation has not finished.",
            hint="Resume it: swebench-train run RECIPE",
        )
