"""The table at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from swebench_trainer.reporting.summaries import (
    EvaluationSummary,
    GradeSummary,
    SuspiciousPass,
)
from swebench_trainer.types import LeakageReport

_TINY = (
    "builtin:tiny is a model with half a million random weights: it memorizes the "
    "training issues and nothing else. It is meant for trying out the pipeline."
)
NAMED = 5
"""Maximum number of suspicious passes that are listed; `summary.json` has all."""


def comparison(
    summary: EvaluationSummary,
    candidates: GradeSummary | None,
    leakage: Mapping[str, Any] | None = None,
) -> Table:
    """Base, SFT and DPO model side by side.

    Args:
        summary: Summary of the evaluation.
        candidates: Summary of the grade stage, if there was one.
        leakage: `leakage.json` of the prepare stage, if it has one.
    """
    caption = [_TINY] if summary.model == "builtin:tiny" else []
    caption.append(f"Prompt context: {context_label(summary)}.")
    warnings = contamination(LeakageReport.parse(leakage))
    caption += [f"{line}." for line in caveats(summary, candidates) + warnings]
    table = Table(
        "split", "model", title="Resolved issues", caption=Text("\n".join(caption))
    )
    table.add_column("resolved", justify="right")
    table.add_column("rate", justify="right")
    table.add_column("95% interval", justify="right")
    for split, content in summary.splits.items():
        for model, result in content.models.items():
            low, high = result.ci95
            table.add_row(
                split,
                model,
                f"{result.resolved} of {result.total}",
                f"{result.rate:.1%}",
                f"{low:.1%} to {high:.1%}",
            )
        table.add_section()
    return table


def context_label(summary: EvaluationSummary) -> str:
    """Source of the files in the prompts, and whether it rules out a leaderboard."""
    if summary.context == "oracle":
        return "oracle (the files that the gold patch changes); not leaderboard-valid"
    return summary.context


def caveats(summary: EvaluationSummary, candidates: GradeSummary | None) -> list[str]:
    """Ungraded answers and suspicious passes, as sentences without a full stop.

    See `comparison` for the arguments.
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
