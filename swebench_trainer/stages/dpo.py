"""dpo: preference optimisation, with the SFT model as start and as reference."""

from __future__ import annotations

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.stages.context import StageContext, StageSummary, loss_figures
from swebench_trainer.store.jsonl import read_json
from swebench_trainer.types import Pair


def run(context: StageContext) -> StageSummary:
    """Writes what the backend makes: `adapter/` or `model/`, metrics and audit.

    Raises:
        StageError: No pair is left to train on, or the training did not learn.
    """
    recipe = context.recipe
    assert recipe.model is not None  # the recipe's rules
    assert recipe.dpo is not None  # the pipeline
    pairs = context.read("pairs", "pairs.jsonl", Pair)
    backend = context.plugins.registry.create("backend", recipe.model)
    request = TrainRequest(
        out=context.dir.path,
        start=context.weights("sft"),
        max_tokens=recipe.prompt.max_tokens,
        seed=recipe.seed,
        step=lambda done, total, word: context.done("step", done, total, word),
    )
    backend.train_dpo(pairs, recipe.dpo, request)
    figures: StageSummary = {"pairs": len(pairs), **loss_figures(context)}
    audit = read_json(context.dir.file("audit.json")) or {}
    if reason := audit.get("prompts_read_twice"):
        figures["prompts read twice, as"] = reason
    if lost := audit.get("lost_checkpoints"):
        figures["resumed from an earlier checkpoint, as"] = ", ".join(lost)
    return figures
