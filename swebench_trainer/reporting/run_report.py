"""The report of a run: curves of training and resolve rates, and the evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swebench_trainer.reporting.console import numbers
from swebench_trainer.reporting.summaries import (
    CurvePoint,
    EvaluationSummary,
    GradeSummary,
    RunResults,
    SuspiciousPass,
    TrustCounts,
)
from swebench_trainer.store.jsonl import read_json, read_rows
from swebench_trainer.store.rundir import RunDir
from swebench_trainer.types import LeakageReport

_TINY = (
    "builtin:tiny is a model with half a million random weights: it memorizes the "
    "training issues and nothing else. It is meant for trying out the pipeline."
)
NAMED = 5
"""Maximum number of suspicious passes that are listed; `summary.json` has all."""

WIDTH = 28
"""Blocks per curve, each the mean of some steps; fits into 80 columns."""

_BLOCKS = "▁▂▃▄▅▆▇█"

_READ = {
    **dict.fromkeys(("sft", "dpo"), ("metrics.jsonl",)),
    **dict.fromkeys(("grade", "evaluate"), ("summary.json",)),
    "prepare": ("leakage.json",),
}
"""The files of each stage that a report shows."""

_SHOWN = {"loss": "loss", "rewards/margins": "margin", "eval_loss": "validation loss"}
"""Columns of `metrics.jsonl` with a curve, and their names in the table."""


def print_report(run_dir: Path, console: Console) -> bool:
    """Prints the report of a run directory.

    Returns:
        Whether the run has an evaluation.
    """
    stage = RunDir(run_dir).stage
    for name, files in _READ.items():
        stage(name).require_unchanged(files.__contains__)
    metrics = {n: read_rows(stage(n).file("metrics.jsonl")) for n in ("sft", "dpo")}
    results = RunResults.read(lambda name, file: read_json(stage(name).file(file)))
    summary = results.evaluation
    tables = [training_curves(metrics)]
    if summary:
        tables += [resolved_curves(summary.curve), comparison(summary, results)]
    for table in filter(None, tables):
        console.print(table)
    return bool(summary)


def training_curves(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table | None:
    """Loss and margin of each training by step; `None` if nothing was trained.

    Args:
        metrics: Rows of `metrics.jsonl`, by stage.
    """
    columns = ("stage", "metric", *numbers("steps", "first", "last"), "curve")
    table = Table(*columns, title="Training")
    for stage, rows in metrics.items():
        for column, label in _SHOWN.items():
            points = [float(row[column]) for row in rows if column in row]
            if len(points) > 1:
                ends = (f"{points[0]:.3f}", f"{points[-1]:.3f}")
                steps = str(rows[-1]["step"])
                table.add_row(stage, label, steps, *ends, sparkline(points))
    return table if table.row_count else None


def resolved_curves(curve: Mapping[str, Sequence[CurvePoint]]) -> Table | None:
    """Resolve rates of models saved during training; `None` if none were saved.

    Args:
        curve: Their results by split.
    """
    columns = ("split", "training", *numbers("step", "minutes", "resolved"), "rate")
    table = Table(*columns, title="Resolved issues by training time")
    for split, points in curve.items():
        for point in points:
            minutes = f"{point.seconds / 60:.1f}"
            count = f"{point.resolved} of {point.total}"
            bar = "█" * round(WIDTH * point.rate)
            rate = f"{point.rate:6.1%} {bar}"
            table.add_row(split, point.stage, str(point.step), minutes, count, rate)
    return table if table.row_count else None


def sparkline(points: Sequence[float], width: int = WIDTH) -> str:
    """Blocks whose heights show the values, scaled from the smallest to the largest."""
    count = min(width, len(points))
    edges = [round(n * len(points) / count) for n in range(count + 1)]
    means = [sum(points[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def comparison(summary: EvaluationSummary, results: RunResults) -> Table:
    """Base, SFT and DPO model side by side, with the caveats of their results."""
    caption = [_TINY] if summary.model == "builtin:tiny" else []
    caption.append(f"Prompt context: {context_label(summary)}.")
    warnings = caveats(summary, results.grading) + contamination(results.leakage)
    caption += [f"{line}." for line in warnings]
    columns = ["split", "model", *numbers("resolved", "rate", "95% interval")]
    columns += ["trusted"] if has_counter_runs(summary) else []
    table = Table(*columns, title="Resolved issues", caption=Text("\n".join(caption)))
    for _, rows in groupby(comparison_rows(summary), key=itemgetter(0)):
        for row in rows:
            table.add_row(*row)
        table.add_section()
    return table


def comparison_rows(summary: EvaluationSummary) -> Iterator[tuple[str, ...]]:
    """Split, model, resolved issues, rate, and its interval, of each model.

    With counter-runs, the last column has the trusted passes.
    """
    trusted = has_counter_runs(summary)
    for split, content in summary.splits.items():
        for model, result in content.models.items():
            low, high = result.ci95
            count = f"{result.resolved} of {result.total}"
            interval = f"{low:.1%} to {high:.1%}"
            row = (split, model, count, f"{result.rate:.1%}", interval)
            yield (*row, trust_label(result.trust)) if trusted else row


def has_counter_runs(summary: EvaluationSummary) -> bool:
    """Whether the passes of an evaluation had counter-runs."""
    return any(
        result.trust is not None
        for split in summary.splits.values()
        for result in split.models.values()
    )


def trust_label(trust: TrustCounts | None) -> str:
    """Number of trusted passes, by the strength of their counter-runs."""
    if trust is None:
        return ""
    parts = [f"{name} {count}" for name, count in trust.strengths.items()]
    parts += [f"no counter-run possible {trust.unchecked}"] if trust.unchecked else []
    return f"{trust.trusted} ({', '.join(parts)})" if parts else str(trust.trusted)


def context_label(summary: EvaluationSummary) -> str:
    """Source of the files in the prompts, and whether it rules out a leaderboard."""
    if summary.context == "oracle":
        return "oracle (the files that the gold patch changes); not leaderboard-valid"
    return summary.context


def caveats(summary: EvaluationSummary, candidates: GradeSummary | None) -> list[str]:
    """Ungraded answers and suspicious passes, as sentences without a full stop.

    Args:
        summary: Summary of the evaluation.
        candidates: Summary of the grade stage, if there was one.
    """
    lines = []
    for split, content in summary.splits.items():
        for model, result in content.models.items():
            if result.ungraded:
                lines.append(
                    f"{split}, {model}: {result.ungraded} could not be graded and count "
                    "as not resolved"
                )
            if result.suspicious:
                lines.append(f"{split}, {model}: {_suspicious(result.suspicious)}")
    if candidates and candidates.suspicious:
        lines.append(f"Training candidates: {_suspicious(candidates.suspicious)}")
    return lines


def contamination(leakage: LeakageReport | None) -> list[str]:
    """Overlap of training data and evaluation, as sentences without a full stop.

    Args:
        leakage: Report of the prepare stage, if it has one.
    """
    if not leakage:
        return []
    lines = []
    if leakage.dropped:
        lines.append(
            f"Dropped {leakage.dropped} training instances that shared an issue, a "
            "file at the same commit, or a gold patch with held-out instances"
        )
    elif leakage.findings:
        reasons = ", ".join(f"{what}: {n}" for what, n in leakage.reasons.items())
        lines.append(
            f"LEAKAGE, allowed by the recipe: {leakage.leaking} training instances "
            f"overlap with held-out instances ({reasons}), so held-out rates may be too "
            "high"
        )
    trained, held = leakage.public_tests.train, leakage.public_tests.heldout
    for benchmark, count in trained.items():
        line = (
            f"CONTAMINATION: trained on {count} instances of the public test split of "
            f"{benchmark}, so no rate of this model on {benchmark} is a leaderboard result"
        )
        if benchmark in held:
            line += f", including the {held[benchmark]} held-out instances of this run"
        lines.append(line)
    return lines


def _suspicious(passes: Sequence[SuspiciousPass]) -> str:
    counts = Counter(flag for found in passes for flag in found.flags)
    flags = ", ".join(f"{flag}: {counts[flag]}" for flag in sorted(counts))
    some = ", ".join(map(str, passes[:NAMED])) + (", …" if passes[NAMED:] else "")
    noun = "pass" if len(passes) == 1 else "passes"
    return f"{len(passes)} suspicious {noun} ({flags}): {some}"
