"""dpo: preference optimization that starts from the SFT model, the reference too."""

from __future__ import annotations

from functools import partial

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable, ModelTable
from swebench_trainer.stages.context import StageContext, StageSummary, training_summary
from swebench_trainer.store.jsonl import read_json
from swebench_trainer.types import Pair


def run(context: StageContext) -> StageSummary:
    """Write the backend's output: `adapter/` or `model/`, metrics and audit.

    Raises:
        StageError: No pair is left to train on, or the model did not learn.
    """
    recipe = context.recipe
    pairs = context.read("pairs", "pairs.jsonl", Pair)
    backend = context.plugins.registry.create("backend", context.table(ModelTable))
    request = TrainRequest(
        out=context.dir.path,
        start=context.weights("sft"),
        max_tokens=recipe.prompt.max_tokens,
        seed=recipe.seed,
        step=partial(context.done, "step"),
    )
    backend.train_dpo(pairs, context.table(DpoTable), request)
    summary: StageSummary = {"pairs": len(pairs), **training_summary(context)}
    audit = read_json(context.dir.file("audit.json")) or {}
    if reason := audit.get("prompts_read_twice"):
        summary["prompts read twice because"] = reason
    return summary
