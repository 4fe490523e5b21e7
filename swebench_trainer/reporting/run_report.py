"""The report of a run: training curves, and its evaluation if it has one."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from swebench_trainer.reporting.curves import resolved_curves, training_curves
from swebench_trainer.reporting.summaries import evaluation_summary, grade_summary
from swebench_trainer.reporting.tables import comparison
from swebench_trainer.store.jsonl import read_json, read_rows
from swebench_trainer.store.rundir import RunDir


def print_report(run_dir: Path, console: Console) -> bool:
    """Prints the report of a run directory.

    Returns:
        Whether the run has an evaluation.
    """
    run = RunDir(run_dir)
    trainings = [run.stage(name) for name in ("sft", "dpo")]
    curves = training_curves(
        {stage.name: read_rows(stage.file("metrics.jsonl")) for stage in trainings}
    )
    if curves:
        console.print(curves)
    stages = map(run.stage, ("evaluate", "grade"))
    evaluated, graded = (read_json(s.file("summary.json")) for s in stages)
    summary = evaluation_summary(evaluated)
    leakage = read_json(run.stage("prepare").file("leakage.json"))
    if summary:
        if resolved := resolved_curves(summary.curve):
            console.print(resolved)
        console.print(comparison(summary, grade_summary(graded), leakage))
    return bool(summary)
