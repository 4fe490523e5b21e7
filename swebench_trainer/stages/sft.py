"""sft: supervised fine-tuning on the gold patches of the training split."""

from __future__ import annotations

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import StageError
from swebench_trainer.stages.context import StageContext, StageSummary, loss_figures
from swebench_trainer.store.jsonl import read_json
from swebench_trainer.types import SftRow


def run(context: StageContext) -> StageSummary:
    """Writes what the backend makes: `adapter/` or `model/`, metrics and audit.

    Raises:
        StageError: No row is left to train on, or the training did not learn.
    """
    recipe = context.recipe
    assert recipe.model is not None  # the recipe's rules
    assert recipe.sft is not None  # the pipeline
    # An instance without tests was never tried: it may train, though not be graded.
    refused = {row["instance_id"] for row in context.refusals() if row["gold"]}
    rows = [
        row
        for row in context.read("prepare", "sft.jsonl", SftRow)
        if row.instance_id not in refused
    ]
    if not rows:
        raise StageError(
            "There is no row to train on.",
            hint=f"See {context.run.stage('prepare').file('dropped.jsonl')}",
        )
    backend = context.plugins.registry.create("backend", recipe.model)
    request = TrainRequest(
        out=context.dir.path,
        start=None,
        max_tokens=recipe.prompt.max_tokens,
        seed=recipe.seed,
        step=lambda done, total, word: context.done("step", done, total, word),
    )
    backend.train_sft(rows, recipe.sft, request)
    figures: StageSummary = {"rows": len(rows), **loss_figures(context)}
    audit = read_json(context.dir.file("audit.json")) or {}
    if reason := audit.get("padded_because"):
        figures["rows padded, as"] = reason
    if lost := audit.get("lost_checkpoints"):
        figures["resumed from an earlier checkpoint, as"] = ", ".join(lost)
    return figures
