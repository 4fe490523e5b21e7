"""publish: release the last trained weights with a model card."""

from __future__ import annotations

import shutil

from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import PublishTable, resolved_settings
from swebench_trainer.reporting.card import model_card
from swebench_trainer.reporting.summaries import RunResults
from swebench_trainer.stages.context import StageContext, StageSummary
from swebench_trainer.store.jsonl import write_bytes, write_json


def run(context: StageContext) -> StageSummary:
    """Write `release/` (weights and card) and `receipt.json`.

    Raises:
        StageError: The run has no trained weights.
    """
    recipe = context.recipe
    stage = "dpo" if context.weights("dpo") else "sft"
    weights = context.weights(stage)
    if weights is None:
        raise StageError("The run has no trained weights to publish.")
    publisher = context.plugins.registry.create(context.table(PublishTable))
    release = context.dir.file("release")
    shutil.rmtree(release, ignore_errors=True)
    shutil.copytree(weights, release)
    card = model_card(
        recipe.name,
        stage,
        settings=resolved_settings(recipe),
        results=RunResults.read(context.summary),
        is_adapter=weights.name == "adapter",
    )
    write_bytes(release / "README.md", card.encode())
    place = publisher.publish(release)
    files = (p for p in release.rglob("*") if p.is_file())
    names = sorted(p.relative_to(release).as_posix() for p in files)
    receipt = {"stage": stage, "place": place, "files": names}
    write_json(context.dir.file("receipt.json"), receipt)
    return {"weights": stage, "place": place}
