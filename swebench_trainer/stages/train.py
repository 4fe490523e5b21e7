"""sft and dpo: training on gold patches, then on preference pairs.

Both write the backend's output: `adapter/` or `model/`, metrics and audit.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.stages.context import StageContext, StageSummary
from swebench_trainer.store.jsonl import read_json, read_rows
from swebench_trainer.types import Pair, SftRow

_NOTES = {
    "padded_because": "rows padded because",
    "prompts_read_twice": "prompts read twice because",
}
"""Reasons in `audit.json` for the closing line, with their labels."""


def run_sft(context: StageContext) -> StageSummary:
    """Train the base model on the gold patches of the training split.

    Raises:
        StageError: No row is left to train on, or the model did not learn.
    """
    # Instances without tests were never tried: they cannot be graded, but can train.
    refused = {row["instance_id"] for row in context.refusals() if row["gold"]}
    rows = [
        row
        for row in context.read("prepare", "sft.jsonl", SftRow)
        if row.instance_id not in refused
    ]
    if not rows:
        raise StageError(
            "No row is left to train on.",
            hint=f"See {context.input('prepare').file('dropped.jsonl')}",
        )
    request = _request(context, start=None)
    context.backend().train_sft(rows, context.table(SftTable), request)
    return {"rows": len(rows), **_summary(context)}


def run_dpo(context: StageContext) -> StageSummary:
    """Optimize the preferences of the SFT model, which is the reference too.

    Raises:
        StageError: No pair is left to train on, or the model did not learn.
    """
    pairs = context.read("pairs", "pairs.jsonl", Pair)
    request = _request(context, start=context.weights("sft"))
    context.backend().train_dpo(pairs, context.table(DpoTable), request)
    return {"pairs": len(pairs), **_summary(context)}


def _request(context: StageContext, start: Path | None) -> TrainRequest:
    return TrainRequest(
        out=context.dir.path,
        start=start,
        max_tokens=context.recipe.prompt.max_tokens,
        seed=context.recipe.seed,
        step=partial(context.done, "step"),
    )


def _summary(context: StageContext) -> StageSummary:
    """The last loss, the validation loss of the kept weights, and notes of the audit."""
    rows = read_rows(context.dir.file("metrics.jsonl"))
    losses = [row["loss"] for row in rows if "loss" in row]
    summary: StageSummary = {"loss": f"{losses[-1]:.4f}" if losses else "?"}
    audit = read_json(context.dir.file("audit.json")) or {}
    if kept := audit.get("validation"):
        best = f"{kept['kept_loss']:.4f} at step {kept['kept_step']} (kept)"
        summary["held-out loss"] = best
    if lost := audit.get("lost_checkpoints"):
        summary["resumed from an earlier checkpoint because"] = ", ".join(lost)
    notes = {label: audit.get(key) for key, label in _NOTES.items()}
    return summary | {label: reason for label, reason in notes.items() if reason}
