"""sft: supervised fine-tuning on the gold patches of the training split."""

from __future__ import annotations

from functools import partial

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import ModelTable, SftTable
from swebench_trainer.stages.context import StageContext, StageSummary, training_summary
from swebench_trainer.store.jsonl import read_json
from swebench_trainer.types import SftRow


def run(context: StageContext) -> StageSummary:
    """Write the backend's output: `adapter/` or `model/`, metrics and audit.

    Raises:
        StageError: No row is left to train on, or the model did not learn.
    """
    recipe = context.recipe
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
    backend = context.plugins.registry.create("backend", context.table(ModelTable))
    request = TrainRequest(
        out=context.dir.path,
        start=None,
        max_tokens=recipe.prompt.max_tokens,
        seed=recipe.seed,
        step=partial(context.done, "step"),
    )
    backend.train_sft(rows, context.table(SftTable), request)
    summary: StageSummary = {"rows": len(rows), **training_summary(context)}
    audit = read_json(context.dir.file("audit.json")) or {}
    if reason := audit.get("padded_because"):
        summary["rows padded because"] = reason
    return summary
