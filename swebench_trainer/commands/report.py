"""`swebench-train report`."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.errors import TrainerError
from swebench_trainer.reporting.console import open_console
from swebench_trainer.reporting.run_report import print_report


def execute(run_dir: Path) -> None:
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
